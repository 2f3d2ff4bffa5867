"""The indexes of the live generation built anew, and its queries calibrated again, while readers go on.

Every index is replaced as REINDEX CONCURRENTLY does, so the old one serves until the new one is complete; then each kind of
query is calibrated with what is there. An index that this takes away, or brings, is dropped and built concurrently too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg import errors as pg

from recstore.errors import ReindexBlocked
from recstore.publication import barriers, calibration, checks, generations, indexes
from recstore.publication.barriers import Blocker
from recstore.publication.calibration import SEARCHED, Kind, Query, recommending
from recstore.publication.indexes import DENSER, Graph
from recstore.runs import Run
from recstore.sql.queries import query


def reindex(run: Run, generation: int) -> dict[str, Any]:
    """Rebuilds, calibrates and checks; returns kind of query -> chosen plan. Each step is a stage that commits by itself.
    Raises ReindexBlocked where older transactions do not end within `flip_wait`."""
    with run.stage("prepare") as details:
        indexes.drop_leftovers(run, generation)
        _wait_for_older(run, generation)
        details["generation"] = generation
    with run.stage("index") as details:
        rows = run.connection.execute(query("generation_size"), {"generation": generation}).fetchone()
        assert rows is not None
        found = [row for row in indexes.of_generation(run, generation) if row["valid"]]
        with _bounded(run, generation):
            for number, row in enumerate(found):
                run.check("index")
                run.reporter.progress("index", number, len(found), row["name"])
                side = "items" if row["name"].startswith("_items") else "users"
                dimensions, vector_type = run.recommender.dimensions, run.recommender.vector_type
                memory = indexes.graph_megabytes(rows[side], dimensions, vector_type, _graph(row["m"]))
                indexes.rebuild(run, generation, row["name"], memory if row["hnsw"] else 0)
        details["indexes"] = [row["name"] for row in found]
    with run.stage("calibrate") as details:
        built = {
            kind: _graph(row["m"])
            for kind, (side, column) in SEARCHED.items()
            for row in found
            if row["name"] == indexes.hnsw_name(side, generation, column)
        }
        with _bounded(run, generation):
            plans = calibration.calibrate_all(run, generation, _kinds(run, generation, rows), built, live=True)
        details |= plans
    with run.stage("check") as details:
        hnsw = [SEARCHED[kind] for kind, plan in plans.items() if plan["ef"]]
        expected = indexes.names(generation, seen=rows["seen_published"], hnsw=hnsw)
        checks.check_indexes(run.connection, run.recommender, generation, expected)
        details["indexes"] = len(expected)
    return plans


def _graph(m: int | None) -> Graph:
    return DENSER if m == DENSER.m else Graph()


@contextmanager
def _bounded(run: Run, generation: int) -> Iterator[None]:
    """Says for whom a concurrent build waited in vain."""
    try:
        yield
    except (pg.LockNotAvailable, pg.DeadlockDetected) as error:
        raise _blocked(generation, _older(run)) from error


def _older(run: Run) -> list[Blocker]:
    return barriers.still_open(run.connection, barriers.open_transactions(run.connection))


def _wait_for_older(run: Run, generation: int) -> None:
    """A concurrent build waits for every older transaction; waited for here first, because this holds nothing."""
    older = barriers.open_transactions(run.connection)
    blockers = barriers.wait(
        lambda: barriers.still_open(run.connection, older),
        run.settings.flip_wait,
        lambda found: run.reporter.progress("prepare", 0, 1, f"waits for {'; '.join(map(str, found))}"),
    )
    if blockers:
        raise _blocked(generation, blockers)


def _blocked(generation: int, blockers: list[Blocker]) -> ReindexBlocked:
    return ReindexBlocked(
        generation=generation, blockers="; ".join(map(str, blockers)) or "a session that has just ended"
    )


def _kinds(run: Run, generation: int, rows: dict[str, Any]) -> list[Kind]:
    """Sampled questions from the generation's own tables; what a user has seen from the source, as recommend() asks it."""
    recommender = run.recommender
    users, items = (generations.table(recommender, side, generation) for side in ("users", "items"))
    people = _sample(run, users, "user_id", "preference")
    products = _sample(run, items, "item_id", "embedding")
    seen_in = recommender.relation("interactions")
    if rows["seen_published"]:
        seen_in = generations.table(recommender, "seen", generation)
    seen = f"SELECT array_agg(s.item_id) AS ids FROM {seen_in} s WHERE s.user_id = %s"  # noqa: S608
    queries = []
    for row in people:
        found = run.connection.execute(seen, [row["id"]]).fetchone()
        queries.append(Query(row["vector"], (found and found["ids"]) or []))
    published = rows["items"] - rows["collapsed_items"]
    kinds = [
        recommending(published, queries),
        Kind("similar", published, [Query(row["vector"], [row["id"]]) for row in products]),
    ]
    if recommender.definition.publication.index_users:
        kinds.append(Kind("users", rows["users"], [Query(row["vector"], [row["id"]]) for row in people]))
    return kinds


def _sample(run: Run, table: str, identifier: str, column: str) -> list[dict[str, Any]]:
    return run.connection.execute(
        f"SELECT v.{identifier} AS id, v.{column}::text AS vector FROM {table} v WHERE v.{column} IS NOT NULL"  # noqa: S608
        f" ORDER BY hashtextextended(v.{identifier}::text, %s), v.{identifier} LIMIT %s",
        [run.number, run.settings.calibration_questions],
    ).fetchall()
