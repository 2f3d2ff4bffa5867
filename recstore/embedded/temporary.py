"""Servers for tests, which end with the process that asked for them and leave nothing behind."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from recstore.embedded.children import kept
from recstore.embedded.daemon import launch, stop
from recstore.embedded.instance import SETTINGS, Server, short_directory
from recstore.embedded.programs import tool_path

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
