"""Connections to PostgreSQL, and their errors in plain words. Knows nothing of recommenders."""

import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from recstore.config import Settings
from recstore.errors import (
    ConnectionFailed,
    ConnectionLost,
    LockTimeout,
    PermissionDenied,
    RecstoreError,
    SchemaMissing,
    ServerTooOld,
    StandbyServer,
    SuperuserLogin,
)
from recstore.postgres.names import quoted
from recstore.postgres.session import OWNER, SEARCH_PATH, open_session

MINIMUM_SERVER = 15

Connection = psycopg.Connection[dict[str, Any]]
T = TypeVar("T")

# Both sides must notice a dead peer: otherwise the backend of a killed run holds its lock for long (3 s and more, measured).
_KEEPALIVE = {
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
    "connect_timeout": "10",
}

SESSION_GONE = ("57P", "08", "25P03", "25P04")
"""Prefixes of SQLSTATEs that end a session: shutdowns, connection errors, session timeouts."""


def conninfo(url: str, application_name: str) -> str:
    """Return libpq's connection string, with keepalives, for a URL (also SQLAlchemy's) or a connection string. Raises
    ConnectionFailed."""
    scheme, separator, rest = url.partition("://")
    if separator:
        if scheme.split("+")[0] not in ("postgresql", "postgres"):
            raise ConnectionFailed(reason=f"{scheme}://.. is not a postgresql:// URL")
        url = "postgresql://" + rest
    try:
        parameters = {key: str(value) for key, value in conninfo_to_dict(url).items()}
        own = {"application_name": application_name, "client_encoding": "UTF8"}
        return make_conninfo(**(_KEEPALIVE | parameters | own))
    except psycopg.Error as error:
        raise ConnectionFailed(reason=why_not(error)) from None


def connect(url: str, application_name: str = "recstore") -> Connection:
    """Open a direct connection in autocommit mode with rows as dicts, with the rights of recstore's owner; the caller closes it.
    Raises ConnectionFailed, TransactionPooler, SuperuserLogin, ServerTooOld."""
    connection: Connection | None = None
    try:
        connection = open_session(conninfo(url, application_name), row_factory=dict_row)
        become_owner(connection)
        with suppress(pg.InvalidParameterValue):  # the server's platform has no such check
            connection.execute("SET client_connection_check_interval = '2s'")
    except BaseException as error:
        if connection:
            connection.close()
        if isinstance(error, psycopg.Error):  # also for a setting in the URL
            raise ConnectionFailed(reason=why_not(error)) from None
        raise
    if connection.info.server_version < MINIMUM_SERVER * 10000:
        found = connection.info.server_version // 10000
        connection.close()
        raise ServerTooOld(found=found, needed=MINIMUM_SERVER)
    return connection


def become_owner(connection: Connection, statement: str = OWNER) -> None:
    """Work as the owner of recstore's schemas, if this login is a member of it. Raises SuperuserLogin, PermissionDenied."""
    row = connection.execute(statement).fetchone()
    if row and row["refused"] == "superuser":
        raise SuperuserLogin(role=row["login"], owner=row["owner"])
    if row and row["refused"]:
        raise PermissionDenied(
            role=row["login"],
            reason=f"it has the rights of {row['owner']} and cannot SET ROLE to it, so what it makes would be its own",
            remedy=f"Run: GRANT {quoted(row['owner'])} TO {quoted(row['login'])} WITH SET TRUE;",
        )


def role_of(connection: Connection) -> str:
    """Return the role with whose rights the session works; in a failed transaction, its login."""
    with suppress(psycopg.Error):
        for row in connection.execute("SELECT current_user::text AS role"):
            return str(row["role"])
    return connection.info.user


def on_standby(connection: psycopg.Connection[Any]) -> bool:
    """Return whether the server is in recovery, by what it has announced itself."""
    return connection.info.parameter_status("in_hot_standby") == "on"


def create_remedy(connection: Connection) -> str:
    """Return how this role gets CREATE on the database; nothing if it has that."""
    (row,) = connection.execute("SELECT has_database_privilege(current_database(), 'CREATE') AS may")
    role, database = quoted(role_of(connection)), quoted(connection.info.dbname)
    return "" if row["may"] else f"Have an administrator run: GRANT CREATE ON DATABASE {database} TO {role};"


def one_line(error: BaseException) -> str:
    """Return the server's primary message, or the exception's text, as one line."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return re.sub(r"\s*\n\s*", " ", error.diag.message_primary).rstrip(".")
    return " ".join(str(error).split()).rstrip(".?")


def why_not(error: psycopg.Error) -> str:
    """Return libpq's reason for a failed connection, without repetitions, questions, error numbers, and the URL."""
    text = str(error).partition("\n\tIs the server")[0]
    text = re.sub(r"^connection (failed|is bad): |\[Errno -?\d+\] |\s+Is the server [^?]*\?", "", text)
    text = re.sub(
        r'missing "=" after ".*" in connection info string', "it is no URL (postgresql://..)", text, flags=re.DOTALL
    )
    text = re.sub(r': "postgres(ql)?://.*', "", text, flags=re.DOTALL)
    text = re.sub(r"host '.*@([^']*)'", r"host '\1' (an @ in a password is written %40)", text)
    return "; ".join(dict.fromkeys(line.strip().rstrip(".") for line in text.splitlines() if line.strip()))


