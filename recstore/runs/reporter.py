"""Report what a run does: stages that describe themselves, progress, warnings. Knows no recommender."""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import psycopg
from psycopg.types.json import Jsonb

from recstore.errors import RecstoreError, RunCancelled
from recstore.postgres.connection import Connection, connect
from recstore.sql import queries


@runtime_checkable
class Described(Protocol):
    """A stage's result that describes itself: `details` are stored with the run, `str()` is the sentence for people."""

    def details(self) -> dict[str, Any]:
        """Return the figures of the stage, ready for JSON."""


@dataclass(frozen=True)
class Summary:
    """The result of a stage that returns nothing else: a sentence and figures."""

    sentence: str
    figures: dict[str, Any] = field(default_factory=dict)

    def details(self) -> dict[str, Any]:
        return self.figures

    def __str__(self) -> str:
        return self.sentence


@runtime_checkable
class Reporter(Protocol):
    """Receives what a run reports while it works."""

    def stage(self, name: str, seconds: float, details: dict[str, Any]) -> None:
        """Receive a stage that ended; `details["summary"]` is a sentence about it."""

    def progress(self, name: str, done: int, total: int, note: str = "") -> None:
        """Receive how far a long stage is."""

    def warn(self, sentence: str) -> None:
        """Receive a warning."""


class Silent:
    """A reporter that drops everything."""

    def stage(self, name: str, seconds: float, details: dict[str, Any]) -> None: ...

    def progress(self, name: str, done: int, total: int, note: str = "") -> None: ...

    def warn(self, sentence: str) -> None: ...


PROGRESS_EVERY = 1.0
"""Seconds between two updates of the progress in a run's row."""


class Recorder:
    """A reporter that passes everything on and stores the progress in the run's row.

    It writes from a connection of its own, since the run's is busy. Without a connection it stores nothing. When the run has
    been cancelled, `progress` raises RunCancelled in the run's own thread.
    """

    def __init__(self, url: str, run: int, reporter: Reporter) -> None:
        self.url, self.run, self.reporter = url, run, reporter
        self.stage, self.warn = reporter.stage, reporter.warn
        self.connection: Connection | None = None
        self.lock = threading.Lock()
        self.thread = threading.get_ident()
        self.next = time.monotonic() + PROGRESS_EVERY

    def progress(self, name: str, done: int, total: int, note: str = "") -> None:
        self.reporter.progress(name, done, total, note)
        if time.monotonic() < self.next or not self.lock.acquire(blocking=False):
            return
        cancelled = None
        try:
            self.next = time.monotonic() + PROGRESS_EVERY
            with suppress(psycopg.Error, RecstoreError):
                if self.connection is None:
                    self.connection = connect(self.url, "recstore:progress")
                    self.connection.execute("SET statement_timeout = '5s'")
                at = {"stage": name, "done": done, "total": total, "note": note}
                queries.run(self.connection, "update_run_progress", run=self.run, progress=Jsonb(at))
                cancelled = queries.row(self.connection, "cancellation", run=self.run)
        finally:
            self.lock.release()
        if cancelled and threading.get_ident() == self.thread:
            raise RunCancelled(run=self.run, by=cancelled["cancelled_by"])

    def close(self) -> None:
        if self.connection:
            self.connection.close()


def described(result: object) -> dict[str, Any]:
    """Return what a stage's result says of itself: its details and, as `summary`, its sentence."""
    details = result.details() if isinstance(result, Described) else {}
    return details | {"summary": str(result)} if isinstance(result, Described | str) else details
