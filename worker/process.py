"""The worker without a broker: one process that listens to Postgres and gives what is due to the processes of its pool.

    NOTIFY, or a process is free -> take a request, SKIP LOCKED -> a process of the pool runs it -> its row in Postgres
    every RECSTORE_DISPATCH_INTERVAL -> dispatch: schedules become requests, dead runs are cleaned up

It takes a request only for a process that is free, so other workers can take the rest, and none is lost with this one.
"""

import logging
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from socket import socketpair

import psycopg

from recstore import requests
from recstore.background import due, health
from recstore.config import Settings
from recstore.embedded.configured import database_url
from recstore.errors import RecstoreError
from recstore.postgres.connection import Connection, connect
from recstore.postgres.pooler import cut_off_after

from . import monitoring
from .logs import log_lines
from .pool import Child, Task

log = logging.getLogger(__name__)

TRIALS_PAUSE = 2.0
"""Seconds before a trial of a study is taken again after one that had to wait for others at work."""

BEAT = 1.0
"""Longest wait of the main loop, in seconds."""

QUICK = 10.0
"""Seconds that an interrupted run has to end before its process is killed, when the worker stops."""

NOTICED = 3.0
"""Seconds after which the server has noticed that a process has died, and a dispatch can clean up after it."""

PATIENCE = 10.0
"""Seconds that the server may take to answer before the worker connects again: the main loop must turn."""

OWN = "own"
"""Queue of the process that dispatches, so that no long job delays a dispatch."""


def run(settings: Settings, processes: Mapping[str, int], grace: float | None = None, json: bool = False) -> None:
    """Work until SIGTERM or SIGINT; then let the running jobs end, within `grace` seconds if it is set. A second signal, or
    SIGQUIT, interrupts them. Raises RecstoreError where the database is not ready for this version."""
    log_lines(json)
    health.check_start(database_url(settings))
    worker = Worker(settings, processes, grace, json)
    try:
        with worker.signals():
            monitoring.serve(settings, worker.not_alive, worker.not_ready)
            worker.work()
    finally:
        worker.close()


