"""Measure what candidates cost, and how good the lists are, at 90, 50, 5 and 0.5 % eligible, next to no candidates at all.

Items and users are planted clusters with a spread of lengths; products carry a random number each, and the candidates are
those below a threshold, so every share is the same recommender, altered. It is published and calibrated once, before there
are candidates, as if many items had just been hidden. Each share is asked with the search that was calibrated, and by exact
scan; each list is compared with NumPy's exact one over the eligible items.

    python benchmarks/eligibility.py --items 60000 --factors 64
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import published
from numpy.typing import NDArray

from recstore import registry
from recstore.config import Settings
from recstore.definition import Candidates, Definition, Source, Storage
from recstore.operations import recommenders
from recstore.postgres.connection import Connection

SHARES = (1.0, 0.9, 0.5, 0.05, 0.005)
"""1: a candidates query that lets everything pass."""

SEEN = 20
"""Items that every user has viewed."""


def planted(rows: int, centres: NDArray[np.float64], spread: float, random: np.random.Generator) -> NDArray[np.float32]:
    """`rows` vectors around the centres, in directions of their own, with log-normal lengths."""
    cluster = random.integers(0, len(centres), rows)
    found = centres[cluster] + random.normal(size=(rows, centres.shape[1])) * 0.7 / np.sqrt(centres.shape[1])
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found * random.lognormal(0, spread, (rows, 1)), dtype=np.float32)


def load(
    connection: Connection, items: int, seen: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.float64]:
    """Create the application's tables; return each product's number in [0, 1)."""
    number = random.permutation(items) / items
    connection.execute("CREATE SCHEMA shop")
    connection.execute("CREATE TABLE shop.views (user_id bigint, item_id integer, PRIMARY KEY (user_id, item_id))")
    connection.execute("CREATE TABLE shop.products (product_id integer PRIMARY KEY, number double precision NOT NULL)")
    with connection.cursor() as cursor:
        with cursor.copy("COPY shop.products FROM STDIN") as copy:
            for row in enumerate(number.tolist(), 1):
                copy.write_row(row)
        with cursor.copy("COPY shop.views FROM STDIN") as copy:
            for user, row in enumerate(seen.tolist(), 1):
                for item in row:
                    copy.write_row((user, item + 1))
    connection.execute("ANALYZE shop.products, shop.views")
    return number


class Asked:
    """The same questions of the database, again and again, and NumPy's answers to them."""

    def __init__(
        self,
        connection: Connection,
        items: NDArray[np.float32],
        users: NDArray[np.float32],
        seen: NDArray[np.int64],
        questions: int,
        rounds: int,
        random: np.random.Generator,
    ) -> None:
        self.rounds = rounds
        self.connection, self.items, self.users, self.seen = connection, items, users, seen
        self.people = random.choice(len(users), questions, replace=False)
        self.things = random.choice(len(items), questions, replace=False)
        self.unit = items / np.linalg.norm(items, axis=1, keepdims=True)

    def scores(self, eligible: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
        """Return each person's scores of all items, of those not eligible or seen minus infinity."""
        scores = [self.items @ self.users[person] for person in self.people]
        for person, row in zip(self.people, scores, strict=True):
            row[~eligible] = -np.inf
            row[self.seen[person]] = -np.inf
        return scores

    def recommend(self, eligible: NDArray[np.bool_], k: int) -> tuple[float, float, int]:
        scores = self.scores(eligible)
        calls = [f"SELECT r.item_id FROM retail.recommend({person + 1}, {k}) r" for person in self.people]
        return self._measure(calls, scores, k)

    def similar(self, eligible: NDArray[np.bool_], k: int) -> tuple[float, float, int]:
        scores = [self.unit @ self.unit[thing] for thing in self.things]
        for thing, row in zip(self.things, scores, strict=True):
            row[~eligible] = -np.inf
            row[thing] = -np.inf
        calls = [f"SELECT r.item_id FROM retail.similar_items({thing + 1}, {k}, 1) r" for thing in self.things]
        return self._measure(calls, scores, k)

    def _measure(self, calls: list[str], scores: list[NDArray[np.float32]], k: int) -> tuple[float, float, int]:
        """(ANN recall@k, median of each question's shortest milliseconds, fewest rows)."""
        times, hits, fewest = [], 0, k
        for call, row in zip(calls, scores, strict=True):
            each = []
            for _ in range(self.rounds):
                began = time.perf_counter()
                answers = self.connection.execute(call, prepare=False).fetchall()
                each.append(1000 * (time.perf_counter() - began))
            times.append(min(each))
            hits += count_hits(row, answers, k)
            fewest = min(fewest, len(answers))
        return hits / (k * len(calls)), statistics.median(times), fewest


def count_hits(row: NDArray[np.float32], answers: list[dict[str, int]], k: int) -> int:
    """Return how many of the answers are among the k best; ties in single precision count."""
    found = [answer["item_id"] - 1 for answer in answers]
    least = np.partition(row, -k)[-k]
    return int(np.count_nonzero(row[found] >= least - 1e-5 * abs(least)))


def chosen_plan(connection: Connection) -> str:
    row = connection.execute("SELECT g.recommend_ef, g.similar_ef FROM retail._generation g").fetchone()
    assert row
    return " / ".join("exact" if ef is None else f"ef {ef}" for ef in row.values())


def alter(connection: Connection, settings: Settings, share: float | None, table: str = "shop.products") -> None:
    recommender = registry.get(connection, "retail")
    candidates = Candidates()
    if share is not None:
        candidates = Candidates(query=f"SELECT product_id FROM {table} WHERE number < {share}")
    definition = recommender.definition.model_copy(update={"candidates": candidates})
    registry.alter(connection, settings, recommender, definition)


def arguments(items: int, users: int, clusters: int, spread: float) -> argparse.ArgumentParser:
    """Return the parser of a benchmark of planted vectors, with its defaults."""
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=items)
    parser.add_argument("--users", type=int, default=users)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--clusters", type=int, default=clusters)
    parser.add_argument("--spread", type=float, default=spread, help="of the logarithm of the lengths")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2, help="times each question is asked; the shortest counts")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    return parser


