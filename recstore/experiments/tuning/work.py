"""Begin, resume, work on, stop and adopt a search in Postgres. The command line and the workers call this.

    source -> interactions -> filters -> split -> study; then trial after trial; then the winner on the test part

The source is read once, when the study begins. A search takes no lock of the recommender: retrains go on.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

import psycopg

from recstore import registry
from recstore.config import Settings
from recstore.definition import Definition
from recstore.errors import (
    ConnectionFailed,
    ConnectionLost,
    DeviceUnavailable,
    InvalidInput,
    NothingFound,
    NothingToResume,
    RecstoreError,
    StudyEmpty,
)
from recstore.evaluation.results import CurvePoint, Evaluation
from recstore.evaluation.splits import SplitChoice
from recstore.experiments.evaluate import TestPairs, read_split, titles_of
from recstore.experiments.experiment import Experiment
from recstore.experiments.tuning import studies
from recstore.experiments.tuning.search import PRESENT, Search, Stopped, Watch, tuned, winner_of
from recstore.experiments.tuning.search_options import Options
from recstore.experiments.tuning.studies import Claim
from recstore.experiments.tuning.trials import SearchResult, TrialResult, best
from recstore.operations import recommenders
from recstore.postgres.connection import Connection, connect, plain_errors
from recstore.requests import CHANNEL
from recstore.runs import Reporter, Silent, tracing
from recstore.sql import queries
from recstore.sql.objects import Registered
from recstore.sql.schema_revision import require_current

TUNED = ("source", "filters", "confidence", "hyperparameters")
"""Sections of a definition that a search depends on."""

POLL = 2.0
"""Most seconds between two looks while others work on what is left."""


class Step(Enum):
    """The result of one step of a study."""

    TRIAL_RUN = "a trial was run"
    WAITING = "others are at work on what is left"
    FINISHED = "the study has ended"


@dataclass(frozen=True)
class Resumed:
    """The study to work on, None where a new one has to begin; its finished trials, where it was found by its options; the
    study that was stopped instead."""

    study: int | None
    trials: int | None = None
    stopped: int | None = None


def check(
    *,
    resume: bool = False,
    new: bool = False,
    study: int | None = None,
    stop: bool = False,
    background: bool = False,
    parallel: int | None = None,
    adopt: bool = False,
    resize: bool = False,
    report: bool = False,
) -> None:
    """Raise InvalidInput for options that contradict each other."""
    if sum((resume, new, study is not None)) > 1:
        raise InvalidInput("Give one of --resume, --new and --study.")
    if parallel is not None and not background:
        raise InvalidInput(
            "--parallel is the number of trials that the workers run at once: it goes with --background."
        )
    if background and (adopt or report):
        raise InvalidInput(
            "Adopt and report when it has ended: recstore tune NAME --study N --adopt --report FILE.html"
        )
    if resize and not adopt:
        raise InvalidInput("--resize makes room for what is adopted: it goes with --adopt.")
    if stop and (resume or new or background):
        raise InvalidInput("--stop goes with no other option but --study.")


def begin(
    url: str,
    settings: Settings,
    name: str,
    options: Options,
    choice: SplitChoice | TestPairs,
    *,
    parallel: int = 0,
    reporter: Reporter | None = None,
) -> int:
    """Read the source of recommender `name`, filter and split it, and make a study of that; return its number. With
    `parallel` the workers run its trials. Raises RecstoreError."""
    experiment = Experiment(settings, reporter or Silent())
    with connect(url, "recstore:tune") as connection, plain_errors(f"beginning to tune {name!r}", connection):
        require_current(connection)
        recommender = registry.get(connection, name)
        definition = recommender.definition
        split = read_split(url, connection, experiment, recommender, definition, choice, validation=True)
        search = Search(split, definition, options, recommender.dimensions)
        search.users()  # none is an error before anything is stored
        row = {
            "recommender_id": recommender.id,
            "kind": "grid" if search.plan.points else "optuna",
            "metric": options.metric,
            "options": asked(options, choice) | {"dimensions": recommender.dimensions},
            "definition": definition.model_dump(mode="json"),
            "split": split.how,
            "snapshot": next(step for step in experiment.steps if step["step"] == "read"),
            "scales": search.scales(),
            "parallel": parallel,
        }
        return studies.create(connection, row, split)


def asked(options: Options, choice: SplitChoice | TestPairs) -> dict[str, Any]:
    """Return what a study is asked for, ready for JSON: equal for equal searches on equal data."""
    return {"search": options.as_dict(), "split": choice.as_dict()}


def unfinished(
    connection: Connection, recommender: Registered, like: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Return the newest study that has not ended: any, or one that was asked for `like` that, of the present definition."""
    definition = recommender.definition.model_dump(mode="json")
    for row in studies.unfinished(connection, recommender.id):
        same = all(row["definition"][section] == definition[section] for section in TUNED)
        if like is None or (same and row["options"] | like == row["options"]):
            return row
    return None