class Worker:
    """The main process, which computes nothing."""

    def __init__(self, settings: Settings, processes: Mapping[str, int], grace: float | None, json: bool) -> None:
        self.settings, self.grace, self.json = settings, grace, json
        self.look_every = min(health.ALIVE_EVERY, settings.dispatch_interval)
        """Seconds without a NOTIFY after which it looks for what is due: retries become due without one."""
        self.serves = {queue: number for queue, number in processes.items() if number}
        self.children = [self._child(queue) for queue, n in {OWN: 1, **self.serves}.items() for _ in range(n)]
        self.connection: Connection | None = None
        self.connect_at = self.dispatch_at = self.looked = 0.0
        self.due = True
        """Whether there may be something to take."""
        self.next: Task = ("warn", "")
        """Next task of the process that dispatches."""
        self.later: list[tuple[float, tuple[due.Errand, str]]] = []
        """Tasks that could not begin, and the times to give them back."""
        self.paused: dict[int, float] = {}
        """Studies whose last trials are at work elsewhere, and the times to take trials of them again."""
        self.stops: list[float] = []
        """Times of the signals to stop."""
        self.beat = time.monotonic()
        self.woken, self.waker = socketpair()
        for end in self.woken, self.waker:
            end.setblocking(False)

    def work(self) -> None:
        """Give what is due to free processes until a signal to stop, then wait for those at work."""
        ready = stopping = False
        while not self.stops or any(child.task for child in self.children):
            self.beat = time.monotonic()
            self._limit()
            if not self.stops:
                self._take()
                if not ready and self.connection and not any(child.report is None for child in self.children):
                    log.info("ready: processes: %s", ", ".join(f"{n} for {queue}" for queue, n in self.serves.items()))
                    ready = True
            elif not stopping:
                self._hang_up()
                log.info("stopping when the running jobs have ended; another signal interrupts them")
                stopping = True
            self._wait()
        log.info("stopped")

    def _take(self) -> None:
        """Take what is due for each free process, and dispatch when it is time."""
        now = self.beat
        try:
            if self.connection is None:
                if now < self.connect_at:
                    return
                self.connection = connect(database_url(self.settings), health.LISTENING + ",".join(sorted(self.serves)))
                with cut_off_after(PATIENCE, self.connection):
                    self.connection.execute(f"LISTEN {requests.CHANNEL}")
                self.due = True
            for child in self.children:
                if child.queue == OWN and child.idle and self.dispatch_at <= now:
                    self.dispatch_at = now if self.next[0] == "warn" else now + self.settings.dispatch_interval
                    child.give(self.next)
                    self.next = ("dispatch", "")
            self.due |= now > self.looked + self.look_every or self._notified(self.connection)
            returning = [late for late in self.later if late[0] <= now]
            if not self.due and not returning:
                return
            with cut_off_after(PATIENCE, self.connection):
                for at, task in returning:
                    due.give_back(self.connection, *task)
                    self.later.remove((at, task))
                self.due = True
                while self.due:
                    self.due, self.looked = False, now
                    for queue in self.serves:
                        self._take_for(queue, self.connection)
                    self.due = self._notified(self.connection)
        except (RecstoreError, psycopg.Error) as error:
            log.warning("not listening for requests at the moment: %s", " ".join(str(error).split()))
            self._hang_up()
            self.connect_at = now + health.PAUSE

    def _take_for(self, queue: str, connection: Connection) -> None:
        for child in self.children:
            if child.queue == queue and child.idle:
                paused = [study for study, until in self.paused.items() if self.beat < until]
                task = due.take_one(connection, self.settings, queue, paused)
                if task is None:
                    return
                log.info("%s %s begins", *task)
                child.give(task)
                # another worker that looked at the same moment found this one's rows locked
                requests.notify(connection)

    @staticmethod
    def _notified(connection: Connection) -> bool:
        return len(list(connection.notifies(timeout=0))) > 0

    def _wait(self) -> None:
        """Wait until a process reports or ends, Postgres notifies, or a signal comes."""
        pipes = {child.pipe: child for child in self.children}
        postgres = [self.connection.fileno()] if self.connection and not self.connection.closed else []
        for source in wait([*pipes, self.woken, *postgres], BEAT):
            if child := pipes.get(source):  # type: ignore[call-overload]
                self._hear(child)
            elif source is self.woken:
                self.woken.recv(64)

    def _hear(self, child: Child) -> None:
        try:
            report = child.pipe.recv()
        except (EOFError, OSError):
            self._replace(child)
            return
        if report == "not begun" and child.task:
            self._give_back(child.task, True, health.PAUSE)
        if report == "nothing to do" and child.task:
            self.paused[int(child.task[1])] = time.monotonic() + TRIALS_PAUSE
        if report != "begun":
            child.task, self.due = None, True
        child.report = report

    def _give_back(self, task: Task, certain: bool, pause: float = 0) -> None:
        """Let a task be taken again, in `pause` seconds, that was not begun; a request also where that is not `certain`."""
        kind, name = task
        if kind != "warn" and kind != "dispatch" and (certain or kind != "trial"):
            self.later.append((time.monotonic() + pause, (kind, name)))

    def _replace(self, child: Child) -> None:
        """Start a process in the place of one that ended; a dispatch cleans up after its run."""
        child.process.join()
        code = child.process.exitcode or 0
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        self.children.remove(child)
        if child.task:
            self._give_back(child.task, child.report == "given")
        if self.stops:
            return
        if child.report is None:
            raise RecstoreError(f"A process of the worker ended {how} before it was ready.")
        log.error("a process of the worker ended %s%s", how, " during {} {}".format(*child.task) if child.task else "")
        self.children.append(self._child(child.queue))
        self.dispatch_at = min(self.dispatch_at, time.monotonic() + NOTICED)
        self.next = ("dispatch", "at once")

    def _limit(self) -> None:
        """Interrupt runs that take too long, or all at a cold stop; kill the processes that do not end then."""
        now = self.beat
        late = self.grace is not None and bool(self.stops) and now > self.stops[0] + self.grace
        cold = late or len(self.stops) > 1
        for child in [child for child in self.children if child.task]:
            if child.interrupted is not None:
                if now > child.interrupted + (QUICK if cold else due.MARGIN):
                    child.kill()
            elif cold or now > child.since + self.settings.time_limit:
                child.interrupt()

    def _child(self, queue: str) -> Child:
        return Child(queue, self.settings, self.json)

    def _hang_up(self) -> None:
        if self.connection:
            self.connection.close()
        self.connection = None

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Let signals stop the work."""

        def stop(number: int, _frame: object) -> None:
            self.stops += [time.monotonic()] * (2 if number == signal.SIGQUIT else 1)

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)}
        woken = signal.set_wakeup_fd(self.waker.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(woken)
            for number, handler in before.items():
                signal.signal(number, handler)

    def close(self) -> None:
        """End the processes, and give back what they could not begin."""
        for child in self.children:
            child.end()
        self._hang_up()
        if self.later:
            with (
                suppress(RecstoreError, psycopg.Error),
                connect(database_url(self.settings)) as connection,
                cut_off_after(PATIENCE, connection),
            ):
                for _, task in self.later:
                    due.give_back(connection, *task)

    def not_alive(self) -> str | None:
        """Return why this worker should be restarted."""
        return monitoring.silence(self.beat)

    def not_ready(self) -> str | None:
        """Return why this worker cannot work at the moment."""
        try:
            monitoring.check_database(self.settings)
        except RecstoreError as error:
            return error.message
        if self.stops:
            return "The worker takes no requests: it is being stopped."
        if self.connection is None:
            return "The worker does not listen for requests at the moment; its log says why."
        return monitoring.stuck(child.since for child in self.children if child.waiting)
