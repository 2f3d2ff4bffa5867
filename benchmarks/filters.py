"""Measure filters that keep 50, 5, 0.5 and 0.05 % of the items: ANN recall, rows and time, next to the exact scan.

Five ways to ask: recommend() with candidates; a query of one's own that joins and filters, with and without a barrier for the
planner; the best 1,000 filtered afterwards; the filter first, ranked exactly. The statistics of the filtered table are fresh, or
stale: taken when no row passed (few), or when all did (many). All ways are asked in turn for each user, so that times compare.

    python benchmarks/filters.py --items 20000
    TMPDIR=/dev/shm python benchmarks/filters.py --items 1000000 --factors 32 --clusters 4000 --questions 20
"""

import statistics
import time
from collections import defaultdict

import eligibility
from eligibility import Asked
from measured import Measured

from recstore.definition import Publication
from recstore.postgres.connection import Connection

SHARES = (0.5, 0.05, 0.005, 0.0005)

STATISTICS = {"fresh": "number", "few": "1", "many": "0"}
"""Table -> number of its rows at ANALYZE, compared with the share."""

SEEN = "v.item_id <> ALL (ARRAY(SELECT retail.seen({user})))"
NEAREST = "v.preference <#> (SELECT retail.user_vector({user}))"

WAYS = {
    "exact scan": "SELECT r.item_id FROM retail.recommend({user}, {k}) r",
    "recommend, candidates": "SELECT r.item_id FROM retail.recommend({user}, {k}) r",
    "join and WHERE": f"""
        SELECT v.item_id FROM shop.{{table}} p JOIN retail.item_vectors v ON v.item_id = p.product_id
        WHERE p.number < {{share}} AND {SEEN} ORDER BY {NEAREST} LIMIT {{k}}""",
    "looked up, MATERIALIZED": f"""
        WITH nearest AS MATERIALIZED (
            SELECT v.item_id, {NEAREST} AS distance FROM retail.item_vectors v
            WHERE (SELECT p.number < {{share}} FROM shop.{{table}} p WHERE p.product_id = v.item_id) AND {SEEN}
            ORDER BY {NEAREST} LIMIT {{k}})
        SELECT n.item_id FROM nearest n JOIN shop.{{table}} p ON p.product_id = n.item_id ORDER BY n.distance""",
    "best 1000, then filter": f"""
        WITH nearest AS MATERIALIZED (
            SELECT v.item_id, {NEAREST} AS distance FROM retail.item_vectors v WHERE {SEEN} ORDER BY {NEAREST} LIMIT 1000)
        SELECT n.item_id FROM nearest n JOIN shop.{{table}} p ON p.product_id = n.item_id
        WHERE p.number < {{share}} ORDER BY n.distance LIMIT {{k}}""",
    "filter, then rank_items": """
        SELECT r.item_id FROM retail.rank_items({user}, ARRAY(
            SELECT p.product_id FROM shop.{table} p WHERE p.number < {share} EXCEPT SELECT retail.seen({user}))) r
        ORDER BY r.score DESC, r.item_id LIMIT {k}""",
}


def load(connection: Connection) -> None:
    """Create a table for each kind of statistics. All three have the same rows in the end."""
    for table, number in STATISTICS.items():
        connection.execute(
            f"""
            CREATE TABLE shop.{table} (product_id integer PRIMARY KEY, number double precision NOT NULL)
                WITH (autovacuum_enabled = false, fillfactor = 50);
            INSERT INTO shop.{table} SELECT product_id, {number} FROM shop.products;
            ANALYZE shop.{table};
            UPDATE shop.{table} t SET number = p.number FROM shop.products p
            WHERE p.product_id = t.product_id AND t.number <> p.number
            """
        )


def ask(asked: Asked, way: str, query: str) -> tuple[list[dict[str, int]], float]:
    """Return the answers and the shortest of the rounds in milliseconds."""
    connection, times = asked.connection, []
    with connection.transaction(force_rollback=True):
        if way == "exact scan":
            connection.execute("UPDATE recstore_private.generations SET recommend_ef = NULL")
        connection.execute("SELECT retail.use_search_settings()")
        for _ in range(asked.rounds):
            began = time.perf_counter()
            answers = connection.execute(query, prepare=False).fetchall()
            times.append(1000 * (time.perf_counter() - began))
    return answers, min(times)


def by_index(connection: Connection, query: str) -> str:
    with connection.transaction(force_rollback=True):
        connection.execute("SELECT retail.use_search_settings()")
        return "HNSW" if "_hnsw" in str(connection.execute(f"EXPLAIN {query}").fetchall()) else "-"


def main() -> None:
    parser = eligibility.arguments(20_000, 1_000, 200, 0.2)
    parser.description = __doc__
    parser.add_argument("--ann-recall", type=float, default=0.99, help="that calibration accepts")
    options = parser.parse_args()
    part = Measured("filters", **vars(options))
    with eligibility.shop(options, publication=Publication(ann_recall=options.ann_recall)) as (settings, asked, number):
        load(asked.connection)
        print(f"calibrated: {eligibility.chosen_plan(asked.connection)}")
        for share in SHARES:
            rows = asked.scores(number < share)
            for table in STATISTICS:
                eligibility.alter(asked.connection, settings, share, f"shop.{table}")
                times, hits, fewest = defaultdict[str, list[float]](list), defaultdict[str, int](int), dict[str, int]()
                for person, row in zip(asked.people, rows, strict=True):
                    for way, text in WAYS.items():
                        query = text.format(user=person + 1, table=table, share=share, k=options.k)
                        answers, milliseconds = ask(asked, way, query)
                        times[way].append(milliseconds)
                        hits[way] += eligibility.count_hits(row, answers, options.k)
                        fewest[way] = min(fewest.get(way, options.k), len(answers))
                exact = statistics.median(times["exact scan"])
                for way, text in WAYS.items():
                    median = statistics.median(times[way])
                    query = text.format(user=1, table=table, share=share, k=options.k)
                    figures = {"plan": by_index(asked.connection, query), "rows": fewest[way]}
                    figures |= {
                        "ann_recall": hits[way] / (options.k * len(rows)),
                        "ms": median,
                        "times_exact": median / exact,
                    }
                    part.row("ways", kept=f"{share:.2%}", statistics=table, way=way, **figures)
    part.write()


if __name__ == "__main__":
    main()
