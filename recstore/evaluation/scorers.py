"""What can be evaluated: anything that gives users scores of all items. A model's factors, and the two baselines.

A score only orders a user's items. Higher is better, equal scores are ordered by item, -inf is never recommended.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recstore.evaluation import ranking

Matrix = NDArray[np.float32]
Users = NDArray[np.intp]


class Scorer(Protocol):
    """A named model. `evaluate` calls `scores` from several threads at once."""

    @property
    def name(self) -> str: ...

    def scores(self, users: Users) -> Matrix:
        """Scores of all items, float32 (len(users), items), row r of the user index users[r]; the caller may write into
        the result. It asks for at most `ranking.block_users(items)` users at once."""


class FactorScorer:
    """The predicted preference x_u . y_i of user factors (users, factors) and item factors (items, factors), float32.

    Whatever block a user comes in, the product has one shape, since the last bits that BLAS gives depend on it; for the
    same reason an item that repeats another's factors takes over its scores, so that they tie.
    """

    def __init__(self, name: str, user_factors: Matrix, item_factors: Matrix) -> None:
        self.name = name
        self.user_factors = user_factors
        self.item_factors = item_factors
        self._columns = np.ascontiguousarray(item_factors.T)
        self._copies, self._originals = repeated(item_factors)

    def scores(self, users: Users) -> Matrix:
        rows = max(len(users), ranking.block_users(len(self.item_factors)))
        factors = np.zeros((rows, self.user_factors.shape[1]), dtype=np.float32)
        factors[: len(users)] = self.user_factors[users]
        scores: Matrix = (factors @ self._columns)[: len(users)]
        scores[:, self._copies] = scores[:, self._originals]
        return scores


class Popularity:
    """The number of users of the item in the training matrix (users x items): the same order for everyone."""

    def __init__(self, train: sparse.csr_matrix, name: str = "popularity") -> None:
        self.name = name
        self._scores = np.bincount(train.indices, minlength=train.shape[1]).astype(np.float32)

    def scores(self, users: Users) -> Matrix:
        return np.tile(self._scores, (len(users), 1))


class ItemKNN:
    """Item-based nearest neighbours: an item's score is the sum of its similarities to those of its `neighbours` most similar
    items (ties: the lower item) that the user has in training.

    The similarity is the cosine of the two items' columns of the training matrix, taken as binary, a user weighing
    ln(1 + items / n_u), n_u being the user's number of items: s_ij = sum of the weights of the common users, / the square
    root of the sum of those of i's users times that of j's. (Cosine between items: Sarwar et al., "Item-Based Collaborative
    Filtering Recommendation Algorithms", WWW 2001. The best neighbours of each item alone: Deshpande and Karypis, TOIS 2004.
    The weight: inverse user frequency, Breese, Heckerman and Kadie, UAI 1998, of users here instead of items.)

    recall@20 / NDCG@20 on UltraGCN's splits: Amazon-CDs 0.156 / 0.105 (without the weight 0.148 / 0.100), MovieLens-1M 0.235
    / 0.228 (0.227 / 0.223). 50 or 200 neighbours differ by at most 0.004; a constant added to the denominator ("shrink") and
    logarithms of counts instead of ones did not help, so there are none.
    """

    def __init__(
        self, train: sparse.csr_matrix, *, neighbours: int = 100, threads: int = 0, name: str = "item-kNN"
    ) -> None:
        self.name = name
        ones = np.ones(train.nnz, dtype=np.float32)
        self._train = sparse.csr_matrix((ones, train.indices, train.indptr), shape=train.shape, copy=True)
        self._train.sum_duplicates()
        self._train.data[:] = 1
        self._weights = _similarities(self._train, neighbours, threads or ranking.cores())

    def scores(self, users: Users) -> Matrix:
        return np.asarray((self._train[users] @ self._weights).toarray(), dtype=np.float32)


def _similarities(train: sparse.csr_matrix, neighbours: int, threads: int) -> sparse.csr_matrix:
    """Items x items, column i holding those of i's neighbours; found for a block of items at a time."""
    items = train.shape[1]
    of_user = np.diff(train.indptr)
    weighted = train.copy()
    weighted.data = np.repeat(np.sqrt(np.log1p(items / np.maximum(1, of_user))), of_user).astype(np.float32)
    length = np.sqrt(np.bincount(weighted.indices, weighted.data.astype(np.float64) ** 2, items))
    of_item = weighted.T.tocsr()
    step = ranking.block_users(items)

    def nearest(start: int) -> sparse.csr_matrix:
        common = of_item[start : start + step] @ weighted
        row, column = np.repeat(np.arange(common.shape[0]), np.diff(common.indptr)), common.indices
        similar = np.full(common.shape, -np.inf, dtype=np.float32)
        similar[row, column] = common.data / (length[row + start] * length[column])
        np.fill_diagonal(similar[:, start:], -np.inf)
        best = ranking.top(similar, neighbours)
        row, place = np.nonzero(best >= 0)
        column = best[row, place]
        return sparse.csr_matrix((similar[row, column], (row, column)), shape=common.shape)

    with ThreadPoolExecutor(threads) as pool:
        return sparse.csr_matrix(sparse.vstack(list(pool.map(nearest, range(0, items, step)))).T)


def repeated(factors: Matrix) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows that repeat an earlier one, and the first one that each repeats. Not those of zeros: their product is 0."""
    rows = np.ascontiguousarray(factors) + np.float32(0)  # -0.0 becomes 0.0
    whole = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
    _, first, kind = np.unique(whole, return_index=True, return_inverse=True)
    original = first[kind]
    copies = np.flatnonzero((original != np.arange(len(rows))) & rows.any(axis=1))
    return copies, original[copies]
