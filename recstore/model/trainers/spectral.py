"""The spectral embedding: the truncated SVD of the degree-normalized matrix of views.

R is the binary pattern of the confidence matrix, d_u the items of a user, d_i the users of an item, and
D_u^-1/2 R D_i^-1/2 ~ U S V^T. An item is y_i = d_i^b S V_i, a user x_u = S^(p - 1) V^T D_i^-1/2 R_u, so the score is
d_i^b V_i . S^p V^T D_i^-1/2 R_u: for p = 0 and b = 1/2 the ideal low-pass filter of Shen et al., "How Powerful is Graph
Convolution for Recommendation?" (CIKM 2021). b is the hyperparameter `item_exponent`, p is `singular_exponent`. A user
is a weighted sum of items: x_u = S^(p - 2) sum over the user's items of d_i^(-1/2 - b) y_i.

The SVD is scikit-learn's randomized one (Halko, Martinsson and Tropp, SIAM Review 2011), in single precision.
Why binary, and why S is on the items' side: docs/decisions/0017-trainers.md.
"""

import time

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

from recstore.definition import Hyperparameters
from recstore.errors import DeviceUnavailable
from recstore.model.arrays import Matrix
from recstore.model.trainers import (
    Device,
    Factors,
    FoldIn,
    OnFactors,
    OnIteration,
    QueryFoldIn,
    item_users,
    liked,
    usable_factors,
)

ROUNDING = 1e-5
"""Singular value, relative to the largest, below which it is a rounding error and its factor is zero."""


class Spectral:
    """The trainer named "spectral"; see `recstore.model.trainers.Trainer`.

    It uses the pairs of the matrix, not their confidence. The constants of its fold-in are {"item_exponent": b, "scales": a
    number per factor}: x_u = scales * sum over the user's items of d_i^(-1/2 - b) y_i, elementwise, with d_i the number of
    users of the item in training.
    """

    def train(
        self,
        matrix: sparse.csr_matrix,
        hyperparameters: Hyperparameters,
        *,
        factors: int,
        device: Device = "auto",
        threads: int = 0,
        item_factors: Matrix | None = None,  # noqa: ARG002
        on_iteration: OnIteration | None = None,
        on_factors: OnFactors | None = None,
        with_loss: bool = False,  # noqa: ARG002
    ) -> Factors:
        """See `Trainer.train`. Not iterative: each callback is called once, and there is no loss and no warm start.

        Scores are scaled to the mean 1 over the pairs of `matrix`. The largest number of a factor determines its sign. The
        computation uses one core for any `threads`: results are equal to the bit, and on two busy cores two BLAS threads
        took 4 to 20 times as long as one.
        """
        if device == "gpu":
            raise DeviceUnavailable(reason="the trainer 'spectral' computes on the CPU only")
        factors, sentences = usable_factors(factors, matrix.shape[1])
        start = time.monotonic()
        with threadpool_limits(1, "blas"):
            fold_in = _decompose(liked(matrix), hyperparameters, factors)
            user_factors = self.solve_users(matrix, fold_in, threads)
        scale = 1 / mean_score(liked(matrix), user_factors, fold_in.item_factors)
        user_factors *= np.float32(scale)
        fold_in.constants["scales"] = (fold_in.constants["scales"] * scale).tolist()
        if on_iteration is not None:
            on_iteration(0, time.monotonic() - start, None)
        if on_factors is not None:
            on_factors(0, fold_in)
        return Factors(user_factors, fold_in, "cpu", tuple(sentences))

    def solve_users(self, rows: sparse.csr_matrix, fold_in: FoldIn, threads: int = 0) -> Matrix:  # noqa: ARG002
        """Return weighted sums of items, which are always determined. See `Trainer.solve_users`."""
        return _sums(rows, fold_in) * np.asarray(fold_in.constants["scales"], dtype=np.float32)

    def solve_items(
        self,
        seen: sparse.csr_matrix,
        new: sparse.csr_matrix,
        fold_in: FoldIn,
        threads: int = 0,  # noqa: ARG002
    ) -> Matrix:
        """Return y_i = S^-2 d_i^(b - 1/2) times the sum over the item's users of d_u^-1 sum of d_j^(-1/2 - b) y_j over their
        items, which holds for the trained items; these determine S^-2, a number per factor. See `Trainer`."""
        seen, new = liked(seen), liked(new)
        users = _sums(seen, fold_in) * _powers(np.diff(seen.indptr), -1)[:, None]

        def summed(matrix: sparse.csr_matrix) -> NDArray[np.float64]:
            by_item = _powers(item_users(matrix), fold_in.constants["item_exponent"] - 0.5)
            return np.asarray(pattern(matrix).T @ users * by_item[:, None])

        trained = summed(seen)
        squares = np.maximum(np.einsum("if,if->f", trained, trained), np.finfo(np.float64).tiny)
        scales = np.einsum("if,if->f", fold_in.item_factors, trained) / squares
        return np.asarray(summed(new) * scales, dtype=np.float32)

    def for_queries(self, fold_in: FoldIn) -> QueryFoldIn:
        """Return the summands of `solve_users`."""
        scales = np.asarray(fold_in.constants["scales"], dtype=np.float32)
        return QueryFoldIn(summands=fold_in.item_factors * scales * _item_weights(fold_in)[:, None])


