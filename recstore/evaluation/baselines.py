"""Baselines that a model has to beat: popularity, the neighbours of items, and EASE.

The form of the neighbours' similarity and the regularization of EASE are chosen on pairs held out of the training pairs, by
NDCG@20.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from scipy import sparse
from scipy.linalg import lapack
from threadpoolctl import threadpool_limits

from recstore.config import cores
from recstore.evaluation import ranking
from recstore.evaluation.metrics import evaluate
from recstore.evaluation.scorers import Scorer
from recstore.evaluation.splits import SEED
from recstore.model.arrays import Matrix, Positions

CHOICE_PAIRS, CHOICE_USERS, CHOICE_SHARE = 200_000, 1000, 0.2
"""Training pairs of random users by which a form is chosen, the users among them to measure, the share of theirs held out."""

CELLS = 100_000_000
"""Similarities to keep at most, 8 bytes each: fewer neighbours of more items."""

MOST_ITEMS, BLOCK = 10_000, 1000
"""Items up to which EASE is measured, whose matrix takes 0.4 GB; items whose rows are copied at once."""

CHOICE_ITEMS = 2000
"""Most popular items by which the regularization of EASE is chosen."""

REGULARIZATIONS = (30, 100, 300, 1000)

_Form = TypeVar("_Form")


class Baseline(Scorer, Protocol):
    @property
    def settings(self) -> dict[str, Any]: ...


class Popularity:
    """The number of users of the item in the training matrix (users x items): the same order for all users."""

    def __init__(self, train: sparse.csr_matrix, name: str = "popularity") -> None:
        self.name = name
        self.settings: dict[str, Any] = {}
        self._scores = np.bincount(train.indices, minlength=train.shape[1]).astype(np.float32)

    def scores(self, users: Positions) -> Matrix:
        return np.tile(self._scores, (len(users), 1))


@dataclass(frozen=True)
class Form:
    """The similarity of item i, which a user has, to item j: w_ij = d_i^-own d_j^-other sum of d_v^-user over the users v
    who have both, where d is the number of pairs of a user or an item. `neighbours` is the number of the most similar i that
    count for a j."""

    user: float
    own: float
    other: float
    neighbours: int


FORMS = (Form(0.5, 0.5, 0.5, 100), Form(0.5, 1, 0, 100), Form(0.5, 0.5, 0.25, 1000))
"""Forms to choose from: the last is best on sparse data, the others on dense data."""


class _Linear:
    """The sum of weights (items, items), row i for an item that the user has in training, column j for the scored item."""

    def __init__(
        self, name: str, settings: dict[str, Any], train: sparse.csr_matrix, weights: sparse.csr_matrix | Matrix
    ) -> None:
        self.name, self.settings, self._train, self._weights = name, settings, train, weights

    def scores(self, users: Positions) -> Matrix:
        scores = self._train[users] @ self._weights
        return np.asarray(scores.toarray() if sparse.issparse(scores) else scores, dtype=np.float32)


class ItemKNN(_Linear):
    """Item-based nearest neighbours: an item's score is the sum of its similarities to those of its most similar items (ties
    go to the lower item) that the user has in training.

    `form` defines the similarity; None chooses it from FORMS. With own = other = 0.5 it is a cosine: Sarwar et al.,
    "Item-Based Collaborative Filtering Recommendation Algorithms", WWW 2001. With own = 1, other = 0 it is the conditional
    probability of Deshpande and Karypis, "Item-Based Top-N Recommendation Algorithms", TOIS 2004. Both keep the best
    neighbours only and count light users for more.
    """

    def __init__(
        self, train: sparse.csr_matrix, form: Form | None = None, *, threads: int = 0, name: str = "item-kNN"
    ) -> None:
        train, threads = _ones(train), threads or cores()
        if form is None:
            part, held_out, _ = _choice(train)
            form = _best({each: ItemKNN(part, each, threads=threads) for each in FORMS}, part, held_out, threads)
        super().__init__(name, asdict(form), train, _similarities(train, form, threads))


class Ease(_Linear):
    """EASE, the linear model of each item by all others in closed form: with P = (R'R + regularization I)^-1, the weight of
    item i for j is -P_ij / P_jj, and 0 for i = j. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.

    Without a `regularization` it is chosen from REGULARIZATIONS, on the CHOICE_ITEMS most popular items. On a part of the
    users it is multiplied by that part, since R'R grows with the users.
    """

    def __init__(
        self, train: sparse.csr_matrix, regularization: float | None = None, *, threads: int = 0, name: str = "EASE"
    ) -> None:
        train, threads = _ones(train), threads or cores()
        if regularization is None:
            part, held_out, share = _choice(train)
            popular = np.sort(np.argsort(-np.bincount(part.indices, minlength=part.shape[1]))[:CHOICE_ITEMS])
            part, held_out = part[:, popular], held_out[:, popular]
            gram = _gram(part, threads)
            models = {x: _Linear(name, {}, part, _regressed(gram.copy(), share * x)) for x in REGULARIZATIONS}
            regularization = _best(models, part, held_out, threads)
        super().__init__(
            name, {"regularization": regularization}, train, _regressed(_gram(train, threads), regularization)
        )


def _ones(train: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return a copy with a 1 for each stored pair."""
    ones = sparse.csr_matrix(train, dtype=np.float32, copy=True)
    ones.sum_duplicates()
    ones.data[:] = 1
    return ones


def _choice(train: sparse.csr_matrix) -> tuple[sparse.csr_matrix, sparse.csr_matrix, float]:
    """Return pairs to train on and pairs to hold out, of random users, and the share of those among all users."""
    random = np.random.default_rng(SEED)
    users = random.permutation(train.shape[0])
    users = users[: 1 + np.searchsorted(np.cumsum(np.diff(train.indptr)[users]), CHOICE_PAIRS)]
    pairs = train[users].tocoo()
    out = (random.random(pairs.nnz) < CHOICE_SHARE) & (pairs.row < CHOICE_USERS)
    part, held_out = (
        sparse.csr_matrix((pairs.data[mask], (pairs.row[mask], pairs.col[mask])), shape=pairs.shape)
        for mask in (~out, out)
    )
    return part, held_out, len(users) / max(1, train.shape[0])


def _best(models: Mapping[_Form, Scorer], part: sparse.csr_matrix, held_out: sparse.csr_matrix, threads: int) -> _Form:
    """Return the form of the model with the highest NDCG@20; the first of equals."""
    values = {
        form: evaluate(model, part, held_out, ks=(20,), threads=threads, auc=False, mse=False).values["ndcg@20"] or 0.0
        for form, model in models.items()
    }
    return max(values, key=values.__getitem__)


def _similarities(train: sparse.csr_matrix, form: Form, threads: int) -> sparse.csr_matrix:
    """Return similarities (items, items), with j's neighbours in column j, computed in blocks of items."""
    items = train.shape[1]
    of_user = np.diff(train.indptr)
    of_item = np.maximum(1, np.bincount(train.indices, minlength=items)).astype(np.float64)
    most = max(1, min(form.neighbours, CELLS // max(1, items)))
    weighted = train.copy()
    weighted.data = (
        np.repeat(np.maximum(1, of_user) ** -float(form.user), of_user) * of_item[train.indices] ** -form.own
    )
    weighted.data = weighted.data.astype(np.float32)
    columns = train.T.tocsr()
    step = ranking.block_users(items)

    def nearest(start: int) -> sparse.csr_matrix:
        similar = sparse.csr_matrix(columns[start : start + step] @ weighted)
        similar.sort_indices()
        row = np.repeat(np.arange(start, start + similar.shape[0]), np.diff(similar.indptr))
        similar.data[similar.indices == row] = 0
        for begin, end in zip(similar.indptr, similar.indptr[1:], strict=False):
            values = similar.data[begin:end]
            if len(values) > most:
                bound = np.partition(values, -most)[-most]
                kept = values > bound
                kept[np.flatnonzero(values == bound)[: most - np.count_nonzero(kept)]] = True
                values[~kept] = 0
        similar.data *= of_item[row] ** -form.other
        similar.eliminate_zeros()
        return similar

    with ThreadPoolExecutor(threads) as pool:
        return sparse.csr_matrix(sparse.vstack(list(pool.map(nearest, range(0, items, step)))).T)


def _gram(train: sparse.csr_matrix, threads: int) -> Matrix:
    """Return R'R, dense, computed in blocks of items."""
    gram = np.zeros((train.shape[1], train.shape[1]), dtype=np.float32)
    columns = train.T.tocsr()
    step = ranking.block_users(train.shape[1])

    def fill(start: int) -> None:
        gram[start : start + step] = (columns[start : start + step] @ train).toarray()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(0, len(gram), step)))
    return gram


def _regressed(gram: Matrix, regularization: float) -> Matrix:
    """Return the weights of EASE in the place of R'R. One thread: more help little and change the last bits."""
    gram[np.diag_indices_from(gram)] += regularization
    with threadpool_limits(1, "blas"):
        inverse = lapack.spotri(lapack.spotrf(gram.T, overwrite_a=1)[0], overwrite_c=1)[0]  # the upper triangle
    for start in range(0, len(inverse), BLOCK):
        end = start + BLOCK
        inverse[end:, start:end] = inverse[start:end, end:].T
        inverse[start:end, start:end] += np.triu(inverse[start:end, start:end], 1).T
    weights: Matrix = inverse.T  # rows in memory order
    weights /= -np.diag(weights).copy()
    np.fill_diagonal(weights, 0)
    return weights
