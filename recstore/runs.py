"""One attempt at a job: its lock, its row, its fencing token, its stages.

The run's connection holds a session advisory lock for as long as the run lives; its number is written to the pointer row
as the fence. Each stage, and the flip itself, looks at the fence again, so a run that was overtaken (its connection lost,
its process asleep past everything) stops and can publish nothing.
"""

import platform
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import Any, Protocol, Self, runtime_checkable

import psycopg
from psycopg.types.json import Jsonb

from recstore import registry, requests
from recstore.config import Settings
from recstore.errors import LostLock, NothingRequested, ObjectsOutdated, RecstoreError, RunInProgress, RunTooLong
from recstore.postgres.connection import Connection, connect, plain_errors
from recstore.sql import queries
from recstore.sql.objects import OBJECTS_VERSION, Registered

LOCK_NAMESPACE = 0x72656373
"""First key of recstore's advisory locks ("recs"); the second is the recommender's id."""

LISTS_NAMESPACE = 0x7265636C
"""First key of the locks of runs that only read a recommender and write lists ("recl"): beside whatever else is done to it."""

BUILD_LOCK = -2
"""Second key of the lock that lets one index build at a time run in a database."""


Check = Callable[[Connection], None] | None
"""What must hold before a run may write anything; raises otherwise."""


@runtime_checkable
class Reporter(Protocol):
    """What a run tells whoever watches it."""

    def stage(self, name: str, seconds: float, details: dict[str, Any]) -> None:
        """A stage ended."""

    def progress(self, name: str, done: int, total: int, note: str = "") -> None:
        """A long stage moved on."""

    def warn(self, sentence: str) -> None: ...


class Silent:
    """A reporter for nobody."""

    def stage(self, name: str, seconds: float, details: dict[str, Any]) -> None: ...

    def progress(self, name: str, done: int, total: int, note: str = "") -> None: ...

    def warn(self, sentence: str) -> None: ...


PROGRESS_EVERY = 1.0
"""Seconds between two notes of a run's progress in its row."""


class Recorder:
    """A reporter that passes on, and notes in the run's row how far it is: from a connection of its own, because the run's
    is busy with what takes long. Where none is to be had, nothing is noted."""

    def __init__(self, url: str, run: int, reporter: Reporter) -> None:
        self.url, self.run, self.reporter = url, run, reporter
        self.stage, self.warn = reporter.stage, reporter.warn
        self.connection: Connection | None = None
        self.lock = threading.Lock()
        self.next = time.monotonic() + PROGRESS_EVERY

    def progress(self, name: str, done: int, total: int, note: str = "") -> None:
        self.reporter.progress(name, done, total, note)
        if time.monotonic() < self.next or not self.lock.acquire(blocking=False):
            return
        try:
            self.next = time.monotonic() + PROGRESS_EVERY
            with suppress(psycopg.Error, RecstoreError):
                if self.connection is None:
                    self.connection = connect(self.url, "recstore:progress")
                    self.connection.execute("SET statement_timeout = '5s'")
                at = {"stage": name, "done": done, "total": total, "note": note}
                self.connection.execute(queries.query("update_run_progress"), {"run": self.run, "progress": Jsonb(at)})
        finally:
            self.lock.release()

    def close(self) -> None:
        if self.connection:
            self.connection.close()


def take_lock(connection: Connection, recommender: Registered, namespace: int = LOCK_NAMESPACE) -> None:
    """Takes the recommender's session lock. Raises RunInProgress, naming who holds it."""
    row = connection.execute(queries.query("lock_run"), lock_keys(recommender, namespace)).fetchone()
    if row and row["locked"]:
        return
    holder = connection.execute(queries.query("lock_holder"), lock_keys(recommender, namespace)).fetchone()
    who = "it has just ended, try again"
    if holder:
        who = f"{holder['application_name'] or 'another role'}, server process {holder['pid']}"
        who += f", connected {holder['backend_start']:%Y-%m-%d %H:%M:%S %Z}" if holder["backend_start"] else ""
    raise RunInProgress(name=recommender.name, who=who)


def give_lock(connection: Connection, recommender: Registered, namespace: int = LOCK_NAMESPACE) -> None:
    """Gives the session lock back."""
    connection.execute(queries.query("unlock_run"), lock_keys(recommender, namespace))


def lock_keys(recommender: Registered, namespace: int = LOCK_NAMESPACE) -> dict[str, int]:
    return {"namespace": namespace, "recommender_id": recommender.id}