def _sums(rows: sparse.csr_matrix, fold_in: FoldIn) -> Matrix:
    """Return the weighted sum of each row's items, less the disliked ones, float32 (rows, factors); zeros for a row without any
    but these."""
    weights = _item_weights(fold_in)[rows.indices] * np.sign(rows.data).astype(np.float32)
    weighted = sparse.csr_matrix((weights, rows.indices, rows.indptr), shape=rows.shape)
    sums: Matrix = weighted @ fold_in.item_factors
    sums[np.diff(liked(rows).indptr) == 0] = 0
    return sums


def _item_weights(fold_in: FoldIn) -> Matrix:
    """Return the weight of each item in the sum of a user, float32 (items,)."""
    return _powers(fold_in.item_users, -0.5 - fold_in.constants["item_exponent"]).astype(np.float32)


def mean_score(matrix: sparse.csr_matrix, user_factors: Matrix, item_factors: Matrix) -> float:
    """Return the mean of x_u . y_i over the pairs of `matrix`."""
    sums = pattern(matrix) @ item_factors
    return float(np.einsum("uf,uf->", user_factors, sums, dtype=np.float64)) / matrix.nnz


def pattern(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return `matrix` with the value 1 for each pair, float32."""
    return sparse.csr_matrix((np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)


def _decompose(matrix: sparse.csr_matrix, hyperparameters: Hyperparameters, factors: int) -> FoldIn:
    """Return the items, with scales as an array, before the scaling of scores. Factors beyond the rank are zero."""
    users_of_item = item_users(matrix)
    by_user = sparse.diags_array(_powers(np.diff(matrix.indptr), -0.5))
    by_item = sparse.diags_array(_powers(users_of_item, -0.5))
    normalized = sparse.csr_matrix(by_user @ pattern(matrix) @ by_item, dtype=np.float32)
    _, s, v = randomized_svd(normalized, factors, random_state=hyperparameters.seed)
    kept = s > ROUNDING * s[0]
    s, v = s[kept].astype(np.float64), v[kept]

    item_factors = np.zeros((matrix.shape[1], factors), dtype=np.float32)
    item_factors[:, : len(s)] = v.T * s * _powers(users_of_item, hyperparameters.item_exponent)[:, None]
    scales = np.zeros(factors)
    scales[: len(s)] = s ** (hyperparameters.singular_exponent - 2)
    return FoldIn(item_factors, users_of_item, {"item_exponent": hyperparameters.item_exponent, "scales": scales})


def _powers(counts: NDArray[np.integer], exponent: float) -> NDArray[np.float64]:
    """Return `counts` to the power `exponent`, 0 for a count of 0."""
    counted = counts > 0
    return np.where(counted, np.where(counted, counts, 1).astype(np.float64) ** exponent, 0)
