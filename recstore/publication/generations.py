"""The tables of a generation: made and attached empty, listed, and in the end detached and dropped.

At the same time tables of their own (the functions read them) and partitions (the views read their parents). Nothing
here takes a lock that a reader of the views waits for, but for the drop of what no reader can see any more.
"""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors as pg

from recstore.config import Settings
from recstore.errors import ResizeUnfinished
from recstore.postgres.connection import Connection, with_short_lock
from recstore.publication import barriers
from recstore.publication.barriers import Blocker
from recstore.sql import objects, queries
from recstore.sql.objects import OLD_PARENTS, Registered


def table(recommender: Registered, kind: str, generation: int) -> str:
    """The generation's own table of `kind` (items, users, seen), quoted."""
    return recommender.relation(f"_{kind}_{generation}")


def all_of(connection: Connection, recommender: Registered) -> list[dict[str, Any]]:
    """The row of every generation that is not pruned, oldest first, with `live` beside it."""
    return connection.execute(queries.query("select_generations"), {"recommender_id": recommender.id}).fetchall()


def live(connection: Connection, recommender: Registered) -> int | None:
    """The generation pointed at; None before the first."""
    row = connection.execute(queries.query("select_pointer"), {"recommender_id": recommender.id}).fetchone()
    return row["generation"] if row else None


def attach(connection: Connection, settings: Settings, recommender: Registered) -> int:
    """Makes the next generation's empty tables and attaches them; returns its number.

    Attached long before the flip, so that whoever planned without the partitions has ended by then.
    """

    def change() -> int:
        connection.execute(queries.query("lock_recommender"), {"recommender_id": recommender.id})
        row = connection.execute(
            queries.query("insert_generation"),
            {
                "recommender_id": recommender.id,
                "vector_type": recommender.vector_type,
                "dimensions": recommender.dimensions,
            },
        ).fetchone()
        assert row is not None
        generation: int = row["generation"]
        for kind in ("items", "users"):
            parent, partition = recommender.relation(f"_{kind}"), table(recommender, kind, generation)
            connection.execute(f"CREATE TABLE {partition} (LIKE {parent} INCLUDING STORAGE)")
            objects.grant(connection, partition, objects.grants_on(connection, parent))
            connection.execute(f"ALTER TABLE {parent} ATTACH PARTITION {partition} FOR VALUES IN ({generation})")
        return generation

    generation = with_short_lock(
        connection,
        settings,
        f"Attaching the next generation of {recommender.name!r}",
        recommender.relation("_items"),
        change,
    )
    barriers.advance(connection, generation, recommender.parents())
    return generation


def advance_attached(connection: Connection, recommender: Registered) -> None:
    """Gets the waiting of the next generation over with, as far as other transactions allow."""
    for row in all_of(connection, recommender):
        if row["state"] == "attached":
            barriers.advance(connection, row["generation"], recommender.parents())


def held_up(connection: Connection, recommender: Registered) -> bool:
    """Whether all that is left to remove has readers still, or its parents have."""
    rows = all_of(connection, recommender)
    if any(row["state"] == "building" for row in rows):
        return False
    if barriers.still_open(connection, barriers.lock_holders(connection, recommender.parents())):
        return True
    return all(_may_see(connection, row["generation"]) for row in rows if row["state"] == "pruning")


def next_of(connection: Connection, settings: Settings, recommender: Registered) -> int:
    """The attached, empty generation that waits for a training; attaches one where there is none that fits."""
    for row in reversed(all_of(connection, recommender)):
        if row["state"] == "attached":
            if (row["vector_type"], row["dimensions"]) == (recommender.vector_type, recommender.dimensions):
                generation: int = row["generation"]
                return generation
            mark_pruning(connection, recommender, row["generation"], "its dimensions are no longer used")
    return attach(connection, settings, recommender)


