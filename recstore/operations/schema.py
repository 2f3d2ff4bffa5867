"""Bring a database to this version's schema: Alembic's migrations, then every recommender's objects.

Alembic and SQLAlchemy are imported where they are used: they would take a third of the start of every command.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors as pg

from recstore import registry
from recstore.config import Settings
from recstore.errors import (
    ExtensionMissing,
    InvalidInput,
    MigrationBlocked,
    PermissionDenied,
    RecstoreError,
    SchemaOutdated,
    SchemaTooNew,
    StandbyServer,
    UpgradeIncomplete,
)
from recstore.operations import repair
from recstore.postgres.connection import (
    Connection,
    connect,
    conninfo,
    create_remedy,
    on_standby,
    one_line,
    plain_errors,
    role_of,
)
from recstore.postgres.session import OWNER, open_session
from recstore.sql import objects, queries
from recstore.sql.schema_revision import current, head, known, require_current, require_extension

if TYPE_CHECKING:
    from alembic.config import Config

ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(1919247219, -1)"
"""Lock of an upgrade: a second one waits for the first, and finds nothing left to do."""

LOCK_TIMEOUT = 10_000
"""Milliseconds that a migration waits for a table another session has open."""


def _config() -> "Config":
    from alembic.config import Config

    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", "recstore.migrations:")
    return config


@contextmanager
def _alembic(url: str) -> Iterator[tuple["Config", psycopg.Connection[Any]]]:
    """Yield Alembic's configuration with its open connection; commit. Translate what a migration raises."""
    import sqlalchemy as sa
    from alembic.util.exc import CommandError

    engine = sa.create_engine(
        "postgresql+psycopg://",
        creator=lambda: _migrating(url),
        poolclass=sa.NullPool,
    )
    try:
        with plain_errors("migrating"), engine.begin() as connection:
            config = _config()
            config.attributes["connection"] = connection
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            driver.execute(ONE_AT_A_TIME)
            driver.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}")  # or later sessions queue behind this one
            try:
                yield config, driver
            except pg.LockNotAvailable:
                raise _blocked(url) from None
    except CommandError as error:
        raise _refused(error) from None
    except sa.exc.DBAPIError as error:
        with plain_errors("migrating"):
            raise (error.orig or error) from None


@contextmanager
def _creating(connection: Connection) -> Iterator[None]:
    """Complete a PermissionDenied by the grant that is missing to create a schema."""
    try:
        yield
    except PermissionDenied as error:
        if remedy := create_remedy(connection):
            raise PermissionDenied(role=error.role, reason=error.reason, remedy=remedy) from None
        raise


def _migrating(url: str) -> psycopg.Connection[Any]:
    connection = open_session(conninfo(url, "recstore:migrate"))
    if on_standby(connection):
        connection.close()
        raise StandbyServer
    connection.execute(OWNER)
    connection.autocommit = False  # as SQLAlchemy expects it
    return connection


def _refused(error: object) -> InvalidInput:
    """Return the error for a revision that is unknown, or not on the way."""
    reason = " ".join(str(error).split()).rstrip(".")
    return InvalidInput(f"Alembic refused: {reason}. The revisions are base, {', '.join(known())}.")


def _blocked(url: str) -> RecstoreError:
    """Return the error that names the sessions which block a migration."""
    with connect(url, "recstore:migrate") as connection:
        rows = queries.rows(connection, "holders_of_own_relations")
    return MigrationBlocked(who="; ".join(row["who"] for row in rows) or "a session that has just ended")


def ensure_extension(connection: Connection) -> None:
    """Install pgvector unless it is in some schema already. Raises ExtensionMissing, and as `require_extension`."""
    row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    if row is None:
        try:
            with connection.transaction():
                connection.execute(ONE_AT_A_TIME)
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except (pg.InsufficientPrivilege, pg.UndefinedFile, pg.FeatureNotSupported) as error:
            raise ExtensionMissing(role=role_of(connection), reason=one_line(error)) from None
    require_extension(connection)


