"""Real workers, forked: `celery -A recstore.worker worker` on an embedded broker, and `recstore worker`, which needs none, with
a hook that holds a run where a test needs it. A hook is a file's name: `train` holds at the end of that stage, `in train` within
it, until the file is removed.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import Database, database_from
from support import look, states, until
from support_processes import Forked, celery, own

from recstore.demo.broker import Broker, temporary_broker
from recstore.embedded import Server

HERE = Path(__file__).parent

CELERY, OWN = ["celery"], ["own"]
KINDS = [CELERY, OWN, CELERY + OWN]
"""What serves a database: Celery's worker, the one without a broker, both."""


def of_kinds(fixture: str, *kinds: list[str], rest: list[list[str]] | None = None) -> pytest.MarkDecorator:
    """Run a test with workers of each of these kinds, by default of all, and in the campaign with the `rest`."""
    marked = [pytest.param(kind, id="_and_".join(kind)) for kind in kinds or KINDS]
    marked += [pytest.param(kind, id="_and_".join(kind), marks=pytest.mark.campaign) for kind in rest or []]
    scope: Any = "module" if fixture == "crew" else None
    return pytest.mark.parametrize(fixture, marked, indirect=True, scope=scope)


def children(pid: int) -> set[int]:
    """The processes that a process has started."""
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def below(pid: int) -> set[int]:
    """A process, those that it has started, theirs, and so on."""
    return {pid}.union(*map(below, children(pid)))


@dataclass
class Process:
    """A worker or beat in a session of its own."""

    popen: Forked
    log: Path
    again: Callable[[], "Process"]
    """Starts such a process once more."""

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def logs(self, text: str) -> None:
        """Wait until the log has this text."""

        def found() -> bool:
            assert self.popen.poll() is None or text in self.output, self.output
            return text in self.output

        until(found, 60)

    def signal(self, number: int) -> None:
        """Send a signal to every process of it, as `kill -9 -PGID` or the end of a container does."""
        assert self.popen.pid
        os.killpg(self.popen.pid, number)

    def kill(self) -> None:
        if self.popen.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
        self.popen.wait()


