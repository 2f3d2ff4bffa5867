"""Processes that end with this one: their output is read line by line; in the foreground they are stopped in order.

Each child leads a session of its own, so a terminal's Ctrl-C reaches this process alone. A keeper ends the children where
this process cannot, after `kill -9` for instance: it learns each child's pid before that child begins, and holds the
home's lock until it has ended them.
"""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NoReturn

from recstore.embedded.daemon import LOCK, running, start, stop, version_in
from recstore.embedded.instance import Server, elapsed, lock, locked, short_directory
from recstore.embedded.programs import plain_errors
from recstore.errors import RecstoreError

UP_LOCK = "up.lock"
"""File of a home whose lock is held by its `recstore up` until everything it started has ended."""

QUICK = 5.0
"""Seconds that a child has to end on its last signal before SIGKILL."""

KEPT_LINES = 12
"""Last lines of a child that the error quotes when it ends by itself."""

PATIENCE = 30
"""Seconds that an earlier `recstore up` may take to be cleaned up."""

HELD_BACK = 'read -r _ && exec "$@" </dev/null'
"""Shell command of a child: it begins at a line of input, and never when this process has ended before."""

KEEP = """
trap '' INT TERM HUP
directory=$1 pids= postgres=
shift
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
rm -rf "$directory"
"""
"""The keeper: reads the children's pids; then ends them by SIGTERM, which has 10 s, and their groups by SIGKILL."""

STOP_POSTGRES = "import pathlib, sys; from recstore import embedded; embedded.stop(pathlib.Path(sys.argv[1]))"