def abandon(connection: Connection, settings: Settings, recommender: Registered, *, lists: bool = False) -> list[int]:
    """Ends the rows of runs that say "running" of a process that is gone, and has their requests wait again; with `lists`
    those that write lists. The caller holds their lock, in a transaction."""
    keys = {"recommender_id": recommender.id, "lists": lists}
    rows = connection.execute(queries.query("abandon_runs"), keys).fetchall()
    dead = [row["run"] for row in rows]
    if dead:
        requests.release(connection, settings, dead, "The process that worked on it ended without finishing it.")
    return dead


class Run:
    """A context: enters with the lock taken and the row written, leaves with the row finished and the lock given back.

    It serves whatever requests ask for its job when it begins, unless `serves` is false. With `requested` it serves these
    only: raises NothingRequested when there are none. `time_limit` is how many seconds a worker lets it take. Raises
    RunInProgress when another run of the recommender holds the lock.
    """

    namespace = LOCK_NAMESPACE
    """Of the lock that it holds."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        name: str,
        job: str,
        reporter: Reporter | None = None,
        check: Check = None,
        *,
        requested: bool = False,
        serves: bool = True,
        time_limit: float | None = None,
    ) -> None:
        self.url, self.settings, self.name, self.job = url, settings, name, job
        self.requested, self.serves, self.time_limit = requested, serves, time_limit
        self.given: Reporter = reporter or Silent()
        self.before = check
        self.began = time.monotonic()
        self.number = 0
        self.state = "succeeded"
        self.outcome: str | None = None
        self.requests: list[dict[str, Any]] = []
        self.wal_before: int | None = None
        self.wal_beside = 0
        self.generation: int | None = None
        self.device: str | None = None
        self.stages: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self.connection: Connection
        self.recommender: Registered
        self.reporter: Recorder

    @property
    def application_name(self) -> str:
        return f"recstore:run:{self.number}"

    def __enter__(self) -> Self:
        self.connection = connect(self.url)
        try:
            with plain_errors(f"starting a run of {self.name!r}", self.connection):
                if self.before:
                    self.before(self.connection)
                self.recommender = registry.get(self.connection, self.name)
                if self.recommender.objects_version != OBJECTS_VERSION:
                    found = self.recommender.objects_version
                    raise ObjectsOutdated(name=self.name, found=found, needed=OBJECTS_VERSION)
                take_lock(self.connection, self.recommender, self.namespace)
                try:
                    self._begin()
                    # once more: what was altered before the requests were made that this serves
                    self.recommender = registry.get(self.connection, self.name)
                except NothingRequested:
                    give_lock(self.connection, self.recommender, self.namespace)
                    raise
        except BaseException:
            self.connection.close()
            raise
        return self

    def _begin(self) -> None:
        keys = {"recommender_id": self.recommender.id}
        with self.connection.transaction():
            abandoned = abandon(
                self.connection, self.settings, self.recommender, lists=self.namespace == LISTS_NAMESPACE
            )
            row = self.connection.execute(
                queries.query("insert_run"),
                keys
                | {"job": self.job, "host": socket.gethostname(), "versions": Jsonb(_versions(self.connection))}
                | {"time_limit": self.time_limit},
            ).fetchone()
            assert row is not None
            self.number = row["run"]
            if self.serves:
                self.requests = requests.claim(self.connection, self.name, self.job, self.number)
            if self.requested and not self.requests:
                raise NothingRequested(name=self.name, job=self.job)
            self._fence(keys)
        self.connection.execute("SELECT set_config('application_name', %s, false)", [self.application_name])
        self.reporter = Recorder(self.url, self.number, self.given)
        self.wal_before = wal(self.connection)
        if abandoned:
            names = [f"recstore:run:{run}" for run in abandoned]
            self.connection.execute(queries.query("end_backends"), {"application_names": names}).fetchall()
            self.warn(f"Run {', '.join(map(str, abandoned))} ended without finishing; its leftovers are removed.")

    def _fence(self, keys: dict[str, int]) -> None:
        self.connection.execute(queries.query("take_fence"), keys | {"run": self.number})

    def check(self, stage: str) -> None:
        """Raises LostLock when a newer run has taken the fence."""
        row = self.connection.execute(queries.query("select_fence"), {"recommender_id": self.recommender.id}).fetchone()
        fence = row["fence"] if row else None
        if fence != self.number:
            raise LostLock(run=self.number, name=self.name, by=fence, stage=stage)

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """One step of the job: fence checked before, time and the details that the caller puts in the dict kept after."""
        details: dict[str, Any] = {}
        with plain_errors(f"in stage {name!r} of {self.name!r}", self.connection):
            self.check(name)
            self.stages.append({"stage": name})
            self._store("update_run_stages")
            start = time.perf_counter()
            yield details
            seconds = time.perf_counter() - start
            self.stages[-1] = {"stage": name, "seconds": round(seconds, 4)} | details
            self._store("update_run_stages")
        self.reporter.stage(name, seconds, details)

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)
        self.reporter.warn(sentence)

    def _store(self, query: str, **more: Any) -> None:
        values = {
            "run": self.number,
            "stages": Jsonb(self.stages),
            "warnings": Jsonb(self.warnings),
            "device": self.device,
            "generation": self.generation,
        }
        self.connection.execute(queries.query(query), values | more)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self.reporter.close()
        too_long = self._too_long(error)
        error = too_long or error
        state = self.state if error is None else "failed"
        sentence = None
        if error is not None:
            sentence = error.message if isinstance(error, RecstoreError) else f"{type(error).__name__}: {error}"
            if requests.interrupted(error):
                sentence = "Interrupted."
        finish = {
            "state": state,
            "error": sentence,
            "trace": "".join(traceback.format_exception(error)) if error else None,
            "outcome": self.outcome if error is None else None,
        }
        try:
            if self.connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                raise psycopg.OperationalError("the connection is not usable")
            written = wal(self.connection, since=self.wal_before)
            self._finish(finish, error, None if written is None else written + self.wal_beside)
            # closing gives the lock back too, but only once the server has noticed: a run that follows at once would meet it
            give_lock(self.connection, self.recommender, self.namespace)
            requests.notify(self.connection)
        except psycopg.Error:
            # the run's own connection is gone: the row is finished on another, if there is a server at all
            with suppress(psycopg.Error, RecstoreError):
                self.connection.close()
                self.connection = connect(self.url)
                self._finish(finish, error, None)
        finally:
            self.connection.close()  # and with it the lock
        if too_long:
            raise too_long

    def _too_long(self, error: BaseException | None) -> RunTooLong | None:
        """What an interruption past the time limit is: the limit's doing. (psycopg cancels its query for a KeyboardInterrupt,
        and for no error of ours.)"""
        over = self.time_limit is not None and time.monotonic() - self.began >= self.time_limit
        return RunTooLong(seconds=self.time_limit) if over and isinstance(error, KeyboardInterrupt) else None

    def _finish(self, finish: dict[str, Any], error: BaseException | None, wal_bytes: int | None) -> None:
        with self.connection.transaction():
            self._store("finish_run", **finish, wal_bytes=wal_bytes)
            if error is not None and requests.retryable(error):
                requests.release(
                    self.connection,
                    self.settings,
                    [self.number],
                    f"Run {self.number}: {finish['error']}",
                    interrupted=requests.interrupted(error),
                )
            else:
                told = finish["error"] or self.outcome or "Done."
                requests.finish(self.connection, self.number, finish["state"], told)


class ListsRun(Run):
    """A run that publishes nothing: it holds up no training and needs no fence, and there is one of a recommender at a time."""

    namespace = LISTS_NAMESPACE

    def _fence(self, keys: dict[str, int]) -> None: ...

    def check(self, stage: str) -> None: ...


def wal(connection: Connection, since: int | None = None) -> int | None:
    """Bytes of WAL written since: by this session where the server counts that (PostgreSQL 18), else by all; None where
    it will not tell."""
    own = connection.info.server_version >= 180000
    with suppress(psycopg.DatabaseError):
        if own:
            connection.execute(queries.query("flush_statistics"))
        row = connection.execute(queries.query("wal_of_backend" if own else "wal_position")).fetchone()
        if row and row["bytes"] is not None:
            return int(row["bytes"]) - (since or 0)
    return None


def _versions(connection: Connection) -> dict[str, str]:
    extension = connection.execute(queries.query("vector_extension")).fetchone()
    server = connection.info.server_version
    return {
        "recstore": version("recstore"),
        "python": platform.python_version(),
        "postgresql": f"{server // 10000}.{server % 10000}",
        "pgvector": extension["version"] if extension else "none",
        "implicit": version("implicit"),
        "numpy": version("numpy"),
    }
