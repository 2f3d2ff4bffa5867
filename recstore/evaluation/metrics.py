"""Measure a scorer on held-out interactions: rank all items for each user, in blocks, on all cores.

`definitions` has the metrics, `ranking` builds the lists. Ties go to the lower item index, which is the lower id.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from recstore.config import cores
from recstore.errors import InvalidInput
from recstore.evaluation import definitions, ranking
from recstore.evaluation.bootstrap import Sums
from recstore.evaluation.definitions import PerUser
from recstore.evaluation.ranked import Ranked
from recstore.evaluation.scorers import FactorScorer, Scorer
from recstore.model.arrays import Matrix, Positions

OnUsers = Callable[[int, int], None]
"""Called in the calling thread with the number of users measured so far, and of all."""

LISTS = 4096
"""Lists of other origin that are measured at once."""


@dataclass(frozen=True, eq=False)
class Metrics:
    """Values by name ("recall@20", "coverage@20", "auc"), None if undefined: without users, and mse without factors.

    `per_user` holds the same except coverage, float64 (users,), NaN where undefined for a user (auc without another item).
    Row r belongs to the user index `user_index[r]`, ascending, so that two models can be compared in pairs."""

    users: int  # with a held-out item
    items: int
    values: dict[str, float | None]
    per_user: dict[str, PerUser] = field(repr=False)
    user_index: Positions = field(repr=False)

    def sums(self, users: Positions) -> dict[str, Sums]:
        """Return, for each metric of `per_user`, its values at the positions of their users among the ascending `users`, and
        1 there; 0 and 0 where it is undefined."""
        found = {}
        place = np.searchsorted(users, self.user_index)
        for name, values in self.per_user.items():
            defined = ~np.isnan(values)
            of_user, counted = np.zeros(len(users)), np.zeros(len(users))
            of_user[place[defined]], counted[place[defined]] = values[defined], 1
            found[name] = of_user, counted
        return found


def evaluate(
    scorer: Scorer,
    train: sparse.csr_matrix,
    test: sparse.csr_matrix,
    *,
    ks: Sequence[int] = (10, 20),
    exclude_train: bool = True,
    users: Positions | None = None,
    negatives: sparse.csr_matrix | None = None,
    threads: int = 0,
    on_users: OnUsers | None = None,
    auc: bool = True,
    mse: bool = True,
) -> Metrics:
    """Return the metrics of `definitions` for a model trained on `train`, over the held-out pairs `test`.

    Both are users x items; each stored value is a pair. All users with a held-out item count, or those among the indices
    `users`. All items are ranked, except the user's training items with `exclude_train`. A held-out item that is excluded,
    or that no user has in training, still counts in every denominator.

    With `negatives` (users x items), only the held-out items and the user's stored columns are ranked, and these columns are
    the "other items" of auc. This is for published tables only (He et al., "Neural Collaborative Filtering", WWW 2017, with
    99 items), since it orders models differently than the full ranking (Krichene and Rendle, "On Sampled Metrics for Item
    Recommendation", KDD 2020). `mse` requires a FactorScorer. Without `auc` or `mse` their values are None, which saves time.

    `threads` 0 means all cores. Each thread holds at most `ranking.BLOCK_BYTES` of scores; BLAS uses one thread. The metrics
    do not depend on the number of threads.

    Raises:
        InvalidInput: for shapes that do not match, or a k below 1.
        ScoresNotFinite: for scores that are NaN or +inf.
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
                f"{scorer.name} returned {scores.shape} scores for {len(index)} users, {ranked.items} items."
            )
        if factors is not None:
            x = factors.user_factors[index].astype(np.float64)
            squares = np.einsum("uf,uf->u", x @ gram, x)
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
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads or cores()) as pool:
        for measured in pool.map(measure, parts):
            done += measured
            if on_users:
                on_users(done, len(results.users))
    return results.metrics(auc=auc, mse=factors is not None)


