"""Waiting for transactions: which were open at some point, and which of them still are.

A transaction is known by its virtual transaction id, which pg_locks shows whatever the role. Nothing here ever ends or
cancels anybody's transaction.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import errors as pg
from psycopg.types.json import Jsonb

from recstore.postgres.connection import Connection
from recstore.sql import queries

LOCK_TIMEOUT = 0.5
"""Seconds that an invalidation waits for its lock; below deadlock_timeout."""


@dataclass(frozen=True)
class Blocker:
    """A session that holds something up; role, application and since are None where this role may not see them."""

    pid: int | None
    role: str | None
    application_name: str | None
    since: datetime | None

    def __str__(self) -> str:
        if not self.pid:
            return self.application_name or "a prepared transaction"
        who = f"process {self.pid}"
        about = [part for part in (self.application_name, f"role {self.role}" if self.role else None) if part]
        since = f", in a transaction since {self.since:%Y-%m-%d %H:%M:%S %Z}" if self.since else ""
        return f"{who} ({', '.join(about) or 'not visible to this role'}){since}"


def lock_holders(connection: Connection, relations: Sequence[str], *, strong: bool = False) -> list[str]:
    """Transactions that hold a lock on one of the relations now; with `strong` only a lock stronger than readers and
    writers take, as maintenance does (ANALYZE, CREATE INDEX)."""
    rows = connection.execute(
        queries.query("lock_holding_transactions"), {"relations": list(relations), "strong": strong}
    ).fetchall()
    return [row["virtualtransaction"] for row in rows]


def open_transactions(connection: Connection) -> list[str]:
    """Every transaction open in this database now."""
    return [row["virtualtransaction"] for row in connection.execute(queries.query("open_transactions")).fetchall()]


def still_open(connection: Connection, transactions: Sequence[str]) -> list[Blocker]:
    """Which of these transactions have not ended."""
    if not transactions:
        return []
    rows = connection.execute(queries.query("still_open"), {"transactions": list(transactions)}).fetchall()
    return [Blocker(row["pid"], row["role"], row["application_name"], row["since"]) for row in rows]


def old_snapshots(connection: Connection, xid: str) -> list[Blocker]:
    """Sessions whose snapshot may be from before transaction `xid`, as far as this role may see."""
    rows = connection.execute(queries.query("old_snapshots"), {"xid": xid}).fetchall()
    return [Blocker(row["pid"], row["role"], row["application_name"], row["since"]) for row in rows]


def advance(connection: Connection, generation: int, parents: Sequence[str]) -> list[Blocker]:
    """Moves a generation's barrier on as far as other transactions allow; returns who holds it up (none: it may flip).

    attached -> invalidated -> cleared. A statement planned before the partition was attached can take its snapshot after
    the flip, and a prepared one that reaches the partitions through an inlined function can miss the attach; so: wait for
    whoever held a lock on the parents at the attach, invalidate every plan once more, wait again (design: going live
    without a seam; measured there). Idempotent; safe to call from any process at any time.
    """
    row = connection.execute(queries.query("select_barrier"), {"generation": generation}).fetchone()
    assert row is not None
    barrier, transactions = row["barrier"], row["transactions"]
    if barrier == "cleared":
        return []
    if transactions is None:  # a process died before it noted them; whoever held the lock then holds it still
        transactions = note(connection, generation, barrier or "attached", lock_holders(connection, parents))
    blockers = still_open(connection, transactions)
    if blockers:
        return blockers
    if barrier in (None, "attached"):
        try:
            invalidate(connection, parents)
        except pg.LockNotAvailable:
            holders = lock_holders(connection, parents, strong=True)
            return still_open(connection, holders) or [Blocker(None, None, "a lock on the parent tables", None)]
        note(connection, generation, "invalidated", lock_holders(connection, parents))
        return advance(connection, generation, parents)
    note(connection, generation, "cleared", [])
    return []


def invalidate(connection: Connection, parents: Sequence[str]) -> None:
    """Makes every cached plan on the parents be made anew. SHARE UPDATE EXCLUSIVE: blocks no reader. Raises
    psycopg's LockNotAvailable where someone's maintenance (an ANALYZE, say) holds the same lock for long."""
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = {int(1000 * LOCK_TIMEOUT)}")
        for parent in parents:
            connection.execute(f"ALTER TABLE ONLY {parent} ALTER COLUMN generation SET STATISTICS -1")


def note(connection: Connection, generation: int, barrier: str, transactions: list[str]) -> list[str]:
    """Stores what a generation waits for, so that another process can go on waiting; returns the transactions."""
    connection.execute(
        queries.query("set_barrier"),
        {"generation": generation, "barrier": barrier, "transactions": Jsonb(transactions)},
    )
    return transactions


def wait(
    blockers: Callable[[], list[Blocker]], seconds: float, on_wait: Callable[[list[Blocker]], None] | None = None
) -> list[Blocker]:
    """Asks `blockers` again and again until there are none or the time is up; returns the last answer."""
    deadline = time.monotonic() + seconds
    pause = 0.01
    while (found := blockers()) and time.monotonic() < deadline:
        if on_wait:
            on_wait(found)
        time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(pause * 2, 0.5)
    return found
