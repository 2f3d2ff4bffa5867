"""Measures a scorer on held-out interactions: all items ranked for each user, block by block, on all cores.

What is measured is in `definitions`, how the lists are made in `ranking`. Training items are left out of the lists unless
asked for; ties go by item index, ascending, which is ascending id.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from recstore.errors import InvalidInput
from recstore.evaluation import definitions, ranking
from recstore.evaluation.ranked import Ranked
from recstore.evaluation.scorers import FactorScorer, Matrix, Scorer

Users = NDArray[np.intp]
Lists = NDArray[np.intp]
PerUser = NDArray[np.float64]
OnUsers = Callable[[int, int], None]
"""Called in the calling thread with the users measured so far and their number."""

LISTS = 4096
"""Given lists that are looked at together."""


@dataclass(frozen=True, eq=False)
class Metrics:
    """`values` are keyed "recall@20", "coverage@20", "auc" and so on, None where undefined: without a user, and mse for a
    scorer without factors. `per_user` holds the same but coverage, each float64 (users,), NaN where undefined for a user
    (auc without another item); row r is the user index `user_index[r]`, ascending: so two models are compared in pairs."""

    users: int  # with a held-out item, the only ones that count
    items: int
    values: dict[str, float | None]
    per_user: dict[str, NDArray[np.float64]] = field(repr=False)
    user_index: Users = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON, without `per_user`."""
        return {"users": self.users, "items": self.items, "values": dict(self.values)}


def evaluate(
    scorer: Scorer,
    train: sparse.csr_matrix,
    test: sparse.csr_matrix,
    *,
    ks: Sequence[int] = (10, 20),
    exclude_train: bool = True,
    users: NDArray[np.integer[Any]] | None = None,
    negatives: sparse.csr_matrix | None = None,
    threads: int = 0,
    on_users: OnUsers | None = None,
    auc: bool = True,
    mse: bool = True,
) -> Metrics:
    """The metrics of `definitions` for a model trained on `train`, over the held-out pairs `test` (both users x items; a
    stored value is a pair, whatever the value), of all users with one, or of those among `users` (indices).

    Listed are all items but the user's training items (these too with `exclude_train` off). A held-out item that nobody
    trained on, or that is excluded, still counts in every denominator. With `negatives` (users x items) only the held-out
    items and the user's stored columns there are ranked, and the "other items" of auc are these columns, without what is
    held out or excluded: for published tables alone (He et al., "Neural Collaborative Filtering", WWW 2017, with 99), since
    it does not order models as the full ranking does (Krichene and Rendle, "On Sampled Metrics for Item Recommendation",
    KDD 2020). `mse` is over all items of the users, for a FactorScorer; it and `auc` can be left
    out to save time, their values are then None.

    `threads` 0 means all cores; each holds `ranking.BLOCK_BYTES` of scores or less, and BLAS is limited to one thread
    meanwhile. The same input gives the same metrics, whatever the number of threads. Raises InvalidInput for shapes that
    do not fit and k below 1, ScoresNotFinite for NaN and +inf.
    """
    ranked = Ranked(train, test, exclude_train, negatives)
    results = _Results(ranked, users, ks)
    factors = scorer if mse and isinstance(scorer, FactorScorer) else None
    gram = np.zeros((0, 0)) if factors is None else _gram(factors.item_factors)

    def measure(part: slice) -> int:
        index = results.users[part]
        scores = scorer.scores(index)
        if scores.shape != (len(index), ranked.items):
            raise InvalidInput(
                f"{scorer.name} gave {scores.shape} scores for {len(index)} users, {ranked.items} items."
            )
        if factors is not None:
            squares = _squares(factors.user_factors[index], gram)
            on_known = ranked.on_known(scores, index)
            results.per_user["mse"][part] = definitions.mse(squares, on_known, ranked.known[index], ranked.items)
        block, held_out, names = ranked.block(scores, index)
        lists = ranking.top(block, max(results.ks))
        if auc:
            results.per_user["auc"][part] = _auc(ranked, index, block, held_out)
        if names is not None:
            lists = np.where(lists < 0, -1, np.take_along_axis(names, np.maximum(lists, 0), axis=1))
        results.add(part, lists)
        return len(index)

    step = ranking.block_users(ranked.items)
    parts = [slice(start, start + step) for start in range(0, len(results.users), step)]
    done = 0
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads or ranking.cores()) as pool:
        for measured in pool.map(measure, parts):
            done += measured
            if on_users:
                on_users(done, len(results.users))
    return results.metrics(auc=auc, mse=factors is not None)


