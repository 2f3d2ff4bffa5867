"""What can be evaluated: anything that gives users scores of all items. A model's factors, and the two baselines.

A score only orders a user's items. Higher is better, equal scores are ordered by item, -inf is never recommended.
"""

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
        self._copies, self._originals = _repeated(item_factors)

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


def _repeated(factors: Matrix) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows that repeat an earlier one, and the first one that each repeats. Not those of zeros: their product is 0."""
    rows = np.ascontiguousarray(factors) + np.float32(0)  # -0.0 becomes 0.0
    whole = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
    _, first, kind = np.unique(whole, return_index=True, return_inverse=True)
    original = first[kind]
    copies = np.flatnonzero((original != np.arange(len(rows))) & rows.any(axis=1))
    return copies, original[copies]