def mark_pruning(connection: Connection, recommender: Registered, generation: int, reason: str) -> bool:
    """Takes a generation out of everybody's reach, unless it is live; from now on nobody new can read it."""
    with connection.transaction():
        keys = {"generation": generation, "recommender_id": recommender.id}
        connection.execute(queries.query("lock_generation"), keys)
        pointer = connection.execute(queries.query("select_pointer"), keys).fetchone()
        if pointer and pointer["generation"] == generation:
            return False
        connection.execute(queries.query("set_pruning"), keys | {"reason": reason})
    transactions = barriers.open_transactions(connection)
    barriers.note(connection, generation, "pruning", transactions)
    return True


def surplus(
    connection: Connection, settings: Settings, recommender: Registered, keep: int
) -> tuple[list[int], dict[int, float]]:
    """Generations to prune: all but the live one, the `keep - 1` newest that were live before, and the newest that is
    ready to go live; and, with the seconds left, those that would be but were live less than `retention` ago."""
    rows = all_of(connection, recommender)
    live = next((row["generation"] for row in rows if row["live"]), 0)
    ready = [row["generation"] for row in rows if row["state"] == "ready"]
    waiting = max((generation for generation in ready if generation > live), default=None)
    retired = sorted(
        (row["generation"] for row in rows if row["state"] == "published" and not row["live"]), reverse=True
    )
    found = [generation for generation in ready if generation != waiting]
    retained = {}
    for generation in retired[keep - 1 :]:
        row = connection.execute(
            queries.query("retired_long_enough"), {"recommender_id": recommender.id, "generation": generation}
        ).fetchone()
        left = settings.retention - row["seconds"] if row and row["seconds"] is not None else 0
        if left > 0:
            retained[generation] = left
        else:
            found.append(generation)
    return found, retained


@dataclass(frozen=True)
class Pruned:
    """What a prune did: generations removed, those that transactions hold up, and those retained for some seconds yet."""

    removed: list[int]
    postponed: dict[int, list[Blocker]]
    retained: dict[int, float]


def prune(
    connection: Connection, settings: Settings, recommender: Registered, keep: int, wait: float | None = None
) -> Pruned:
    """Removes surplus generations and leftovers of dead runs.

    Never waits longer than `prune_wait` for anybody; what is postponed goes with a later prune.
    """
    wait = settings.prune_wait if wait is None else wait
    found, retained = surplus(connection, settings, recommender, keep)
    for generation in found:
        mark_pruning(connection, recommender, generation, "superseded")
    removed: list[int] = []
    postponed: dict[int, list[Blocker]] = {}
    for row in all_of(connection, recommender):
        if row["state"] == "pruning":
            # who holds up one most likely holds up the others: waited for once
            try:
                blockers = _remove(connection, settings, recommender, row["generation"], 0 if postponed else wait)
            except pg.DependentObjectsStillExist as error:
                what = " ".join((error.diag.message_detail or "an object of somebody's").split())
                blockers = [Blocker(None, None, f"what depends on it ({what})", None)]
            if blockers:
                postponed[row["generation"]] = blockers
            else:
                removed.append(row["generation"])
    _drop_old_parents(connection, settings, recommender)
    return Pruned(removed, postponed, retained)


def _may_see(connection: Connection, generation: int) -> list[Blocker]:
    """Who may still read a generation that is being pruned: transactions open when it was marked, and any older snapshot."""
    row = connection.execute(queries.query("select_barrier"), {"generation": generation}).fetchone()
    assert row is not None
    transactions = row["transactions"]
    if transactions is None:
        transactions = barriers.note(connection, generation, "pruning", barriers.open_transactions(connection))
    found = barriers.still_open(connection, transactions)
    found += barriers.old_snapshots(connection, row["xid"]) if row["xid"] else []
    return list(dict.fromkeys(found))


def _remove(
    connection: Connection, settings: Settings, recommender: Registered, generation: int, wait: float
) -> list[Blocker]:
    blockers = barriers.wait(lambda: _may_see(connection, generation), wait)
    if blockers:
        return blockers
    for kind in ("items", "users"):
        for parent in (recommender.relation(f"_{kind}"), recommender.relation(OLD_PARENTS[f"_{kind}"])):
            blockers = _detach(connection, recommender, parent, f"_{kind}_{generation}", wait)
            if blockers:
                return blockers
    tables = ", ".join(table(recommender, kind, generation) for kind in ("items", "users", "seen"))

    def change() -> None:
        connection.execute(f"DROP TABLE IF EXISTS {tables}")
        connection.execute(queries.query("set_pruned"), {"generation": generation})

    with_short_lock(
        connection, settings, f"Removing generation {generation}", table(recommender, "items", generation), change
    )
    return []


