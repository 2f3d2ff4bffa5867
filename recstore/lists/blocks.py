"""From vectors to lists: the k best items for a block of users or items, ordered like the SQL functions.

Pure NumPy; knows no database. `Scoring` distributes a block to threads in parts whose scores fit into the cache of a core,
so that at most one part's scores per thread are in memory.
"""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import chain, pairwise
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recstore.config import cores
from recstore.evaluation import ranking, scorers
from recstore.model.arrays import Mask, Matrix, Positions
from recstore.model.interactions import IdMap
from recstore.model.ratings import Ratings

TRAINED, POPULAR, FOLD_IN = 0, 1, 2
REASONS = ("trained", "popular", "fold_in", "trending", "query")
"""Reasons in lists, by number."""


@dataclass(frozen=True, eq=False)
class Items:
    """The items of a generation in ascending order of id (text by its bytes), which is how the functions break ties."""

    ids: IdMap
    vectors: Matrix  # (items, factors); unit length for similar items
    present: Mask  # items with a vector
    eligible: Mask  # items that may be listed
    users: NDArray[np.int64]
    views: NDArray[np.float64]
    generation: int

    def details(self) -> dict[str, Any]:
        return {"generation": self.generation, "items": len(self.ids)}

    def __str__(self) -> str:
        return f"generation {self.generation}, {len(self.ids):,} items"

    def popular(self) -> Positions:
        """Return the eligible items: most users first, then most views, then by id."""
        order = np.lexsort((np.arange(len(self.ids)), -self.views, -self.users))
        return order[self.eligible[order]]


@dataclass(frozen=True, eq=False)
class Block:
    """Owners of lists (users, or items for similar ones) with the input of their lists."""

    ids: pa.Array
    vectors: Matrix  # (owners, factors)
    present: Mask  # owners with a vector; the others get popular items or no list
    folded_in: Mask  # users who came after the training
    factor: NDArray[np.float64]  # score per inner product
    seen_starts: NDArray[np.int64]  # owner n has seen seen[seen_starts[n] : seen_starts[n + 1]]
    seen: Positions  # in Items; -1 for an unknown item

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, ids: pa.Array) -> Self:
        """Return owners whose lists the database computes."""
        none = np.zeros(0, dtype=np.int64)
        absent = np.zeros(len(ids), dtype=np.bool_)
        return cls(ids, np.zeros((len(ids), 0), np.float32), absent, absent, np.zeros(len(ids)), none, none)


@dataclass(frozen=True, eq=False)
class ListRows:
    """Rows of lists: `item[n]`, a position in Items, has place `rank[n]`, from 1, in the list of `owner[n]`, a position in the
    block."""

    owner: Positions
    rank: Positions
    item: Positions
    score: NDArray[np.float64]
    reason: Positions  # in REASONS

    def __len__(self) -> int:
        return len(self.owner)

    def part(self, keep: Mask) -> "ListRows":
        """Return the rows where `keep` is true."""
        return ListRows(*(getattr(self, column.name)[keep] for column in fields(self)))


_Part = tuple[Positions, Future[Any]]
"""Owners whose lists a thread computes, and what `_best` will return for them."""


