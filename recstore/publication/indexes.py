"""The indexes of a generation's tables, built after the load with the memory and the workers that the server allows."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.errors import Diagnostic

from recstore.errors import RecstoreError
from recstore.postgres.connection import Connection, connect, one_line
from recstore.postgres.names import quoted
from recstore.publication import generations
from recstore.runs import BUILD_LOCK, LOCK_NAMESPACE, Run
from recstore.sql import queries
from recstore.sql.objects import Registered
from recstore.types import IdType


@dataclass(frozen=True)
class Graph:
    """An HNSW graph's shape; the defaults are pgvector's own."""

    m: int = 16
    ef_construction: int = 64


DENSER = Graph(m=32, ef_construction=200)
"""For vectors whose lengths differ so much that the default graph does not reach the wanted ANN recall."""


def index_lookups(connection: Connection, recommender: Registered, generation: int, *, seen: bool) -> None:
    """B-tree indexes: ids to rows (unique), and items by popularity."""
    for statement in lookups(recommender, generation, seen=seen).values():
        connection.execute(statement)


def lookups(recommender: Registered, generation: int, *, seen: bool, concurrently: bool = False) -> dict[str, str]:
    """Name of each B-tree index of a generation -> the statement that makes it."""
    collate = ' COLLATE "C"' if recommender.item_type is IdType.TEXT else ""
    wanted = [
        ("UNIQUE ", "items", "item_id", "(item_id)"),
        ("", "items", "popularity", f"(users DESC, views DESC, item_id{collate})"),
        ("UNIQUE ", "users", "user_id", "(user_id)"),
    ]
    if seen:
        wanted.append(("", "seen", "user_id", "(user_id) INCLUDE (item_id)"))
    return {
        index_name(kind, generation, what): f"CREATE {unique}INDEX {'CONCURRENTLY ' * concurrently}"
        f"{_name(kind, generation, what)} ON {generations.table(recommender, kind, generation)} {columns}"
        for unique, kind, what, columns in wanted
    }


def index_name(kind: str, generation: int, what: str) -> str:
    return f"_{kind}_{generation}_{what}"


def _name(kind: str, generation: int, what: str) -> str:
    return quoted(index_name(kind, generation, what))


def names(generation: int, *, seen: bool, hnsw: Sequence[tuple[str, str]]) -> list[str]:
    """The indexes that a complete generation has; `hnsw` are the (side, column) whose calibrated plan is the index."""
    lookups = [("items", "item_id"), ("items", "popularity"), ("users", "user_id")] + [("seen", "user_id")] * seen
    return [index_name(kind, generation, what) for kind, what in lookups] + [
        hnsw_name(side, generation, column) for side, column in hnsw
    ]


def hnsw_name(side: str, generation: int, column: str) -> str:
    return index_name(side, generation, f"{column}_hnsw")


def build_hnsw(
    run: Run, generation: int, side: str, column: str, rows: int, graph: Graph, *, live: bool = False
) -> None:
    """Builds the HNSW index of one vector column (`embedding` for cosine, `preference` for the inner product); on a live
    generation concurrently, so that nobody waits."""
    recommender = run.recommender
    operators = {"embedding": "cosine", "preference": "ip"}[column]
    extension = quoted(recommender.vector_schema)
    concurrently = "CONCURRENTLY " * live
    statement = (
        f"CREATE INDEX {concurrently}{quoted(hnsw_name(side, generation, column))}"
        f" ON {generations.table(recommender, side, generation)}"
        f" USING hnsw ({column} {extension}.{recommender.vector_type}_{operators}_ops)"
        f" WITH (m = {graph.m}, ef_construction = {graph.ef_construction})"
    )

    def clear() -> None:  # a concurrent build that failed leaves an invalid index behind
        if live:
            drop_hnsw(run, generation, side, column)

    wanted = graph_megabytes(rows, recommender.dimensions, recommender.vector_type, graph)
    _build(run, f"index on {column}", statement, wanted, clear, live=live)


def rebuild(run: Run, generation: int, name: str, megabytes: int = 0) -> None:
    """Builds an index of a live generation anew; nobody waits, and the old one serves until the new one does."""
    statement = f"REINDEX INDEX CONCURRENTLY {run.recommender.relation(name)}"
    _build(run, name, statement, megabytes, lambda: drop_leftovers(run, generation), live=True)


def _build(
    run: Run, what: str, statement: str, megabytes: int, clear: Callable[[], None], *, live: bool = False
) -> None:
    """Runs a statement that builds an index, one at a time in a database. Out of memory or of shared memory, it is tried
    again serially with less; `clear` removes what the failed attempt left. On a `live` generation it waits for every older
    transaction, `flip_wait` seconds for each at most. Raises psycopg's LockNotAvailable."""
    connection = run.connection
    memory, workers = min(max(megabytes, 64), run.settings.index_memory), run.settings.index_workers
    with _one_build(run, what), _notices(run), _watched(run, what):
        while True:
            connection.execute(f"SET maintenance_work_mem = '{memory}MB'")
            connection.execute(f"SET max_parallel_maintenance_workers = {workers}")
            if live:
                connection.execute(f"SET lock_timeout = {max(1, int(1000 * run.settings.flip_wait))}")
            try:
                connection.execute(statement)
                return
            except (pg.LockNotAvailable, pg.DeadlockDetected):
                clear()
                raise
            except (pg.OutOfMemory, pg.DiskFull, pg.InsufficientResources) as error:
                clear()
                lack = one_line(error)
                disk = isinstance(error, pg.DiskFull) and "shared memory" not in lack  # less memory makes no room there
                if disk or (workers == 0 and memory <= 16):
                    raise
                memory, workers = max(16, memory // 2), 0
                run.warn(f"Building the {what} ran out of memory ({lack}): trying again serially with {memory} MB.")
            finally:
                if not connection.closed:
                    connection.execute("RESET maintenance_work_mem")
                    connection.execute("RESET max_parallel_maintenance_workers")
                    if live:
                        connection.execute("RESET lock_timeout")


def graph_megabytes(rows: int, dimensions: int, vector_type: str, graph: Graph) -> int:
    """Memory that holds the whole graph while it is built: vectors, and neighbours on all layers (16 bytes each, with
    their candidates' distances), with a tenth to spare."""
    element = 4 if vector_type == "vector" else 2
    return int(1.1 * rows * (dimensions * element + 2 * graph.m * 16 + 128) / 2**20) + 1


def drop_hnsw(run: Run, generation: int, side: str, column: str) -> bool:
    """Drops an HNSW index without a lock that a reader of the views would wait for. False where a transaction that holds
    the table kept it from ending in time: then the index is invalid, which the planner ignores, and goes with its table."""
    return _drop(run, hnsw_name(side, generation, column))


def drop_leftovers(run: Run, generation: int) -> None:
    """Drops what builds that failed left on a live generation's tables: invalid indexes, as far as nobody holds them."""
    for row in of_generation(run, generation):
        if not row["valid"]:
            _drop(run, row["name"])


def of_generation(run: Run, generation: int) -> list[dict[str, Any]]:
    """The indexes of a generation's tables: name, side, column, valid, and m where it is HNSW."""
    tables = [generations.table(run.recommender, kind, generation) for kind in ("items", "users", "seen")]
    return run.connection.execute(queries.query("indexes_of"), {"tables": tables}).fetchall()


def _drop(run: Run, name: str) -> bool:
    connection = run.connection
    connection.execute(f"SET lock_timeout = {max(100, int(1000 * run.settings.prune_wait))}")
    try:
        connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {run.recommender.relation(name)}")
        return True
    except (pg.LockNotAvailable, pg.DeadlockDetected):
        return False
    finally:
        if not connection.closed:
            connection.execute("RESET lock_timeout")


@contextmanager
def _one_build(run: Run, what: str) -> Iterator[None]:
    connection = run.connection
    keys = {"namespace": LOCK_NAMESPACE, "recommender_id": BUILD_LOCK}
    while True:  # asked again and again, because a waiting statement would hold a snapshot all the while
        row = connection.execute(queries.query("lock_run"), keys).fetchone()
        if row and row["locked"]:
            break
        run.reporter.progress(what, 0, 1, "waits for another index build in this database")
        time.sleep(0.2)
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute(queries.query("unlock_run"), keys)


@contextmanager
def _notices(run: Run) -> Iterator[None]:
    """pgvector tells in a notice when the graph outgrew the memory."""

    def handle(diagnostic: Diagnostic) -> None:
        message = diagnostic.message_primary or ""
        if "no longer fits" in message:
            run.warn(f"{message}: the build is slower than it need be. Raise RECSTORE_INDEX_MEMORY.")

    run.connection.add_notice_handler(handle)
    try:
        yield
    finally:
        run.connection.remove_notice_handler(handle)


@contextmanager
def _watched(run: Run, what: str) -> Iterator[None]:
    """Reports how far a build is, from a second connection: the first is busy with it. Of a build that is quick, or where
    no connection is to be had, nothing is reported."""
    ended = threading.Event()
    pid = run.connection.info.backend_pid

    def watch() -> None:
        with suppress(psycopg.Error, RecstoreError):
            connection: Connection | None = None
            while not ended.wait(1.0):
                connection = connection or connect(run.url, "recstore:progress")
                row = connection.execute(queries.query("index_progress"), {"pid": pid}).fetchone()
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
