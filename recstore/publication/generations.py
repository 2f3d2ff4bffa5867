"""Attach, list, detach and drop the tables of generations.

A generation's tables are read by the functions and are partitions of the parents that the views read. Nothing here takes a
lock that a reader of the views waits for, except the drop of a generation that no reader can see.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from psycopg import errors as pg

from recstore.config import Settings
from recstore.errors import ResizeUnfinished
from recstore.postgres.connection import Connection, session_settings, with_short_lock
from recstore.publication import barriers
from recstore.publication.barriers import Blocker
from recstore.sql import objects, queries
from recstore.sql.generation import Generation
from recstore.sql.objects import OLD_PARENTS, Registered


def all_of(connection: Connection, recommender: Registered) -> list[dict[str, Any]]:
    """Return the row of every generation that is not pruned, the oldest first; the column `live` marks the live one."""
    return queries.rows(connection, "select_generations", recommender_id=recommender.id)


def live(connection: Connection, recommender: Registered) -> Generation | None:
    """Return the live generation; None before the first publication."""
    row = queries.row(connection, "select_pointer", recommender_id=recommender.id)
    return Generation(recommender, row["generation"]) if row and row["generation"] is not None else None


def live_number(rows: list[dict[str, Any]]) -> int:
    """Return the number of the live one of `all_of`; 0 if none is."""
    return next((row["generation"] for row in rows if row["live"]), 0)


def attach(connection: Connection, settings: Settings, recommender: Registered) -> Generation:
    """Create the next generation's empty tables and attach them; return the generation.

    They are attached long before the flip, so that statements planned without the partitions have ended by then.
    """

    def change() -> Generation:
        queries.run(connection, "lock_recommender", recommender_id=recommender.id)
        storage = {"vector_type": recommender.vector_type, "dimensions": recommender.dimensions}
        row = queries.one(connection, "insert_generation", **storage, recommender_id=recommender.id)
        made = Generation(recommender, row["generation"])
        for parent, partition in zip(recommender.parents(), (made.items, made.users), strict=True):
            connection.execute(f"CREATE TABLE {partition} (LIKE {parent} INCLUDING STORAGE)")
            connection.execute(f"ALTER TABLE {partition} DISABLE ROW LEVEL SECURITY")  # an event trigger's
            objects.grant(connection, partition, objects.grants_on(connection, parent))
            connection.execute(f"ALTER TABLE {parent} ATTACH PARTITION {partition} FOR VALUES IN ({made.number})")
        return made

    generation = with_short_lock(
        connection,
        settings,
        f"Attaching the next generation of {recommender.name!r}",
        recommender.relation("_items"),
        change,
    )
    barriers.advance(connection, generation)
    return generation


def create_marks(connection: Connection, generation: Generation) -> None:
    """Create the table that says which rows a refresh wrote, and when; nothing if it exists."""
    user, item = generation.recommender.user_type.value, generation.recommender.item_type.value
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {generation.refreshed}"
        f" (user_id {user} UNIQUE, item_id {item} UNIQUE, refreshed_at timestamptz NOT NULL DEFAULT now())"
    )
    connection.execute(f"ALTER TABLE {generation.refreshed} DISABLE ROW LEVEL SECURITY")  # an event trigger's
    objects.grant(connection, generation.refreshed, [])


def has_marks(connection: Connection, generation: Generation) -> bool:
    """Return whether the generation has the table of `create_marks`."""
    (row,) = connection.execute("SELECT to_regclass(%s) IS NOT NULL AS there", [generation.refreshed])
    return bool(row["there"])


def advance_attached(connection: Connection, recommender: Registered) -> None:
    """Advance the barrier of the next generation as far as other transactions allow."""
    for row in all_of(connection, recommender):
        if row["state"] == "attached":
            barriers.advance(connection, Generation(recommender, row["generation"]))


def held_up(connection: Connection, recommender: Registered) -> bool:
    """Return whether transactions still read the parents, or every generation that is left to remove."""
    rows = all_of(connection, recommender)
    if any(row["state"] == "building" for row in rows):
        return False
    if barriers.still_open(connection, barriers.lock_holders(connection, recommender.parents())):
        return True
    return all(_may_see(connection, row["generation"]) for row in rows if row["state"] == "pruning")


def next_of(connection: Connection, settings: Settings, recommender: Registered) -> Generation:
    """Return the attached, empty generation; attach one if there is none with the recommender's storage."""
    for row in reversed(all_of(connection, recommender)):
        if row["state"] == "attached":
            generation = Generation(recommender, row["generation"])
            if (row["vector_type"], row["dimensions"]) == (recommender.vector_type, recommender.dimensions):
                return generation
            mark_pruning(connection, generation, "its dimensions are no longer used")
    return attach(connection, settings, recommender)


