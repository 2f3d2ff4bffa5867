"""Studies in Postgres: a search's options and data, its trials, who is at work on what.

A trial that runs holds a session lock, so it is known when its process is gone; whoever decides on the next trial holds the
study's row for that moment. Every function commits. Trials and metrics are computed elsewhere, without a transaction.
"""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from recstore.definition import Definition
from recstore.errors import StudyNotFound
from recstore.evaluation.curves import CurvePoint
from recstore.evaluation.results import Evaluation
from recstore.experiments.tuning.space import Parameters
from recstore.experiments.tuning.stages import Proposal
from recstore.experiments.tuning.trials import Kind, SearchResult, TrialResult
from recstore.postgres.connection import Connection
from recstore.requests import notify
from recstore.sql import queries

TRIAL_NAMESPACE = 0x72656375
"""First key of the lock that a trial's process holds; the second is the trial's id."""

MEASURE_NAMESPACE = 0x72656376
"""First key of the lock of who measures the winner; the second is the study's number."""

ATTEMPTS = 3
"""At one trial, and at measuring the winner: whatever ends a process every time is not tried for ever."""

CHUNK = 4 << 20
"""Bytes of a study's data in a row."""


@dataclass(frozen=True)
class Study:
    """A study as its row says."""

    study: int
    recommender: str
    state: str
    kind: Kind
    metric: str
    options: dict[str, Any]
    definition: Definition
    split: str
    scales: dict[str, str]
    best: int | None
    evaluation: Evaluation | None
    outcome: str | None


@dataclass(frozen=True)
class Claim:
    """A trial to run now: its number in the study, and the token without which its result is not taken."""

    trial: int
    number: int
    stage: str
    parameters: Parameters
    attempts: int


Next = Callable[[Sequence[TrialResult]], Proposal | None]


def create(
    connection: Connection,
    recommender_id: int,
    *,
    kind: Kind,
    metric: str,
    options: dict[str, Any],
    definition: Definition,
    split: str,
    snapshot: dict[str, Any],
    scales: dict[str, str],
    parallel: int,
    content: bytes,
) -> int:
    """A study with its data; returns its number."""
    row = {
        "recommender_id": recommender_id,
        "kind": kind,
        "metric": metric,
        "options": Jsonb(options),
        "definition": Jsonb(definition.model_dump(mode="json")),
        "split": split,
        "snapshot": Jsonb(snapshot),
        "scales": Jsonb(scales),
        "parallel": parallel,
    }
    with connection.transaction():
        made = connection.execute(queries.query("insert_study"), row).fetchone()
        assert made is not None
        study = int(made["study"])
        for chunk, start in enumerate(range(0, len(content), CHUNK)):
            part = {"study": study, "chunk": chunk, "content": content[start : start + CHUNK]}
            connection.execute(queries.query("insert_study_data"), part)
    notify(connection)
    return study


def get(connection: Connection, study: int) -> Study:
    """Raises StudyNotFound."""
    row = connection.execute(queries.query("select_study"), {"study": study}).fetchone()
    if row is None:
        raise StudyNotFound(study=study)
    known = {name: row[name] for name in Study.__dataclass_fields__}
    evaluation = row["evaluation"]
    return Study(
        **known
        | {
            "definition": Definition.model_validate(row["definition"]),
            "evaluation": Evaluation.from_dict(evaluation) if evaluation else None,
        }
    )


def data(connection: Connection, study: int) -> bytes:
    """What `create` was given; empty once the study has ended."""
    rows = connection.execute(queries.query("study_data"), {"study": study}, binary=True)
    return b"".join(row["content"] for row in rows)


def unfinished(connection: Connection, recommender_id: int) -> list[dict[str, Any]]:
    """{study, options, definition, parallel, created_at} of each that has not ended, the newest first."""
    return connection.execute(queries.query("unfinished_studies"), {"recommender_id": recommender_id}).fetchall()


def newest(connection: Connection, recommender_id: int) -> int | None:
    """The newest that has a complete trial."""
    row = connection.execute(queries.query("newest_study"), {"recommender_id": recommender_id}).fetchone()
    return row["study"] if row else None


def trials(connection: Connection, study: int) -> list[TrialResult]:
    """In order of their numbers, with those at work."""
    rows = connection.execute(queries.query("select_trials"), {"study": study}).fetchall()
    return [
        TrialResult(
            row["number"],
            row["state"],
            row["parameters"],
            row["value"],
            row["iterations"],
            [CurvePoint(**point) for point in row["curve"]],
            row["seconds"],
            row["stage"],
            row["error"],
        )
        for row in rows
    ]


def search_of(connection: Connection, study: Study, best: int) -> SearchResult:
    """A study and its finished trials as one result."""
    finished = [trial for trial in trials(connection, study.study) if trial.finished]
    return SearchResult(
        study.study,
        study.recommender,
        study.metric,
        study.split,
        study.kind,
        study.scales,
        finished,
        best,
        study.evaluation,
    )


def set_parallel(connection: Connection, study: int, parallel: int) -> None:
    """How many trials the workers shall have at work at once."""
    connection.execute(queries.query("update_study_parallel"), {"study": study, "parallel": parallel})
    notify(connection)


