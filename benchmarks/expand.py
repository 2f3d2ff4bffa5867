"""Expand the demo's data to any number of interactions, from a seed: its popularity curve and co-views kept, tastes overlapping.

The demo's shop becomes several shops on a ring. A new user is two real users of like activity, a random share of one in a home
shop and the rest of the other in a shop nearby; a twentieth of the pairs walk on, from the item to one of its users to one of
that user's items. A pair drawn evenly and walked on is again drawn evenly, so popularity stays that of the demo. A quarter of a
shop's items are its neighbour's, so clusters of taste overlap and no two users are alike.

Rows are made in blocks of `BLOCK_USERS`, each in random order, and loaded by binary COPY. To see what is kept:

    python benchmarks/expand.py --interactions 1000000
"""

import argparse
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray
from scipy import sparse

from recstore import demo
from recstore.postgres.connection import Connection
from recstore.publication import loading
from recstore.types import IdType

BLOCK_USERS = 100_000
SHARED = 0.25
"""Share of a shop's items that are those of the shop before it."""

WALK = 0.05
"""Share of pairs that walk on to another user's item."""

PER_USER = 61
"""Pairs of a user on average."""

Block = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]
"""Numbers of users, numbers of items, values: one entry for each pair."""


class Real:
    """The demo's pairs, in order of the user, and for each item where they are."""

    def __init__(self) -> None:
        table = pyarrow.csv.read_csv(io.BytesIO(demo.read_data("online_retail_2010.views.csv.gz")))
        user, item, value = (np.asarray(table.column(name)).astype(np.int32) for name in table.column_names)
        order = np.lexsort((item, user))
        self.user, self.item, self.value = user[order] - 1, item[order] - 1, value[order]
        self.users, self.items = int(user.max()), int(item.max())
        self.of_user = np.searchsorted(self.user, np.arange(self.users + 1))
        self.by_item = np.argsort(self.item, kind="stable")
        self.of_item = np.searchsorted(self.item[self.by_item], np.arange(self.items + 1))
        self.by_activity = np.argsort(np.diff(self.of_user), kind="stable")

    def walk(self, pairs: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        """Return for each pair one of a user of the same item."""
        item = self.item[pairs]
        user = self.user[self.by_item[between(self.of_item, item, random)]]
        return between(self.of_user, user, random)


def between(starts: NDArray[np.int64], index: NDArray[np.int32], random: np.random.Generator) -> NDArray[np.int64]:
    first, last = starts[index], starts[index + 1]
    return first + (random.random(len(index)) * (last - first)).astype(np.int64)


@dataclass(frozen=True)
class Expanded:
    """Interactions made of the demo's; `shops` is the number of overlapping clusters."""

    interactions: int
    seed: int = 1
    shops: int = 0

    def catalogue(self) -> NDArray[np.int32]:
        """Return the number of each real item in each shop, (shops, items)."""
        real, random = Real(), np.random.default_rng(self.seed)
        shops = self.shops or max(1, round((self.interactions / 273_844) ** 0.5))
        made, count = np.empty((shops, real.items), dtype=np.int32), 0
        for shop in range(shops):
            own = random.random(real.items) >= (SHARED if shop else 0)
            made[shop] = made[shop - 1]
            made[shop, own] = count + np.arange(own.sum())
            count += int(own.sum())
        return made

    def blocks(self) -> Iterator[Block]:
        """Yield the pairs, every pair once, until there are `interactions`."""
        real, catalogue, left, first = Real(), self.catalogue(), self.interactions, 0
        while left > 0:
            random = np.random.default_rng([self.seed, first])
            users = min(BLOCK_USERS, left // PER_USER + 100)
            user, item, value = _block(real, catalogue, users, random)
            mixed = random.permutation(len(user))[:left]
            yield user[mixed] + first, item[mixed], value[mixed]
            left, first = left - len(mixed), first + users


def _block(real: Real, catalogue: NDArray[np.int32], users: int, random: np.random.Generator) -> Block:
    shops, items = len(catalogue), int(catalogue.max()) + 1
    rank = random.integers(0, real.users, users)
    like = np.clip(rank + np.rint(random.normal(0, 40, users)).astype(np.int64), 0, real.users - 1)
    home = random.integers(0, shops, users)
    nearby = (home + random.geometric(0.5, users) * random.choice((-1, 1), users)) % shops
    share = random.uniform(0.6, 1, users)
    keys, values = [], []
    for model, shop, kept in ((rank, home, share), (like, nearby, 1 - share)):
        model = real.by_activity[model]
        counts = real.of_user[model + 1] - real.of_user[model]
        ends = np.cumsum(counts)
        pairs = np.arange(ends[-1]) + np.repeat(real.of_user[model] - (ends - counts), counts)
        owner = np.repeat(np.arange(users), counts)
        chosen = random.random(len(owner)) < kept[owner]
        pairs, owner = pairs[chosen], owner[chosen]
        walking = np.flatnonzero(random.random(len(pairs)) < WALK)
        pairs[walking] = real.walk(pairs[walking], random)
        keys.append(owner * items + catalogue[shop[owner], real.item[pairs]])
        values.append(real.value[pairs])
    found, where = np.unique(np.concatenate(keys), return_index=True)
    user, item = np.divmod(found, items)
    return user, item.astype(np.int32), np.concatenate(values)[where]


def ids(numbers: NDArray[np.integer[Any]], kind: IdType, word: str) -> pa.Array:
    """Return ids of a type for the numbers of users or items: scattered, always the same for a number."""
    scattered = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # odd, hence one to one
    if kind is IdType.UUID:
        halves = np.stack([scattered, scattered ^ (scattered >> np.uint64(29))], axis=1)
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(numbers), [None, pa.py_buffer(halves.tobytes())])
    low = pa.array((scattered >> np.uint64(24)).astype(np.int64))
    return pc.binary_join_element_wise(word, low.cast(pa.string()), "-") if kind is IdType.TEXT else low


def load(connection: Connection, expanded: Expanded, kind: IdType, table: str) -> None:
    """Create `table` (user_id, item_id, value), and an index on its users; the ids are of this type."""
    items = ids(np.arange(expanded.catalogue().max() + 1), kind, "item")
    created = (
        f"CREATE TABLE {table} (user_id {kind.value} NOT NULL, item_id {kind.value} NOT NULL, value integer NOT NULL)"
    )
    names = ("user_id", "item_id", "value")
    with connection.transaction():
        connection.execute(created)
        with loading.copying(connection, table, names, freeze=True) as write:
            for user, item, value in expanded.blocks():
                first = int(user.min())
                users = ids(np.arange(first, user.max() + 1), kind, "customer")
                columns = loading.Ids(users, kind, user - first), loading.Ids(items, kind, item)
                write([*columns, loading.Scalars(value, ">i4")], len(value))
        connection.execute(f"CREATE INDEX ON {table} (user_id)")
    connection.execute(f"VACUUM ANALYZE {table}")


def likeness(user: NDArray[np.integer[Any]], item: NDArray[np.integer[Any]], seed: int = 1) -> dict[str, float]:
    """Return figures of pairs: popularity, activity, co-views, and how well three models find a fifth of each user's items."""
    matrix = sparse.csr_matrix((np.ones(len(user), dtype=np.float32), (user, item)))
    matrix = matrix[np.diff(matrix.indptr) > 0]
    popularity, activity = np.sort(matrix.getnnz(0))[::-1], np.sort(matrix.getnnz(1))
    popularity = popularity[popularity > 0]
    shares = np.cumsum(popularity) / popularity.sum()
    figures = {"users": matrix.shape[0], "items": len(popularity), "pairs": matrix.nnz}
    figures |= {f"top {share:.0%}": shares[int(share * len(shares))] for share in (0.01, 0.1, 0.5)}
    figures |= {"user, median": np.median(activity), "user, 90 %": np.quantile(activity, 0.9)}
    unit = sparse.csc_matrix(matrix / np.sqrt(matrix.getnnz(1))[:, None])
    asked = np.random.default_rng(seed).choice(np.flatnonzero(matrix.getnnz(0) >= 10), 500, replace=False)
    norms = np.sqrt(np.asarray(unit.power(2).sum(0)).ravel())
    norms[norms == 0] = 1
    cosines = np.asarray((unit[:, asked].T @ unit).todense()) / norms[asked, None] / norms
    cosines[np.arange(len(asked)), asked] = 0
    nearest = np.sort(cosines, axis=1)[:, ::-1]
    figures |= {"cosine, nearest": nearest[:, 0].mean(), "cosine, 10th": nearest[:, 9].mean()}
    return figures | _recalls(matrix, seed)


def _recalls(matrix: sparse.csr_matrix, seed: int, most: int = 5_000) -> dict[str, float]:
    """Return recall@20 of popularity, item-kNN and ALS, on a fifth of the pairs of at most `most` users."""
    from recstore.definition import Hyperparameters
    from recstore.evaluation.baselines import FORMS, ItemKNN, Popularity
    from recstore.evaluation.scorers import FactorScorer
    from recstore.model.trainers import trainer

    random = np.random.default_rng(seed)
    asked = np.sort(random.choice(matrix.shape[0], min(most, matrix.shape[0]), replace=False))
    of = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    away = np.isin(of, asked) & (random.random(matrix.nnz) < 0.2)
    train, hidden = matrix.copy(), matrix.copy()
    train.data, hidden.data = train.data * ~away, hidden.data * away
    train.eliminate_zeros()
    hidden.eliminate_zeros()
    asked = asked[np.diff(hidden.indptr)[asked] > 0]
    confidence = train.copy()
    confidence.data[:] = 1 + 20
    factors = trainer("als").train(
        confidence, Hyperparameters(regularization=1.0, iterations=10), factors=64, device="cpu"
    )
    models = {"popularity": Popularity(train), "item-kNN": ItemKNN(train, FORMS[0])}
    models["ALS"] = FactorScorer("ALS", factors.user_factors, factors.fold_in.item_factors)
    recalls = {}
    for name, model in models.items():
        found = []
        for start in range(0, len(asked), 200):
            block = asked[start : start + 200]
            scores = model.scores(block)
            scores[train[block].nonzero()] = -np.inf
            best = np.argpartition(-scores, 20, axis=1)[:, :20]
            wanted = hidden[block].toarray()
            found.append(np.take_along_axis(wanted, best, 1).sum(1) / np.minimum(wanted.sum(1), 20))
        recalls[f"recall@20, {name}"] = float(np.concatenate(found).mean())
    return recalls


def main() -> None:
    from measured import Measured

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    measured, real = Measured("expand", **vars(options)), Real()
    measured.row("likeness", data="the demo's", **likeness(real.user, real.item))
    for interactions in options.interactions:
        for shops in (1, 0) if interactions == min(options.interactions) else (0,):
            expanded = Expanded(interactions, options.seed, shops)
            user, item, _ = (np.concatenate(parts) for parts in zip(*expanded.blocks(), strict=True))
            measured.row("likeness", data=f"{len(expanded.catalogue())} shops", **likeness(user, item))
    measured.write()


if __name__ == "__main__":
    main()