class Scoring:
    """Computes the lists of blocks in threads, which end with the context.

    `popular_users` is the denominator of a popular item's score, its share of users; None: owners without a vector get no
    list, and short ones are not filled up. Scores are clipped to +-`most`, or made ratings of.
    """

    def __init__(
        self,
        items: Items,
        k: int,
        threads: int = 0,
        *,
        popular_users: int | None = None,
        most: float | None = None,
        ratings: Ratings | None = None,
    ) -> None:
        self.ratings = ratings
        self.items, self.k, self.most, self.popular_users = items, k, most, popular_users
        self.listed = np.flatnonzero(items.present & items.eligible)
        self._column = np.full(len(items.ids) + 1, -1, dtype=np.int64)  # the last entry is for unknown items
        self._column[self.listed] = np.arange(len(self.listed))
        factors = np.ascontiguousarray(items.vectors[self.listed])
        self._columns = np.ascontiguousarray(factors.T)
        self._copies, self._originals = scorers.repeated(factors)
        self._rows = ranking.block_users(len(self.listed))
        self._popular = items.popular() if popular_users is not None else self.listed[:0]
        self._place = np.full(len(items.ids) + 1, -1, dtype=np.int64)
        self._place[self._popular] = np.arange(len(self._popular))
        self._pool = ThreadPoolExecutor(threads or cores())
        self._own = threading.local()

    def __enter__(self) -> "Scoring":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def lists(self, blocks: Iterable[Block]) -> Iterator[tuple[Block, ListRows]]:
        """Yield each block with its rows, ordered by owner and rank; meanwhile the next block is computed.

        Raises ScoresNotFinite.
        """
        begun = ((block, self._begin(block)) for block in blocks)
        for (block, parts), _ in pairwise(chain(begun, ((None, []),))):
            assert block is not None
            yield block, self._rows_of(block, parts)

    def _begin(self, block: Block) -> list[_Part]:
        trained = np.flatnonzero(block.present)
        row = np.repeat(np.arange(len(block)), np.diff(block.seen_starts))
        column = self._column[block.seen]
        owners = [trained[start : start + self._rows] for start in range(0, len(trained), self._rows)]
        return [(part, self._pool.submit(self._best, block, part, row, column)) for part in owners]

    def _best(self, block: Block, owners: Positions, row: Positions, column: Positions) -> tuple[Positions, Matrix]:
        """Return, for one part, the best columns in order (-1 where a list is shorter) and their products.

        Each part has the same number of rows for BLAS, since the last bits of a product depend on it."""
        if not hasattr(self._own, "scores"):  # once per thread: new memory for each part takes a fifth of the time
            self._own.scores = np.empty((self._rows, self._columns.shape[1]), dtype=np.float32)
        factors = np.zeros((self._rows, self._columns.shape[0]), dtype=np.float32)
        factors[: len(owners)] = block.vectors[owners]
        scores: Matrix = np.matmul(factors, self._columns, out=self._own.scores)[: len(owners)]
        scores[:, self._copies] = scores[:, self._originals]
        begin, end = block.seen_starts[owners[0]], block.seen_starts[owners[-1] + 1]
        seen_row, seen_column = row[begin:end], column[begin:end]
        here = np.searchsorted(owners, seen_row)
        left_out = (seen_column >= 0) & (owners[np.minimum(here, len(owners) - 1)] == seen_row)
        scores[here[left_out], seen_column[left_out]] = -np.inf
        best = ranking.top(scores, self.k)
        return best, np.take_along_axis(scores, np.maximum(best, 0), axis=1) if best.size else scores[:, :0]

    def _most_popular(self, block: Block, owner: Positions, item: Positions) -> tuple[Positions, Positions]:
        """Return owner and item of each row that fills up the lists with these rows."""
        counts = np.bincount(owner, minlength=len(block))
        owners = np.flatnonzero(counts < self.k)
        ends = np.cumsum(counts)
        place, given = self._place[block.seen], self._place[item[np.argsort(owner, kind="stable")]]
        lists = []
        for one in owners:
            wanted = self.k - counts[one]
            seen = place[block.seen_starts[one] : block.seen_starts[one + 1]]
            taken = np.concatenate((seen, given[ends[one] - counts[one] : ends[one]]))
            taken = taken[(taken >= 0) & (taken < wanted + len(taken))]
            first = np.arange(min(len(self._popular), wanted + len(taken)))
            lists.append(self._popular[first[~np.isin(first, taken)][:wanted] if len(taken) else first])
        filled = np.concatenate(lists) if lists else self._popular[:0]
        return np.repeat(owners, [len(each) for each in lists]), filled

    def _rows_of(self, block: Block, parts: list[_Part]) -> ListRows:
        """Wait for the parts of a block and join them, with the lists of owners without a vector."""
        owners, items, scores, ranks = [], [], [], []
        for owner, future in parts:
            best, products = future.result()
            row, place = np.nonzero(best >= 0)
            owners.append(owner[row])
            items.append(self.listed[best[row, place]])
            scores.append(products[row, place].astype(np.float64) * block.factor[owner[row]])
            ranks.append(place + 1)
        owner, item = (np.concatenate([*each, np.empty(0, np.int64)]).astype(np.int64) for each in (owners, items))
        score, rank = np.concatenate([*scores, np.empty(0)]), np.concatenate([*ranks, np.empty(0, np.int64)])
        if self.most is not None:
            score = score.clip(-self.most, self.most)
        if self.ratings is not None:
            score = self.ratings.ratings(score)
        reason = np.where(block.folded_in[owner], FOLD_IN, TRAINED)
        if self.popular_users is None:
            return ListRows(owner, rank, item, score, reason)
        some, popular = self._most_popular(block, owner, item)
        if not len(some):
            return ListRows(owner, rank, item, score, reason)
        counts = np.bincount(owner, minlength=len(block))
        share = self.items.users[popular] / self.popular_users
        owner, item, score = (np.concatenate(pair) for pair in ((owner, some), (item, popular), (score, share)))
        reason = np.concatenate((reason, np.full(len(some), POPULAR)))
        rank = np.concatenate((rank, counts[some] + 1 + np.arange(len(some)) - np.searchsorted(some, some)))
        order = np.argsort(owner, kind="stable")
        return ListRows(owner[order], rank[order], item[order], score[order], reason[order])