@contextmanager
def plain_errors(doing: str, connection: Connection | None = None) -> Iterator[None]:
    """Translate psycopg's errors into recstore's: a lost connection, a missing privilege, a missing schema, a refusal. Of
    `connection` only the role's name is used."""
    try:
        yield
    except RecstoreError:
        raise
    except pg.InsufficientPrivilege as error:
        remedy = "Ask the owner to grant it, or connect as a role that may."
        if "recstore_private" in str(error):
            remedy = "Connect as the role that owns recstore's schemas. To find out which, run: recstore doctor"
        role = role_of(connection) if connection else "of this connection"
        raise PermissionDenied(role=role, reason=one_line(error), remedy=remedy) from error
    except psycopg.Error as error:
        if isinstance(error, pg.ReadOnlySqlTransaction) and connection and on_standby(connection):
            raise StandbyServer() from error
        if isinstance(error, (pg.UndefinedTable, pg.InvalidSchemaName)) and "recstore_private" in str(error):
            raise SchemaMissing() from error
        gone = isinstance(error, psycopg.OperationalError) and (error.sqlstate or SESSION_GONE[0]).startswith(
            SESSION_GONE
        )
        if gone or isinstance(error, psycopg.InterfaceError):
            raise ConnectionLost(doing=doing, reason=one_line(error)) from error
        raise RecstoreError(f"The database refused while {doing}: {one_line(error)}.") from error


@contextmanager
def read_only(connection: Connection, **settings: object) -> Iterator[None]:
    """Open a READ ONLY transaction with these settings, which is rolled back."""
    with connection.transaction(force_rollback=True):
        connection.execute("SET TRANSACTION READ ONLY")
        for name, value in settings.items():
            connection.execute(f"SET LOCAL {name} = {value}")
        yield


@contextmanager
def reading_application(connection: Connection, seconds: float, **settings: object) -> Iterator[None]:
    """Open a READ ONLY transaction for the application's relations, under its search_path and time zone; each statement may
    take `seconds`."""
    own = {"search_path": "DEFAULT", "TimeZone": "DEFAULT", "statement_timeout": int(seconds * 1000)}
    with read_only(connection, **own, **settings):
        yield


@contextmanager
def application_path(connection: Connection) -> Iterator[None]:
    """Find names for the block under the search_path of the role or the database, as the application's sessions do."""
    connection.execute("SET search_path TO DEFAULT")
    try:
        yield
    finally:
        if connection.info.transaction_status in (TransactionStatus.IDLE, TransactionStatus.INTRANS):
            connection.execute(f"SET search_path = {SEARCH_PATH}")  # after an error the rollback does it


def inherited_path(connection: Connection) -> str:
    """Return the search_path of `application_path`, as SQL writes it."""
    row = connection.execute("SELECT reset_val FROM pg_settings WHERE name = 'search_path'").fetchone()
    assert row is not None
    return str(row["reset_val"])


def find_relation(connection: Connection, name: str) -> int | None:
    """Return the oid of a relation under the application's search_path, None if there is none. Raises psycopg.Error for a text
    that is no name, and without USAGE on its schema."""
    with read_only(connection, search_path="DEFAULT"):
        row = connection.execute("SELECT pg_catalog.to_regclass(%s)::pg_catalog.oid AS oid", [name]).fetchone()
    return row["oid"] if row else None


@contextmanager
def session_settings(connection: Connection, **settings: object) -> Iterator[None]:
    """Set these in the session, and set them back afterwards if the connection is still usable."""
    before = {}
    for name, value in settings.items():
        (row,) = connection.execute("SELECT current_setting(%s) AS value", [name])
        before[name] = row["value"]
        connection.execute(f"SET {name} = {value}")
    try:
        yield
    finally:
        if not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE:
            for name, value in before.items():
                connection.execute("SELECT set_config(%s, %s, false)", [name, value])


def with_short_lock(
    connection: Connection, settings: Settings, what: str, relation: str | Sequence[str], change: Callable[[], T]
) -> T:
    """Run `change` in a transaction that waits for locks no longer than `lock_timeout`, so readers queue no longer. Retry
    `lock_attempts` times. Commits. Raises LockTimeout with the sessions that hold `relation` (one, or several)."""
    for _ in range(settings.lock_attempts):
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = {int(settings.lock_timeout * 1000)}")
                return change()
        except (pg.LockNotAvailable, pg.DeadlockDetected):
            time.sleep(random.uniform(0.05, 0.3))
    names = [relation] if isinstance(relation, str) else list(relation)
    holders = connection.execute(
        "SELECT DISTINCT n.name, l.pid FROM unnest(%s::text[]) n(name) JOIN pg_locks l ON l.relation = to_regclass(n.name)"
        " WHERE l.pid <> pg_backend_pid() ORDER BY 1, 2",
        [names],
    ).fetchall()
    held = ", ".join(dict.fromkeys(row["name"] for row in holders)) or " or ".join(names)
    pids = ", ".join(dict.fromkeys(str(row["pid"]) for row in holders)) or "unknown"
    raise LockTimeout(what=what, attempts=settings.lock_attempts, relation=held, pids=pids)
