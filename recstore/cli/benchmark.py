"""`recstore benchmark`: the metrics of a published split, through NumPy and through SQL."""

from pathlib import Path
from typing import Annotated, Any

import typer

from recstore.api.options import merge
from recstore.atomic import check_report
from recstore.cli.context import Json, Yes, current, say, settings, show, show_rows
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
from recstore.cli.studies import TuneReporter
from recstore.errors import InvalidInput
from recstore.evaluation.splits import SEED
from recstore.experiments import benchmark as benchmarking
from recstore.experiments.measure import Wanted
from recstore.experiments.tuning.options import Options


def register(app: typer.Typer) -> None:
    app.command("benchmark", epilog=METRICS)(definition_options(without=benchmarking.UNTRIED)(benchmark))


def benchmark(
    train: Annotated[Path, typer.Option(help="The training pairs.", metavar="FILE", show_default=False)],
    test: Annotated[Path, typer.Option(help="The test pairs.", metavar="FILE", show_default=False)],
    negatives: Annotated[
        Path | None,
        typer.Option(
            help="Items sampled for each user, the only ones that a test item is ranked against.", metavar="FILE"
        ),
    ] = None,
    format: Annotated[
        str, typer.Option(help="Of both files; auto: found out from each.", metavar="auto|pairs|lists")
    ] = "auto",
    values: Annotated[
        bool, typer.Option("--values/--no-values", help="Take counts or ratings from the files, or count each pair 1.")
    ] = True,
    k: Ks = "10,20",
    users: Users = None,
    include_seen: IncludeSeen = False,
    curve: Curve = 0,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune", help="Search for good hyperparameters first, on a validation part of the training pairs."
        ),
    ] = False,
    trials: Annotated[
        int | None, typer.Option(help="With --tune: most trials. [default: 80]", metavar="N", min=1)
    ] = None,
    seconds: Annotated[
        float, typer.Option("--time", help="With --tune: most seconds of the search.", metavar="SECONDS", min=1)
    ] = Options.SECONDS,
    sql: Annotated[
        bool,
        typer.Option("--sql/--no-sql", help="Through the store as well, in a scratch recommender; or NumPy alone."),
    ] = True,
    search: SearchPlan = "auto",
    split_seed: SplitSeed = SEED,
    keep: Annotated[
        str | None, typer.Option(help="Keep the recommender, under this name.", metavar="NAME", show_default=False)
    ] = None,
    report: Report = None,
    pictures: Pictures = None,
    device: Device = None,
    threads: Threads = None,
    yes: Yes = False,
    json: Json = False,
    *,
    given: dict[str, dict[str, Any]],
) -> None:
    """Train on a published split and print its metrics, through NumPy and through SQL, with the time of each step.

    Files are pairs (user,item[,count], with or without a header; commas, tabs, blanks or ::) or lines "user item item ..";
    plain or gzip. Example: recstore benchmark --train train.txt --test test.txt --factors 256
    """
    if trials is not None and not tune:
        raise InvalidInput("--trials goes with --tune.")
    wanted = Wanted(parsed_ks(k), parsed_users(users), include_seen, 0, curve, sql, search, split_seed)  # type: ignore[arg-type]
    check_report(report, pictures)
    files = benchmarking.Files(train, test, negatives, format, values)  # type: ignore[arg-type]
    definition = merge({"source": {"table": "none"}}, given, None)
    own, url = settings(device=device, threads=threads), None
    if sql:
        with current() as (opened, url, _):
            warn_of_publications(opened, yes)
    options = Options(trials=trials, seconds=seconds, seed=split_seed) if tune else None
    reporter = TuneReporter(Options.metric)
    with reporter.showing():
        found = benchmarking.benchmark(
            url, own, files, definition, wanted, tune=options, watch=reporter, keep=keep, reporter=reporter
        )
    if json:
        show(found.as_dict())
    else:
        say("")
        for sentence in found.steps[0]["files"]:
            say(sentence)
        show_evaluation(found.evaluation)
        say("")
        show_rows(
            [{"step": step["step"], "seconds": step["seconds"], "": step.get("told", "")} for step in found.steps]
        )
    write_report(found.evaluation, report, pictures)
    if keep:
        say(
            f"\nkept {keep}, over the table {keep}_data.pairs. To remove both: recstore drop {keep}, then DROP SCHEMA"
            f" {keep}_data CASCADE"
        )
