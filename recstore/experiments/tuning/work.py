"""A search in Postgres: begun, worked on by whoever has time, ended, adopted. The command line and the workers call these.

    source -> interactions -> filters -> split -> study; then trial after trial; then the winner on the test part

The source is read once, when the study begins. A tuning takes no lock of the recommender: retrains go on.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
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
    RecstoreError,
    StudyEmpty,
)
from recstore.evaluation.curves import CurvePoint
from recstore.evaluation.results import Evaluation
from recstore.evaluation.splits import Split, SplitChoice
from recstore.experiments import evaluate
from recstore.experiments.evaluate import TestPairs
from recstore.experiments.measure import Wanted
from recstore.experiments.steps import Steps
from recstore.experiments.tuning import snapshot, studies
from recstore.experiments.tuning import trial as trials_
from recstore.experiments.tuning.search import PRESENT, Nobody, Options, Watch, conclude, tuned, winner_of
from recstore.experiments.tuning.stages import Plan
from recstore.experiments.tuning.studies import Claim, Study
from recstore.experiments.tuning.trial import Stopped
from recstore.experiments.tuning.trials import SearchResult, TrialResult, best
from recstore.operations import jobs
from recstore.postgres.connection import Connection, connect, plain_errors
from recstore.requests import CHANNEL
from recstore.runs import Reporter, Silent
from recstore.sql import queries
from recstore.sql.objects import Registered
from recstore.sql.schema_revision import require_current

NEWS = 2.0
"""Seconds after which who waits for others' trials looks again, whether it was told of an end or not."""


class Did(Enum):
    """What a look at a study came to."""

    TRIED = "a trial was run"
    WAITS = "others are at work on what is left"
    OVER = "the study has ended"


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
    """Reads the source of recommender `name`, filters and splits it, and makes a study of that; returns its number. With
    `parallel` the workers take it up. Raises RecstoreError."""
    steps = Steps(reporter or Silent())
    with connect(url, "recstore:tune") as connection, plain_errors(f"beginning to tune {name!r}", connection):
        require_current(connection)
        recommender = registry.get(connection, name)
        definition = recommender.definition
        options.check()
        course = options.course
        interactions = evaluate.interactions_of(url, settings, connection, recommender, definition, steps)
        wanted = Wanted(curve=1, seed=options.seed)
        split = evaluate.parts_of(connection, settings, recommender, interactions, choice, wanted, steps)
        course.measured(split)
        plan = options.plan(split, definition, recommender.dimensions)
        return studies.create(
            connection,
            recommender.id,
            kind="grid" if plan.points else "optuna",
            metric=options.metric,
            options=asked(options, choice) | {"dimensions": recommender.dimensions},
            definition=definition,
            split=split.how,
            snapshot=next(step for step in steps.taken if step["step"] == "read"),
            scales=options.scales(plan),
            parallel=parallel,
            content=snapshot.pack(split),
        )


def asked(options: Options, choice: SplitChoice | TestPairs) -> dict[str, Any]:
    """What a study was asked for, ready for JSON: equal for what gives equal searches on equal data."""
    if isinstance(choice, SplitChoice):
        split: dict[str, Any] = choice.as_dict()
    else:
        split = {name: None if value is None else str(value) for name, value in asdict(choice).items()}
    return {"search": options.as_dict(), "split": split}


