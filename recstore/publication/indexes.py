"""Build, rebuild and drop the indexes of a generation's tables, within the memory and workers that the server allows."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.errors import Diagnostic

from recstore.config import Settings
from recstore.errors import RecstoreError
from recstore.postgres.connection import Connection, connect, one_line, session_settings
from recstore.postgres.names import quoted
from recstore.runs import BUILD_LOCK, LOCK_NAMESPACE, Run
from recstore.sql import queries
from recstore.sql.generation import Generation, Side
from recstore.types import IdType


@dataclass(frozen=True)
class Graph:
    """An HNSW graph's shape; the defaults are pgvector's own."""

    m: int = 16
    ef_construction: int = 64


DENSER = Graph(m=32, ef_construction=200)
"""The graph for vectors whose lengths differ too much for the default one to reach the wanted ANN recall."""


SERIAL_BELOW = (0, 8, 2)
"""pgvector from which a parallel build of an HNSW index cannot overflow a buffer (CVE-2026-3172)."""


UPDATABLE_FROM = (0, 8, 4)
"""pgvector from which a vacuum does not corrupt an HNSW index whose rows were updated in place."""


def pgvector(connection: Connection) -> tuple[int, ...]:
    """Return the version of pgvector in this database."""
    version = queries.one(connection, "vector_extension")["version"]
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def lookups(generation: Generation, sides: Sequence[Side], *, concurrently: bool = False) -> dict[str, str]:
    """Return the statement that builds each B-tree index of these tables of a generation, by the index's name."""
    collate = ' COLLATE "C"' if generation.recommender.item_type is IdType.TEXT else ""
    wanted: list[tuple[str, Side, str, str]] = [
        ("UNIQUE ", "items", "item_id", "(item_id)"),
        ("", "items", "popularity", f"(users DESC, views DESC, item_id{collate})"),
        ("UNIQUE ", "users", "user_id", "(user_id)"),
        ("", "seen", "user_id", "(user_id) INCLUDE (item_id)"),
        ("UNIQUE ", "fold_in", "item_id", "(item_id)"),
    ]
    return {
        generation.index(side, what): f"CREATE {unique}INDEX {'CONCURRENTLY ' * concurrently}"
        f"{quoted(generation.index(side, what))} ON {generation.table(side)} {columns}"
        for unique, side, what, columns in wanted
        if side in sides
    }


def names(generation: Generation, sides: Sequence[Side], hnsw: Sequence[tuple[Side, str]]) -> list[str]:
    """Return the names of a complete generation's indexes; `hnsw` are the (side, column) whose plan uses the index."""
    return [*lookups(generation, sides), *(generation.hnsw(side, column) for side, column in hnsw)]


def build_hnsw(run: Run, side: Side, column: str, rows: int, graph: Graph, *, live: bool = False) -> None:
    """Build the HNSW index of a vector column (`embedding` for cosine, `preference` for the inner product).

    On a live generation the build is concurrent and blocks no session.
    """
    recommender, generation = run.recommender, run.generation
    operators = {"embedding": "cosine", "preference": "ip"}[column]
    extension = quoted(recommender.vector_schema)
    statement = (
        f"CREATE INDEX {'CONCURRENTLY ' * live}{quoted(generation.hnsw(side, column))} ON {generation.table(side)}"
        f" USING hnsw ({column} {extension}.{recommender.vector_type}_{operators}_ops)"
        f" WITH (m = {graph.m}, ef_construction = {graph.ef_construction})"
    )

    def clear() -> None:  # a concurrent build that failed leaves an invalid index
        if live:
            drop_hnsw(run, side, column)

    wanted = graph_megabytes(rows, recommender.dimensions, recommender.vector_type, graph)
    _build(run, f"index on {column}", statement, wanted, clear, live=live)


def rebuild(run: Run, name: str, megabytes: int = 0) -> None:
    """Rebuild an index of a live generation; no session waits, and the old index serves until the new one is complete."""
    statement = f"REINDEX INDEX CONCURRENTLY {run.recommender.relation(name)}"
    _build(
        run, name, statement, megabytes, lambda: drop_leftovers(run.connection, run.settings, run.generation), live=True
    )


