"""Servers for tests, which end with the process that asked for them and leave nothing behind."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from recstore.embedded.instance import SETTINGS, Server, options, recorded, short_directory
from recstore.embedded.programs import INIT, broker_path, failed, pg_ctl, supervised, tool_path
from recstore.embedded.valkey import SCHEME, SOCKET, broker_command, wait_for

NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

SERVE_POSTGRES = """
trap '' INT TERM HUP
directory=$1 init=$2 options=$3
shift 3
cd "$directory" || exit
"$@" -o "${init}C.UTF-8 --no-sync" init </dev/null >>log 2>&1 ||
  "$@" -o "${init}C --no-sync" init </dev/null >>log 2>&1 &&
  "$@" -l log -o "$options" start </dev/null >>log 2>&1 && echo ready && read -r _
"$@" -m immediate stop </dev/null >/dev/null 2>&1
cd / && rm -rf "$directory"
"""

SERVE_BROKER = """
trap '' INT TERM HUP PIPE
directory=$1
shift
cd "$directory" || exit
"$@" </dev/null >>log 2>&1 &
echo $!
read -r _
kill -s KILL $!
wait $!
cd / && rm -rf "$directory"
"""


@contextmanager
def temporary_server(
    version: int = 18, settings: Mapping[str, str] | None = None, durable: bool = False
) -> Iterator[Server]:
    """Yield a new server with data of its own, gone at the end of the block or of this process, even after `kill -9`.

    `settings` are server parameters. Without `durable` nothing is flushed to disk: a crash of the machine, not of the
    server, would lose data. Threads and forked children may use the server; it ends with this process. Raises
    EmbeddedUnavailable and EmbeddedFailed.
    """
    tool_path(version, "postgres")
    directory = short_directory()
    with ExitStack() as stack:
        try:
            data = directory / "data"
            data.mkdir(mode=0o700)
            parameters = SETTINGS | ({} if durable else NOT_DURABLE) | dict(settings or {})
            arguments = [str(directory), INIT, options(parameters, directory), *pg_ctl(version, data)]
            log = stack.enter_context((directory / "log").open("x+", errors="replace"))
            helper = stack.enter_context(supervised(SERVE_POSTGRES, *arguments))
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        assert helper.stdout
        server = recorded(data, version) if helper.stdout.readline() else None
        if server is None:
            raise failed("start", log.read())
        yield server


class Broker:
    """A broker for tests, on one socket for as long as it exists."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / SOCKET
        self.pid: int | None = None
        self._running = ExitStack()

    @property
    def url(self) -> str:
        """URL for Celery."""
        return SCHEME + str(self.socket)

    def start(self) -> None:
        """Start it empty and wait until it answers; kill the one that runs first. Raises EmbeddedFailed."""
        self.stop()
        directory = self.socket.parent
        directory.mkdir(mode=0o700, exist_ok=True)
        helper = self._running.enter_context(supervised(SERVE_BROKER, str(directory), *broker_command(directory)))
        assert helper.stdout
        self.pid = int(helper.stdout.readline() or 0) or None
        wait_for(self.socket, lambda: (directory / "log").read_text(errors="replace"))

    def stop(self) -> None:
        """Kill it with all its messages."""
        self._running.close()
        self.pid = None


@contextmanager
def temporary_broker() -> Iterator[Broker]:
    """Yield a new broker, gone at the end of the block or of this process, even after `kill -9`.

    Threads and forked children may use it; it ends with this process. Raises EmbeddedUnavailable and EmbeddedFailed.
    """
    broker_path()
    broker = Broker(short_directory())
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()
