"""Read recommenders, runs, requests and dispatches from recstore's views alone, as a role with `recstore db grant` may.

The command line and Python show these rows.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from psycopg import errors as pg

from recstore import registry
from recstore.background.health import longest_silence
from recstore.config import Settings
from recstore.errors import (
    ConnectionFailed,
    ConnectionLost,
    RecommenderNotFound,
    RecstoreError,
    RunNotFound,
    StudyNotFound,
)
from recstore.operations import repair
from recstore.postgres.connection import Connection, session_settings
from recstore.registry import next_of, next_retrain
from recstore.runs import Reporter
from recstore.sql import queries, schema_revision
from recstore.wording import age

T = TypeVar("T")
Row = dict[str, Any]

EVERY = 0.5
"""Seconds between two queries about a run that is followed."""

LOCK_TIMEOUT = 100
"""Milliseconds to wait for a lock on the application's relations."""

OPEN = ("waiting", "sent", "running")
"""States of a request that has not ended."""


@contextmanager
def watching(url: str) -> Iterator[Connection]:
    """Yield a connection for the views; check the schema's revision where the role may see it."""
    with schema_revision.opened(url) as opened:
        with suppress(pg.InsufficientPrivilege):
            schema_revision.require_current(opened)
        yield opened


@dataclass(frozen=True)
class NoConnection:
    """Yielded by `polled` while the connection is lost."""

    reason: str

    def __str__(self) -> str:
        return f"No connection to the database: {self.reason}. Trying again."


def polled(
    opening: Callable[[], AbstractContextManager[Connection]], look: Callable[[Connection], T], every: float = EVERY
) -> Iterator[T | NoConnection]:
    """Yield what `look` returns, again and again. Raises what it raises, but a lost connection only the first time."""
    seen = False
    while True:
        try:
            with opening() as opened:
                while True:
                    yield look(opened)
                    seen = True
                    time.sleep(every)
        except (ConnectionFailed, ConnectionLost) as error:
            if not seen:
                raise
            yield NoConnection(str(error.reason))
            time.sleep(every)


def rows_of(opened: Connection, query: str, **keys: Any) -> list[Row]:
    """Return the rows of a named query."""
    return opened.execute(queries.query(query), keys).fetchall()


def clock(opened: Connection) -> datetime:
    """Return the time of the server, by whose clock all its times are."""
    return rows_of(opened, "clock")[0]["now"]  # type: ignore[no-any-return]


def check_known(opened: Connection, name: str | None) -> None:
    """Raise RecommenderNotFound unless the views have this recommender."""
    if name is not None and not rows_of(opened, "known_recommender", recommender=name):
        raise RecommenderNotFound(name=name)


def status(
    opened: Connection, settings: Settings, name: str | None = None, known: dict[str, list[str]] | None = None
) -> Row:
    """Return each recommender with its run, requests and next times; the dispatches; and a warning if they have stopped.

    `known` keeps the drift of each recommender from one look to the next, since looking for it creates views, rolled back.
    Raises RecommenderNotFound.
    """
    known = {} if known is None else known
    check_known(opened, name)
    rows = rows_of(opened, "watch_status", recommender=name)
    waiting = rows_of(opened, "watch_requests", recommender=name, open=True, limit=None)[::-1]
    now = clock(opened)
    for row in rows:
        if row["recommender"] not in known:
            known[row["recommender"]] = drift(opened, row["recommender"])
        row["drift"] = known[row["recommender"]]
        row["next_retrain"] = next_retrain(row)
        row["next_lists"], row["next_refresh"] = next_of("lists", row, now), next_of("refresh", row, now)
        row["open_requests"] = [request for request in waiting if request["recommender"] == row["recommender"]]
    return {
        "now": now,
        "recommenders": rows,
        "dispatches": rows_of(opened, "watch_dispatches"),
        "warning": dispatch_warning(opened, settings),
    }


def drift(opened: Connection, name: str) -> list[str]:
    """Return what `repair.drift` does; nothing where this role cannot see it, or while another session holds a lock."""
    try:
        with session_settings(opened, lock_timeout=LOCK_TIMEOUT):
            return repair.drift(opened, registry.get(opened, name))
    except (RecstoreError, psycopg.Error, ValueError):  # the last for a definition of another version
        return []