def upgrade(connection: Connection, url: str, settings: Settings) -> list[str]:
    """Upgrade the schema and every recommender's objects; return a sentence for each change. Idempotent.

    Each recommender has a short transaction of its own under `lock_timeout`, so readers are not held up. Where one
    fails, the others are upgraded all the same; then its error is raised, UpgradeIncomplete for several.
    """
    done = []
    with plain_errors("upgrading", connection):
        before = current(connection)
        if before is not None:
            with suppress(SchemaOutdated):
                require_current(connection)
        ensure_extension(connection)
        from alembic import command

        with _creating(connection), _alembic(url) as (config, driver):
            granted = driver.execute(queries.query("revokes"), {"schemas": ["recstore"]}).fetchall()
            command.upgrade(config, "head")
            found = driver.execute(queries.query("revokes"), {"schemas": ["recstore", "recstore_private"]}).fetchall()
            for (statement,) in set(found) - set(granted):  # what ALTER DEFAULT PRIVILEGES gave to new objects
                driver.execute(statement)
        after = current(connection)
        if before != after:
            done.append(f"schema upgraded from {before or 'nothing'} to {after}")
        failed: dict[str, RecstoreError] = {}
        for recommender in registry.all_registered(connection):
            try:
                with plain_errors(f"upgrading {recommender.name!r}", connection):
                    done += upgrade_objects(connection, settings, recommender)
            except RecstoreError as error:
                if connection.closed:
                    raise
                failed[recommender.name] = error
    if len(failed) > 1:
        reasons = " ".join(f"{name}: {error.message}" for name, error in failed.items())
        raise UpgradeIncomplete(names=", ".join(failed), done=done, reasons=reasons)
    for only in failed.values():
        raise only
    return done


def upgrade_objects(connection: Connection, settings: Settings, recommender: objects.Registered) -> list[str]:
    """Upgrade one recommender's functions and views; return a sentence for each change. Raises SchemaTooNew,
    DependentObjects."""
    name = recommender.name
    if recommender.objects_version > objects.OBJECTS_VERSION:
        raise SchemaTooNew(found=f"objects {recommender.objects_version} of {name!r}", version=version("recstore"))
    changed = objects.upgrade(connection, settings, recommender)
    done = [f"{name}: replaced {', '.join(changed)}"] if changed else []
    try:
        for view, what in repair.restore_views(connection, settings, recommender).items():
            done.append(f"{name}: recreated the view {view}, which {what}")
    except RecstoreError as error:
        done.append(f"{name}: its views cannot be made as its definition says: {error.message}")
    return done


def statements(connection: Connection, revision: str, *, down: bool = False) -> list[str]:
    """Return the SQL script that brings the database to another revision; nothing if it is there already.

    Raises InvalidInput for a revision that is unknown, or not on the way.
    """
    from alembic import command
    from alembic.util.exc import CommandError

    before = current(connection)
    if before == (head() if revision == "head" else revision) or (down and before is None):
        return []
    if ":" in revision:
        raise _refused(f"{revision!r} is a range of revisions")
    config = _config()
    config.output_buffer = script = io.StringIO()
    try:
        if down:
            command.downgrade(config, f"{before}:{revision}", sql=True)
        else:
            command.upgrade(config, f"{before or 'base'}:{revision}", sql=True)
    except CommandError as error:
        raise _refused(error) from None
    return list(filter(None, [script.getvalue().strip()]))


def downgrade(url: str, revision: str) -> None:
    """Downgrade the schema to `revision` ("base": remove all of it). Refused while there are recommenders."""
    from alembic import command

    with _alembic(url) as (config, _):
        command.downgrade(config, revision)


def check(url: str) -> None:
    """Raise RecstoreError unless the database is at this version's revision and has what its migrations make."""
    with connect(url) as connection, plain_errors("checking the schema", connection):
        require_current(connection)
        for recommender in registry.all_registered(connection):
            wrong = list(
                dict.fromkeys(objects.missing(connection, recommender) + objects.stale(connection, recommender))
            )
            if wrong:
                raise RecstoreError(
                    f"In {recommender.name!r} the {', the '.join(wrong)} is missing, or of another version or pgvector's former"
                    " schema. Run: recstore db upgrade"
                )
    found = differences(url)
    if found:
        raise RecstoreError(
            f"The database differs from what recstore {version('recstore')} declares: {'; '.join(found)}."
        )


def differences(url: str) -> list[str]:
    """Compare recstore's own schemas with what the migrations make on this server; return a phrase for each object.

    The migrations run next to the renamed schemas, in a transaction that is rolled back. It locks no existing relation.
    """
    from alembic import command

    with _alembic(url) as (config, driver):
        own_objects = queries.query("own_objects")
        found: dict[str, str] = dict(driver.execute(own_objects).fetchall())
        for name in ("recstore", "recstore_private"):
            driver.execute(f"ALTER SCHEMA {name} RENAME TO {name}_checked")
        command.upgrade(config, "head")
        declared: dict[str, str] = dict(driver.execute(own_objects).fetchall())
        driver.rollback()
    words = {(True, True): "is different", (True, False): "is not recstore's", (False, True): "is missing"}
    return [
        f"{name} {words[name in found, name in declared]}"
        for name in sorted(found.keys() | declared.keys())
        if found.get(name) != declared.get(name)
    ]