def _build(
    run: Run, what: str, statement: str, megabytes: int, clear: Callable[[], None], *, live: bool = False
) -> None:
    """Run a statement that builds an index, one at a time in a database.

    If memory or shared memory runs out, retry serially with less; `clear` removes what the failed attempt left. On a `live`
    generation it waits for every older transaction, at most `flip_wait` seconds for each. Raises psycopg's LockNotAvailable.
    """
    connection = run.connection
    memory, workers = min(max(megabytes, 64), run.settings.index_memory), run.settings.index_workers
    if pgvector(connection) < SERIAL_BELOW:
        workers = 0
    with _one_build(run, what), _notices(run), _watched(run, what):
        while True:
            settings = {"maintenance_work_mem": f"'{memory}MB'", "max_parallel_maintenance_workers": workers}
            if live:
                settings["lock_timeout"] = max(1, int(1000 * run.settings.flip_wait))
            try:
                with session_settings(connection, **settings):
                    connection.execute(statement)
                return
            except (pg.LockNotAvailable, pg.DeadlockDetected):
                clear()
                raise
            except (pg.OutOfMemory, pg.DiskFull, pg.InsufficientResources) as error:
                clear()
                reason = one_line(error)
                # less memory frees no disk space
                disk = isinstance(error, pg.DiskFull) and "shared memory" not in reason
                if disk or (workers == 0 and memory <= 16):
                    raise
                memory, workers = max(16, memory // 2), 0
                run.warn(f"Building the {what} ran out of memory ({reason}): retrying serially with {memory} MB.")


def graph_megabytes(rows: int, dimensions: int, vector_type: str, graph: Graph) -> int:
    """Return the memory in MB that holds a graph while it is built: vectors and neighbours on all layers, plus a tenth.

    A neighbour takes 16 bytes with its distance.
    """
    element = 4 if vector_type == "vector" else 2
    return int(1.1 * rows * (dimensions * element + 2 * graph.m * 16 + 128) / 2**20) + 1


def drop_hnsw(run: Run, side: Side, column: str) -> bool:
    """Drop an HNSW index without a lock that a reader of the views would wait for.

    Return False if a transaction that holds the table kept it from ending in time. Then the index is invalid, which the
    planner ignores, and is dropped with its table.
    """
    return _drop(run.connection, run.settings, run.generation, run.generation.hnsw(side, column))


def drop_leftovers(connection: Connection, settings: Settings, generation: Generation) -> None:
    """Drop the invalid indexes that failed builds left on a generation's tables, unless a transaction holds them."""
    for row in existing(connection, generation):
        if not row["valid"]:
            _drop(connection, settings, generation, row["name"])


def existing(connection: Connection, generation: Generation) -> list[dict[str, Any]]:
    """Return the indexes of a generation's tables: name, valid, whether they are HNSW, and its m."""
    return queries.rows(connection, "indexes_of", tables=generation.tables)


def _drop(connection: Connection, settings: Settings, generation: Generation, name: str) -> bool:
    try:
        with session_settings(connection, lock_timeout=max(100, int(1000 * settings.prune_wait))):
            connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {generation.recommender.relation(name)}")
        return True
    except (pg.LockNotAvailable, pg.DeadlockDetected):
        return False


@contextmanager
def _one_build(run: Run, what: str) -> Iterator[None]:
    connection = run.connection
    keys = {"namespace": LOCK_NAMESPACE, "recommender_id": BUILD_LOCK}
    while True:  # polls, because a waiting statement would hold a snapshot
        row = queries.row(connection, "lock_run", **keys)
        if row and row["locked"]:
            break
        run.reporter.progress(what, 0, 1, "waits for another index build in this database")
        time.sleep(0.2)
    try:
        yield
    finally:
        if not connection.closed:
            queries.run(connection, "unlock_run", **keys)


@contextmanager
def _notices(run: Run) -> Iterator[None]:
    """Turn pgvector's notice that the graph outgrew the memory into a warning."""

    def handle(diagnostic: Diagnostic) -> None:
        message = diagnostic.message_primary or ""
        if "no longer fits" in message:
            run.warn(f"{message}: the build is slower than necessary. Raise RECSTORE_INDEX_MEMORY.")

    run.connection.add_notice_handler(handle)
    try:
        yield
    finally:
        run.connection.remove_notice_handler(handle)


@contextmanager
def _watched(run: Run, what: str) -> Iterator[None]:
    """Report the progress of a build from a second connection, if there is one; a quick build reports nothing."""
    ended = threading.Event()
    pid = run.connection.info.backend_pid

    def watch() -> None:
        with suppress(psycopg.Error, RecstoreError):
            connection: Connection | None = None
            while not ended.wait(1.0):
                connection = connection or connect(run.url, "recstore:progress")
                row = queries.row(connection, "index_progress", pid=pid)
                if row and row["total"]:
                    run.reporter.progress(what, row["done"], row["total"])
            if connection:
                connection.close()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
