"""Servers for tests, which end with the process that asked for them and leave nothing behind."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from recstore.embedded.children import Processes, kept
from recstore.embedded.daemon import launch, stop
from recstore.embedded.instance import SETTINGS, Server, short_directory
from recstore.embedded.programs import broker_path, tool_path
from recstore.embedded.valkey import SCHEME, SOCKET

NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


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
    home = short_directory()
    parameters = SETTINGS | ({} if durable else NOT_DURABLE) | dict(settings or {})
    with kept(home, home) as processes:
        processes.keep("postgres")
        server = launch(home, version, parameters, temporary=True)
        assert server
        try:
            yield replace(server, database="postgres")
        finally:
            stop(home, "immediate")
            processes.keep("over")


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
        self.processes.broker()

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