def _partitions(connection: Connection, parent: str) -> dict[str, bool]:
    """Partition name -> whether a detach of it is pending."""
    rows = connection.execute(queries.query("partitions_of"), {"parent": parent}).fetchall()
    return {row["name"]: row["detach_pending"] for row in rows}


def _detach(connection: Connection, recommender: Registered, parent: str, partition: str, wait: float) -> list[Blocker]:
    """DETACH CONCURRENTLY, or FINALIZE where an earlier one was cancelled. Both wait for others, the one for every
    transaction that holds a lock on the parent, the other for every older snapshot; so those who hold a lock are waited
    for first, without holding anything, and what is left to wait for is cut short by `lock_timeout`."""
    found = _partitions(connection, parent)
    if partition not in found:
        return []
    holders = barriers.lock_holders(connection, [parent])
    blockers = barriers.wait(lambda: barriers.still_open(connection, holders), wait)
    if blockers:
        return blockers
    others = [name for name, pending in found.items() if pending and name != partition]
    connection.execute(f"SET lock_timeout = {max(100, int(1000 * wait))}")
    try:
        for name in others:  # there can be one pending detach per parent
            _finalize(connection, recommender, parent, name)
        if found[partition]:
            _finalize(connection, recommender, parent, partition)
        else:
            name = recommender.relation(partition)
            connection.execute(f"ALTER TABLE {parent} DETACH PARTITION {name} CONCURRENTLY")
    except (pg.LockNotAvailable, pg.DeadlockDetected):
        holders = barriers.lock_holders(connection, [parent]) or barriers.open_transactions(connection)
        return barriers.still_open(connection, holders) or [Blocker(None, None, "a lock on the parent table", None)]
    finally:
        if not connection.closed and connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            connection.execute("RESET lock_timeout")
    return []


def _finalize(connection: Connection, recommender: Registered, parent: str, partition: str) -> None:
    connection.execute(f"ALTER TABLE {parent} DETACH PARTITION {recommender.relation(partition)} FINALIZE")


def _drop_old_parents(connection: Connection, settings: Settings, recommender: Registered) -> None:
    """After a resize, when the last generation of the former dimensions is gone: views and parents back to one of each."""
    old = [recommender.relation(name) for name in OLD_PARENTS.values()]
    if not objects.has_old_parents(connection, recommender) or any(_partitions(connection, parent) for parent in old):
        return

    def change() -> None:
        objects.replace_views(connection, recommender, old_parents=False)
        connection.execute(f"DROP TABLE {', '.join(old)}")

    with_short_lock(
        connection,
        settings,
        f"Finishing the resize of {recommender.name!r}",
        recommender.relation("item_vectors"),
        change,
    )


def resize(
    connection: Connection, settings: Settings, recommender: Registered, vector_type: str, dimensions: int
) -> None:
    """Makes room for other dimensions: new parents beside the old ones, views over both, until the old generations are
    pruned. The one operation that a reader of the views may wait for, a moment; functions go on undisturbed."""

    def change() -> None:
        # the views first, as readers lock them before the parents: no deadlock
        objects.lock_views(connection, recommender)
        for name, old in OLD_PARENTS.items():
            connection.execute(f"ALTER TABLE {recommender.relation(name)} RENAME TO {old}")
        connection.execute(
            queries.query("update_storage"),
            {"recommender_id": recommender.id, "vector_type": vector_type, "dimensions": dimensions},
        )
        objects.replace_storage(connection, recommender, vector_type, dimensions)

    if objects.has_old_parents(connection, recommender):
        raise ResizeUnfinished(name=recommender.name)
    with_short_lock(
        connection, settings, f"Resizing {recommender.name!r}", recommender.relation("item_vectors"), change
    )
