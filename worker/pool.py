"""The processes in which a worker without a broker does its errands, one at a time each.

They are forked from a server process that has imported what they need, and has no thread, connection or trainer: a new one
takes milliseconds, and CUDA is never initialized before a fork. A process whose worker is gone interrupts what it does, and ends.
"""

import os
import signal
import threading
import time
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Literal

from recstore.background import due
from recstore.config import Settings
from recstore.errors import ConnectionFailed, ConnectionLost, RecstoreError

from .logs import log_lines

Kind = due.Errand | Literal["dispatch", "warn"]

Task = tuple[Kind, str]
"""What to do, and the recommender's name or the study's number; of a dispatch, whether it is made `at once`, whenever the
last one was."""

Report = Literal["given", "ready", "begun", "done", "nothing to do", "not begun"]

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload([f"{__package__}.errands"])


class Child:
    """A process of the pool, as its worker sees it."""

    def __init__(self, queue: str, settings: Settings, json: bool) -> None:
        self.queue = queue
        self.pipe, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=serve, args=(theirs, settings, json), daemon=True)
        try:
            self.process.start()
        except (EOFError, OSError) as error:
            raise RecstoreError("The worker could not start a process: the server that forks it has ended.") from error
        theirs.close()
        self.report: Report | None = None
        """The last report of it; None until it is ready."""
        self.task: Task | None = None
        self.since = time.monotonic()
        """Time of its start, or when it was given its task."""
        self.interrupted: float | None = None
        """Time when its task was interrupted."""

    @property
    def idle(self) -> bool:
        return self.task is None and self.report is not None

    @property
    def waiting(self) -> bool:
        """True until it has begun its task, or is ready for the first."""
        return self.report in (None, "given")

    def give(self, task: Task) -> None:
        self.task, self.report, self.since, self.interrupted = task, "given", time.monotonic(), None
        with suppress(OSError):  # it has just died, as the worker is about to see
            self.pipe.send(task)

    def interrupt(self) -> None:
        """Interrupt its task as the soft time limit does."""
        self.interrupted = time.monotonic()
        with suppress(ProcessLookupError):
            os.kill(self.process.pid or 0, signal.SIGUSR1)

    def kill(self) -> None:
        """Kill it, also where the server that forked it is gone: for multiprocessing it has ended then."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid or 0, signal.SIGKILL)

    def end(self) -> None:
        """End it, and interrupt what it does."""
        self.pipe.close()
        self.process.join(2)
        self.process.kill()
        self.process.join()


def serve(pipe: Connection, settings: Settings, json: bool) -> None:
    """Do the tasks that come through the pipe until it closes; signals to stop are the worker's alone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    log_lines(json)
    tasks: SimpleQueue[Task | None] = SimpleQueue()

    def receive() -> None:
        with suppress(EOFError, OSError):
            while True:
                tasks.put(pipe.recv())
        tasks.put(None)
        signal.setitimer(signal.ITIMER_REAL, due.MARGIN)  # SIGALRM ends what ignores the interrupt
        os.kill(os.getpid(), signal.SIGUSR1)

    threading.Thread(target=receive, daemon=True).start()
    with suppress(OSError):
        pipe.send("ready")
        while task := tasks.get():
            pipe.send("begun")
            pipe.send(_do(settings, *task))


def _do(settings: Settings, kind: Kind, name: str) -> Report:
    from . import errands  # the server process has it already

    try:
        errands.let_interrupt()
        match kind:
            case "warn":
                errands.warn(settings)
            case "dispatch":
                errands.do_dispatch(settings, None, 0 if name else settings.dispatch_interval / 2)
            case "trial":
                return "done" if errands.do_trial(settings, name) else "nothing to do"
            case job:
                errands.do_job(settings, job, name)
    except (ConnectionFailed, ConnectionLost) as error:
        errands.log.warning("%s %s waits: %s", kind, name, error.message)
        return "not begun"
    except KeyboardInterrupt:
        errands.log.error("%s %s: interrupted", kind, name)
        return "not begun"
    except Exception:
        errands.log.exception("%s %s failed by a defect of recstore", kind, name)
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    return "done"
