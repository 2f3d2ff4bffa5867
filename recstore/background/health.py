"""Whether what recstore needs answers. Short questions that never hang; each fails with the error that says what to do.

Asked by `recstore health` and by a worker's /ready; its metrics come over the same kind of connection.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg.rows import dict_row

from recstore.config import Settings
from recstore.errors import ConnectionFailed, DispatchMissing
from recstore.postgres.connection import Connection, conninfo, one_line, plain_errors
from recstore.postgres.names import quoted
from recstore.postgres.pooler import cut_off
from recstore.sql import queries
from recstore.sql.schema_revision import current, require_current, require_extension

PATIENCE = 3
"""Seconds that connecting, and each statement, may take."""

MISSED = 3
"""Dispatches that may be missed, and GRACE seconds more, before somebody should look."""
GRACE = 10.0


@contextmanager
def asking(url: str, who: str) -> Iterator[Connection]:
    """A connection that is gone within seconds whatever the server does: statement_timeout is for one that still works, and
    one that is frozen is cut off. Raises ConnectionFailed, ConnectionLost."""
    try:
        connection = psycopg.connect(
            conninfo(url, who), connect_timeout=PATIENCE, autocommit=True, row_factory=dict_row
        )
    except psycopg.Error as error:
        raise ConnectionFailed(reason=one_line(error)) from None
    cut = threading.Timer(PATIENCE + 1, cut_off, [connection])
    cut.daemon = True
    cut.start()
    try:
        with plain_errors("asking how it is", connection):
            connection.execute(f"SET statement_timeout = '{PATIENCE}s'")
            yield connection
    finally:
        cut.cancel()
        connection.close()


def check_database(connection: Connection) -> None:
    """Raises unless the schema is this version's and pgvector, which may be lost in an upgrade of the server, loads."""
    require_current(connection)
    require_extension(connection)
    found = connection.execute(queries.query("vector_extension")).fetchone()
    assert found is not None
    connection.execute(f"SELECT '[1]'::{quoted(found['schema'])}.vector")


def last_dispatch(connection: Connection) -> float | None:
    """Seconds since some host's workers last looked for due work; None: none ever has."""
    row = connection.execute(queries.query("last_dispatch")).fetchone()
    assert row is not None
    seconds: float | None = row["seconds"]
    return seconds


def longest_silence(settings: Settings) -> float:
    """Seconds between two dispatches after which nobody seems to look for due work."""
    return MISSED * settings.dispatch_interval + GRACE


def check_dispatch(settings: Settings, seconds: float | None) -> float:
    """The seconds, unless the last dispatch was longer ago than a few intervals. Raises DispatchMissing."""
    limit = longest_silence(settings)
    if seconds is None or seconds > limit:
        when = "No dispatch has been made yet" if seconds is None else f"The last dispatch was {seconds:.0f} s ago"
        raise DispatchMissing(when=when, interval=settings.dispatch_interval, limit=limit)
    return seconds


@dataclass(frozen=True, kw_only=True)
class Health:
    """All is well: the database's revision, and how long ago the workers last looked for due work."""

    healthy: bool = True
    revision: str
    last_dispatch_seconds: float


def check(database: str, broker: str, settings: Settings) -> Health:
    """Asks the database, the broker and the last dispatch, in this order. Raises what is wrong, with what to do about it."""
    from recstore.background.broker import queue_lengths  # redis-py, which no other command needs

    with asking(database, "recstore:health") as connection:
        check_database(connection)
        revision, dispatched = current(connection), last_dispatch(connection)
    assert revision is not None
    queue_lengths(broker)
    return Health(revision=revision, last_dispatch_seconds=check_dispatch(settings, dispatched))
