"""Rebuild the indexes of the live generation and calibrate its queries again, while readers continue.

Every index is replaced by REINDEX CONCURRENTLY, so the old one serves until the new one is complete. Then each kind of query
is calibrated with the existing indexes; an index that this drops or adds is dropped or built concurrently.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from psycopg import errors as pg

from recstore.errors import ReindexBlocked
from recstore.publication import barriers, calibration, checks, indexes
from recstore.publication.barriers import Blocker
from recstore.publication.calibration import SEARCHED, Plans
from recstore.publication.generations import Prepared
from recstore.publication.indexes import DENSER, Graph
from recstore.runs import Run, Summary
from recstore.sql import queries
from recstore.sql.generation import sides


@dataclass(frozen=True)
class Rebuilt:
    """The names of the rebuilt indexes."""

    rows: list[dict[str, Any]]

    def details(self) -> dict[str, Any]:
        return {"indexes": [row["name"] for row in self.rows]}

    def __str__(self) -> str:
        return f"{len(self.rows)} rebuilt"


def prepare(run: Run) -> Prepared:
    """Drop what failed builds left, and wait for older transactions: here, because this holds no lock.

    Raises ReindexBlocked if they do not end within `flip_wait`.
    """
    indexes.drop_leftovers(run.connection, run.settings, run.generation)
    older = barriers.open_transactions(run.connection)
    blockers = barriers.wait(
        lambda: barriers.still_open(run.connection, older),
        run.settings.flip_wait,
        lambda found: run.reporter.progress("prepare", 0, 1, f"waits for {barriers.named(found)}"),
    )
    if blockers:
        raise _blocked(run, blockers)
    return Prepared(run.generation)


def rebuild(run: Run) -> Rebuilt:
    """Rebuild every valid index of the live generation. Raises ReindexBlocked."""
    rows = _size(run)
    found = [row for row in indexes.existing(run.connection, run.generation) if row["valid"]]
    with _bounded(run):
        for number, row in enumerate(found):
            run.check("index")
            run.reporter.progress("index", number, len(found), row["name"])
            side = "items" if row["name"].startswith("_items") else "users"
            dimensions, vector_type = run.recommender.dimensions, run.recommender.vector_type
            memory = indexes.graph_megabytes(rows[side], dimensions, vector_type, _graph(row["m"]))
            indexes.rebuild(run, row["name"], memory if row["hnsw"] else 0)
    return Rebuilt(found)


def calibrate(run: Run, rebuilt: Rebuilt) -> Plans:
    """Calibrate the queries with the rebuilt indexes. Raises ReindexBlocked."""
    built = {
        kind: _graph(row["m"])
        for kind, (side, column) in SEARCHED.items()
        for row in rebuilt.rows
        if row["name"] == run.generation.hnsw(side, column)
    }
    with _bounded(run):
        return calibration.calibrate(run, built, live=True)


def check(run: Run) -> Summary:
    """Check that every index that the plans need exists and is valid. Raises PublicationFailed."""
    hnsw = calibration.indexed(run.connection, run.generation)
    size = _size(run)
    tables = sides(seen=size["seen_published"], fold_in=size["folds_in"])
    expected = indexes.names(run.generation, tables, hnsw)
    checks.check_indexes(run.connection, run.generation, expected)
    return Summary(f"{len(expected)} indexes", {"indexes": len(expected)})


def _size(run: Run) -> dict[str, Any]:
    return queries.one(run.connection, "generation_size", generation=run.generation.number)


def _graph(m: int | None) -> Graph:
    return DENSER if m == DENSER.m else Graph()


@contextmanager
def _bounded(run: Run) -> Iterator[None]:
    """Turn a lock timeout of a concurrent build into ReindexBlocked, naming the blocking sessions."""
    try:
        yield
    except (pg.LockNotAvailable, pg.DeadlockDetected) as error:
        tables = [run.generation.items, run.generation.users]  # a prepared transaction is seen by its locks alone
        found = barriers.open_transactions(run.connection) + barriers.lock_holders(run.connection, tables)
        raise _blocked(run, barriers.still_open(run.connection, found)) from error


def _blocked(run: Run, blockers: list[Blocker]) -> ReindexBlocked:
    return ReindexBlocked(
        generation=run.generation.number, blockers=barriers.named(blockers) or "a session that has just ended"
    )