def resumed(
    connection: Connection,
    recommender: Registered,
    options: Options,
    choice: SplitChoice | TestPairs,
    *,
    resume: bool = False,
    new: bool = False,
    study: int | None = None,
) -> Resumed:
    """Find the study that a call means: `study` if it is set, else the newest unfinished one that was asked for the same, or
    with `resume` for anything. With `new` that one is stopped. Raises StudyNotFound, NothingToResume."""
    if study is not None:
        return Resumed(studies.get(connection, study, recommender.name)["study"])
    row = unfinished(connection, recommender, None if resume else asked(options, choice))
    if row is None:
        if resume:
            raise NothingToResume(name=recommender.name)
        return Resumed(None)
    number = int(row["study"])
    if new:
        return Resumed(None, stopped=number if stop(connection, number) else None)
    return Resumed(number, sum(trial.finished for trial in studies.trials(connection, number)))


_newest: dict[tuple[str, int], Search] = {}
"""The study that this process worked on last: a worker's child runs many trials of one."""


def _load(url: str, connection: Connection, row: Mapping[str, Any]) -> Search | None:
    """Return the search of a study's row; None once it has ended."""
    found = _newest.get((url, row["study"]))
    if found is None and (split := studies.data(connection, row["study"])):
        options = Options(**row["options"]["search"])
        found = Search(split, Definition.model_validate(row["definition"]), options, row["options"]["dimensions"])
        _newest.clear()
        _newest[url, row["study"]] = found
    return found if row["state"] == "running" else None


def work(
    url: str, settings: Settings, study: int, *, watch: Watch | None = None, reporter: Reporter | None = None
) -> None:
    """Take part in a study until it has ended."""
    while (step := work_on(url, settings, study, watch=watch, reporter=reporter)) is not Step.FINISHED:
        if step is Step.WAITING:
            with connect(url, f"recstore:study:{study}") as connection, plain_errors("waiting for other trials"):
                connection.execute(f"LISTEN {CHANNEL}")
                for _ in connection.notifies(timeout=POLL, stop_after=1):
                    pass


def work_on(
    url: str,
    settings: Settings,
    study: int,
    *,
    watch: Watch | None = None,
    reporter: Reporter | None = None,
    message: bool = False,
) -> Step:
    """Take one step of a study: a trial, or when none is left and none at work elsewhere, the measurement of the winner.

    Counts the trials that others stored, and repeats those that a dead process left. With `message`, on behalf of a
    worker's message. Raises StudyNotFound, DeviceUnavailable, ConnectionLost and others.
    """
    experiment = Experiment(settings, reporter or Silent())
    with connect(url, f"recstore:study:{study}") as connection, plain_errors(f"working on study {study}", connection):
        require_current(connection)
        row = studies.get(connection, study)
        search = _load(url, connection, row)
        if search is None:
            return Step.FINISHED
        experiment.most_factors = search.most_factors
        claim, at_work = studies.claim(connection, study, search.plan.next, message)
        if claim is not None:
            _try(url, connection, experiment, search, row, claim, watch or Watch())
            return Step.TRIAL_RUN
        if not at_work:
            with studies.measuring(connection, study) as attempt:
                if attempt:
                    _end(connection, experiment, search, row, attempt)
                    return Step.FINISHED
        return Step.WAITING


def _try(
    url: str,
    connection: Connection,
    experiment: Experiment,
    search: Search,
    row: Mapping[str, Any],
    claim: Claim,
    watch: Watch,
) -> None:
    """Run a trial and store its curve and its result, unless they are no longer wanted."""
    plan, number, began = search.plan, row["study"], time.monotonic()
    others = [trial for trial in studies.trials(connection, number) if trial.number != claim.trial.number]
    watch.begins(claim.trial, plan, others)

    def on_point(trial: int, curve: list[CurvePoint]) -> None:
        watch.point(trial, curve[-1])
        wanted = True
        with suppress(psycopg.Error):  # the result is stored on another connection, if this process still has the trial
            wanted = studies.note_curve(connection, claim, curve)
        if not wanted:
            raise Stopped

    try:
        ended = search.run(experiment, claim.trial, others, on_point)
    except Stopped:
        return
    try:
        stored = studies.finish_trial(connection, claim, ended)
    except psycopg.Error:
        with connect(url, f"recstore:study:{number}") as again:
            stored = studies.finish_trial(again, claim, ended)
    if stored:
        watch.ends(ended, plan, [*others, ended])
    about = {"recommender": row["recommender"], "study": number, "trial": ended.number, "state": ended.state}
    about |= {search.options.metric: ended.value, "iterations": ended.iterations} | ended.parameters
    failure = RecstoreError(ended.error) if ended.error else None
    if problem := tracing.send(tracing.Span("trial", began, time.monotonic(), about, failure)):
        experiment.reporter.warn(problem)


