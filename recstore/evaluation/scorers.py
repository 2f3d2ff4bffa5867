"""Models to evaluate, which score all items for users.

A score orders the items of one user: higher is better, ties go to the lower item, and -inf is never recommended.
"""

from typing import Protocol

import numpy as np

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


def repeated(factors: Matrix) -> tuple[Positions, Positions]:
    """Return the rows that equal an earlier one, and the first such row of each. Rows of zeros are left out."""
    rows = np.ascontiguousarray(factors) + np.float32(0)  # -0.0 becomes 0.0
    whole = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
    _, first, kind = np.unique(whole, return_index=True, return_inverse=True)
    original = first[kind]
    copies = np.flatnonzero((original != np.arange(len(rows))) & rows.any(axis=1))
    return copies, original[copies]