@dataclass
class Workers:
    """Starts workers and beats on one database and broker, and queries what became of it."""

    database: Database
    broker: Broker
    folder: Path
    kinds: list[str]
    settings: dict[str, object] = field(default_factory=dict)
    started: list[Process] = field(default_factory=list)
    since: tuple[int, int] = (0, 0)
    """Newest run and request before this test."""

    def begin(self) -> None:
        (row,) = look(
            self.database,
            "SELECT (SELECT coalesce(max(run), 0) FROM recstore.runs) AS run,"
            " (SELECT coalesce(max(request), 0) FROM recstore.requests) AS request",
        )
        self.since = row["run"], row["request"]

    def environment(self, **settings: object) -> dict[str, str]:
        given: dict[str, object] = {
            "database_url": self.database.url,
            "broker_url": self.broker.url,
            "home": self.folder,
            "dispatch_interval": 0.5,
            "retention": 0,
            "retry_backoff": 0,
            "resend": 3,
            "metrics_port": 0,
            "threads": 1,
        }
        more = {f"RECSTORE_{key.upper()}": str(value) for key, value in (given | self.settings | settings).items()}
        return dict(os.environ) | more | {"RECSTORE_TEST_HOLD": str(self.folder), "PYTHONPATH": str(HERE)}

    def start(
        self, *, queues: str = "train,default", concurrency: int = 1, wait: bool = True, **settings: object
    ) -> Process:
        """Start a worker of each kind; with `wait`, return when they are ready. Returns the last."""
        for kind in self.kinds:
            if kind == "own":
                numbers = {queue: concurrency * (queue in queues.split(",")) for queue in ("train", "default")}
                words = [word for queue, number in numbers.items() for word in (f"--{queue}", str(number))]
                worker = self._start(own, words, settings)
            else:
                words = [
                    "worker",
                    "-I",
                    "holding",
                    "-Q",
                    queues,
                    "-c",
                    str(concurrency),
                    "-n",
                    f"{len(self.started)}@%h",
                ]
                worker = self._start(celery, [*words, "--loglevel", "INFO"], settings)
            if wait:
                worker.logs(READY[kind])
        return worker

    def beat(self, **settings: object) -> None:
        """Start beat, which Celery's workers need."""
        if "celery" in self.kinds:
            self._start(celery, ["beat", "--loglevel", "INFO"], settings)

    def _start(self, command: Callable[..., None], arguments: list[str], settings: dict[str, object]) -> Process:
        log = self.folder / f"log{len(self.started)}"
        log.touch()
        popen = Forked(command, self.folder, HERE, *arguments, environment=self.environment(**settings), log=log)
        popen.start()
        process = Process(popen, log, lambda: self._start(command, arguments, settings))
        self.started.append(process)
        return process

    def holder(self, place: str) -> Process:
        """Wait until a run is held at this place; return the worker that does it."""
        group = os.getpgid(self.held(place))
        return next(process for process in self.started if process.popen.pid == group)

    def hold(self, place: str) -> Path:
        """Hold runs at this place from now on; return the file that holds them."""
        file = self.folder / f"hold {place}"
        file.touch()
        return file

    def held(self, place: str) -> int:
        """Wait until a run is held at this place; return the process that it is in."""
        at = self.folder / f"held {place}"

        def there() -> int:
            assert any(process.popen.poll() is None for process in self.started), self.started[-1].output
            return int(at.read_text() or 0) if at.exists() else 0

        return until(there, 60)

    def caught(self, place: str = "train") -> int:
        """Request a retrain and wait until it is held at this place; return the request."""
        self.hold(place)
        request = self.request("retrain")
        self.held(place)
        return request

    def release(self, place: str) -> None:
        (self.folder / f"hold {place}").unlink()
        (self.folder / f"held {place}").unlink(missing_ok=True)

    def send(self, task: str, *arguments: str, task_id: str | None = None, queue: str = "default") -> None:
        """Send a message as an application does that does not import recstore."""
        from celery import Celery

        with Celery(broker=self.broker.url, set_as_current=False) as app:
            app.send_task(task, arguments, task_id=task_id, queue=queue)

    def request(self, job: str, name: str = "retail") -> int:
        row = look(self.database, f"SELECT recstore.request_{job}(%s) AS request", name)[0]
        return int(row["request"])

    def one(self, request: int) -> dict[str, Any]:
        return look(self.database, "SELECT * FROM recstore.requests WHERE request = %s", request)[0]

    def state(self, request: int) -> str:
        return str(self.one(request)["state"])

    def requests(self) -> list[dict[str, Any]]:
        """The requests of this test."""
        return look(self.database, "SELECT * FROM recstore.requests WHERE request > %s ORDER BY request", self.since[1])

    def runs(self) -> list[tuple[str, str]]:
        """Job and state of the runs of this test."""
        rows = look(self.database, "SELECT job, state FROM recstore.runs WHERE run > %s ORDER BY run", self.since[0])
        return [(row["job"], row["state"]) for row in rows]

    def retrains(self) -> list[str]:
        return [state for job, state in self.runs() if job == "retrain"]

    def live(self) -> int:
        """The live generation, which answers completely."""
        rows = look(self.database, "SELECT retail.generation() AS g FROM retail.recommend(1, 10)")
        assert len(rows) == 10
        return int(rows[0]["g"])

    def ends(self, request: int, *expected: str, seconds: float = 60) -> None:
        """Wait until a request has ended in one of the `expected` states (default: succeeded)."""
        deadline = time.monotonic() + seconds
        while (state := self.state(request)) in ("waiting", "sent", "running"):
            assert time.monotonic() < deadline, "\n".join([state, *(p.output for p in self.started)])
            time.sleep(0.05)
        assert state in (expected or ("succeeded",)), self.one(request)

    def nothing_left(self, name: str = "retail") -> None:
        """Assert that no run, lock, table or generation is left over; the sessions of a living worker's listener may be."""
        database = self.database
        until(lambda: set(states(database, name).values()) <= {"live", "previous", "next"})
        assert look(database, "SELECT FROM pg_inherits WHERE inhdetachpending") == []
        open_runs = "SELECT FROM recstore.runs WHERE state = 'running' OR (state = 'abandoned' AND error IS NULL)"
        assert look(database, open_runs) == []
        locks = "SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE locktype = 'advisory' AND d.datname = %s"
        until(lambda: look(database, locks, database.name) == [])
        tables = "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r'"
        numbers = {int(row["relname"].rsplit("_", 1)[1]) for row in look(database, tables, name)}
        assert numbers == set(states(database, name))


READY = {"celery": " ready.", "own": "ready: "}
"""What a worker of each kind logs when it is ready."""


@contextmanager
def _workers(server: Server, template: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Workers]:
    with database_from(server, template) as database, temporary_broker() as broker, ExitStack() as stack:
        workers = Workers(database, broker, folder, getattr(request, "param", CELERY))
        workers.begin()
        stack.callback(lambda: [process.kill() for process in workers.started])
        yield workers


@pytest.fixture
def workers(server: Server, trained_template: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Workers]:
    """A copy of the template, a broker, and no worker yet."""
    with _workers(server, trained_template, tmp_path, request) as workers:
        yield workers


@pytest.fixture(scope="module")
def crew(
    server: Server, trained_template: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Workers]:
    """One worker of each kind and of every queue, with the module's SETTINGS, for all its tests that do not stop it."""
    with _workers(server, trained_template, tmp_path_factory.mktemp("crew"), request) as workers:
        workers.settings = request.module.SETTINGS
        workers.start(queues="train,default,celery")
        yield workers


@pytest.fixture(scope="module")
def beat(crew: Workers) -> None:
    """Beat for that worker, from the first test on that uses it."""
    crew.beat()


@pytest.fixture
def shared(crew: Workers) -> Iterator[Workers]:
    crew.begin()
    yield crew
    for hold in crew.folder.glob("hold *"):  # a test that failed must not hold up those after it
        hold.unlink(missing_ok=True)


@pytest.fixture
def broker() -> Iterator[Broker]:
    with temporary_broker() as broker:
        yield broker