def dispatch_warning(opened: Connection, settings: Settings) -> str | None:
    """Return a warning if the last dispatch is so long ago that no worker seems to be running."""
    newest = next(iter(rows_of(opened, "watch_dispatches")), None)
    if newest is None:
        return "No worker has dispatched work here yet: none is running. Start one with: recstore worker"
    if newest["age"].total_seconds() <= longest_silence(settings):
        return None
    return (
        f"No worker has dispatched work for {age(newest['age'])} (the last was {newest['host']}): no worker, or with Celery"
        " no beat, seems to be running. Start one with: recstore worker"
    )


def runs(
    opened: Connection, name: str | None = None, *, n: int, job: str | None = None, state: str | None = None
) -> list[Row]:
    """Return the newest n runs, the newest last. Raises RecommenderNotFound."""
    check_known(opened, name)
    return rows_of(opened, "watch_runs", recommender=name, job=job, state=state, limit=n)[::-1]


def run(opened: Connection, number: int) -> Row:
    """Return a run with the `requests` that it serves. Raises RunNotFound."""
    rows = rows_of(opened, "watch_run", run=number)
    if not rows:
        raise RunNotFound(run=number)
    return rows[0] | {"requests": rows_of(opened, "requests_of_run", run=number)}


def followed(opening: Callable[[], AbstractContextManager[Connection]], number: int) -> Iterator[Row | NoConnection]:
    """Yield the row of a run, again and again until it has ended. Raises RunNotFound."""
    for seen in polled(opening, lambda opened: run(opened, number)):
        yield seen
        if not isinstance(seen, NoConnection) and seen["state"] != "running":
            return


def newest_run(opened: Connection, name: str | None) -> int | None:
    """Return the number of the newest run, of this recommender or of all. Raises RecommenderNotFound."""
    rows = runs(opened, name, n=1)
    return rows[0]["run"] if rows else None


def asked(opened: Connection, name: str | None = None, *, n: int, open: bool = False) -> list[Row]:
    """Return the newest n requests, the newest last; with `open` only those that have not ended. Raises RecommenderNotFound."""
    check_known(opened, name)
    return rows_of(opened, "watch_requests", recommender=name, open=open, limit=n)[::-1]


def studies(opened: Connection, name: str | None = None, *, n: int) -> list[Row]:
    """Return the newest n studies, the newest last. Raises RecommenderNotFound."""
    check_known(opened, name)
    return rows_of(opened, "watch_studies", recommender=name, limit=n)[::-1]


def study(opened: Connection, name: str | None, number: int) -> tuple[Row, list[Row]]:
    """Return a study of this recommender, and its trials. Raises RecommenderNotFound, StudyNotFound."""
    check_known(opened, name)
    known = rows_of(opened, "watch_study", study=number)
    if not known or known[0]["recommender"] != name:
        raise StudyNotFound(study=f"{number} of {name!r}")
    return known[0], rows_of(opened, "watch_trials", study=number)


class Replay:
    """Replays a run to a reporter from its row: each time what is new since the last."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter, self.stages, self.warnings = reporter, 0, 0

    def show(self, run: Row) -> None:
        ended = [stage for stage in run["stages"] if "seconds" in stage]
        for stage in ended[self.stages :]:
            details = {key: value for key, value in stage.items() if key not in ("stage", "seconds")}
            self.reporter.stage(stage["stage"], stage["seconds"], details)
        for sentence in run["warnings"][self.warnings :]:
            self.reporter.warn(sentence)
        self.stages, self.warnings = len(ended), len(run["warnings"])
        at = progress_of(at_work(run), run["progress"])
        if at and run["state"] == "running":
            self.reporter.progress(at["stage"], at["done"], at["total"], at["note"])


def at_work(run: Row) -> str | None:
    """Return the stage that a run has begun and not ended."""
    last = run["stages"][-1] if run["stages"] else {"seconds": 0}
    return None if "seconds" in last else str(last["stage"])


def progress_of(stage: str | None, progress: Row | None) -> Row | None:
    """Return the progress of this stage; None where it reports none, or an earlier stage did."""
    return progress if progress and progress["stage"] == stage else None