def evaluate_lists(
    lists: NDArray[np.integer[Any]],
    users: NDArray[np.integer[Any]],
    train: sparse.csr_matrix,
    test: sparse.csr_matrix,
    *,
    ks: Sequence[int] = (10, 20),
) -> Metrics:
    """The same metrics of lists that something else has made, such as the published functions; auc and mse, which need all
    scores, are None.

    `lists` (users, places) are item indices, best first, -1 where there is none or the item is not in the map (it takes its
    place), no item twice in a list; row r is the user index `users[r]`, each once. Users without a held-out item are not
    counted. A list shorter than k counts as one that ends there. Raises InvalidInput where any of this does not hold.
    """
    ranked = Ranked(train, test)
    results = _Results(ranked, users, ks)
    order = np.argsort(users)
    if lists.ndim != 2 or len(lists) != len(users) or len(np.unique(users)) != len(users):
        raise InvalidInput(f"There are {lists.shape} listed items for {len(users)} users, who must be different ones.")
    if lists.size and not -1 <= lists.min() <= lists.max() < ranked.items:
        raise InvalidInput(f"The lists hold item {lists.max()} of {ranked.items} items, counted from 0.")
    sorted_lists = np.sort(lists, axis=1)
    if ((sorted_lists[:, 1:] == sorted_lists[:, :-1]) & (sorted_lists[:, 1:] >= 0)).any():
        raise InvalidInput("A list holds an item twice.")
    order = order[ranked.held_out[np.asarray(users)[order]] > 0]
    for start in range(0, len(order), LISTS):
        results.add(slice(start, start + LISTS), lists[order[start : start + LISTS]].astype(np.intp))
    return results.metrics(auc=False, mse=False)


class _Results:
    """Collects what the threads measure; each writes only its own users' rows (and True into `listed`)."""

    def __init__(self, ranked: Ranked, users: NDArray[np.integer[Any]] | None, ks: Sequence[int]) -> None:
        if not ks or min(ks) < 1:
            raise InvalidInput(f"Metrics are at a k of 1 or more; given: {list(ks)}.")
        self.ks = sorted(set(ks))
        self.users = ranked.evaluated(users)
        names = [f"{name}@{k}" for k in self.ks for name in definitions.OF_LISTS]
        self.per_user = {name: np.full(len(self.users), np.nan) for name in (*names, "auc", "mse")}
        self._ranked = ranked
        self._popularity = np.bincount(ranked.train.indices, minlength=ranked.items)
        self._listed = np.zeros((len(self.ks), ranked.items), dtype=bool)

    def add(self, part: slice, lists: Lists) -> None:
        """The lists of the users of this part."""
        index = self.users[part]
        hits = self._ranked.hits(lists, index)
        for name, values in definitions.of_lists(hits, self._ranked.held_out[index], self.ks).items():
            self.per_user[name][part] = values
        for k, listed in zip(self.ks, self._listed, strict=True):
            self.per_user[f"mean_popularity@{k}"][part] = definitions.mean_popularity(lists, self._popularity, k)
            inside = lists[:, :k]
            listed[inside[inside >= 0]] = True

    def metrics(self, auc: bool, mse: bool) -> Metrics:
        left_out = {name for name, wanted in (("auc", auc), ("mse", mse)) if not wanted}
        per_user = {name: each for name, each in self.per_user.items() if name not in left_out}
        values = {name: _mean(each) for name, each in per_user.items()} | dict.fromkeys(left_out)
        for k, listed in zip(self.ks, self._listed, strict=True):
            values[f"coverage@{k}"] = definitions.coverage(listed) if len(self.users) else None
        return Metrics(len(self.users), self._ranked.items, values, per_user, self.users)


def _auc(ranked: Ranked, users: Users, block: Matrix, held_out: Matrix) -> PerUser:
    """`held_out` are the held-out items' scores, flat; they stand in the block too."""
    count = ranked.held_out[users]
    bounds = np.split(held_out, np.cumsum(count)[:-1])
    not_below = np.array([ranking.not_below(row, bound) for row, bound in zip(block, bounds, strict=True)])
    # taken off: the held-out items among themselves (of any two, one is above or both tie), and where one can not be
    # listed (-inf) all other columns that can not: they are no items to be compared with
    not_below -= count**2
    unlisted = np.array([np.count_nonzero(bound == -np.inf) for bound in bounds])
    not_below -= unlisted * (block.shape[1] - ranked.others[users] - count)
    return definitions.auc(not_below, count, ranked.others[users])


def _squares(user_factors: Matrix, gram: PerUser) -> PerUser:
    x = user_factors.astype(np.float64)
    return np.asarray(np.einsum("uf,uf->u", x @ gram, x))


def _gram(item_factors: Matrix) -> PerUser:
    """Y^T Y in double precision, without a copy of Y in it. On one thread: it is little, and BLAS threads that wait for one
    another on busy cores took 1 s for what takes 0.05."""
    gram = np.zeros((item_factors.shape[1],) * 2)
    with threadpool_limits(1, "blas"):
        for start in range(0, len(item_factors), 4096):
            y = item_factors[start : start + 4096].astype(np.float64)
            gram += y.T @ y
    return gram


def _mean(values: PerUser) -> float | None:
    """Over the users for whom it is defined."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None
