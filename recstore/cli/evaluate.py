"""`recstore evaluate`: how good a recommender's definition is on interactions it has not seen."""

from pathlib import Path
from typing import Annotated, Any

import typer

from recstore import registry
from recstore.api.options import merge
from recstore.api.progress import StageReporter
from recstore.atomic import check_report
from recstore.cli import completion
from recstore.cli.context import Json, Name, Yes, current, settings, show, state
from recstore.cli.definitions import definition_options
from recstore.cli.manage import warn_of_publications
from recstore.cli.measured import (
    METRICS,
    Curve,
    Device,
    IncludeSeen,
    Ks,
    Pictures,
    Report,
    SearchPlan,
    SplitSeed,
    Threads,
    Users,
    parsed_ks,
    parsed_users,
    show_evaluation,
    write_report,
)
from recstore.errors import InvalidInput
from recstore.evaluation.splits import SEED, SplitChoice
from recstore.experiments import evaluate as evaluating
from recstore.experiments.measure import Wanted


def register(app: typer.Typer) -> None:
    app.command("evaluate", epilog=METRICS)(definition_options(without=evaluating.UNTRIED)(evaluate))


def evaluate(
    name: Name,
    split: Annotated[
        str | None,
        typer.Option(
            help="What is held out: the newest pairs, some items of each user, or a share of the pairs at random. Unset: by"
            " time if the source has one, else by user.",
            metavar="time|user|share",
            autocompletion=completion.choosing("time", "user", "share"),
        ),
    ] = None,
    share: Annotated[
        str | None, typer.Option(help="Held out by time or by share. [default: 20%]", metavar="SHARE%")
    ] = None,
    items: Annotated[
        int | None, typer.Option(help="Held out of each user who has twice as many, by user.", metavar="N", min=1)
    ] = None,
    split_seed: SplitSeed = SEED,
    test_query: Annotated[
        str | None, typer.Option(help="The test set: SELECT of user_id and item_id.", metavar="SELECT")
    ] = None,
    test_file: Annotated[
        Path | None, typer.Option(help="The test set: a file of pairs, as of recstore benchmark.", metavar="FILE")
    ] = None,
    k: Ks = "10,20",
    users: Users = None,
    include_seen: IncludeSeen = False,
    negatives: Annotated[
        int,
        typer.Option(
            help="Rank the test items among so many random others only, as some published tables do; 0: among all.",
            metavar="N",
            min=0,
        ),
    ] = 0,
    curve: Curve = 0,
    sql: Annotated[
        bool, typer.Option("--sql", help="Also through the store: publish a scratch recommender, ask it, remove it.")
    ] = False,
    search: SearchPlan = "auto",
    report: Report = None,
    pictures: Pictures = None,
    device: Device = None,
    threads: Threads = None,
    yes: Yes = False,
    json: Json = False,
    *,
    given: dict[str, dict[str, Any]],
) -> None:
    """Measure a recommender's settings on pairs held out of its training, beside popularity and item-kNN. Changes nothing.

    Settings given here are tried instead of the recommender's own. Example: recstore evaluate retail --factors 256 --curve 1
    """
    lengths, measured = parsed_ks(k), parsed_users(users)
    wanted = Wanted(lengths, measured, include_seen, negatives, curve, sql, search, split_seed)  # type: ignore[arg-type]
    choice = split_choice(split, share, items, split_seed, test_query, test_file)
    check_report(report, pictures)
    own = settings(device=device, threads=threads)
    with current() as (opened, url, _):
        recommender = registry.get(opened, name)
        definition = merge(recommender.definition.model_dump(mode="json"), given, None)
        if sql:
            warn_of_publications(opened, yes)
    with StageReporter(state.errors).showing() as reporter:
        evaluation = evaluating.evaluate(url, own, name, wanted, choice, definition=definition, reporter=reporter)
    if json:
        show(evaluation.as_dict())
    else:
        show_evaluation(evaluation)
    write_report(evaluation, report, pictures)


def split_choice(
    by: str | None, share: str | None, items: int | None, seed: int, query: str | None, file: Path | None
) -> SplitChoice | evaluating.TestPairs:
    return evaluating.chosen_part(by, _share(share), items, seed, query, file)


def _share(text: str | None) -> float | None:
    """ "20%" or "0.2" as 0.2."""
    if text is None:
        return None
    try:
        number = float(text.strip().removesuffix("%"))
    except ValueError:
        raise InvalidInput(f"--share is {text!r}: write it as 20% or 0.2.") from None
    return number / 100 if text.strip().endswith("%") else number
