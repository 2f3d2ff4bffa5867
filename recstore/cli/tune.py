"""`recstore tune`: the search for good hyperparameters."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from recstore import registry
from recstore.api.options import parsed
from recstore.api.progress import StageReporter
from recstore.atomic import check_report
from recstore.background import watching
from recstore.cli import completion
from recstore.cli.context import Json, Name, current, say, settings, show, state
from recstore.cli.evaluate import split_choice
from recstore.cli.measured import (
    Device,
    Pictures,
    Report,
    SplitSeed,
    Threads,
    show_evaluation,
    write_report,
)
from recstore.cli.studies import TuneReporter
from recstore.config import Settings
from recstore.embedded.configured import database_url
from recstore.errors import InvalidInput, TuningInterrupted
from recstore.evaluation.splits import SEED
from recstore.experiments.tuning import studies as stored
from recstore.experiments.tuning import work
from recstore.experiments.tuning.options import Options
from recstore.experiments.tuning.space import words
from recstore.experiments.tuning.work import Resumed
from recstore.postgres.connection import Connection
from recstore.sql.objects import Registered


def register(app: typer.Typer) -> None:
    app.command()(tune)


def tune(
    name: Name,
    metric: Annotated[
        str, typer.Option(help="What to search by: ndcg, recall, precision, map or hit_rate, @ the lists' length.")
    ] = "ndcg@20",
    trials: Annotated[
        int | None, typer.Option(help="Most trials. [default: 80, of a grid all]", metavar="N", min=1)
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            "--time", help="Most seconds that the trials take together, whoever runs them.", metavar="SECONDS", min=1
        ),
    ] = Options.SECONDS,
    trainer: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this trainer; several times for several.", metavar="NAME", autocompletion=completion.trainers
        ),
    ] = None,
    max_factors: Annotated[
        int | None,
        typer.Option(help="Most factors. [default: what the data can determine, up to 1984]", metavar="N", min=1),
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file that narrows what is searched: a value, a list, or low and high.", metavar="FILE"
        ),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(help="Try every combination of such lists instead of searching.", metavar="NAME=VALUE,VALUE,.."),
    ] = None,
    max_iterations: Annotated[
        int, typer.Option(help="Where a learning curve ends that still rises.", metavar="N", min=1, max=1000)
    ] = Options.most_iterations,
    users: Annotated[
        int, typer.Option(help="Measure each trial on so many users, the same in all.", metavar="N", min=1)
    ] = Options.users,
    split: Annotated[
        str | None,
        typer.Option(
            help="As of recstore evaluate.",
            metavar="time|user|share",
            autocompletion=completion.choosing("time", "user", "share"),
        ),
    ] = None,
    share: Annotated[str | None, typer.Option(help="Held out by time or by share.", metavar="SHARE%")] = None,
    items: Annotated[
        int | None, typer.Option(help="Held out of each user who has twice as many, by user.", metavar="N", min=1)
    ] = None,
    seed: SplitSeed = SEED,
    test_query: Annotated[
        str | None, typer.Option(help="The test set: SELECT of user_id and item_id.", metavar="SELECT")
    ] = None,
    test_file: Annotated[
        Path | None, typer.Option(help="The test set: a file of pairs, as of recstore benchmark.", metavar="FILE")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Take up the newest unfinished study, whatever it was asked for.")
    ] = False,
    new: Annotated[bool, typer.Option("--new", help="Begin afresh, even if the same was begun before.")] = False,
    study: Annotated[
        int | None,
        typer.Option(
            help="This study, instead of a new one: resumed, or where it has ended shown.",
            metavar="N",
            autocompletion=completion.studies,
        ),
    ] = None,
    stop: Annotated[
        bool, typer.Option("--stop", help="End the recommender's unfinished studies with the best so far.")
    ] = False,
    background: Annotated[bool, typer.Option("--background", help="Leave the trials to the workers.")] = False,
    parallel: Annotated[
        int | None, typer.Option(help="With --background: trials at once. [default: 1]", metavar="N", min=1)
    ] = None,
    adopt: Annotated[bool, typer.Option("--adopt", help="Write the best settings into the recommender.")] = False,
    resize: Annotated[
        bool, typer.Option("--resize", help="With --adopt: make room for more factors, as recstore alter --resize.")
    ] = False,
    report: Report = None,
    pictures: Pictures = None,
    device: Device = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Search for good hyperparameters on a part held out for that; then measure the best, once, on another.

    Ctrl-C stops it, the same command goes on. Retrains go on meanwhile. Example: recstore tune retail --adopt
    """
    check_report(report, pictures)
    work.check(
        resume=resume,
        new=new,
        study=study,
        stop=stop,
        background=background,
        parallel=parallel,
        adopt=adopt,
        resize=resize,
        report=report is not None,
    )
    own = settings(device=device, threads=threads)
    url = database_url(own)
    options = Options(
        metric=metric,
        trials=trials,
        seconds=seconds,
        trainers=trainer or (),
        max_factors=max_factors,
        space=parsed(space) if space else {},
        grid=_lists(grid or []),
        most_iterations=max_iterations,
        users=users,
        seed=seed,
    )
    choice = split_choice(split, share, items, seed, test_query, test_file)
    with current() as (opened, _, _settings):
        recommender = registry.get(opened, name)
        if stop:
            _stop(opened, recommender, study)
            return
        found = work.resumed(opened, recommender, options, choice, resume=resume, new=new, study=study)
        number = _found(name, found)
        reporter = TuneReporter(metric if number is None else stored.get(opened, number).metric)
    with reporter.showing():
        if number is None:
            number = work.begin(
                url, own, name, options, choice, parallel=parallel or int(background), reporter=reporter
            )
        elif background:
            with current() as (opened, _, _settings):
                stored.set_parallel(opened, number, parallel or 1)
        if background:
            _left_to_workers(name, number, parallel or 1)
            return
        try:
            work.work(url, own, number, watch=reporter, reporter=reporter)
        except KeyboardInterrupt:
            raise TuningInterrupted(name=name, study=number) from None
    _tell(url, own, number, adopt, resize, report, pictures)


