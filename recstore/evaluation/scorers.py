"""Models to evaluate, which score all items for users: factors and two baselines.

A score orders the items of one user: higher is better, ties go to the lower item, and -inf is never recommended.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from scipy import sparse

from recstore.config import cores
from recstore.evaluation import ranking
from recstore.model.arrays import Matrix, Positions


class Scorer(Protocol):
    """A named model. `evaluate` calls `scores` from several threads."""

    @property
    def name(self) -> str: ...

    def scores(self, users: Positions) -> Matrix:
        """Return scores of all items, float32 (len(users), items), row r for the user index users[r]. The caller may change
        the result, and passes at most `ranking.block_users(items)` users."""


class FactorScorer:
    """The predicted preference x_u . y_i of user factors (users, factors) and item factors (items, factors), float32.

    The product has the same shape for every block, since the last bits of a result of BLAS depend on it. For the same reason
    items with equal factors share one score, so that they tie.
    """

    def __init__(self, name: str, user_factors: Matrix, item_factors: Matrix) -> None:
        self.name = name
        self.user_factors = user_factors
        self.item_factors = item_factors
        self._columns = np.ascontiguousarray(item_factors.T)
        self._copies, self._originals = repeated(item_factors)

    def scores(self, users: Positions) -> Matrix:
        rows = max(len(users), ranking.block_users(len(self.item_factors)))
        factors = np.zeros((rows, self.user_factors.shape[1]), dtype=np.float32)
        factors[: len(users)] = self.user_factors[users]
        scores: Matrix = (factors @ self._columns)[: len(users)]
        scores[:, self._copies] = scores[:, self._originals]
        return scores


class Popularity:
    """The number of users of the item in the training matrix (users x items): the same order for all users."""

    def __init__(self, train: sparse.csr_matrix, name: str = "popularity") -> None:
        self.name = name
        self._scores = np.bincount(train.indices, minlength=train.shape[1]).astype(np.float32)

    def scores(self, users: Positions) -> Matrix:
        return np.tile(self._scores, (len(users), 1))


class ItemKNN:
    """Item-based nearest neighbours: an item's score is the sum of its similarities to those of its `neighbours` most similar
    items (ties go to the lower item) that the user has in training.

    The similarity is the cosine of two binary columns of the training matrix, in which a user has the weight
    ln(1 + items / n_u), n_u the user's number of items: s_ij = the sum of weights of the common users, divided by the square
    root of the sum for i's users times that for j's. Cosine between items: Sarwar et al., "Item-Based Collaborative Filtering
    Recommendation Algorithms", WWW 2001. Best neighbours only: Deshpande and Karypis, TOIS 2004. The weight is the inverse
    frequency of Breese, Heckerman and Kadie, UAI 1998, for users.

    recall@20 / NDCG@20 on UltraGCN's splits: Amazon-CDs 0.156 / 0.105 (without the weight 0.148 / 0.100), MovieLens-1M 0.235
    / 0.228 (0.227 / 0.223). 50 or 200 neighbours differ by at most 0.004. A constant in the denominator ("shrink") and
    logarithms of counts did not help.
    """

    def __init__(
        self, train: sparse.csr_matrix, *, neighbours: int = 100, threads: int = 0, name: str = "item-kNN"
    ) -> None:
        self.name = name
        ones = np.ones(train.nnz, dtype=np.float32)
        self._train = sparse.csr_matrix((ones, train.indices, train.indptr), shape=train.shape, copy=True)
        self._train.sum_duplicates()
        self._train.data[:] = 1
        self._weights = _similarities(self._train, neighbours, threads or cores())

    def scores(self, users: Positions) -> Matrix:
        return np.asarray((self._train[users] @ self._weights).toarray(), dtype=np.float32)


def _similarities(train: sparse.csr_matrix, neighbours: int, threads: int) -> sparse.csr_matrix:
    """Return similarities (items, items), with i's neighbours in column i, computed in blocks of items."""
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


def repeated(factors: Matrix) -> tuple[Positions, Positions]:
    """Return the rows that equal an earlier one, and the first such row of each. Rows of zeros are left out."""
    rows = np.ascontiguousarray(factors) + np.float32(0)  # -0.0 becomes 0.0
    whole = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
    _, first, kind = np.unique(whole, return_index=True, return_inverse=True)
    original = first[kind]
    copies = np.flatnonzero((original != np.arange(len(rows))) & rows.any(axis=1))
    return copies, original[copies]
