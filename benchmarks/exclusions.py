"""Measure what exclusions cost recommend(), on the demo's data: two recommenders with the same vectors, one of them with 20
hidden items for each user, looked up by an index.

Interleaved in random order. The shortest time of each user counts; the figures are medians of those.

    python benchmarks/exclusions.py
"""

import random
import statistics
import time

import published
from measured import Measured

from recstore import demo, pipeline, registry
from recstore.definition import Definition, Exclusions, Hyperparameters, Publication, Source
from recstore.operations import recommenders

USERS, ROUNDS = 50, 20

CALLS = {
    "recommend, without exclusions": "plain.recommend({user}, 10)",
    "recommend, 20 exclusions of the user": "excluding.recommend({user}, 10)",
    "recommend, 20 items in exclude_items": "plain.recommend({user}, 10, true, ARRAY{twenty})",
    "recommend_for_items, 3 items": "plain.recommend_for_items(ARRAY{three})",
    "rank_items, 100 items": "plain.rank_items({user}, ARRAY{hundred})",
}


def main() -> None:
    part = Measured("exclusions", users=USERS, rounds=ROUNDS)
    with published.database() as (connection, settings, url):
        demo.load_shop(connection)
        connection.execute(
            "CREATE TABLE shop.hidden AS SELECT DISTINCT u.user_id, i.product_id AS item_id"
            " FROM (SELECT DISTINCT user_id FROM shop.views) u CROSS JOIN LATERAL"
            " (SELECT p.product_id FROM shop.products p ORDER BY hashint8(p.product_id * 100003 + u.user_id) LIMIT 20) i"
        )
        connection.execute("ALTER TABLE shop.hidden ADD PRIMARY KEY (user_id, item_id); ANALYZE shop.hidden")
        source = Source(table="shop.views", item="product_id", value="view_count")
        exclusions = Exclusions(query="SELECT user_id, item_id FROM shop.hidden")
        items = [
            row["id"] for row in connection.execute("SELECT product_id AS id FROM shop.products ORDER BY 1 LIMIT 100")
        ]
        lists = {"three": items[:3], "twenty": items[:20], "hundred": items}
        users = [
            row["id"] for row in connection.execute("SELECT DISTINCT user_id AS id FROM shop.views LIMIT %s", [USERS])
        ]
        for search in ("exact", "hnsw"):
            for name in ("plain", "excluding"):
                definition = Definition(
                    source=source,
                    exclusions=exclusions if name == "excluding" else Exclusions(),
                    hyperparameters=Hyperparameters(factors=64, iterations=5),
                    publication=Publication(search=search),
                )
                recommenders.create(connection, settings, name, definition)
                assert pipeline.retrain(url, settings, name).live
            connection.execute("SET jit = off")
            times: dict[str, dict[int, float]] = {what: {} for what in CALLS}
            for user in users * ROUNDS:
                for what in random.sample(list(CALLS), len(CALLS)):
                    statement = f"SELECT r.item_id FROM {CALLS[what].format(user=user, **lists)} r"
                    began = time.perf_counter()
                    connection.execute(statement).fetchall()
                    elapsed = 1000 * (time.perf_counter() - began)
                    times[what][user] = min(elapsed, times[what].get(user, elapsed))
            medians = {what: statistics.median(each.values()) for what, each in times.items()}
            for what, median in medians.items():
                part.row("calls", search=search, call=what, ms=median, times=median / next(iter(medians.values())))
            for name in ("plain", "excluding"):
                registry.drop(connection, settings, registry.get(connection, name))
    part.write()


if __name__ == "__main__":
    main()
