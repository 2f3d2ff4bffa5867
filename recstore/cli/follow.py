"""What it takes to watch from outside: a connection that may be lost and comes back, a run shown from its row."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from psycopg import errors as pg

from recstore import migrate, sqlfile
from recstore.cli.context import connection
from recstore.config import Settings
from recstore.database import Connection
from recstore.errors import ConnectionFailed, ConnectionLost, RecommenderNotFound
from recstore.runs import Reporter

T = TypeVar("T")

EVERY = 0.5
"""Seconds between two looks at a run that is followed."""


@contextmanager
def watching() -> Iterator[tuple[Connection, Settings]]:
    """A connection for who looks at views: the schema's revision is checked where the role may see it."""
    with connection() as (opened, _, settings):
        with suppress(pg.InsufficientPrivilege):
            migrate.require_current(opened)
        yield opened, settings


@dataclass(frozen=True)
class NoConnection:
    """Instead of what a look would have seen."""

    reason: str

    def __str__(self) -> str:
        return f"No connection to the database: {self.reason}. Trying again."


def polled(look: Callable[[Connection, Settings], T], every: float) -> Iterator[T | NoConnection]:
    """What `look` sees, again and again. Raises what the first look raises; later only what is no lost connection."""
    seen = False
    while True:
        try:
            with watching() as (opened, settings):
                while True:
                    yield look(opened, settings)
                    seen = True
                    time.sleep(every)
        except (ConnectionFailed, ConnectionLost) as error:
            if not seen:
                raise
            yield NoConnection(str(vars(error)["reason"]))
            time.sleep(every)


def rows_of(opened: Connection, query: str, **keys: Any) -> list[dict[str, Any]]:
    """The rows of a named query."""
    return opened.execute(sqlfile.query(query), keys).fetchall()


def clock(opened: Connection) -> datetime:
    """The server's, by which every time that it told was taken."""
    return rows_of(opened, "clock")[0]["now"]  # type: ignore[no-any-return]


def check_known(opened: Connection, name: str | None) -> None:
    """Raises RecommenderNotFound, from the views alone."""
    if name is not None and not rows_of(opened, "known_recommender", recommender=name):
        raise RecommenderNotFound(name=name)


class Replay:
    """Shows a run through a reporter from its row, looked at again and again: what is new since the last time."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter, self.stages, self.warnings = reporter, 0, 0

    def show(self, run: dict[str, Any]) -> None:
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


def at_work(run: dict[str, Any]) -> str | None:
    """The stage that a run has begun and not ended."""
    last = run["stages"][-1] if run["stages"] else {"seconds": 0}
    return None if "seconds" in last else str(last["stage"])


def progress_of(stage: str | None, progress: dict[str, Any] | None) -> dict[str, Any] | None:
    """How far the stage at work is; None where that is not told, or what is told is an earlier stage's."""
    return progress if progress and progress["stage"] == stage else None


def share_of(progress: dict[str, Any] | None) -> float | None:
    """The part that is done, where that says anything."""
    return float(min(progress["done"] / progress["total"], 1.0)) if progress and progress["total"] > 1 else None


def where(stage: str | None, progress: dict[str, Any] | None) -> str:
    """The stage at work and how far it is, in words; empty between two stages."""
    at = progress_of(stage, progress)
    share = share_of(at)
    words = (stage or "") + ("" if share is None else f" {100 * share:.0f} %")
    return words + (f", {at['note']}" if at and at["note"] else "")
