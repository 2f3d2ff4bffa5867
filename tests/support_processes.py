"""Processes that are forked from one which has imported what they need: an import takes longer than most of what they do."""

import importlib
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

get_context("forkserver").set_forkserver_preload(
    [
        *("celery.__main__", "celery.bin.celery", "celery.apps.worker", "celery.apps.beat", "celery.app.amqp"),
        *("celery.concurrency.prefork", "celery.worker.consumer", "kombu.transport.redis"),
        *("recstore.pipeline", "recstore.lists", "recstore.experiments.tuning.work"),
        *("recstore.background.dispatch", "recstore.background.prometheus", "recstore.cli.up"),
    ]
)


class Forked(ForkServerProcess):
    """A function in a process and a session of its own, with the methods of `Popen` that tests use; not started yet."""

    def __init__(
        self, function: Callable[..., object], *arguments: Any, environment: dict[str, str] | None = None, log: Path
    ) -> None:
        super().__init__(target=_run, args=(function, arguments, environment, log))

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self, seconds: float | None = None) -> int:
        self.join(seconds)
        assert self.exitcode is not None, "it did not end in time"
        return self.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        assert self.pid
        os.kill(self.pid, number)


def _run(
    function: Callable[..., object], arguments: tuple[Any, ...], environment: dict[str, str] | None, log: Path
) -> None:
    os.setsid()
    warnings.simplefilter("ignore")
    with log.open("wb") as output:
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)
    function(*arguments)


def celery(folder: Path, path: Path, *arguments: str) -> None:
    """The command `celery` in this folder, with one more place to import from."""
    from celery.__main__ import main

    os.chdir(folder)
    sys.path.insert(0, str(path))
    sys.argv = ["celery", "-A", "recstore.worker", *arguments]
    main()


def own(folder: Path, path: Path, *arguments: str) -> None:
    """The command `recstore worker` in this folder, whose processes import `holding` from one more place."""
    from recstore.worker import pool

    from recstore import cli

    os.chdir(folder)
    sys.path.insert(0, str(path))
    importlib.import_module("holding")  # for the main process
    pool.CONTEXT.set_forkserver_preload(["recstore.worker.errands", "holding"])
    sys.exit(cli.run(["worker", *arguments]))


def take_part(url: str, study: int, folder: Path, hold: int, me: str, other: str) -> None:
    """Work on a study. Never leave the trial `hold`; stay in the first trial until `other` has begun one."""
    from recstore.config import Settings
    from recstore.experiments.tuning import work
    from recstore.experiments.tuning.search import Watch

    class Held(Watch):
        def begins(self, *_: Any) -> None:
            (folder / f"{me} began").touch()

        def point(self, number: int, *_: Any) -> None:
            (folder / f"{me} in {number}").touch()
            while number == hold or (other and not (folder / f"{other} began").exists()):
                time.sleep(0.01)

    work.work(url, Settings(threads=1, device="cpu"), study, watch=Held())
