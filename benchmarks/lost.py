"""Ask for every user of a published recommender, and compare each list with the exact one: mean, users who lose half, worst.

Three catalogues of text ids, trained by ALS: tails whose items of few viewers have equal vectors, with communities of a few
users and items apart; and the demo's retail data, and a course's clicks.

    python benchmarks/lost.py --users 3000 --items 20000
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import published
import pyarrow as pa
from numpy.typing import NDArray

from recstore.config import Settings
from recstore.definition import Confidence, Definition, Hyperparameters, Source, Storage
from recstore.demo import load_shop
from recstore.model import confidence
from recstore.model.interactions import IdMap, Interactions
from recstore.model.trainers.als import ALS
from recstore.operations import recommenders
from recstore.postgres.connection import Connection

FACTORS = 64
COURSE = Path(__file__).parent.parent / "tests" / "data" / "oulad_aaa_sample.views.csv.gz"
K = 10

TIMED = 100
"""Number of queries whose exact scan is timed."""


def viewed(
    users: int, items: int, tail: float, apart: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (user, item) of each view: 60 clusters with a tail, 6 views anywhere, `apart` communities of 10 users and items."""
    size, pairs = items // 60, set()
    for user in range(users - 10 * apart):
        own = user % 60 * size + (random.zipf(tail, 30) - 1) % size
        pairs |= {(user, int(item)) for item in np.concatenate([own, random.integers(0, items, 6)])}
    for user in range(users - 10 * apart, users):
        base = items + user % apart * 10
        pairs |= {(user, base + item) for item in range(10) if random.random() < 0.8}
    found = np.array(sorted(pairs))
    return found[:, 0], np.unique(found[:, 1], return_inverse=True)[1]


def catalogues(users: int, items: int) -> Iterator[tuple[str, Interactions]]:
    for name, tail, apart, seed in (("tails", 1.3, 2, 1), ("heavy tails", 1.2, 40, 3), ("flat", 1.05, 5, 4)):
        user, item = viewed(users, items, tail, apart, np.random.default_rng(seed))
        ids = IdMap(pa.array(range(1, users + 1), pa.int64())), IdMap(pa.array(text_ids(item.max() + 1)))
        yield name, Interactions(*ids, user.astype(np.int32), item.astype(np.int32), np.ones(len(user)))

    yield "course", encoded(np.genfromtxt(COURSE, delimiter=",", skip_header=1, dtype=np.int64).T)
    with published.database() as (connection, _, _):
        load_shop(connection)
        rows = connection.execute("SELECT v.user_id, v.product_id, v.view_count FROM shop.views v").fetchall()
    yield "demo", encoded(np.array([list(row.values()) for row in rows]).T)


def encoded(columns: NDArray[np.int64]) -> Interactions:
    """Return interactions of users, items and views; item ids become text."""
    (users, user), (items, item) = (np.unique(column, return_inverse=True) for column in columns[:2])
    ids = IdMap(pa.array(users, pa.int64())), IdMap(pa.array(text_ids(len(items))))
    return Interactions(*ids, user.astype(np.int32), item.astype(np.int32), columns[2].astype(np.float64))


def text_ids(count: int) -> list[str]:
    """Return sorted ids of different lengths."""
    return sorted(f"item-{7919 * number % 1_000_003}" for number in range(count))


def factors(pairs: Interactions) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the factors of users and items as a training does."""
    matrix = confidence.fit(pairs, Confidence()).matrix(pairs, confidence.alpha_for(pairs, None))
    trained = ALS().train(matrix, Hyperparameters(factors=FACTORS), factors=FACTORS)
    return ALS().solve_users(matrix, trained.fold_in), trained.item_factors


def compare(connection: Connection, name: str, users: int) -> str:
    """Return how the lists of recommend() and of similar_items() differ from those of the exact scan."""
    stored = connection.execute(
        "SELECT g.generation, g.recommend_ef, g.similar_ef FROM retail._generation g"
    ).fetchone()
    assert stored
    lines = []
    for call, one, column, ef in (
        ("recommend", "user", "preference", stored["recommend_ef"]),
        ("similar", "item", "embedding", stored["similar_ef"]),
    ):
        items = vectors(connection, "item", column)
        everyone = vectors(connection, one, column)
        asked = everyone[np.random.default_rng(1).permutation(len(everyone))[:users]]
        shares, times, exact = [], [], []
        for number, vector in enumerate(asked):
            scores = items @ vector
            least = np.partition(scores, -K)[-K]
            began = time.perf_counter()
            nearest = ask(connection, stored["generation"], column, vector, ef)
            times.append(1000 * (time.perf_counter() - began))
            found = (1 - nearest) if column == "embedding" else -nearest
            shares.append(np.mean(found >= least - 1e-5 * abs(least)))
            if number < TIMED:
                began = time.perf_counter()
                ask(connection, stored["generation"], column, vector, None)
                exact.append(1000 * (time.perf_counter() - began))
        lines.append(
            f"{name:12} {call:10} {'exact' if ef is None else f'ef {ef}':7} of {len(shares):5}: mean {np.mean(shares):.4f},"
            f" below half {np.sum(np.array(shares) < 0.5):3}, worst {min(shares):.1f}; {np.median(times):.2f} ms,"
            f" exact {np.median(exact):.2f} ms"
        )
    return "\n".join(lines)


def vectors(connection: Connection, one: str, column: str) -> NDArray[np.float32]:
    """Return the published vectors of items or users."""
    rows = connection.execute(
        f"SELECT v.{column}::real[] AS vector FROM retail.{one}_vectors v WHERE v.{column} IS NOT NULL ORDER BY v.{one}_id"
    ).fetchall()
    return np.array([row["vector"] for row in rows], dtype=np.float32)


def ask(
    connection: Connection, generation: int, column: str, vector: NDArray[np.float32], ef: int | None
) -> NDArray[np.float64]:
    """Return the distances of the K nearest items."""
    row = connection.execute(
        "SELECT ARRAY(SELECT n.distance FROM unnest(s.nearest) n) AS distances FROM (SELECT"
        f" retail._nearest_items(%s, %s, %s::vector, {K}, NULL, NULL, %s, true) AS nearest OFFSET 0) s",
        [generation, column, str(vector.tolist()), ef],
    ).fetchone()
    assert row
    return np.array(row["distances"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=3_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--only", default="", help="one of the catalogues: tails, heavy tails, flat, demo, course")
    options = parser.parse_args()
    for name, pairs in catalogues(options.users, options.items):
        if options.only in ("", name):
            with published.database() as (connection, settings, url):
                publish(connection, settings, url, name, pairs, options.users)


def publish(connection: Connection, settings: Settings, url: str, name: str, pairs: Interactions, users: int) -> None:
    """Publish the catalogue and print the comparison."""
    connection.execute("CREATE SCHEMA shop")
    connection.execute("CREATE TABLE shop.views (user_id bigint, item_id text, PRIMARY KEY (user_id, item_id))")
    definition = Definition(source=Source(table="shop.views"), storage=Storage(dimensions=FACTORS))
    recommenders.create(connection, settings, "retail", definition)
    trained = factors(pairs)
    began = time.perf_counter()
    published.publish(url, settings, pairs, *trained)
    print(f"{name}: {len(pairs.items)} items, {len(pairs)} views, published in {time.perf_counter() - began:.0f} s")
    print(compare(connection, name, users), flush=True)


if __name__ == "__main__":
    main()
