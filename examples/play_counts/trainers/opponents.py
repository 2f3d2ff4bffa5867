"""ALS in NumPy and SciPy, twice: a linear system per row, and conjugate gradients over all rows at once.

Both are trainers of recstore, so its commands measure, publish and compare them: entry_points.txt names them, as in an installed
package.
"""

from itertools import pairwise

import numpy as np
from scipy import sparse

from recstore.model.trainers import Factors, FoldIn, item_users
from recstore.model.trainers.als import ALS


def plain(matrix, other, own, regularization):
    """Solve (Y^T C_u Y + regularization I) x_u = Y^T C_u p_u for each row u (Hu, Koren and Volinsky, ICDM 2008)."""
    gram = other.T @ other + regularization * np.eye(other.shape[1])
    for row, (start, end) in enumerate(pairwise(matrix.indptr)):
        y, c = other[matrix.indices[start:end]], matrix.data[start:end]
        own[row] = np.linalg.solve(gram + (y.T * (c - 1)) @ y, c @ y)


def conjugate_gradient(matrix, other, own, regularization, steps=3):
    """Take a few steps of conjugate gradients towards that solution, for all rows (Takacs, Pilaszy and Tikk, RecSys 2011)."""
    gram = other.T @ other + regularization * np.eye(other.shape[1])
    rows, y = np.repeat(np.arange(len(own)), np.diff(matrix.indptr)), other[matrix.indices]

    def apply(x):
        weights = np.einsum("nf,nf->n", x[rows], y) * (matrix.data - 1)
        return x @ gram + sparse.csr_matrix((weights, matrix.indices, matrix.indptr), shape=matrix.shape) @ other

    rest = matrix @ other - apply(own)
    direction, square = rest.copy(), np.einsum("uf,uf->u", rest, rest)
    for _ in range(steps):
        image = apply(direction)
        step = square / np.maximum(np.einsum("uf,uf->u", direction, image), 1e-30)
        own += step[:, None] * direction
        rest -= step[:, None] * image
        square, before = np.einsum("uf,uf->u", rest, rest), square
        direction = rest + (square / np.maximum(before, 1e-30))[:, None] * direction


class Plain(ALS):
    """The trainer named "plain"."""

    solve = staticmethod(plain)

    def train(self, matrix, hyperparameters, *, factors, **_):
        """See `recstore.model.trainers.Trainer`."""
        random = np.random.default_rng(hyperparameters.seed)
        starts = (
            random.random((size, factors), dtype=np.float32) * np.float32(0.01) for size in matrix.shape
        )  # as ALS
        x, y = (start.astype(np.float64) for start in starts)
        regularization = hyperparameters.regularization
        matrix = matrix.astype(np.float64)
        transposed = matrix.T.tocsr()
        for _ in range(hyperparameters.iterations):
            self.solve(matrix, y, x, regularization)
            self.solve(transposed, x, y, regularization)
        fold_in = FoldIn(y.astype(np.float32), item_users(matrix), {"regularization": regularization})
        return Factors(x.astype(np.float32), fold_in, "cpu", ())


class ConjugateGradient(Plain):
    """The trainer named "conjugate_gradient"."""

    solve = staticmethod(conjugate_gradient)