def claim(connection: Connection, study: int, next_: Next) -> tuple[Claim | None, bool]:
    """A trial for this session to run, and whether any is at work elsewhere: one whose process is gone, with the same
    parameters, else the next. (None, False): nothing is left to try. The caller gives the lock back by `finish_trial` or
    `release`, or by closing the connection."""
    with connection.transaction():
        row = connection.execute(queries.query("lock_study"), {"study": study}).fetchone()
        if row is None or row["state"] != "running":
            return None, False
        while left := connection.execute(queries.query("left_trial"), {"study": study}).fetchone():
            if left["attempts"] < ATTEMPTS:
                return _taken(connection, "take_trial_again", {"trial": left["trial"]}), True
            _give_up(connection, left)
        found = trials(connection, study)
        at_work = any(not trial.finished for trial in found)
        proposal = next_(found)
        if proposal is None:
            return None, at_work
        values = {
            "study": study,
            "number": len(found),
            "stage": proposal.stage,
            "parameters": Jsonb(proposal.parameters),
        }
        return _taken(connection, "insert_trial", values), True


def _taken(connection: Connection, query: str, values: dict[str, Any]) -> Claim:
    row = connection.execute(queries.query(query), values | {"host": socket.gethostname()}).fetchone()
    assert row is not None
    _lock(connection, TRIAL_NAMESPACE, row["trial"])  # nobody else's: the study's row is ours at the moment
    return Claim(**row)


def _give_up(connection: Connection, left: dict[str, Any]) -> None:
    error = (
        f"The process that worked on it ended without finishing it, {left['attempts']} times; perhaps memory ran out."
    )
    values = dict.fromkeys(("value", "iterations", "seconds"))
    keys = {"trial": left["trial"], "attempts": left["attempts"], "state": "failed", "curve": Jsonb([]), "error": error}
    connection.execute(queries.query("finish_trial"), values | keys)


def note_curve(connection: Connection, claim: Claim, curve: Sequence[CurvePoint]) -> bool:
    """How far the trial is; False where it is not wanted any more: the study was stopped, or somebody else has the trial."""
    keys = {"trial": claim.trial, "attempts": claim.attempts, "curve": Jsonb([asdict(point) for point in curve])}
    return connection.execute(queries.query("update_trial_curve"), keys).fetchone() is not None


def finish_trial(connection: Connection, claim: Claim, done: TrialResult) -> bool:
    """Stores the result and gives the lock back; False where it is not wanted any more."""
    keys = {
        "trial": claim.trial,
        "attempts": claim.attempts,
        "state": done.state,
        "value": done.value,
        "iterations": done.iterations,
        "seconds": done.seconds,
        "curve": Jsonb([asdict(point) for point in done.curve]),
        "error": done.error,
    }
    stored = connection.execute(queries.query("finish_trial"), keys).fetchone() is not None
    release(connection, claim)
    return stored


def release(connection: Connection, claim: Claim) -> None:
    """Gives the trial's lock back, and tells who waits for that."""
    _unlock(connection, TRIAL_NAMESPACE, claim.trial)
    notify(connection)


@contextmanager
def measuring(connection: Connection, study: int) -> Iterator[int]:
    """Whoever gets in measures the winner, alone: the number of this attempt, or 0 where somebody else does or did."""
    if not _lock(connection, MEASURE_NAMESPACE, study):
        yield 0
        return
    try:
        row = connection.execute(queries.query("begin_measuring"), {"study": study}).fetchone()
        yield int(row["attempts"]) if row else 0
    finally:
        with suppress(psycopg.Error):
            _unlock(connection, MEASURE_NAMESPACE, study)
            notify(connection)


def finish(
    connection: Connection,
    study: int,
    state: str,
    outcome: str,
    *,
    best: int | None,
    evaluation: Evaluation | None = None,
) -> bool:
    """Ends the study: its data go, trials at work are not wanted any more. False where it had ended before."""
    values = {
        "study": study,
        "state": state,
        "outcome": outcome,
        "best": best,
        "evaluation": Jsonb(evaluation.as_dict()) if evaluation else None,
    }
    with connection.transaction():
        connection.execute(queries.query("lock_study"), {"study": study})
        ended = connection.execute(queries.query("finish_study"), values).fetchone() is not None
        if ended:
            connection.execute(queries.query("abandon_trials"), {"study": study})
            connection.execute(queries.query("delete_study_data"), {"study": study})
    notify(connection)
    return ended


def note_adopted(connection: Connection, study: int, best: int) -> None:
    """The recommender has the settings of trial `best` now."""
    connection.execute(queries.query("note_adopted"), {"study": study, "best": best})


def _lock(connection: Connection, namespace: int, key: int) -> bool:
    row = connection.execute(queries.query("lock_trial"), {"namespace": namespace, "key": key}).fetchone()
    return bool(row and row["locked"])


def _unlock(connection: Connection, namespace: int, key: int) -> None:
    connection.execute(queries.query("unlock_trial"), {"namespace": namespace, "key": key})