def mark_pruning(connection: Connection, generation: Generation, reason: str) -> bool:
    """Mark a generation for removal, so that no new statement reads it; return False if it is live."""
    with connection.transaction():
        queries.run(connection, "lock_generation", **generation.keys)
        pointer = queries.row(connection, "select_pointer", **generation.keys)
        if pointer and pointer["generation"] == generation.number:
            return False
        queries.run(connection, "set_pruning", **generation.keys, reason=reason)
    barriers.note(connection, generation.number, "pruning", barriers.open_transactions(connection))
    return True


def abandon_unfinished(connection: Connection, recommender: Registered) -> None:
    """Mark the generations that dead runs left half-built for removal. The caller holds the lock, so no run builds one."""
    for row in all_of(connection, recommender):
        if row["state"] == "building":
            generation = Generation(recommender, row["generation"])
            mark_pruning(connection, generation, f"run {row['run']} did not finish it")


def surplus(
    connection: Connection, settings: Settings, recommender: Registered, keep: int, *, withheld: bool
) -> tuple[list[int], dict[int, float]]:
    """Return the generations to prune, and the seconds left of those that `retention` still protects.

    Kept are the live one, the `keep - 1` newest that were live before, the newest that is ready to go live, and unless
    `withheld` the newest that is withheld.
    """
    rows = all_of(connection, recommender)
    live = live_number(rows)
    ready = [row["generation"] for row in rows if row["state"] == "ready"]
    newest = max([live, *ready])
    found = [generation for generation in ready if generation < newest]
    apart = [row["generation"] for row in rows if row["state"] == "withheld"]
    found += apart if withheld else apart[:-1]
    retired = [row["generation"] for row in reversed(rows) if row["state"] == "published" and not row["live"]]
    retained = {}
    for generation in retired[keep - 1 :]:
        row = queries.row(connection, "retired_long_enough", recommender_id=recommender.id, generation=generation)
        left = settings.retention - row["seconds"] if row and row["seconds"] is not None else 0
        if left > 0:
            retained[generation] = left
        else:
            found.append(generation)
    return found, retained


@dataclass(frozen=True)
class Prepared:
    """The generation that a run works on, and the sessions that its flip already waits for."""

    generation: Generation
    blockers: list[Blocker] = field(default_factory=list)

    def details(self) -> dict[str, Any]:
        waits = {"flip_waits_for": [str(blocker) for blocker in self.blockers]} if self.blockers else {}
        return {"generation": self.generation.number} | waits

    def __str__(self) -> str:
        return str(self.generation)


@dataclass(frozen=True)
class Pruned:
    """The generations that a prune removed, those that transactions hold up, and those retained, with the seconds left."""

    removed: list[int]
    postponed: dict[int, list[Blocker]]
    retained: dict[int, float]

    def details(self) -> dict[str, Any]:
        details: dict[str, Any] = {"pruned": self.removed}
        if self.postponed:
            details["postponed"] = {number: [str(one) for one in found] for number, found in self.postponed.items()}
        if self.retained:
            details["retained"] = {number: round(seconds) for number, seconds in self.retained.items()}
        return details

    def __str__(self) -> str:
        return "; ".join(pruned_words(self.details()))


def pruned_words(done: dict[str, Any]) -> list[str]:
    """Describe what a prune did and left, a phrase each."""
    removed = ", ".join(map(str, done["pruned"]))
    return [f"removed {removed}"] * bool(removed) + left_words(done) or ["no generation to remove"]


def left_words(done: dict[str, Any]) -> list[str]:
    """Describe which generations a prune left and why, a phrase each."""
    words = [f"{number} stays until {'; '.join(who)} has ended" for number, who in done.get("postponed", {}).items()]
    kept = done.get("retained", {})
    return words + [f"{number} stays {left} s more (RECSTORE_RETENTION)" for number, left in kept.items()]


def prune(
    connection: Connection,
    settings: Settings,
    recommender: Registered,
    keep: int,
    wait: float | None = None,
    *,
    withheld: bool = False,
) -> Pruned:
    """Remove surplus generations and leftovers of dead runs; with `withheld` also a withheld generation.

    Waits at most `wait` seconds (default: the setting `prune_wait`) for other transactions; a later prune removes the rest.
    """
    wait = settings.prune_wait if wait is None else wait
    found, retained = surplus(connection, settings, recommender, keep, withheld=withheld)
    for number in found:
        mark_pruning(connection, Generation(recommender, number), "superseded")
    removed: list[int] = []
    postponed: dict[int, list[Blocker]] = {}
    for row in all_of(connection, recommender):
        if row["state"] == "pruning":
            # a transaction that holds up one most likely holds up the others: wait for it once
            generation = Generation(recommender, row["generation"])
            try:
                blockers = _remove(connection, settings, generation, 0 if postponed else wait)
            except pg.DependentObjectsStillExist as error:
                what = " ".join((error.diag.message_detail or "an object of another role").split())
                blockers = [Blocker(application_name=f"what depends on it ({what})")]
            if blockers:
                postponed[generation.number] = blockers
            else:
                removed.append(generation.number)
    _drop_old_parents(connection, settings, recommender)
    return Pruned(removed, postponed, retained)


