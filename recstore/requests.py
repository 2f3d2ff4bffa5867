"""What is asked of the workers: a row per request, which is the queue itself. Messages only wake a worker.

A request waits until a run of its job begins and claims it, along with every other that asks for the same; it ends as the
run ends. Whoever runs the job serves it: a worker, or a person at the command line.
"""

from typing import Any, Literal

from psycopg import errors as pg

from recstore.config import Settings
from recstore.errors import RecommenderNotFound, RecstoreError, RequestBegun, RequestNotFound
from recstore.postgres.connection import Connection
from recstore.sql import queries

Job = Literal["retrain", "reindex", "prune", "lists"]
Origin = Literal["command", "task", "schedule"]

CHANNEL = "recstore_requests"
"""What a listening worker listens to: a request was committed, or a run has ended."""

TASK_NAMESPACE = 0x72656374
"""First key of the lock under which a message is registered; the second is a hash of its id."""


def insert(
    connection: Connection, name: str, job: Job, origin: Origin, task_id: str | None = None, *, force: bool = False
) -> int:
    """Asks for a job of recommender `name`; returns the request's number. Waits for nobody. Raises RecommenderNotFound."""
    keys = {"recommender": name, "job": job, "origin": origin, "task_id": task_id, "force": force}
    try:
        row = connection.execute(queries.query("request"), keys).fetchone()
    except pg.UndefinedObject:
        raise RecommenderNotFound(name=name) from None
    assert row is not None
    return int(row["request"])


def ask(connection: Connection, name: str, job: Job, *, force: bool = False) -> int:
    """`insert` for a person; also for a role that may ask, by recstore db grant, and not write."""
    try:
        return insert(connection, name, job, "command", force=force)
    except pg.InsufficientPrivilege:
        try:
            call = f"recstore.request_{job}(%s{', true' if force else ''})"
            row = connection.execute(f"SELECT {call} AS request", [name]).fetchone()
        except pg.UndefinedObject:
            raise RecommenderNotFound(name=name) from None
        assert row is not None
        return int(row["request"])


def get(connection: Connection, number: int) -> dict[str, Any]:
    """Its row of recstore.requests. Raises RequestNotFound."""
    row = connection.execute(queries.query("watch_request"), {"request": number}).fetchone()
    if row is None:
        raise RequestNotFound(request=number)
    return row


def cancel(connection: Connection, number: int) -> dict[str, Any]:
    """Takes a request back that no run has begun; returns its row. Raises RequestNotFound, RequestBegun."""
    found = connection.execute("SELECT recstore.cancel_request(%s) AS cancelled", [number]).fetchone()
    row = get(connection, number)
    if not (found and found["cancelled"]):
        raise RequestBegun(request=number, state=row["state"])
    return row


def register(connection: Connection, name: str, job: Job, task_id: str) -> bool:
    """Makes a request of an application's message; False where it was delivered before. Raises RecommenderNotFound."""
    with connection.transaction():
        connection.execute(queries.query("lock_task"), {"namespace": TASK_NAMESPACE, "task_id": task_id})
        if connection.execute(queries.query("request_of_task"), {"task_id": task_id}).fetchone():
            return False
        insert(connection, name, job, "task", task_id)
        return True


def take_due(connection: Connection, settings: Settings) -> list[dict[str, Any]]:
    """Marks those that are due as sent; returns {recommender, job, requests} for each message to send."""
    return connection.execute(queries.query("take_due_requests"), {"resend": settings.resend}).fetchall()


def unsend(connection: Connection, name: str, job: Job, why: str | None = None) -> None:
    """Their message came to nothing; they wait for another. `why` is kept where operators see it."""
    connection.execute(queries.query("unsend_requests"), {"recommender": name, "job": job, "why": why})


def claim(connection: Connection, name: str, job: str, run: int) -> list[dict[str, Any]]:
    """Everything that asks for this job is served by this run; returns {request, origin, force} of each."""
    keys = {"recommender": name, "job": job, "run": run}
    return connection.execute(queries.query("claim_requests"), keys).fetchall()


def finish(connection: Connection, run: int, state: str, outcome: str) -> None:
    """What became of the run becomes of the requests that it serves."""
    connection.execute(queries.query("finish_requests"), {"run": run, "state": state, "outcome": outcome})


def settle_ready(connection: Connection) -> None:
    """Ends the requests whose generation was complete and waited, and now is live or was overtaken."""
    connection.execute(queries.query("settle_ready_requests"))


def release(
    connection: Connection, settings: Settings, runs: list[int], outcome: str, *, interrupted: bool = False
) -> None:
    """These runs came to nothing through no fault of their requests: they wait again, longer each time, and fail after
    `attempts`. One that was interrupted costs no attempt and waits for nothing."""
    keys = {"runs": runs, "outcome": outcome, "attempt": int(not interrupted)}
    limits = {"attempts": settings.attempts, "backoff": settings.retry_backoff}
    connection.execute(queries.query("release_requests"), keys | limits)


def notify(connection: Connection) -> None:
    """Wakes a listening worker, and who waits for a trial of a study to end."""
    connection.execute(f"NOTIFY {CHANNEL}")


def retryable(error: BaseException) -> bool:
    """Whether the job may succeed when it is simply done again: its connection was lost, or it was interrupted."""
    return interrupted(error) or (isinstance(error, RecstoreError) and error.passing)


def interrupted(error: BaseException) -> bool:
    """Ctrl-C, SIGTERM, a worker's cold stop."""
    return not isinstance(error, Exception)
