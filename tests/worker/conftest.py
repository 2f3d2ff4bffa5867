"""Real workers: the command `celery -A recstore.worker worker` on an embedded broker, with a hook that stops a run where a
test wants it. A hook is a file's name: `train` stops at the end of that stage, `in train` within it, until the file goes.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import Database
from support import look, until

from recstore.embedded import Broker, temporary_broker

HERE = Path(__file__).parent


@dataclass
class Process:
    """A Celery command in a session of its own."""

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, text: str) -> None:
        """Waits until the log has this text."""

        def found() -> bool:
            assert self.popen.poll() is None or text in self.said, self.said
            return text in self.said

        until(found, 60)

    def signal(self, number: int) -> None:
        """To every process of it, as `kill -9 -PGID` or a stopped container would be."""
        os.killpg(self.popen.pid, number)

    def stop(self) -> int:
        """A warm stop: SIGTERM to the main process, which finishes what it does."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(60)


@dataclass
class Workers:
    """Starts workers and beats on one database and broker."""

    database: Database
    broker: Broker
    folder: Path
    settings: dict[str, object] = field(default_factory=dict)
    started: list[Process] = field(default_factory=list)

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
        return dict(os.environ) | more | {"PYTHONPATH": str(HERE), "RECSTORE_TEST_HOLD": str(self.folder)}

    def start(
        self, *, queues: str = "train,default", concurrency: int = 1, wait: bool = True, **settings: object
    ) -> Process:
        """A worker; with `wait` it is ready when this returns."""
        arguments = ["worker", "-I", "holding", "-Q", queues, "-c", str(concurrency), "-n", f"{len(self.started)}@%h"]
        worker = self._start([*arguments, "--loglevel", "INFO", "--without-gossip", "--without-mingle"], settings)
        if wait:
            worker.says(" ready.")
        return worker

    def beat(self, **settings: object) -> Process:
        return self._start(["beat", "--loglevel", "INFO"], settings)

    def _start(self, arguments: list[str], settings: dict[str, object]) -> Process:
        log = self.folder / f"log{len(self.started)}"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "celery", "-A", "recstore.worker", *arguments],
                env=self.environment(**settings),
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = Process(popen, log)
        self.started.append(process)
        return process

    def hold(self, place: str) -> Path:
        """From now on a run stops at this place; returns the file that holds it."""
        file = self.folder / f"hold {place}"
        file.touch()
        return file

    def held(self, place: str) -> int:
        """Waits until a run has stopped at this place; returns the process that it is in."""
        at = self.folder / f"held {place}"

        def there() -> int:
            assert any(process.popen.poll() is None for process in self.started), self.started[-1].said
            return int(at.read_text() or 0) if at.exists() else 0

        return until(there, 60)

    def release(self, place: str) -> None:
        (self.folder / f"hold {place}").unlink()
        (self.folder / f"held {place}").unlink(missing_ok=True)

    def send(self, task: str, *arguments: str, task_id: str | None = None, queue: str = "default") -> None:
        """As any application sends a message that knows nothing of recstore."""
        from celery import Celery

        with Celery(broker=self.broker.url, set_as_current=False) as app:
            app.send_task(task, arguments, task_id=task_id, queue=queue)

    def request(self, job: str, name: str = "retail") -> int:
        row = look(self.database, f"SELECT recstore.request_{job}(%s) AS request", name)[0]
        return int(row["request"])

    def state(self, request: int) -> str:
        rows = look(self.database, "SELECT state FROM recstore.requests WHERE request = %s", request)
        return str(rows[0]["state"])

    def ends(self, request: int, *states: str, seconds: float = 60) -> str:
        """Waits until a request has ended; returns its state, which must be one of `states` (default: succeeded)."""

        def ended() -> str:
            state = self.state(request)
            return state if state not in ("waiting", "sent", "running") else ""

        deadline = time.monotonic() + seconds
        while not (state := ended()):
            assert time.monotonic() < deadline, "\n".join([self.state(request), *(p.said for p in self.started)])
            time.sleep(0.05)
        assert state in (states or ("succeeded",)), look(self.database, "SELECT * FROM recstore.requests")
        return state


@pytest.fixture
def broker() -> Iterator[Broker]:
    with temporary_broker() as broker:
        yield broker


@pytest.fixture
def workers(trained: Database, broker: Broker, tmp_path: Path) -> Iterator[Workers]:
    """A shop with the recommender `retail`, whose first generation is live, and nothing that works on it yet."""
    workers = Workers(trained, broker, tmp_path)
    yield workers
    for process in workers.started:
        if process.popen.poll() is None:
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGKILL)
        process.popen.wait()