def unfinished(
    connection: Connection, recommender: Registered, like: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """The newest study that has not ended: any, or one that was asked for `like` that, of the definition there is now."""
    definition = recommender.definition.model_dump(mode="json")
    for row in studies.unfinished(connection, recommender.id):
        same = row["options"] | dict(like or {}) == row["options"]
        if like is None or (same and _tunable(row["definition"]) == _tunable(definition)):
            return row
    return None


def _tunable(definition: Mapping[str, Any]) -> dict[str, Any]:
    """What of a definition a search depends on."""
    return {name: definition[name] for name in ("source", "filters", "confidence", "hyperparameters")}


def work_on(
    url: str,
    settings: Settings,
    study: int,
    *,
    watch: Watch | None = None,
    reporter: Reporter | None = None,
    message: bool = False,
) -> Did:
    """One step of a study: a trial, or when none is left and none at work elsewhere, the measurement of the winner.

    Whoever calls it takes part; what was stored by others is counted, what a dead process left is taken up again. With
    `message`, on behalf of a worker's message. Raises StudyNotFound, DeviceUnavailable, ConnectionLost, ..
    """
    with connect(url, f"recstore:study:{study}") as connection, plain_errors(f"working on study {study}", connection):
        require_current(connection)
        if message:
            connection.execute(queries.query("begin_message"), {"study": study})
        known = studies.get(connection, study)
        if known.state != "running":
            return Did.OVER
        loaded = _load(url, connection, known)
        if loaded is None:  # it ended this moment
            return Did.OVER
        claim, at_work = studies.claim(connection, study, loaded.plan.next)
        if claim is not None:
            return _try(url, settings, connection, loaded, claim, watch or Nobody())
        if at_work:
            return Did.WAITS
        with studies.measuring(connection, study) as attempt:
            return _end(settings, connection, loaded, attempt, reporter or Silent()) if attempt else Did.WAITS


@dataclass(frozen=True, eq=False)
class _Loaded:
    """A study with its data."""

    study: Study
    split: Split
    options: Options
    plan: Plan
    dimensions: int


_newest: dict[tuple[str, int], _Loaded] = {}
"""The study that this process worked on last: a worker's child does many trials of one."""


def _load(url: str, connection: Connection, study: Study) -> _Loaded | None:
    found = _newest.get((url, study.study))
    if found is None:
        content = studies.data(connection, study.study)
        if not content:
            return None
        split, options = snapshot.unpack(content), Options(**study.options["search"])
        dimensions = study.options["dimensions"]
        plan = options.plan(split, study.definition, dimensions)
        found = _Loaded(study, split, options, plan, dimensions)
        _newest.clear()
        _newest[url, study.study] = found
    return found


def _try(url: str, settings: Settings, connection: Connection, loaded: _Loaded, claim: Claim, watch: Watch) -> Did:
    number, plan = loaded.study.study, loaded.plan
    others = [trial for trial in studies.trials(connection, number) if trial.number != claim.number]
    watch.begins(claim.number, claim.stage, claim.parameters, plan, others)
    curve: list[CurvePoint] = []

    def on_point(point: CurvePoint) -> None:
        if point.iteration <= (curve[-1].iteration if curve else 0):  # the CPU started over
            curve.clear()
        curve.append(replace(point, train={}))
        watch.point(claim.number, point)
        wanted = True
        with suppress(psycopg.Error):  # the result is stored on another connection, if nobody has taken the trial up
            wanted = studies.note_curve(connection, claim, curve)
        if not wanted:
            raise Stopped

    try:
        done = trials_.run(
            claim.number,
            claim.stage,
            claim.parameters,
            loaded.split,
            loaded.study.definition,
            loaded.options.course,
            [] if plan.points else [trial for trial in others if trial.finished],
            most_factors=loaded.dimensions,
            device=settings.device,
            threads=settings.threads,
            on_point=on_point,
        )
    except Stopped:
        return Did.TRIED
    try:
        stored = studies.finish_trial(connection, claim, done)
    except psycopg.Error:
        with connect(url, f"recstore:study:{number}") as again:
            stored = studies.finish_trial(again, claim, done)
    if stored:
        watch.ends(done, plan, [*others, done])
    return Did.TRIED


def _end(settings: Settings, connection: Connection, loaded: _Loaded, attempt: int, reporter: Reporter) -> Did:
    """Refits the winner, measures it, and ends the study."""
    study, found = loaded.study, studies.trials(connection, loaded.study.study)
    number = study.study
    try:
        winner = winner_of(found)
    except NothingFound as error:
        studies.finish(connection, number, "failed", error.message, best=None)
        return Did.OVER
    if attempt > studies.ATTEMPTS:
        sentence = (
            "The process that measured the winner ended without finishing that, several times; perhaps memory ran out."
        )
        studies.finish(connection, number, "failed", sentence, best=winner.number)
        return Did.OVER
    try:
        evaluation, measured = conclude(
            loaded.split,
            study.definition,
            winner,
            loaded.options,
            settings,
            Steps(reporter),
            name=study.recommender,
            most_factors=loaded.dimensions,
        )
        recommender = registry.get(connection, study.recommender)
        shown = evaluate.examples_of(connection, recommender, loaded.split.refit(), measured, reporter)
    except (ConnectionFailed, ConnectionLost, DeviceUnavailable):
        raise
    except RecstoreError as error:
        sentence = f"The winner, trial {winner.number}, could not be measured: {error.message}"
        studies.finish(connection, number, "failed", sentence, best=winner.number)
        return Did.OVER
    evaluation = replace(evaluation, examples=shown)
    sentence = outcome(winner, evaluation, loaded.options.metric)
    studies.finish(connection, number, "ended", sentence, best=winner.number, evaluation=evaluation)
    return Did.OVER


def outcome(winner: TrialResult, evaluation: Evaluation, metric: str) -> str:
    """How it ended, in a sentence."""
    own, *others = evaluation.results
    told = [f"{other.name} {value:.4f}" for other in others if (value := other.metrics.get(metric)) is not None]
    reached = own.metrics.get(metric)
    words = f"Trial {winner.number} won: {metric} {winner.value:.4f} on the validation part"
    words += f", {reached:.4f} on the test part" if reached is not None else ""
    if not any(other.name == PRESENT for other in others):
        words += ", with the settings that the recommender has"
    return f"{words} ({', '.join(told)})." if told else f"{words}."


def work(
    url: str, settings: Settings, study: int, *, watch: Watch | None = None, reporter: Reporter | None = None
) -> None:
    """Takes part in a study until it has ended."""
    while (did := work_on(url, settings, study, watch=watch, reporter=reporter)) is not Did.OVER:
        if did is Did.WAITS:
            with connect(url, f"recstore:study:{study}") as connection, plain_errors("waiting for other trials"):
                connection.execute(f"LISTEN {CHANNEL}")
                for _ in connection.notifies(timeout=NEWS, stop_after=1):
                    pass


def stop(connection: Connection, study: int) -> bool:
    """Ends a study at once with the best trial so far, unmeasured; who is at work on it stops at the next point of its
    curve. False where it had ended before. Raises StudyNotFound."""
    studies.get(connection, study)
    found = best(studies.trials(connection, study))
    return studies.finish(connection, study, "stopped", "Stopped.", best=found.number if found else None)


def result(connection: Connection, study: int) -> SearchResult:
    """What a study has found so far, or at its end. Raises StudyNotFound, StudyEmpty."""
    known = studies.get(connection, study)
    found = best(studies.trials(connection, study))
    number = known.best if known.best is not None else found.number if found else None
    if number is None:
        hint = known.outcome if known.outcome and known.state == "failed" else f"Its state: {known.state}."
        raise StudyEmpty(study=study, hint=hint)
    return studies.search_of(connection, known, number)


def adopt(
    url: str, settings: Settings, study: int, *, resize: bool = False, reporter: Reporter | None = None
) -> tuple[Definition, bool]:
    """Writes the winner's settings into the recommender; the next training uses them. Returns its definition, and whether
    that is another than before. More factors than there is room for are refused, or with `resize` made room for. Raises
    StudyEmpty, InvalidInput, AlteredMeanwhile, .."""
    with connect(url, "recstore:tune") as connection, plain_errors(f"adopting study {study}", connection):
        require_current(connection)
        found = result(connection, study)
        name = found.recommender
        recommender = registry.get(connection, name)
        better = recommender.definition
        if found.winner.stage != "start":  # else what it says already won
            better = Definition.model_validate(tuned(better, found.winner).model_dump())
        factors = better.hyperparameters.factors or 0
        if factors > recommender.dimensions:
            registry.check_definition(connection, recommender, better)  # a refused definition resizes nothing
            if not resize:
                raise InvalidInput(
                    f"The best settings have {factors} factors, and {name!r} has room for {recommender.dimensions}. To make"
                    f" more (readers of the views may wait a moment): recstore tune {name} --study {study} --adopt"
                    " --resize"
                )
            jobs.resize(url, settings, name, factors, reporter=reporter)
            recommender = registry.get(connection, name)
        changed = better != recommender.definition
        if changed:
            registry.alter(connection, settings, recommender, better)
        studies.note_adopted(connection, study, found.best)
    return better, changed