@contextmanager
def shop(options: argparse.Namespace, **definition: object) -> Iterator[tuple[Settings, Asked, NDArray[np.float64]]]:
    """Publish planted vectors in a server of its own; yield settings, the questions and each product's number."""
    random = np.random.default_rng(options.seed)
    centres = random.normal(size=(options.clusters, options.factors))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    items = planted(options.items, centres, options.spread, random)
    users = planted(options.users, centres, options.spread, random)
    seen = random.integers(0, options.items, (options.users, SEEN))
    seen[:, :5] = np.argsort(-(users @ items.T), axis=1)[:, :5]  # what one likes best one has mostly seen
    seen = np.array([random.permutation(np.unique(row))[: SEEN - 5] for row in seen])

    with published.database() as (connection, settings, url):
        number = load(connection, options.items, seen, random)
        given = {"source": Source(table="shop.views"), "storage": Storage(dimensions=options.factors)} | definition
        recommenders.create(connection, settings, "retail", Definition(**given))
        began = time.perf_counter()
        pairs = published.interactions(
            len(users), len(items), np.repeat(np.arange(len(users)), seen.shape[1]), seen.ravel()
        )
        published.publish(url, settings, pairs, users, items)
        print(f"{options.items} items, {options.factors} factors, {options.questions} questions of each kind", end=", ")
        print(f"k = {options.k}; published in {time.perf_counter() - began:.0f} s", flush=True)
        yield settings, Asked(connection, items, users, seen, options.questions, options.rounds, random), number


def main() -> None:
    options = arguments(60_000, 3_000, 200, 0.35).parse_args()
    with shop(options) as (settings, asked, number):
        connection = asked.connection
        print(f"{'':32}   {'recommend':31}{'similar_items':>13}")
        print(f"{'eligible':>13}   {'search':16}" + f"   {'ANN recall':>10} {'median ms':>10} {'rows':>5}" * 2)
        for share in (None, *SHARES):
            alter(connection, settings, share)
            eligible = number < (1 if share is None else share)
            one, two = asked.recommend(eligible, options.k), asked.similar(eligible, options.k)
            what = "no candidates" if share is None else f"{share:.1%}"
            print(f"{what:>13}   {chosen_plan(connection):16}", end="   ")
            print("    ".join("{:10.4f} {:10.2f} {:5d}".format(*measured) for measured in (one, two)), flush=True)
            with connection.transaction(force_rollback=True):
                connection.execute("UPDATE recstore_private.generations SET recommend_ef = NULL, similar_ef = NULL")
                one, two = asked.recommend(eligible, options.k), asked.similar(eligible, options.k)
                print(f"{'':13}   {chosen_plan(connection):16}", end="   ")
                print("    ".join("{:10.4f} {:10.2f} {:5d}".format(*measured) for measured in (one, two)), flush=True)


if __name__ == "__main__":
    main()