def evaluate_lists(
    lists: Positions,
    users: Positions,
    train: sparse.csr_matrix,
    test: sparse.csr_matrix,
    *,
    ks: Sequence[int] = (10, 20),
) -> Metrics:
    """Return the metrics of lists of other origin, such as the published functions. auc and mse, which need all scores, are
    None.

    `lists` (users, places) holds item indices, best first; -1 is an unknown item or the end of a list. No item may occur
    twice in a list. Row r belongs to the user index `users[r]`; all users are different. Users without a held-out item do not
    count. Raises InvalidInput.
    """
    ranked = Ranked(train, test)
    results = _Results(ranked, users, ks)
    order = np.argsort(users)
    if lists.ndim != 2 or len(lists) != len(users) or len(np.unique(users)) != len(users):
        raise InvalidInput(
            f"There are lists of the shape {lists.shape} for {len(users)} users, which must be different."
        )
    if lists.size and not -1 <= lists.min() <= lists.max() < ranked.items:
        raise InvalidInput(f"The lists contain item {lists.max()}, but there are {ranked.items} items, counted from 0.")
    sorted_lists = np.sort(lists, axis=1)
    if ((sorted_lists[:, 1:] == sorted_lists[:, :-1]) & (sorted_lists[:, 1:] >= 0)).any():
        raise InvalidInput("A list contains an item twice.")
    order = order[ranked.held_out[np.asarray(users)[order]] > 0]
    for start in range(0, len(order), LISTS):
        results.add(slice(start, start + LISTS), lists[order[start : start + LISTS]].astype(np.intp))
    return results.metrics(auc=False, mse=False)


class _Results:
    """Collects the results of the threads. Each thread writes the rows of its own users, and True into `_listed`."""

    def __init__(self, ranked: Ranked, users: Positions | None, ks: Sequence[int]) -> None:
        if not ks or min(ks) < 1:
            raise InvalidInput(f"Each k of the metrics must be at least 1, not {list(ks)}.")
        self.ks = sorted(set(ks))
        self.users = ranked.evaluated(users)
        names = [f"{name}@{k}" for k in self.ks for name in definitions.OF_LISTS]
        self.per_user = {name: np.full(len(self.users), np.nan) for name in (*names, "auc", "mse")}
        self._ranked = ranked
        self._popularity = np.bincount(ranked.train.indices, minlength=ranked.items)
        self._listed = np.zeros((len(self.ks), ranked.items), dtype=bool)

    def add(self, part: slice, lists: Positions) -> None:
        """Add the lists of the users of a part."""
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


def _auc(ranked: Ranked, users: Positions, block: Matrix, held_out: Matrix) -> PerUser:
    """Return the auc per user. `held_out` holds the scores of held-out items, flat, which are also in the block."""
    count = ranked.held_out[users]
    bounds = np.split(held_out, np.cumsum(count)[:-1])
    not_below = np.array([ranking.not_below(row, bound) for row, bound in zip(block, bounds, strict=True)])
    # subtract the pairs of two held-out items (one is above the other, or they tie), and for a held-out item that cannot be
    # listed (-inf) the other columns that cannot: those are not items to compare with
    not_below -= count**2
    unlisted = np.array([np.count_nonzero(bound == -np.inf) for bound in bounds])
    not_below -= unlisted * (block.shape[1] - ranked.others[users] - count)
    return definitions.auc(not_below, count, ranked.others[users])


def _gram(item_factors: Matrix) -> PerUser:
    """Return Y^T Y in double precision, without a double-precision copy of Y. One thread takes 0.05 s where BLAS threads that
    wait for each other on busy cores took 1 s."""
    gram = np.zeros((item_factors.shape[1],) * 2)
    with threadpool_limits(1, "blas"):
        for start in range(0, len(item_factors), 4096):
            y = item_factors[start : start + 4096].astype(np.float64)
            gram += y.T @ y
    return gram


def _mean(values: PerUser) -> float | None:
    """Return the mean over the users for whom the metric is defined."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None