def _lists(texts: Sequence[str]) -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        split = [value.strip() for value in values.split(",") if value.strip()]
        if not equals or not split:
            raise InvalidInput(f"--grid is {text!r}: write it as name=value,value, for instance factors=64,128.")
        lists[name.strip().replace("-", "_")] = split
    return lists


def _found(name: str, found: Resumed) -> int | None:
    """The study that is taken up, which is told; None where a new one begins."""
    if found.stopped is not None:
        say(f"study {found.stopped}, which asked for the same, is stopped")
    if found.trials is not None:
        say(f"study {found.study} of {name} goes on: {found.trials} trials so far (--new begins afresh)")
    return found.study


def _stop(opened: Connection, recommender: Registered, study: int | None) -> None:
    stopped = work.stop_all(opened, recommender, study)
    if state.json:
        show({"stopped": stopped})
    for number in stopped:
        say(f"study {number} is stopped; to adopt its best: recstore tune {recommender.name} --study {number} --adopt")
    if not stopped:
        say("nothing to stop")


def _left_to_workers(name: str, number: int, parallel: int) -> None:
    with current() as (opened, _, given):
        warning = watching.nobody_dispatches(opened, given)
    if warning:
        state.errors.print(f"Warning: {warning}", markup=False)
    if state.json:
        show({"study": number, "parallel": parallel})
    say(f"study {number} of {name}: the workers run {parallel} trial{'s' * (parallel > 1)} at once")
    say(f"watch it: recstore studies {name} {number}\nstop it: recstore tune {name} --stop")


def _tell(
    url: str, own: Settings, number: int, adopt: bool, resize: bool, report: Path | None, pictures: Path | None
) -> None:
    """What was found; adopted and reported as asked for."""
    with current() as (opened, _, _settings):
        known, found = stored.get(opened, number), work.result(opened, number)
    winner, name = found.winner, found.recommender
    if found.evaluation and not state.json:
        show_evaluation(found.evaluation)
        say("")
    if known.outcome:
        say(f"study {number}: {known.outcome}")
    say(f"best: {words(winner.parameters, winner.iterations)}")
    adopted = False
    if adopt:
        with StageReporter(state.errors).showing() as reporter:
            _, changed = work.adopt(url, own, number, resize=resize, reporter=reporter)
        adopted = True
        say(
            f"altered {name}; the next training uses it: recstore retrain {name}"
            if changed
            else f"{name} has these settings already"
        )
    else:
        say(f"to use it: recstore tune {name} --study {number} --adopt")
    if state.json:
        told = {"state": known.state, "outcome": known.outcome, "adopted": adopted}
        show(told | {"winner": winner.parameters | {"iterations": winner.iterations}} | found.as_dict())
    write_report(found, report, pictures)