def _end(connection: Connection, experiment: Experiment, search: Search, row: Mapping[str, Any], attempt: int) -> None:
    """Refit the winner, measure it, and end the study."""
    number, name = row["study"], row["recommender"]
    try:
        winner = winner_of(studies.trials(connection, number))
    except NothingFound as error:
        studies.finish(connection, number, "failed", error.message)
        return
    try:
        if attempt > studies.ATTEMPTS:
            raise RecstoreError("its process ended without finishing that, several times; perhaps memory ran out.")
        titles = titles_of(connection, registry.get(connection, name), experiment.reporter)
        evaluation = search.conclude(experiment, winner, name, titles)
    except (ConnectionFailed, ConnectionLost, DeviceUnavailable):
        raise
    except RecstoreError as error:
        sentence = f"The winner, trial {winner.number}, could not be measured: {error.message}"
        studies.finish(connection, number, "failed", sentence, best=winner)
        return
    sentence = outcome(winner, evaluation, search.options.metric)
    studies.finish(connection, number, "ended", sentence, best=winner, evaluation=evaluation)


def outcome(winner: TrialResult, evaluation: Evaluation, metric: str) -> str:
    """Return the end of a search in a sentence."""
    own, *others = evaluation.results
    compared = [f"{other.name} {value:.4f}" for other in others if (value := other.metrics.get(metric)) is not None]
    reached = own.metrics.get(metric)
    words = f"Trial {winner.number} won: {metric} {winner.value:.4f} on the validation part"
    words += f", {reached:.4f} on the test part" if reached is not None else ""
    if not any(other.name == PRESENT for other in others):
        words += ", with the settings that the recommender has"
    return f"{words} ({', '.join(compared)})." if compared else f"{words}."


def stop(connection: Connection, study: int) -> bool:
    """End a study at once with the best trial so far, unmeasured; trials at work stop at the next point of their curve.
    Return False where it had ended before."""
    return studies.finish(connection, study, "stopped", "Stopped.", best=best(studies.trials(connection, study)))


def stop_all(connection: Connection, recommender: Registered, study: int | None = None) -> list[int]:
    """End this study, or the recommender's unfinished ones; return those it ended. Raises StudyNotFound."""
    if study is None:
        numbers = [row["study"] for row in studies.unfinished(connection, recommender.id)]
    else:
        numbers = [studies.get(connection, study, recommender.name)["study"]]
    return [number for number in numbers if stop(connection, number)]


def result(connection: Connection, study: int) -> SearchResult:
    """Return what a study has found so far, or at its end. Raises StudyNotFound, StudyEmpty."""
    row = studies.get(connection, study)
    finished = [trial for trial in studies.trials(connection, study) if trial.finished]
    winner = best(finished)
    if winner is None:
        raise StudyEmpty(
            study=study, hint=row["outcome"] if row["state"] == "failed" else f"Its state: {row['state']}."
        )
    own = {
        name: row[name] for name in ("study", "recommender", "metric", "split", "kind", "scales", "state", "outcome")
    }
    return SearchResult(**own, trials=finished, best=winner.number, evaluation=studies.evaluation_of(row))


def adopt(
    url: str, settings: Settings, study: int, *, resize: bool = False, reporter: Reporter | None = None
) -> tuple[Definition, bool]:
    """Write the winner's settings into the recommender; the next training uses them. Return its definition, and whether it
    changed. More factors than there is room for are refused, or with `resize` given room. Raises StudyEmpty, InvalidInput,
    AlteredMeanwhile and others."""
    with connect(url, "recstore:tune") as connection, plain_errors(f"adopting study {study}", connection):
        require_current(connection)
        found = result(connection, study)
        name = found.recommender
        recommender = registry.get(connection, name)
        better = recommender.definition
        if found.winner.stage != "start":  # else its own settings won
            better = Definition.model_validate(tuned(better, found.winner).model_dump())
        factors = better.hyperparameters.factors or 0
        if factors > recommender.dimensions and not resize:
            raise InvalidInput(
                f"The best settings have {factors} factors, and {name!r} has room for {recommender.dimensions}. To make"
                f" more (readers of the views may wait a moment): recstore tune {name} --study {study} --adopt --resize"
            )
        changed = better != recommender.definition
        if changed:
            recommenders.alter(connection, url, settings, recommender, better, resize=resize, reporter=reporter)
        queries.run(connection, "note_adopted", study=study, best=found.best)
    return better, changed