def discard(connection: Connection, settings: Settings, generation: Generation, reason: str) -> list[Blocker]:
    """Remove a generation that cannot be finished; return the sessions that keep its tables from being dropped.

    Then these are emptied, if no session holds a lock on them. Neither needs space on the disk.
    """
    if not mark_pruning(connection, generation, reason):
        return []
    blockers = _remove(connection, settings, generation, settings.prune_wait)
    if blockers:
        with suppress(pg.LockNotAvailable, pg.DeadlockDetected), session_settings(connection, lock_timeout=100):
            for row in queries.rows(connection, "indexes_of", tables=[generation.items, generation.users]):
                connection.execute(f"DROP INDEX {generation.recommender.relation(row['name'])}")  # or it takes a page
            connection.execute(f"DROP TABLE IF EXISTS {generation.seen}, {generation.fold_in}, {generation.basis}")
            connection.execute(f"TRUNCATE {generation.items}, {generation.users}")
    return blockers


def _may_see(connection: Connection, generation: int) -> list[Blocker]:
    """Return who may still read a generation that is being pruned: transactions open when it was marked, older snapshots."""
    row = queries.one(connection, "select_barrier", generation=generation)
    transactions = row["transactions"]
    if transactions is None:
        transactions = barriers.note(connection, generation, "pruning", barriers.open_transactions(connection))
    found = barriers.still_open(connection, transactions)
    found += barriers.old_snapshots(connection, row["xid"]) if row["xid"] else []
    return list(dict.fromkeys(found))


def _remove(connection: Connection, settings: Settings, generation: Generation, wait: float) -> list[Blocker]:
    recommender = generation.recommender
    blockers = barriers.wait(lambda: _may_see(connection, generation.number), wait)
    if blockers:
        return blockers
    for kind in ("items", "users"):
        for parent in (recommender.relation(f"_{kind}"), recommender.relation(OLD_PARENTS[f"_{kind}"])):
            blockers = _detach(connection, recommender, parent, f"_{kind}_{generation.number}", wait)
            if blockers:
                return blockers

    def change() -> None:
        connection.execute(f"DROP TABLE IF EXISTS {', '.join(generation.tables)}")
        queries.run(connection, "set_pruned", generation=generation.number)

    with_short_lock(connection, settings, f"Removing {generation}", generation.items, change)
    return []


def _partitions(connection: Connection, parent: str) -> dict[str, bool]:
    """Return, for each partition by name, whether its detach is pending."""
    rows = queries.rows(connection, "partitions_of", parent=parent)
    return {row["name"]: row["detach_pending"] for row in rows}


def _detach(connection: Connection, recommender: Registered, parent: str, partition: str, wait: float) -> list[Blocker]:
    """Detach a partition concurrently, or finalize a cancelled detach; return the sessions that prevent it.

    DETACH CONCURRENTLY waits for every transaction that holds a lock on the parent, FINALIZE for every older snapshot. So
    this waits for the lock holders first, without holding a lock, and `lock_timeout` bounds the rest.
    """
    found = _partitions(connection, parent)
    if partition not in found:
        return []
    holders = barriers.lock_holders(connection, [parent])
    blockers = barriers.wait(lambda: barriers.still_open(connection, holders), wait)
    if blockers:
        return blockers
    pending = [name for name in found if found[name]]  # at most one per parent; it prevents others
    try:
        with session_settings(connection, lock_timeout=max(100, int(1000 * wait))):
            for name in pending:
                connection.execute(f"ALTER TABLE {parent} DETACH PARTITION {recommender.relation(name)} FINALIZE")
            if partition not in pending:
                name = recommender.relation(partition)
                connection.execute(f"ALTER TABLE {parent} DETACH PARTITION {name} CONCURRENTLY")
    except (pg.LockNotAvailable, pg.DeadlockDetected):
        holders = barriers.lock_holders(connection, [parent]) or barriers.open_transactions(connection)
        return barriers.still_open(connection, holders) or [Blocker(application_name="a lock on the parent table")]
    return []


def _drop_old_parents(connection: Connection, settings: Settings, recommender: Registered) -> None:
    """Drop the former parents of a resize once their last generation is pruned, and restore the views over one parent."""
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
    """Add parents with other dimensions, with views over both kinds until the old generations are pruned.

    The only operation that a reader of the views may wait for, for a moment; the functions are not affected.
    """

    def change() -> None:
        # lock the views first, as readers do: no deadlock
        objects.lock_views(connection, recommender)
        for name, old in OLD_PARENTS.items():
            connection.execute(f"ALTER TABLE {recommender.relation(name)} RENAME TO {old}")
        queries.run(
            connection, "update_storage", recommender_id=recommender.id, vector_type=vector_type, dimensions=dimensions
        )
        objects.replace_storage(connection, recommender, vector_type, dimensions)

    if objects.has_old_parents(connection, recommender):
        raise ResizeUnfinished(name=recommender.name)
    with_short_lock(
        connection, settings, f"Resizing {recommender.name!r}", recommender.relation("item_vectors"), change
    )
