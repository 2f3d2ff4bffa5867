"""Store studies in Postgres: a search's options and data, its trials, and the sessions at work on them.

A trial that runs holds a session lock, so the end of its process is noticed. Deciding on the next trial takes the study's
row for that moment. Every function commits; trials and metrics are computed elsewhere, without a transaction.
"""

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
from psycopg.types.json import Jsonb

from recstore.errors import StudyNotFound
from recstore.evaluation.definitions import OF_LISTS
from recstore.evaluation.rating_errors import ALL
from recstore.evaluation.results import CurvePoint, Evaluation
from recstore.evaluation.splits import Split
from recstore.experiments.tuning.trials import TrialResult, Trials
from recstore.model.interactions import NO_TIME, IdMap, Interactions
from recstore.postgres.connection import Connection
from recstore.requests import notify
from recstore.sql import queries

TRIAL_NAMESPACE = 0x72656375
"""First key of the lock that a trial's process holds; the second is the trial's id."""

MEASURE_NAMESPACE = 0x72656376
"""First key of the lock that measuring the winner holds; the second is the study's number."""

ATTEMPTS = 3
"""Most attempts at one trial, and at measuring the winner."""

CHUNK = 4 << 20
"""Bytes of a study's data in a row."""

_PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Claim:
    """A trial for this session to run, its row's key, and the attempt, which fences off earlier ones."""

    trial: TrialResult
    key: int
    attempts: int


def create(connection: Connection, row: Mapping[str, Any], split: Split) -> int:
    """Create a study from the columns of its row and its data; return its number."""
    content = pack(split, times=row["definition"]["confidence"]["half_life"] is not None)
    with connection.transaction():
        values = {name: Jsonb(value) if isinstance(value, dict) else value for name, value in row.items()}
        study: int = queries.one(connection, "insert_study", **values)["study"]
        for chunk, start in enumerate(range(0, len(content), CHUNK)):
            part = content[start : start + CHUNK]
            queries.run(connection, "insert_study_data", study=study, chunk=chunk, content=part)
    notify(connection)
    return study


def get(connection: Connection, study: int, recommender: str | None = None) -> dict[str, Any]:
    """Return the row of a study, of this recommender if it is named. Raises StudyNotFound."""
    row = queries.row(connection, "select_study", study=study)
    if row is None or recommender not in (None, row["recommender"]):
        raise StudyNotFound(study=f"{study} of {recommender!r}" if row else study)
    return row


def evaluation_of(row: Mapping[str, Any]) -> Evaluation | None:
    """Return the measurement of the winner, its metrics in the order of `metrics.evaluate`, which jsonb does not keep."""
    names = (*ALL, *OF_LISTS, "auc", "mse", "coverage")

    def place(metric: str) -> tuple[int, int, int]:
        name, at, k = metric.partition("@")
        return (2 if name == "coverage" else 0 if at or name in ALL else 1), int(k or 0), names.index(name)

    if row["evaluation"] is None:
        return None
    found = Evaluation.from_dict(row["evaluation"])
    ordered = [
        replace(result, metrics={name: result.metrics[name] for name in sorted(result.metrics, key=place)})
        for result in found.results
    ]
    return replace(found, results=ordered)


def data(connection: Connection, study: int) -> Split | None:
    """Return the split that the study was created with; None once it has ended."""
    rows = connection.execute(queries.query("study_data"), {"study": study}, binary=True)
    content = b"".join(row["content"] for row in rows)
    return unpack(content) if content else None


def pack(split: Split, *, times: bool = False) -> bytes:
    """Return the split as an Arrow IPC stream: one row of lists, compressed; of times, which only a half-life needs since the
    split is made, on request."""
    parts = [(code, part) for code, name in enumerate(_PARTS) if (part := getattr(split, name)) is not None]
    columns = {
        "users": split.train.users.ids,
        "items": split.train.items.ids,
        "user_index": pa.array(np.concatenate([part.user_index for _, part in parts]), pa.int32()),
        "item_index": pa.array(np.concatenate([part.item_index for _, part in parts]), pa.int32()),
        "value": pa.array(np.concatenate([part.values for _, part in parts]), pa.float64()),
        "part": pa.array(np.concatenate([np.full(len(part), code, np.int8) for code, part in parts]), pa.int8()),
    }
    if times:
        dated = [part.times if part.times is not None else np.full(len(part), NO_TIME) for _, part in parts]
        columns["time"] = pa.array(np.concatenate(dated), pa.int64())
    lists = {name: pa.LargeListArray.from_arrays([0, len(values)], values) for name, values in columns.items()}
    described = json.dumps({"how": split.how, "notes": list(split.notes), "rated": split.train.rated})
    row = pa.RecordBatch.from_pydict(lists).replace_schema_metadata({"split": described})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, row.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(row)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def unpack(content: bytes) -> Split:
    with pa.ipc.open_stream(pa.py_buffer(content)) as reader:
        row = reader.read_next_batch()
    described = json.loads(row.schema.metadata[b"split"])
    columns = {name: row[name].flatten() for name in row.schema.names}
    pairs = [columns[name].to_numpy() for name in ("user_index", "item_index", "value")]
    whole = Interactions(IdMap(columns["users"]), IdMap(columns["items"]), *pairs)
    whole = replace(whole, rated=described.get("rated", False))
    if "time" in columns:
        whole = replace(whole, times=columns["time"].to_numpy())
    train, validation, test = (whole.part(columns["part"].to_numpy() == code) for code in range(len(_PARTS)))
    return Split(train, validation if len(validation) else None, test, described["how"], tuple(described["notes"]))


