"""Processes in the foreground: started by this one, heard line by line, and ended with it, in order.

Each child leads a session of its own, so a terminal's Ctrl-C reaches this process alone. A keeper ends them all where
this process can not do it itself, after `kill -9` for instance: it learns each child's number before that child is let
go, and holds the home's lock until it has ended them.
"""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NoReturn

from recstore.embedded.broker import RECORD, UP_LOCK, broker_command, socket_in, url_of, wait_for
from recstore.embedded.daemon import LOCK, running, start, stop, version_in
from recstore.embedded.locks import lock, locked
from recstore.embedded.programs import ENVIRONMENT, plain_errors
from recstore.embedded.server import Server, short_directory
from recstore.embedded.supervisor import supervised
from recstore.errors import RecstoreError

Steps = tuple[tuple[signal.Signals, float], ...]
"""How a child is ended: a signal, the seconds it has then, the next signal, .. SIGKILL is always the last."""

QUICK: Steps = ((signal.SIGTERM, 5),)


def warm(seconds: float) -> Steps:
    """For a Celery worker, which finishes its tasks on SIGTERM and gives them back to the broker on SIGQUIT."""
    return (signal.SIGTERM, seconds), (signal.SIGQUIT, 5)


KEPT_LINES = 12
"""Last lines of a child that are told when it ends by itself."""

PATIENCE = 30
"""Seconds that an earlier one may take to be put away."""

HELD_BACK = 'read -r _ && exec "$@" </dev/null'
"""A child begins when it is told to, and never when this process has ended before."""

KEEP = """
trap '' INT TERM HUP
directory=$1 record=$2 pids= postgres=
shift 2
while read -r line; do
  case $line in
    over) pids= postgres= ;;
    postgres) postgres=yes ;;
    *) pids="$pids $line" ;;
  esac
done
for pid in $pids; do kill -s TERM "$pid"; done
tries=100
for pid in $pids; do
  while kill -s 0 -- "-$pid" && [ "$((tries -= 1))" -gt 0 ]; do sleep 0.1; done
  kill -s KILL -- "-$pid"
done
[ -z "$postgres" ] || "$@"
rm -rf "$directory" "$record"
"""
"""The keeper: reads the children's numbers; then ends them by SIGTERM, which has 10 s, and their groups by SIGKILL."""

STOP_POSTGRES = "import pathlib, sys; from recstore import embedded; embedded.stop(pathlib.Path(sys.argv[1]))"


