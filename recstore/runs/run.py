"""One attempt at a job: its lock, its row, its fencing token, its stages, and what it reports.

The run's connection holds a session advisory lock as long as the run lives, and its number is the fence in the pointer row.
Each stage, and the flip itself, checks the fence. A run that was overtaken, for example because its connection was lost,
stops there and cannot publish anything.
"""

import platform
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from typing import Any, ParamSpec, Self, TypeVar

import psycopg
from psycopg import errors as pg
from psycopg.types.json import Jsonb

from recstore import registry, requests
from recstore.config import Settings
from recstore.errors import (
    LostLock,
    NothingRequested,
    ObjectsOutdated,
    RecstoreError,
    RunCancelled,
    RunTooLong,
)
from recstore.postgres.connection import Connection, connect, plain_errors
from recstore.runs.locks import LISTS_NAMESPACE, LOCK_NAMESPACE, give_lock, take_lock
from recstore.runs.reporter import Recorder, Reporter, Silent, described
from recstore.runs.tracing import Span, send
from recstore.sql import queries
from recstore.sql.generation import Generation
from recstore.sql.objects import OBJECTS_VERSION, Registered
from recstore.sql.schema_revision import require_current

P = ParamSpec("P")
T = TypeVar("T")

CANCELLING = 2.0
"""Seconds that a cancellation may take to commit after it has cancelled a statement of the run."""


def abandon(connection: Connection, settings: Settings, recommender: Registered, *, lists: bool = False) -> list[int]:
    """End the rows of dead runs, with `lists` those of list runs, and release their requests; return their numbers.

    The caller holds their lock, in a transaction.
    """
    keys = {"recommender_id": recommender.id, "lists": lists}
    rows = queries.rows(connection, "abandon_runs", **keys)
    dead = [row["run"] for row in rows]
    for run in dead:  # one that was cancelled before its process died is not tried again
        if row := queries.row(connection, "cancellation", run=run):
            error = RunCancelled(run=run, by=row["cancelled_by"])
            requests.finish(connection, run, "cancelled", error.message)
    if dead:
        requests.release(connection, settings, dead, "The process that worked on it ended without finishing it.")
    return dead


