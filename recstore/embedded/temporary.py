"""A server for tests, which ends with the process that asked for it.

A helper (see `supervisor`) starts the server, waits for the end of that process, and leaves nothing behind.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from recstore.embedded.programs import INIT, failed, pg_ctl, tool_path
from recstore.embedded.server import SETTINGS, Server, options, recorded, short_directory
from recstore.embedded.supervisor import supervised

NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

SUPERVISE = """
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


@contextmanager
def temporary_server(
    version: int = 18, settings: Mapping[str, str] | None = None, durable: bool = False
) -> Iterator[Server]:
    """A new server with its own data, gone at the end of the block or of this process, also when that is killed.

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
            helper = stack.enter_context(supervised(SUPERVISE, *arguments))
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        assert helper.stdout
        server = recorded(data, version) if helper.stdout.readline() else None
        if server is None:
            raise failed("start", log.read())
        yield server