def unfinished(connection: Connection, recommender_id: int) -> list[dict[str, Any]]:
    """Return {study, options, definition, parallel, created_at} of each that has not ended, the newest first."""
    return queries.rows(connection, "unfinished_studies", recommender_id=recommender_id)


def trials(connection: Connection, study: int) -> list[TrialResult]:
    """Return the trials in order of their numbers, with those at work."""
    rows = queries.rows(connection, "select_trials", study=study)
    return [TrialResult(**row | {"curve": [CurvePoint(**point) for point in row["curve"]]}) for row in rows]


def set_parallel(connection: Connection, study: int, parallel: int) -> None:
    """Set how many trials the workers should run at once."""
    queries.run(connection, "update_study_parallel", study=study, parallel=parallel)
    notify(connection)


def claim(
    connection: Connection, study: int, next_: Callable[[Trials], TrialResult | None], message: bool = False
) -> tuple[Claim | None, bool]:
    """Take a trial for this session to run; return it, and whether any is at work elsewhere.

    A trial whose process has ended comes first, with the same parameters, then the next one. (None, False): nothing is left
    to try. With `message` it uses up one of the study's messages in the same transaction, so that no dispatch in between sends
    another; nothing is taken where others were sent in its place. The caller gives the lock back by `finish_trial` or
    `release`, or by closing the connection.
    """

    def taken(query: str, **values: Any) -> tuple[Claim, bool]:
        row = queries.one(connection, query, host=socket.gethostname(), **values)
        _lock(connection, TRIAL_NAMESPACE, row["trial"])  # free: this session holds the study's row
        trial = TrialResult(row["number"], "running", row["parameters"], stage=row["stage"])
        return Claim(trial, row["trial"], row["attempts"]), True

    with connection.transaction():
        row = queries.row(connection, "lock_study", study=study)
        if row is None or row["state"] != "running":
            return None, False
        if message and queries.row(connection, "begin_message", study=study) is None:
            return None, True
        while left := queries.row(connection, "left_trial", study=study):
            if left["attempts"] < ATTEMPTS:
                return taken("take_trial_again", trial=left["trial"])
            error = f"Its process ended without finishing it, {left['attempts']} times; perhaps memory ran out."
            queries.run(connection, "abandon_trials", study=study, trial=left["trial"], error=error)
        found = trials(connection, study)
        trial = next_(found)
        if trial is None:
            return None, any(not trial.finished for trial in found)
        parameters = Jsonb(trial.parameters)
        return taken("insert_trial", study=study, number=trial.number, stage=trial.stage, parameters=parameters)


def note_curve(connection: Connection, claim: Claim, curve: list[CurvePoint]) -> bool:
    """Store the curve so far. Return False where the trial is no longer wanted: the study was stopped, or another session
    has the trial."""
    stored = Jsonb([asdict(point) for point in curve])
    keys = {"trial": claim.key, "attempts": claim.attempts}
    return queries.row(connection, "update_trial_curve", **keys, curve=stored) is not None


def finish_trial(connection: Connection, claim: Claim, ended: TrialResult) -> bool:
    """Store the result and give the lock back. Return False where it is no longer wanted."""
    values = asdict(ended)
    values |= {"trial": claim.key, "attempts": claim.attempts, "curve": Jsonb(values["curve"])}
    stored = queries.row(connection, "finish_trial", **values) is not None
    release(connection, claim)
    return stored


def release(connection: Connection, claim: Claim) -> None:
    """Give the trial's lock back, and notify the sessions that wait for it."""
    queries.run(connection, "unlock_trial", namespace=TRIAL_NAMESPACE, key=claim.key)
    notify(connection)


@contextmanager
def measuring(connection: Connection, study: int) -> Iterator[int]:
    """Let one session at a time measure the winner: yield the number of its attempt, or 0 to all others."""
    if not _lock(connection, MEASURE_NAMESPACE, study):
        yield 0
        return
    try:
        row = queries.row(connection, "begin_measuring", study=study)
        yield int(row["attempts"]) if row else 0
    finally:
        with suppress(psycopg.Error):
            queries.run(connection, "unlock_trial", namespace=MEASURE_NAMESPACE, key=study)
            notify(connection)


def finish(
    connection: Connection,
    study: int,
    state: str,
    outcome: str,
    *,
    best: TrialResult | None = None,
    evaluation: Evaluation | None = None,
) -> bool:
    """End the study: remove its data and give up the trials at work. Return False where it had ended before."""
    values = {
        "state": state,
        "outcome": outcome,
        "best": best.number if best else None,
        "evaluation": Jsonb(evaluation.as_dict()) if evaluation else None,
    }
    with connection.transaction():
        queries.run(connection, "lock_study", study=study)
        ended = queries.row(connection, "finish_study", study=study, **values) is not None
        if ended:
            queries.run(connection, "abandon_trials", study=study, trial=None, error="The study was stopped.")
            queries.run(connection, "delete_study_data", study=study)
    notify(connection)
    return ended


def _lock(connection: Connection, namespace: int, key: int) -> bool:
    return bool(queries.one(connection, "lock_trial", namespace=namespace, key=key)["locked"])
