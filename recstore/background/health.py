"""Health checks of what recstore needs: short queries that never hang, each failing with an error that says what to do.

Used by `recstore health` and by a worker's /ready; metrics use the same kind of connection.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import psycopg
from psycopg.rows import dict_row

from recstore.config import Settings
from recstore.errors import ConnectionFailed, DispatchMissing, QueueUnserved
from recstore.postgres.connection import Connection, connect, conninfo, one_line, plain_errors
from recstore.postgres.names import quoted
from recstore.postgres.pooler import cut_off_after
from recstore.postgres.session import OWNER, use_settings
from recstore.sql import queries
from recstore.sql.schema_revision import current, require_current, require_extension

PATIENCE = 3
"""Seconds that connecting, and each statement, may take."""

MISSED, GRACE = 3, 10.0
"""Dispatches that may be missed, and seconds in addition, before their absence is reported."""

LISTENING = "recstore:listen:"
"""Beginning of the name of a worker's session that listens for requests; the queues that it takes from follow."""

PAUSE = 5.0
"""Seconds before a worker that lost the database connects again."""

ALIVE_EVERY = 30.0
"""Seconds after which a listening worker looks for what is due, and so tests a silent connection."""


@contextmanager
def asking(url: str, application_name: str) -> Iterator[Connection]:
    """Yield a connection that ends within seconds: by statement_timeout, or cut off where the server is frozen. Raises
    ConnectionFailed, ConnectionLost."""
    target = conninfo(url, application_name)
    try:
        connection = psycopg.connect(target, connect_timeout=PATIENCE, autocommit=True, row_factory=dict_row)
    except psycopg.Error as error:
        raise ConnectionFailed(reason=one_line(error)) from None
    cut = cut_off_after(PATIENCE + 1, connection)
    with closing(connection), cut, plain_errors("checking its health", connection):
        use_settings(connection, target)
        connection.execute(OWNER)
        connection.execute(f"SET statement_timeout = '{PATIENCE}s'")
        yield connection


def check_database(connection: Connection) -> None:
    """Raise unless the schema is this version's and pgvector's library, which a server upgrade may lose, loads."""
    require_current(connection)
    require_extension(connection)
    found = connection.execute(queries.query("vector_extension")).fetchone()
    assert found is not None
    connection.execute(f"SELECT '[1]'::{quoted(found['schema'])}.vector")


def check_start(url: str) -> None:
    """Raise RecstoreError unless the database is as a worker of this version needs it."""
    with connect(url) as connection, plain_errors("starting the worker", connection):
        require_extension(connection)
        require_current(connection)


def last_dispatch(connection: Connection) -> float | None:
    """Return the seconds since the last dispatch of any host; None before the first."""
    row = connection.execute(queries.query("last_dispatch")).fetchone()
    assert row is not None
    seconds: float | None = row["seconds"]
    return seconds


def longest_silence(settings: Settings) -> float:
    """Return the seconds between two dispatches after which no worker seems to dispatch."""
    return MISSED * settings.dispatch_interval + GRACE


def check_dispatch(settings: Settings, seconds: float | None) -> float:
    """Return the seconds since the last dispatch. Raises DispatchMissing if they are too many or None."""
    limit = longest_silence(settings)
    if seconds is None or seconds > limit:
        when = "No dispatch has been made yet" if seconds is None else f"The last dispatch was {seconds:.0f} s ago"
        raise DispatchMissing(when=when, interval=settings.dispatch_interval, limit=limit)
    return seconds


def workers_of_queues(connection: Connection) -> dict[str, int]:
    """Return the number of workers of each queue that the jobs need, counted by sessions: a worker that ends leaves no row."""
    rows = connection.execute(queries.query("metrics_queues"), {"listening": LISTENING}).fetchall()
    return {row["queue"]: row["workers"] for row in rows}


def check_queues(workers: dict[str, int]) -> None:
    """Raise QueueUnserved unless each queue has a worker."""
    if unserved := [queue for queue, number in workers.items() if not number]:
        raise QueueUnserved(queues=" and ".join(unserved), option=",".join(unserved))


@dataclass(frozen=True, kw_only=True)
class Health:
    """Everything works: the database's revision, whether a configured broker answers, the seconds since the last dispatch, the
    number of workers of each queue."""

    healthy: bool = True
    revision: str
    broker: bool
    last_dispatch_seconds: float
    workers: dict[str, int]


def check(database: str, settings: Settings) -> Health:
    """Check the database, the broker if one is configured, the last dispatch and the workers, in this order. Raises the first
    problem."""
    with asking(database, "recstore:health") as connection:
        check_database(connection)
        revision, dispatched = current(connection), last_dispatch(connection)
        workers = workers_of_queues(connection)
    assert revision is not None
    if settings.broker_url:
        from recstore.background.messages import queue_lengths  # imports redis-py, which no other command needs

        queue_lengths(settings.broker_url)
    seconds = check_dispatch(settings, dispatched)
    check_queues(workers)
    return Health(revision=revision, broker=bool(settings.broker_url), last_dispatch_seconds=seconds, workers=workers)
