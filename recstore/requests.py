"""Requests to the workers: one row each, and these rows are the queue. Messages only wake a worker.

A request waits until a run of its job claims it, with every other request for the same job, and ends as that run ends. The run
may be a worker's, or a command's.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from psycopg import errors as pg

from recstore.config import Settings
from recstore.errors import NoListTable, RecommenderNotFound, RecstoreError, RequestBegun, RequestNotFound
from recstore.postgres.connection import Connection
from recstore.sql import queries

Job = Literal["retrain", "refresh", "reindex", "prune", "lists"]
Origin = Literal["command", "task", "schedule"]

CHANNEL = "recstore_requests"
"""Channel notified when a request is committed or a run has ended."""

TASK_NAMESPACE = 0x72656374
"""First key of the lock under which a message is registered. The second is a hash of its id."""


def insert(
    connection: Connection, name: str, job: Job, origin: Origin, task_id: str | None = None, *, force: bool = False
) -> int:
    """Request a job of recommender `name`; return the request's number. Takes no lock.

    Raises RecommenderNotFound, NoListTable.
    """
    keys = {"recommender": name, "job": job, "origin": origin, "task_id": task_id, "force": force}
    with _refusals(name):
        row = connection.execute(queries.query("request"), keys).fetchone()
    assert row is not None
    return int(row["request"])


def ask(connection: Connection, name: str, job: Job, *, force: bool = False) -> int:
    """Request a job from the command line, also as a role that may only execute recstore's functions."""
    try:
        return insert(connection, name, job, "command", force=force)
    except pg.InsufficientPrivilege:
        call = f"recstore.request_{job}(%s{', true' if force else ''})"
        with _refusals(name):
            row = connection.execute(f"SELECT {call} AS request", [name]).fetchone()
        assert row is not None
        return int(row["request"])


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Turn what the database refuses to request into errors with the same meaning."""
    try:
        yield
    except pg.UndefinedObject:
        raise RecommenderNotFound(name=name) from None
    except pg.InvalidParameterValue:
        raise NoListTable(name=name) from None


def get(connection: Connection, number: int) -> dict[str, Any]:
    """Return the row of recstore.requests. Raises RequestNotFound."""
    row = connection.execute(queries.query("watch_request"), {"request": number}).fetchone()
    if row is None:
        raise RequestNotFound(request=number)
    return row


def cancel(connection: Connection, number: int) -> dict[str, Any]:
    """Cancel a request that no run has begun; return its row. Raises RequestNotFound, RequestBegun."""
    found = connection.execute("SELECT recstore.cancel_request(%s) AS cancelled", [number]).fetchone()
    row = get(connection, number)
    if not (found and found["cancelled"]):
        raise RequestBegun(request=number, state=row["state"])
    return row


def register(connection: Connection, name: str, job: Job, task_id: str) -> bool:
    """Turn an application's message into a request; False if it was delivered before. Raises RecommenderNotFound."""
    with connection.transaction():
        connection.execute(queries.query("lock_task"), {"namespace": TASK_NAMESPACE, "task_id": task_id})
        if connection.execute(queries.query("request_of_task"), {"task_id": task_id}).fetchone():
            return False
        insert(connection, name, job, "task", task_id)
        return True


def take_due(
    connection: Connection, settings: Settings, jobs: Sequence[Job] | None = None, limit: int | None = None
) -> list[dict[str, Any]]:
    """Mark due requests as sent, of these jobs and at most `limit` pairs of recommender and job; return {recommender, job,
    requests} of each pair."""
    keys = {"resend": settings.resend, "jobs": None if jobs is None else list(jobs), "limit": limit}
    return connection.execute(queries.query("take_due_requests"), keys).fetchall()


def unsend(connection: Connection, name: str, job: str, why: str | None = None, pause: float | None = None) -> None:
    """Let requests wait again whose message was lost or could not be served. Operators see `why`; nothing takes them for
    `pause` seconds."""
    keys = {"recommender": name, "job": job, "why": why, "pause": pause}
    connection.execute(queries.query("unsend_requests"), keys)


def claim(connection: Connection, name: str, job: str, run: int) -> list[dict[str, Any]]:
    """Assign every open request for this job to this run; return {request, origin, force} of each."""
    keys = {"recommender": name, "job": job, "run": run}
    return connection.execute(queries.query("claim_requests"), keys).fetchall()


def finish(connection: Connection, run: int, state: str, outcome: str) -> None:
    """Give the requests that a run serves its state and outcome."""
    connection.execute(queries.query("finish_requests"), {"run": run, "state": state, "outcome": outcome})


def settle_ready(connection: Connection) -> None:
    """End requests in state ready whose generation is live now, or was overtaken."""
    connection.execute(queries.query("settle_ready_requests"))


def release(
    connection: Connection, settings: Settings, runs: list[int], outcome: str, *, interrupted: bool = False
) -> None:
    """Retry the requests of runs that did not finish, after a longer wait each time; fail them after `attempts`.

    An interrupted run costs no attempt and no wait.
    """
    keys = {"runs": runs, "outcome": outcome, "attempt": int(not interrupted)}
    limits = {"attempts": settings.attempts, "backoff": settings.retry_backoff}
    connection.execute(queries.query("release_requests"), keys | limits)


def notify(connection: Connection) -> None:
    """Wake listening workers, and sessions that wait for a trial to end."""
    connection.execute(f"NOTIFY {CHANNEL}")


def retryable(error: BaseException) -> bool:
    """Return True if a retry may succeed: the connection was lost, or the job was interrupted."""
    return interrupted(error) or (isinstance(error, RecstoreError) and error.passing)


def interrupted(error: BaseException) -> bool:
    """Return True for Ctrl-C, SIGTERM and a worker's cold shutdown."""
    return not isinstance(error, Exception)
