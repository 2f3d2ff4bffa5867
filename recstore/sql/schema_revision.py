"""Whether a database is ready for this version: its schema's revision, and pgvector; and connections to one that is. Asked before
every command and run, so without Alembic, which takes longer to load than the answer."""

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
from recstore.postgres.connection import Connection, connect, plain_errors
from recstore.postgres.names import quoted
from recstore.sql import queries

MINIMUM_PGVECTOR = (0, 8)


def known() -> list[str]:
    """The revisions there are, oldest first: what the names of the migrations begin with."""
    files = (entry.name for entry in resources.files("recstore.migrations.versions").iterdir())
    return sorted(name[:4] for name in files if name[:4].isdigit() and name.endswith(".py"))


def head() -> str:
    """The revision that this version's code needs."""
    return known()[-1]


def current(connection: Connection) -> str | None:
    """The database's revision; None before the first upgrade."""
    if connection.execute(queries.query("revision_table")).fetchone() is None:
        return None
    row = connection.execute(queries.query("select_revision")).fetchone()
    return row["version_num"] if row else None


def require_current(connection: Connection) -> None:
    """Raises SchemaMissing, SchemaOutdated or SchemaTooNew unless the database is at this version's revision."""
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
    """A connection for one command, with errors in plain words."""
    with connect(url) as connection, plain_errors("asking the database", connection):
        yield connection


@contextmanager
def ready(url: str) -> Iterator[Connection]:
    """`opened`, to a database whose schema is this version's."""
    with opened(url) as connection:
        require_current(connection)
        yield connection


def require_extension(connection: Connection) -> None:
    """Raises ExtensionTooOld, PermissionDenied or RecstoreError unless pgvector is there, new enough and usable."""
    row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    if row is None:
        raise RecstoreError("pgvector is not installed in this database. Run: recstore db upgrade")
    version = tuple(int(part) for part in row["extversion"].split(".")[:2])
    if version < MINIMUM_PGVECTOR:
        raise ExtensionTooOld(found=row["extversion"], needed=".".join(map(str, MINIMUM_PGVECTOR)))
    schema = connection.execute(
        "SELECT n.nspname, has_schema_privilege(n.oid, 'USAGE') AS usable FROM pg_extension e"
        " JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
    ).fetchone()
    if schema and not schema["usable"]:
        name, role = quoted(schema["nspname"]), connection.info.user
        raise PermissionDenied(
            role=role,
            reason=f"pgvector is in the schema {name}, which it may not use",
            remedy=f"Have the schema's owner run: GRANT USAGE ON SCHEMA {name} TO {quoted(role)};",
        )
