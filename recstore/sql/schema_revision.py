"""Check that a database has this version's schema and pgvector, and open connections to it.

Runs before every command and run, so without Alembic, which takes longer to import than the answer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from importlib.metadata import version

from recstore.errors import (
    ExtensionTooOld,
    PermissionDenied,
    RecstoreError,
    SchemaMissing,
    SchemaOutdated,
    SchemaTooNew,
)
from recstore.postgres.connection import Connection, connect, plain_errors, role_of
from recstore.postgres.names import quoted
from recstore.sql import queries

MINIMUM_PGVECTOR = (0, 8)


def known() -> list[str]:
    """Return the revisions, oldest first, from the file names of the migrations."""
    files = (entry.name for entry in resources.files("recstore.migrations.versions").iterdir())
    return sorted(name[:4] for name in files if name[:4].isdigit() and name.endswith(".py"))


def head() -> str:
    """Return the revision that this version needs."""
    return known()[-1]


def current(connection: Connection) -> str | None:
    """Return the database's revision; None before the first upgrade."""
    if queries.row(connection, "revision_table") is None:
        return None
    row = queries.row(connection, "select_revision")
    return row["version_num"] if row else None


def require_current(connection: Connection) -> None:
    """Raise SchemaMissing, SchemaOutdated or SchemaTooNew unless the database is at this version's revision."""
    found = current(connection)
    if found is None:
        raise SchemaMissing()
    if found == head():
        return
    if found not in known():
        raise SchemaTooNew(found=found, version=version("recstore"))
    raise SchemaOutdated(found=found, needed=head())


@contextmanager
def opened(url: str) -> Iterator[Connection]:
    """Open a connection for one command, with errors in plain words."""
    with connect(url) as connection, plain_errors("asking the database", connection):
        yield connection


@contextmanager
def ready(url: str) -> Iterator[Connection]:
    """Open a connection to a database at this version's revision. Raises as `require_current`."""
    with opened(url) as connection:
        require_current(connection)
        yield connection


def require_extension(connection: Connection) -> None:
    """Raise ExtensionTooOld, PermissionDenied or RecstoreError unless pgvector is installed, recent and usable."""
    row = connection.execute(
        "SELECT e.extversion, n.nspname, has_schema_privilege(n.oid, 'USAGE') AS usable FROM pg_extension e"
        " JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
    ).fetchone()
    if row is None:
        raise RecstoreError("pgvector is not installed in this database. Run: recstore db upgrade")
    if tuple(map(int, row["extversion"].split(".")[:2])) < MINIMUM_PGVECTOR:
        raise ExtensionTooOld(found=row["extversion"], needed=".".join(map(str, MINIMUM_PGVECTOR)))
    if not row["usable"]:
        name, role = quoted(row["nspname"]), role_of(connection)
        raise PermissionDenied(
            role=role,
            reason=f"pgvector is in the schema {name}, which it may not use",
            remedy=f"Have the schema's owner run: GRANT USAGE ON SCHEMA {name} TO {quoted(role)};",
        )
