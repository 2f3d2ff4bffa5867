"""Select the items to rank for each user: held-out pairs, exclusions and, optionally, sampled negatives."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recstore.errors import InvalidInput
from recstore.model.arrays import Mask, Matrix, Positions

Cells = tuple[Positions, Positions]
"""Ascending rows of a block, and the ascending columns of each."""


class Ranked:
    """The pairs of a split (users x items; each stored value is a pair) and the items to rank for each user: all items, or the
    stored columns of `negatives` and the held-out items; training items are left out with `exclude_train`.

    Raises InvalidInput if shapes differ."""

    def __init__(
        self,
        train: sparse.csr_matrix,
        test: sparse.csr_matrix,
        exclude_train: bool = True,
        negatives: sparse.csr_matrix | None = None,
    ) -> None:
        for what, matrix in (("test", test), ("negatives", negatives)):
            if matrix is not None and matrix.shape != train.shape:
                raise InvalidInput(f"The {what} matrix is {matrix.shape}, the training matrix {train.shape}.")
        self.train, self.test = _pairs(train), _pairs(test)
        self.both = _pairs(self.train.multiply(self.test))
        self.items: int = train.shape[1]
        self.excluded = self.train if exclude_train else None
        self.held_out = np.diff(self.test.indptr).astype(np.int64)
        self.known = np.diff(self.train.indptr) + self.held_out - np.diff(self.both.indptr)
        self.candidates = None
        self.others = self.items - (self.known if exclude_train else self.held_out)
        if negatives is not None:
            others = _without(_pairs(negatives), self.test)
            others = _without(others, self.train) if exclude_train else others
            self.candidates = _pairs(others + self.test)
            self.others = np.diff(others.indptr)

    def evaluated(self, users: NDArray[np.integer[Any]] | None) -> Positions:
        """Return the users with a held-out item, all or those among `users`, ascending. Raises InvalidInput."""
        if users is None:
            return np.flatnonzero(self.held_out)
        wanted = np.unique(np.asarray(users, dtype=np.intp))
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < len(self.held_out):
            raise InvalidInput(f"There are {len(self.held_out)} users, but indices from {wanted[0]} to {wanted[-1]}.")
        return wanted[self.held_out[wanted] > 0]

    def on_known(self, scores: Matrix, users: Positions) -> NDArray[np.float64]:
        """Return the sum of each user's scores of training and held-out items, counting an item once."""
        train, test, both = (_sums(scores, cells(m, users)) for m in (self.train, self.test, self.both))
        return train + test - both

    def block(self, scores: Matrix, users: Positions) -> tuple[Matrix, Matrix, Positions | None]:
        """Return the part of `scores` (users, items) to rank, and change `scores`.

        Returns the block (users, columns), with -inf where no item may be listed; the scores of held-out items, flat, in
        the order of users and items; and the item of each column, (users, columns), -1 for none, or None if the columns are
        the items."""
        if self.excluded is not None:
            scores[cells(self.excluded, users)] = -np.inf
        held_out = scores[cells(self.test, users)]
        if self.candidates is None:
            return scores, held_out, None
        row, item = cells(self.candidates, users)
        column = np.arange(len(row)) - np.searchsorted(row, np.arange(len(users)))[row]
        shape = len(users), int(column.max(initial=-1)) + 1
        block, names = np.full(shape, -np.inf, dtype=np.float32), np.full(shape, -1, dtype=np.intp)
        block[row, column] = scores[row, item]
        names[row, column] = item
        return block, held_out, names

    def hits(self, lists: Positions, users: Positions) -> Mask:
        """Mark the listed items (users, places; -1 for none) that were held out for their user."""
        row, item = cells(self.test, users)
        held_out = row * self.items + item  # ascending
        listed = np.arange(len(users))[:, None] * self.items + lists
        found = np.searchsorted(held_out, listed).clip(max=len(held_out) - 1)
        return np.asarray((held_out[found] == listed) & (lists >= 0))


def cells(matrix: sparse.csr_matrix, users: Positions) -> Cells:
    """Return the stored cells of the rows `users` of a matrix, with rows numbered as in `users`."""
    rows = matrix[users]
    return np.repeat(np.arange(len(users)), np.diff(rows.indptr)), rows.indices


def _pairs(matrix: Any) -> sparse.csr_matrix:
    """Return a 1 for each stored value, with ascending, unique columns."""
    pairs = sparse.csr_matrix(matrix, copy=True)
    pairs.data = np.ones(pairs.nnz, dtype=np.int32)
    pairs.sum_duplicates()
    pairs.data[:] = 1
    return pairs


def _without(pairs: sparse.csr_matrix, other: sparse.csr_matrix) -> sparse.csr_matrix:
    left = sparse.csr_matrix(pairs - pairs.multiply(other))
    left.eliminate_zeros()
    return left


def _sums(scores: Matrix, at: Cells) -> NDArray[np.float64]:
    return np.bincount(at[0], weights=scores[at], minlength=len(scores)).astype(np.float64)
