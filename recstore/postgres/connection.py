"""Connections, and what goes wrong on them, in plain words. Knows nothing of recommenders."""

import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
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
    TransactionPooler,
)
from recstore.postgres import pooler

MINIMUM_SERVER = 15

Connection = psycopg.Connection[dict[str, Any]]
T = TypeVar("T")

# A worker's connection lives long and must notice a dead peer; the server must notice a dead worker even in the middle
# of a statement, or a killed run's backend would go on holding its lock (measured: 3 s later it still did).
_KEEPALIVE = {
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
    "connect_timeout": "10",
}


LIFTED = (
    "statement_timeout",
    "transaction_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "default_transaction_read_only",
)
"""What recstore turns off in its own sessions."""

OWN_SETTINGS = f"""
    SELECT set_config(s.name, CASE s.vartype WHEN 'bool' THEN 'off' ELSE '0' END, false)
    FROM pg_settings s
    WHERE s.name IN {LIFTED}
        AND s.source NOT IN ('default', 'client', 'session') AND s.setting NOT IN ('0', 'off')
"""  # noqa: S608
"""What a host sets for every role, or for this one, is meant for an application's queries, not for an index build; what the
URL itself says holds."""

SESSION_GONE = ("57P", "08", "25P03", "25P04")
"""SQLSTATEs, or their beginnings, after which there is no session any more: shutdowns, connections, session timeouts."""


def conninfo(url: str, application_name: str) -> str:
    """libpq's connection string for `url` (a URL, SQLAlchemy's kind too, or a connection string), with keepalives.

    Raises ConnectionFailed if it is neither.
    """
    scheme, separator, rest = url.partition("://")
    if separator:
        if scheme.split("+")[0] not in ("postgresql", "postgres"):
            raise ConnectionFailed(reason=f"{scheme}://.. is not a postgresql:// URL")
        url = "postgresql://" + rest
    try:
        given = conninfo_to_dict(url)
        return make_conninfo(
            **(_KEEPALIVE | {k: str(v) for k, v in given.items()} | {"application_name": application_name})
        )
    except psycopg.Error as error:
        raise ConnectionFailed(reason=why_not(error)) from None


def connect(url: str, application_name: str = "recstore") -> Connection:
    """A direct connection in autocommit mode with rows as dicts; the caller closes it. Raises
    ConnectionFailed, TransactionPooler."""
    connection: Connection | None = None
    try:
        target = conninfo(url, application_name)
        connection = psycopg.connect(target, autocommit=True, row_factory=dict_row)
        if pooler.lends_by_the_transaction(connection, target):
            raise TransactionPooler
        connection.execute(OWN_SETTINGS)
        with suppress(pg.InvalidParameterValue):  # a server on a platform without the check
            connection.execute("SET client_connection_check_interval = '2s'")
    except BaseException as error:
        if connection:
            connection.close()
        if isinstance(error, psycopg.Error):  # also of a setting in the URL
            raise ConnectionFailed(reason=why_not(error)) from None
        raise
    if connection.info.server_version < MINIMUM_SERVER * 10000:
        found = connection.info.server_version // 10000
        connection.close()
        raise ServerTooOld(found=found, needed=MINIMUM_SERVER)
    return connection


def one_line(error: BaseException) -> str:
    """The server's primary message, or the exception's text, as one line."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return re.sub(r"\s*\n\s*", " ", error.diag.message_primary).rstrip(".")
    return " ".join(str(error).split()).rstrip(".?")


def why_not(error: psycopg.Error) -> str:
    """What libpq says of a connection that failed, once, without its questions, numbers, and the URL with its password."""
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
    """Turns what psycopg raises inside into recstore's errors: a lost connection, a missing right, a missing schema.
    Of `connection` only the role's name is used."""
    role = connection.info.user if connection else "of this connection"
    try:
        yield
    except RecstoreError:
        raise
    except pg.InsufficientPrivilege as error:
        remedy = "Ask the owner to grant it, or connect as a role that may."
        raise PermissionDenied(role=role, reason=one_line(error), remedy=remedy) from error
    except (pg.UndefinedTable, pg.InvalidSchemaName) as error:
        if "recstore_private" in str(error):
            raise SchemaMissing() from error
        raise RecstoreError(f"The database refused while {doing}: {one_line(error)}.") from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        if (
            isinstance(error, psycopg.InterfaceError)
            or error.sqlstate is None
            or error.sqlstate.startswith(SESSION_GONE)
        ):
            raise ConnectionLost(doing=doing, reason=one_line(error)) from error
        raise RecstoreError(f"The database refused while {doing}: {one_line(error)}.") from error
    except psycopg.Error as error:
        raise RecstoreError(f"The database refused while {doing}: {one_line(error)}.") from error


def with_short_lock(
    connection: Connection, settings: Settings, what: str, relation: str | Sequence[str], change: Callable[[], T]
) -> T:
    """Runs `change` in a transaction whose lock waits are short, again and again, so that readers never queue behind it
    for longer than `lock_timeout`. Commits. Raises LockTimeout, naming who holds `relation` (one, or several)."""
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
