"""The spectral embedding: the truncated SVD of the degree-normalized matrix of views, and a filter of its singular values.

R is the binary pattern of the confidence matrix, d_u the items of a user, d_i the users of an item, and
N = D_u^-a R D_i^-c ~ U S V^T. An item is y_i = d_i^b S V_i, a user the sum over the user's items of g(S) S^-1 d_j^-c V_j, so the
score is the sum over j of d_i^b V_i . g(S) V_j d_j^-c. The filter is g(s) = s^p / (1 + x (s_1 / s)^2), s_1 the largest value.
In the hyperparameters a is `user_exponent`, c `view_exponent`, b `item_exponent`, x `ridge` and p `singular_exponent`.

Closed-form models are members: with p = 0 and x = 0 the ideal low-pass filter (Shen et al., "How Powerful is Graph
Convolution for Recommendation?", CIKM 2021); with a = b = c = 0 and p = 0 ridge regression from items to items, which EASE is
up to the diagonal (Steck, WWW 2019). A user is a weighted sum of items:
x_u = g(S) S^-2 sum over the user's items of d_j^(-c - b) y_j.

Why binary, why S is on the items' side, and what the numbers are worth: docs/decisions/0017-trainers.md and
0039-spectral-family.md.
"""

import time

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

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
    signed_sums,
    usable_factors,
)
from recstore.model.trainers.decomposition import leading
from recstore.model.vectors import COLLAPSED

ROUNDING = 1e-3
"""Singular value, relative to the largest, below which it is a rounding error of float32 and its factor is zero."""

EXPONENTS = "user_exponent", "view_exponent", "item_exponent"

BEFORE = {"user_exponent": 0.5, "view_exponent": 0.5}
"""Constants of generations that were trained when these exponents were fixed."""


class Spectral:
    """The trainer named "spectral"; see `recstore.model.trainers.Trainer`.

    It uses the pairs of the matrix, not their confidence. The constants of its fold-in are the exponents a, b and c by name
    and "scales", a number per factor: x_u = scales * sum over the user's items of d_i^(-c - b) y_i, elementwise, with d_i the
    number of users of the item in training.
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

        Scores are scaled to the mean 1 over the pairs of `matrix`. The largest number of a factor determines its sign.
        """
        if device == "gpu":
            raise DeviceUnavailable(reason="the trainer 'spectral' computes on the CPU only")
        factors, sentences = usable_factors(factors, matrix.shape[1])
        start = time.monotonic()
        fold_in = embed(matrix, hyperparameters, factors, threads)
        if on_iteration is not None:
            on_iteration(0, time.monotonic() - start, None)
        if on_factors is not None:
            on_factors(0, fold_in)
        return Factors(self.solve_users(matrix, fold_in), fold_in, "cpu", tuple(sentences))

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
        """Return y_i = S^-2 d_i^(b - c) times the sum over the item's users of d_u^-2a sum of d_j^(-c - b) y_j over their
        items, which holds for the trained items; these determine S^-2, a number per factor. See `Trainer`."""
        seen, new, constants = liked(seen), liked(new), BEFORE | fold_in.constants
        users = _sums(seen, fold_in) * _powers(np.diff(seen.indptr), -2 * constants["user_exponent"])[:, None]

        def summed(matrix: sparse.csr_matrix) -> NDArray[np.float64]:
            by_item = _powers(item_users(matrix), constants["item_exponent"] - constants["view_exponent"])
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
    """Return the weighted sum of each row's items; see `signed_sums`."""
    return signed_sums(rows, fold_in.item_factors * _item_weights(fold_in)[:, None])


def _item_weights(fold_in: FoldIn) -> Matrix:
    """Return the weight of each item in the sum of a user, float32 (items,)."""
    constants = BEFORE | fold_in.constants
    return _powers(fold_in.item_users, -constants["view_exponent"] - constants["item_exponent"]).astype(np.float32)


def mean_score(matrix: sparse.csr_matrix, user_factors: Matrix, item_factors: Matrix) -> float:
    """Return the mean of x_u . y_i over the pairs of `matrix`."""
    sums = pattern(matrix) @ item_factors
    return float(np.einsum("uf,uf->", user_factors, sums, dtype=np.float64)) / matrix.nnz


def pattern(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return `matrix` with the value 1 for each pair, float32."""
    return sparse.csr_matrix((np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)


def embed(matrix: sparse.csr_matrix, hyperparameters: Hyperparameters, factors: int, threads: int = 0) -> FoldIn:
    """Return the items, and scales with which the mean score over the pairs is 1. Factors beyond the rank are zero."""
    views = liked(matrix)
    users_of_item, exponents = item_users(views), {name: getattr(hyperparameters, name) for name in EXPONENTS}
    by_user = sparse.diags_array(_powers(np.diff(views.indptr), -hyperparameters.user_exponent))
    by_item = sparse.diags_array(_powers(users_of_item, -hyperparameters.view_exponent))
    normalized = sparse.csr_matrix(by_user @ pattern(views) @ by_item, dtype=np.float32)
    s, v = leading(normalized, factors, seed=hyperparameters.seed, threads=threads)
    v = v * np.sign(v[np.abs(v).argmax(axis=0), np.arange(factors)])
    s[s <= ROUNDING * s[0]] = 0
    of_item = _powers(users_of_item, hyperparameters.item_exponent)[:, None]
    item_factors = np.asarray(v * s * of_item, dtype=np.float32)
    lengths = np.linalg.norm(item_factors, axis=1)
    item_factors[lengths < COLLAPSED * lengths.max()] = 0
    used = np.where(s > 0, s, 1)
    filtered = used**hyperparameters.singular_exponent / (1 + hyperparameters.ridge * (s[0] / used) ** 2)
    scales = np.where(s > 0, filtered / used**2, 0)
    fold_in = FoldIn(item_factors, users_of_item, exponents | {"scales": scales})
    score = mean_score(views, Spectral().solve_users(views, fold_in), item_factors)
    fold_in.constants["scales"] = (scales / score).tolist()
    return fold_in


def _powers(counts: NDArray[np.integer], exponent: float) -> NDArray[np.float64]:
    """Return `counts` to the power `exponent`, 0 for a count of 0."""
    counted = counts > 0
    return np.where(counted, np.where(counted, counts, 1).astype(np.float64) ** exponent, 0)