@dataclass
class Child:
    """A process and what it said last."""

    name: str
    steps: Steps
    process: subprocess.Popen[bytes]
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    listener: threading.Thread | None = None

    def lives(self) -> bool:
        return self.process.poll() is None

    def bury(self) -> None:
        """Kills what is left of it and hears it out."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.listener:
            self.listener.join(1)


@dataclass
class Foreground:
    """What `foreground` gives: start the processes, then wait. `tell` prints a line of one of them."""

    home: Path
    directory: Path
    tell: Callable[[str, str], None]
    keeper: subprocess.Popen[bytes]
    children: list[Child] = field(default_factory=list)
    postgres_lives: bool = False
    postgres_is_ours: bool = False
    starting: bool = True
    interrupts: int = 0

    def postgres(self) -> Server:
        """PostgreSQL of the home: the one that runs there already, and stays, or one that ends with this process."""
        server = running(self.home)
        if server is None:
            self._say("starting PostgreSQL")
            self._keep("postgres")
            self.postgres_is_ours = True
            server = start(self.home, version_in(self.home))
        self.postgres_lives = True
        return server

    def broker(self) -> str:
        """URL of a new broker, as a child; `broker_url` tells it to others."""
        path = socket_in(self.directory)
        child = self.start("redis", broker_command(self.directory), ENVIRONMENT)
        wait_for(path, lambda: "\n".join(child.lines), child.lives)
        (self.home / RECORD).write_text(url_of(path) + "\n")
        return url_of(path)

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str], steps: Steps = QUICK) -> Child:
        """Starts a child. Those with equal `steps`, started one after the other, are ended at once."""
        process = subprocess.Popen(
            ["/bin/sh", "-c", HELD_BACK, name, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        child = Child(name, steps, process)
        self.children.append(child)
        self._keep(str(process.pid))
        child.listener = threading.Thread(target=self._listen, args=[child], name=name, daemon=True)
        child.listener.start()
        assert process.stdin
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(b"\n")
        return child

    def wait(self) -> None:
        """Returns when a signal asks for the end. Raises RecstoreError when a child, or PostgreSQL, ends before."""
        self.starting = False
        while not self.interrupts:
            for child in self.children:
                if not child.lives():
                    _ended(child)
            if self.postgres_lives and not locked(self.home / LOCK):
                log = self.home / "postgres.log"
                last = "\n".join(log.read_text(errors="replace").splitlines()[-KEPT_LINES:])
                raise RecstoreError(f"PostgreSQL ended; everything else was stopped. Its log, {log}, ends:\n{last}")
            time.sleep(0.1)

    def interrupt(self, *_: object) -> None:
        """What SIGINT and SIGTERM do: ask for the end; while children are being ended, for the next step at once."""
        self.interrupts += 1
        if self.starting:
            self.starting = False
            raise KeyboardInterrupt

    def close(self) -> None:
        """Ends the children, the latest first, then PostgreSQL if it was started here. Raises EmbeddedFailed."""
        self.starting = False
        self.interrupts = max(self.interrupts, 1)
        for steps, children in groupby(reversed(self.children), key=lambda child: child.steps):
            self._end(list(children), steps)
        if self.postgres_is_ours:
            self._say("stopping PostgreSQL")
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # pg_ctl inherits it
            stop(self.home)
        self._keep("over")

    def _end(self, children: list[Child], steps: Steps) -> None:
        for step, (number, seconds) in enumerate(steps, start=1):
            living = [child for child in children if child.lives()]
            if not living or self.interrupts > step:
                continue
            who = " and ".join(child.name for child in reversed(living))
            if number == signal.SIGTERM and len(steps) > 1:
                self._say(f"stopping {who}, which have {seconds:g} s to finish what they do (Ctrl-C again: at once)")
            else:
                self._say(f"stopping {who}" + (" at once" if number == signal.SIGQUIT else ""))
            for child in living:
                child.process.send_signal(number)
            deadline = time.monotonic() + seconds
            while any(child.lives() for child in living):
                if self.interrupts > step or time.monotonic() > deadline:
                    break
                time.sleep(0.02)
        for child in children:
            if child.lives():
                self._say(f"killing {child.name}")
            child.bury()

    def _listen(self, child: Child) -> None:
        assert child.process.stdout
        with child.process.stdout as lines:
            for line in lines:
                text = line.decode(errors="replace").rstrip()
                child.lines.append(text)
                self._say(text, child.name)

    def _say(self, line: str, name: str = "up") -> None:
        try:
            self.tell(name, line)
        except (OSError, SystemExit):  # nobody reads it any more: rich exits then
            self.interrupts = max(self.interrupts, 1)

    def _keep(self, line: str) -> None:
        assert self.keeper.stdin
        with suppress(BrokenPipeError):  # somebody killed it: all goes well as long as nobody kills this process, too
            self.keeper.stdin.write(f"{line}\n".encode())


@contextmanager
def foreground(home: Path, tell: Callable[[str, str], None]) -> Iterator[Foreground]:
    """The only one of a home; at the end of the block, or of this process, all that was started has ended.

    SIGINT, SIGTERM and SIGHUP interrupt the block with KeyboardInterrupt until `wait`, which they end. Raises
    RecstoreError where the home has one already.
    """
    home = home.absolute()
    with ExitStack() as stack:
        held = stack.enter_context(_alone(home))
        directory = short_directory()
        arguments = [str(directory), str(home / RECORD), sys.executable, "-c", STOP_POSTGRES, str(home)]
        keeper = stack.enter_context(
            supervised(KEEP, *arguments, folder=None, environment=os.environ, inherited=(held,))
        )
        processes = Foreground(home, directory, tell, keeper)
        stack.enter_context(_signals(processes.interrupt))
        stack.callback(processes.close)
        yield processes


@contextmanager
def _alone(home: Path) -> Iterator[int]:
    """The home's lock, as an open file; waits for what a killed one has left to be put away."""
    file = home / UP_LOCK
    with plain_errors(home):
        home.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
    deadline = time.monotonic() + PATIENCE
    while True:
        with lock(file, fcntl.LOCK_EX) as held:
            if held is not None:
                os.truncate(held, 0)
                os.write(held, f"{os.getpid()}\n".encode())
                yield held
                return
        holder = file.read_text().strip()
        if holder and _exists(int(holder)):
            raise RecstoreError(
                f"`recstore up` runs already in {home}, as process {holder}. Stop that one first, or choose another home: "
                "RECSTORE_HOME."
            )
        if time.monotonic() > deadline:
            raise RecstoreError(
                f"What an earlier `recstore up` left in {home} has not ended yet. Try again in a moment."
            )
        time.sleep(0.05)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def _signals(handler: Callable[..., None]) -> Iterator[None]:
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # by nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _ended(child: Child) -> NoReturn:
    child.bury()
    code = child.process.returncode
    how = f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
    said = "\n".join(child.lines).strip()
    raise RecstoreError(
        f"The process {child.name} ended {how}; everything else was stopped. "
        + (f"It ended saying:\n{said}" if said else "It said nothing.")
    )