class Run:
    """A context manager: takes the lock and writes the run's row, and at the end finishes the row and releases the lock.

    A run serves the open requests for its job, unless `serves` is false. With `requested` it serves only these, and
    `time_limit` is the number of seconds that a worker allows. Entering raises RunInProgress while another run of the
    recommender holds the lock, NothingRequested with `requested` when no request is open, and SchemaOutdated, SchemaMissing
    or ObjectsOutdated when the database is not at this version.
    """

    namespace = LOCK_NAMESPACE
    """First key of the lock that it holds."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        name: str,
        job: str,
        reporter: Reporter | None = None,
        *,
        requested: bool = False,
        serves: bool = True,
        time_limit: float | None = None,
    ) -> None:
        self.url, self.settings, self.name, self.job = url, settings, name, job
        self.requested, self.serves, self.time_limit = requested, serves, time_limit
        self.passed_on: Reporter = reporter or Silent()
        self.began = time.monotonic()
        self.number = 0
        self.state = "succeeded"
        self.outcome: str | None = None
        self.requests: list[dict[str, Any]] = []
        self.wal_before: int | None = None
        self.wal_elsewhere = 0
        self.device: str | None = None
        self.stages: list[dict[str, Any]] = []
        self.starts: list[float] = []
        self.warnings: list[str] = []
        self.connection: Connection
        self.recommender: Registered
        self.reporter: Recorder
        self._generation: Generation | None = None

    @property
    def generation(self) -> Generation:
        """The generation that this run works on, once a stage has chosen it."""
        assert self._generation is not None
        return self._generation

    @generation.setter
    def generation(self, generation: Generation | None) -> None:
        self._generation = generation

    @property
    def scheduled_only(self) -> bool:
        """Return whether no request but the schedule's asks for this run."""
        return self.requested and all(request["origin"] == "schedule" for request in self.requests)

    @property
    def forced(self) -> bool:
        """Return whether a request asks to publish whatever the gate and the guard say."""
        return any(request["force"] for request in self.requests)

    @property
    def application_name(self) -> str:
        return f"recstore:run:{self.number}"

    def __enter__(self) -> Self:
        self.connection = connect(self.url)
        try:
            with plain_errors(f"starting a run of {self.name!r}", self.connection):
                require_current(self.connection)
                self.recommender = registry.get(self.connection, self.name)
                if self.recommender.objects_version != OBJECTS_VERSION:
                    found = self.recommender.objects_version
                    raise ObjectsOutdated(name=self.name, found=found, needed=OBJECTS_VERSION)
                take_lock(self.connection, self.recommender, self.namespace)
                try:
                    self._begin()
                    # read again: it may have been altered before the requests that this run serves
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
            row = queries.one(
                self.connection,
                "insert_run",
                **keys,
                job=self.job,
                host=socket.gethostname(),
                versions=Jsonb(_versions(self.connection)),
                time_limit=self.time_limit,
            )
            self.number = row["run"]
            if self.serves:
                self.requests = requests.claim(self.connection, self.name, self.job, self.number)
            if self.requested and not self.requests:
                raise NothingRequested(name=self.name, job=self.job)
            self._fence(keys)
        self.connection.execute("SELECT set_config('application_name', %s, false)", [self.application_name])
        self.reporter = Recorder(self.url, self.number, self.passed_on)
        self.wal_before = wal(self.connection)
        if abandoned:
            names = [f"recstore:run:{run}" for run in abandoned]
            queries.run(self.connection, "end_backends", application_names=names)
            self.warn(f"Run {', '.join(map(str, abandoned))} ended without finishing; its leftovers are removed.")

    def _fence(self, keys: dict[str, int]) -> None:
        queries.run(self.connection, "take_fence", **keys, run=self.number)

    def check(self, stage: str) -> None:
        """Raise LostLock if a newer run has taken the fence."""
        row = queries.row(self.connection, "select_fence", recommender_id=self.recommender.id)
        fence = row["fence"] if row else None
        if fence != self.number:
            raise LostLock(run=self.number, name=self.name, by=fence, stage=stage)

    def stage(self, name: str, step: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Run one step of the job; check the fence before, store and report the time and the result's description after.

        Raises LostLock, RunCancelled, and what the step raises.
        """
        with plain_errors(f"in stage {name!r} of {self.name!r}", self.connection):
            self.check(name)
            if cancelled := self._cancelled():
                raise cancelled
            self.stages.append({"stage": name})
            self.starts.append(time.monotonic())
            self._store("update_run_stages")
            start = time.perf_counter()
            result = step(*arguments, **options)
            seconds, details = time.perf_counter() - start, described(result)
            self.stages[-1] = {"stage": name, "seconds": round(seconds, 4)} | details
            self._store("update_run_stages")
        self.reporter.stage(name, seconds, details)
        return result

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)
        self.reporter.warn(sentence)

    def _store(self, query: str, **more: Any) -> None:
        values = {
            "run": self.number,
            "stages": Jsonb(self.stages),
            "warnings": Jsonb(self.warnings),
            "device": self.device,
            "generation": self._generation.number if self._generation else None,
        }
        queries.run(self.connection, query, **values, **more)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self.reporter.close()
        too_long = self._too_long(error)
        cancelled = self._cancelled_by(error)
        error = too_long or cancelled or error
        state = self.state if error is None else "cancelled" if isinstance(error, RunCancelled) else "failed"
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
            if isinstance(error, RecstoreError) and not self._live():
                error.leave_out_live()
                finish["error"] = error.message
            written = wal(self.connection, since=self.wal_before)
            self._finish(finish, error, None if written is None else written + self.wal_elsewhere)
            # closing would release the lock too, but only when the server notices: a run that follows at once would meet it
            give_lock(self.connection, self.recommender, self.namespace)
            requests.notify(self.connection)
        except psycopg.Error:
            # the run's own connection is lost: finish the row on another one, if the server accepts one
            with suppress(psycopg.Error, RecstoreError):
                self.connection.close()
                self.connection = connect(self.url)
                self._finish(finish, error, None)
        finally:
            self.connection.close()  # releases the lock
        self._trace(state, error)
        if too_long or cancelled:
            raise too_long or cancelled  # type: ignore[misc]

    def _trace(self, state: str, error: BaseException | None) -> None:
        """Send the run as a trace; its error is also that of the stage that did not end."""
        now = time.monotonic()
        stages = []
        for stage, start in zip(self.stages, self.starts, strict=True):
            done = "seconds" in stage
            end, failure = (start + stage["seconds"], None) if done else (now, error)
            stages.append(Span(stage["stage"], start, end, stage, failure))
        generation = self._generation.number if self._generation else None
        about = {"recommender": self.name, "job": self.job, "run": self.number, "generation": generation}
        about |= {"state": state, "device": self.device, "outcome": self.outcome}
        if problem := send(Span(self.job, self.began, now, about, error), stages):
            self.passed_on.warn(problem)

    def _cancelled(self) -> RunCancelled | None:
        """Return the error of a run that someone has cancelled."""
        row = queries.row(self.connection, "cancellation", run=self.number)
        return RunCancelled(run=self.number, by=row["cancelled_by"]) if row else None

    def _cancelled_by(self, error: BaseException | None) -> RunCancelled | None:
        """Return RunCancelled for the error of a statement that was cancelled together with the run."""
        if not isinstance(error, RecstoreError) or isinstance(error, RunCancelled):
            return None
        deadline = time.monotonic() + (CANCELLING if _statement_cancelled(error) else 0)
        with suppress(psycopg.Error):  # a lost connection is another reason
            while not (found := self._cancelled()) and time.monotonic() < deadline:
                time.sleep(0.02)
            return found
        return None

    def _live(self) -> bool:
        return queries.row(self.connection, "live_size", recommender_id=self.recommender.id) is not None

    def _too_long(self, error: BaseException | None) -> RunTooLong | None:
        """Return RunTooLong for an interruption after the time limit: psycopg cancels a query for KeyboardInterrupt only."""
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
                sentence = finish["error"] or self.outcome or "Done."
                requests.finish(self.connection, self.number, finish["state"], sentence)
            if self.serves:  # those that it could not claim, because another session had locked them at that moment
                requests.unsend(self.connection, self.name, self.job)
            queries.run(self.connection, "forget_cancellation", run=self.number)


class ListsRun(Run):
    """A run that publishes nothing: it needs no fence and delays no training. One per recommender runs at a time."""

    namespace = LISTS_NAMESPACE

    def _fence(self, keys: dict[str, int]) -> None: ...

    def check(self, stage: str) -> None: ...


def wal(connection: Connection, since: int | None = None) -> int | None:
    """Return the bytes of WAL written since `since`: by this session from PostgreSQL 18 on, else by the whole server.

    None if this role cannot read the position.
    """
    own = connection.info.server_version >= 180000
    with suppress(psycopg.DatabaseError):
        if own:
            queries.run(connection, "flush_statistics")
        row = queries.row(connection, "wal_of_backend" if own else "wal_position")
        if row and row["bytes"] is not None:
            return int(row["bytes"]) - (since or 0)
    return None


def _statement_cancelled(error: BaseException | None) -> bool:
    """Return whether a cancelled statement is among the causes of an error; the bulk reader has errors of its own."""
    while error:
        if getattr(error, "sqlstate", None) == pg.QueryCanceled.sqlstate:
            return True
        error = error.__cause__ or error.__context__
    return False


def _versions(connection: Connection) -> dict[str, str]:
    extension = queries.row(connection, "vector_extension")
    server = connection.info.server_version
    return {
        "recstore": version("recstore"),
        "python": platform.python_version(),
        "postgresql": f"{server // 10000}.{server % 10000}",
        "pgvector": extension["version"] if extension else "none",
        "implicit": version("implicit"),
        "numpy": version("numpy"),
    }
