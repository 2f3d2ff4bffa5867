"""Wait for transactions: which were open at some point, and which of them still are.

A transaction is identified by its virtual transaction id, which pg_locks shows to every role. Nothing here cancels or ends a
transaction of another session.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import errors as pg
from psycopg.types.json import Jsonb

from recstore.postgres.connection import Connection
from recstore.sql import queries
from recstore.sql.generation import Generation

LOCK_TIMEOUT = 0.5
"""Seconds to wait for the lock of an invalidation; below deadlock_timeout."""


@dataclass(frozen=True)
class Blocker:
    """A session that others wait for; role, application and since are None if this role may not see them."""

    pid: int | None = None
    role: str | None = None
    application_name: str | None = None
    since: datetime | None = None

    def __str__(self) -> str:
        if not self.pid:
            return self.application_name or "a prepared transaction"
        who = f"process {self.pid}"
        about = [part for part in (self.application_name, f"role {self.role}" if self.role else None) if part]
        since = f", in a transaction since {self.since:%Y-%m-%d %H:%M:%S %Z}" if self.since else ""
        return f"{who} ({', '.join(about) or 'not visible to this role'}){since}"


def lock_holders(connection: Connection, relations: Sequence[str], *, strong: bool = False) -> list[str]:
    """Return the transactions that hold a lock on one of the relations.

    With `strong`, only locks that are stronger than those of readers and writers, as ANALYZE and CREATE INDEX take.
    """
    rows = queries.rows(connection, "lock_holding_transactions", relations=list(relations), strong=strong)
    return [row["virtualtransaction"] for row in rows]


def open_transactions(connection: Connection) -> list[str]:
    """Return every transaction that is open in this database."""
    return [row["virtualtransaction"] for row in queries.rows(connection, "open_transactions")]


def still_open(connection: Connection, transactions: Sequence[str]) -> list[Blocker]:
    """Return the sessions of those transactions that have not ended."""
    return _blockers(connection, "still_open", transactions=list(transactions)) if transactions else []


def old_snapshots(connection: Connection, xid: str) -> list[Blocker]:
    """Return the sessions whose snapshot may be older than transaction `xid`, as far as this role may see."""
    return _blockers(connection, "old_snapshots", xid=xid)


def _blockers(connection: Connection, statement: str, **keys: object) -> list[Blocker]:
    rows = queries.rows(connection, statement, **keys)
    return [Blocker(row["pid"], row["role"], row["application_name"], row["since"]) for row in rows]


def named(blockers: Sequence[Blocker]) -> str:
    """Return the sessions in a sentence."""
    return "; ".join(map(str, blockers))


def advance(connection: Connection, generation: Generation) -> list[Blocker]:
    """Advance a generation's barrier as far as other transactions allow; return the sessions that it waits for.

    attached -> invalidated -> cleared; without a blocker the generation may flip. A statement planned before the partition
    was attached can take its snapshot after the flip, and a prepared one that reaches the partitions through an inlined
    function can miss the attach. So this waits for the lock holders on the parents at the attach, invalidates every plan,
    and waits again (measured in design: going live without a seam). Idempotent and safe to call from any process.
    """
    parents = generation.recommender.parents()
    row = queries.one(connection, "select_barrier", generation=generation.number)
    barrier, transactions = row["barrier"], row["transactions"]
    if barrier == "cleared":
        return []
    if transactions is None:  # a process died before it noted them; a holder of then still holds the lock
        transactions = note(connection, generation.number, barrier or "attached", lock_holders(connection, parents))
    blockers = still_open(connection, transactions)
    if blockers:
        return blockers
    if barrier in (None, "attached"):
        try:
            invalidate(connection, parents)
        except pg.LockNotAvailable:
            holders = lock_holders(connection, parents, strong=True)
            return still_open(connection, holders) or [Blocker(application_name="a lock on the parent tables")]
        note(connection, generation.number, "invalidated", lock_holders(connection, parents))
        return advance(connection, generation)
    note(connection, generation.number, "cleared", [])
    return []


def invalidate(connection: Connection, parents: Sequence[str]) -> None:
    """Invalidate every cached plan on the parents. SHARE UPDATE EXCLUSIVE: blocks no reader.

    Raises psycopg's LockNotAvailable if maintenance, for example ANALYZE, holds the same lock.
    """
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = {int(1000 * LOCK_TIMEOUT)}")
        for parent in parents:
            connection.execute(f"ALTER TABLE ONLY {parent} ALTER COLUMN generation SET STATISTICS -1")


def note(connection: Connection, generation: int, barrier: str, transactions: list[str]) -> list[str]:
    """Store the transactions that a generation waits for, so that another process can continue; return them."""
    queries.run(connection, "set_barrier", generation=generation, barrier=barrier, transactions=Jsonb(transactions))
    return transactions


def wait(
    blockers: Callable[[], list[Blocker]], seconds: float, on_wait: Callable[[list[Blocker]], None] | None = None
) -> list[Blocker]:
    """Poll `blockers` until it returns none or `seconds` have passed; return its last answer."""
    deadline = time.monotonic() + seconds
    pause = 0.01
    while (found := blockers()) and time.monotonic() < deadline:
        if on_wait:
            on_wait(found)
        time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(pause * 2, 0.5)
    return found