@dataclass
class Child:
    """A process and its last lines of output."""

    name: str
    grace: float | None
    """Seconds to finish after SIGTERM, before SIGQUIT: a Celery worker then gives its tasks back. None: no SIGQUIT."""

    process: subprocess.Popen[bytes]
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    listener: threading.Thread | None = None

    def lives(self) -> bool:
        return self.process.poll() is None

    def bury(self) -> None:
        """Kill what is left of it and read the rest of its output."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.listener:
            self.listener.join(1)


@dataclass
class Processes:
    """The processes of one home: start them, then wait."""

    home: Path
    directory: Path
    """Directory of sockets, which the keeper removes at the end."""

    keeper: subprocess.Popen[bytes]
    show: Callable[[str, str], None]
    """Prints a line of the process that it names."""

    children: list[Child] = field(default_factory=list)
    postgres_is_ours: bool | None = None
    """True if the embedded PostgreSQL was started here, False if it was running; None where it is not used."""

    starting: bool = True
    interrupts: int = 0

    def postgres(self) -> Server:
        """Return the PostgreSQL of the home; one that was running before stays, one started here ends with this process."""
        server = running(self.home)
        self.postgres_is_ours = server is None
        if server is None:
            self._show("starting PostgreSQL")
            self.keep("postgres")
            server = start(self.home, version_in(self.home))
        return server

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], grace: float | None = None
    ) -> Child:
        """Start a child. Consecutive children with equal `grace` are stopped together."""
        process = subprocess.Popen(
            ["/bin/sh", "-c", HELD_BACK, name, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        child = Child(name, grace, process)
        self.children.append(child)
        self.keep(str(process.pid))
        child.listener = threading.Thread(target=self._listen, args=[child], name=name, daemon=True)
        child.listener.start()
        assert process.stdin
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(b"\n")
        return child

    def wait(self) -> None:
        """Return at the first interrupt. Raises RecstoreError when a child, or PostgreSQL, ends before."""
        self.starting = False
        while not self.interrupts:
            for child in self.children:
                if not child.lives():
                    _ended(child)
            if self.postgres_is_ours is not None and not locked(self.home / LOCK):
                log = self.home / "postgres.log"
                last = "\n".join(log.read_text(errors="replace").splitlines()[-KEPT_LINES:])
                raise RecstoreError(f"PostgreSQL ended; everything else was stopped. Its log, {log}, ends:\n{last}")
            time.sleep(0.1)

    def interrupt(self, *_: object) -> None:
        """Handle SIGINT or SIGTERM: stop everything; when already stopping, go on to the next signal at once."""
        self.interrupts += 1
        if self.starting:
            self.starting = False
            raise KeyboardInterrupt

    def close(self) -> None:
        """Stop the children, the latest first, then PostgreSQL if it was started here. Raises EmbeddedFailed."""
        self.starting = False
        self.interrupts = max(self.interrupts, 1)
        for grace, children in groupby(reversed(self.children), key=lambda child: child.grace):
            self._stop(list(children), grace)
        if self.postgres_is_ours:
            self._show("stopping PostgreSQL")
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # pg_ctl inherits it
            stop(self.home)
        self.keep("over")

    def _stop(self, children: list[Child], grace: float | None) -> None:
        signals = [(signal.SIGTERM, QUICK)] if grace is None else [(signal.SIGTERM, grace), (signal.SIGQUIT, QUICK)]
        for step, (number, seconds) in enumerate(signals, start=1):
            living = [child for child in children if child.lives()]
            if not living or self.interrupts > step:
                continue
            names = " and ".join(child.name for child in reversed(living))
            how = "" if grace is None else f": {grace:g} s to finish (Ctrl-C again: at once)"
            self._show(f"stopping {names}" + (" at once" if number == signal.SIGQUIT else how))
            for child in living:
                child.process.send_signal(number)
            for waited in elapsed(0.02):
                if self.interrupts > step or waited > seconds or not any(child.lives() for child in living):
                    break
        for child in children:
            if child.lives():
                self._show(f"killing {child.name}")
            child.bury()

    def _listen(self, child: Child) -> None:
        assert child.process.stdout
        with child.process.stdout as lines:
            for line in lines:
                text = line.decode(errors="replace").rstrip()
                child.lines.append(text)
                self._show(text, child.name)

    def _show(self, line: str, name: str = "up") -> None:
        try:
            self.show(name, line)
        except (OSError, SystemExit):  # its reader is gone; rich then exits
            self.interrupts = max(self.interrupts, 1)

    def keep(self, line: str) -> None:
        """Send the keeper a pid to end, `postgres` for the server of the home, or `over` when all have ended."""
        assert self.keeper.stdin
        with suppress(BrokenPipeError):  # the keeper was killed: needed only if this process is killed, too
            self.keeper.stdin.write(f"{line}\n".encode())


@contextmanager
def kept(
    home: Path, directory: Path, *inherited: int, show: Callable[[str, str], None] = lambda *_: None
) -> Iterator[Processes]:
    """Yield processes that end with this one: at the end of the block, their keeper cleans up what is left.

    Only this process holds the other end of the keeper's input, so it also cleans up after `kill -9`.
    """
    arguments = [str(directory), sys.executable, "-c", STOP_POSTGRES, str(home)]
    keeper = subprocess.Popen(
        ["/bin/sh", "-c", KEEP, "recstore", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        pass_fds=inherited,
        start_new_session=True,
    )
    _keepers.add(keeper)
    try:
        yield Processes(home, directory, keeper, show)
    finally:
        assert keeper.stdin
        keeper.stdin.close()
        keeper.wait()


_keepers: "weakref.WeakSet[subprocess.Popen[bytes]]" = weakref.WeakSet()


def _let_go() -> None:
    for keeper in _keepers:
        if keeper.stdin:
            keeper.stdin.close()


os.register_at_fork(after_in_child=_let_go)  # or a forked child that lives on would keep the keepers waiting


@contextmanager
def foreground(home: Path, show: Callable[[str, str], None]) -> Iterator[Processes]:
    """Yield the only processes of a home. At the end of the block, or of this process, all it started has ended.

    SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt in the block, and end `wait`. Raises RecstoreError where another
    process has the home.
    """
    home = home.absolute()
    with ExitStack() as stack:
        held = stack.enter_context(_alone(home))
        processes = stack.enter_context(kept(home, short_directory(), held, show=show))
        stack.enter_context(_signals(processes.interrupt))
        stack.callback(processes.close)
        yield processes


@contextmanager
def _alone(home: Path) -> Iterator[int]:
    """Yield the home's lock as an open file, once a killed `recstore up` has been cleaned up."""
    file = home / UP_LOCK
    with plain_errors(home):
        home.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
    for waited in elapsed(0.05):
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
        if waited > PATIENCE:
            raise RecstoreError(
                f"Processes of an earlier `recstore up` in {home} have not ended yet. Try again in a moment."
            )


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
    output = "\n".join(child.lines).strip()
    raise RecstoreError(
        f"The process {child.name} ended {how}; everything else was stopped. "
        + (f"Its last output:\n{output}" if output else "It printed nothing.")
    )
