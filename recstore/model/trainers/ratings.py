"""Alternating least squares on explicit feedback: matrix factorization with biases, fitted to the known ratings only.

Minimizes the sum over the ratings of (r_ui - b_u - b_i - x_u . y_i)^2
+ regularization (sum over u of sqrt(n_u) (|x_u|^2 + b_u^2) + sum over i of sqrt(n_i) (|y_i|^2 + b_i^2)), where r_ui is less the
mean, in standard deviations, and n_u, n_i count ratings. The model is that of Koren, Bell and Volinsky, "Matrix Factorization
Techniques for Recommender Systems", Computer 2009; the weights of the regularization lie between that and Zhou et al.,
"Large-Scale Parallel Collaborative Filtering for the Netflix Prize", AAIM 2008: docs/decisions/0036-ratings.md.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from recstore.definition import Hyperparameters
from recstore.errors import DeviceUnavailable, InvalidInput, TrainingDiverged
from recstore.model.arrays import Matrix
from recstore.model.trainers import (
    Device,
    Factors,
    FoldIn,
    OnFactors,
    OnIteration,
    QueryFoldIn,
    usable_factors,
)

REGULARIZATION = 1.0
"""Default regularization: it was the best of 0.7 to 1.1 at 16, 64 and 128 factors."""

BLOCK_NUMBERS = 1 << 21
"""Numbers of a block of equations, at most: 16 MB."""

Numbers = NDArray[np.float64]


class RatingsALS:
    """An item's factors are [y_i, 1, b_i] and a user's [x_u, b_u, 1], so their inner product is the predicted rating."""

    def train(
        self,
        matrix: sparse.csr_matrix,
        hyperparameters: Hyperparameters,
        *,
        factors: int,
        device: Device = "auto",
        threads: int = 0,
        item_factors: Matrix | None = None,
        on_iteration: OnIteration | None = None,
        on_factors: OnFactors | None = None,
        with_loss: bool = False,
    ) -> Factors:
        """See `Trainer.train`; `matrix` stores ratings as `Ratings.matrix` returns them. Runs on the CPU."""
        if device == "gpu":
            raise DeviceUnavailable(reason="the trainer of explicit feedback runs on the CPU only")
        items = matrix.shape[1]
        factors, sentences = usable_factors(factors, items)
        regularization = hyperparameters.regularization
        regularization = REGULARIZATION if regularization is None else regularization
        width = factors + hyperparameters.bias_factors
        if item_factors is None:
            y = np.random.default_rng(hyperparameters.seed).normal(0, 0.1 * factors**-0.5, (items, width))
            y[:, -2], y[:, -1] = 1, 0
        elif item_factors.shape != (items, width):
            raise InvalidInput(f"The initial item factors have the shape {item_factors.shape}, not {(items, width)}.")
        else:
            y = item_factors.astype(np.float64)
            y[:, -2] = 1
        rows, columns, users_of_item = (
            matrix.astype(np.float64),
            matrix.T.tocsr().astype(np.float64),
            np.bincount(matrix.indices, minlength=items).astype(np.int64),
        )
        rows.sort_indices()

        def fold_in() -> FoldIn:
            return FoldIn(y.astype(np.float32), users_of_item, {"regularization": regularization})

        for number in range(hyperparameters.iterations):
            began = time.perf_counter()
            x = _solve(rows, y, regularization, threads)
            y = _swapped(_solve(columns, _swapped(x), regularization, threads))
            if on_iteration is not None:
                loss = _loss(rows, x, y, regularization) if with_loss else None
                on_iteration(number, time.perf_counter() - began, loss)
            if on_factors is not None and on_factors(number, fold_in()):
                break
        if not np.isfinite(y).all():
            raise TrainingDiverged(what=f"{np.count_nonzero(~np.isfinite(y).all(axis=1))} of {items} items")
        return Factors(self.solve_users(rows, fold_in(), threads), fold_in(), "cpu", tuple(sentences))

    def solve_users(self, rows: sparse.csr_matrix, fold_in: FoldIn, threads: int = 0) -> Matrix:
        """Solve (Z_u^T Z_u + regularization sqrt(n_u) I) [x_u, b_u] = Z_u^T (r_u - b_i), where a row of Z is [y_i, 1]. See
        `Trainer.solve_users`."""
        y = fold_in.item_factors.astype(np.float64)
        x = _solve(rows.astype(np.float64), y, fold_in.constants["regularization"], threads).astype(np.float32)
        if not np.isfinite(x).all():
            raise TrainingDiverged(what="users, solved against the items")
        return x

    def for_queries(self, fold_in: FoldIn) -> QueryFoldIn:
        """Return the items as z_i = [y_i, 1] / sqrt(regularization). With a_i = n_u^-1/2 and b_i = n_u^-1/2 (r_ui - b_i) for
        each item of the user, the equation of `solve_users` is (I + sum a_i z_i z_i^T) t = sum b_i z_i, and
        [x_u, b_u] = t / sqrt(regularization)."""
        unit = np.float32(max(fold_in.constants["regularization"], 1e-9) ** -0.5)
        width = fold_in.item_factors.shape[1] - 1
        basis = np.eye(width, dtype=np.float32) * unit
        bias = fold_in.item_factors[:, -1].astype(np.float64)
        return QueryFoldIn(whitened=fold_in.item_factors[:, :-1] * unit, basis=basis, bias=bias)


def biases(
    matrix: sparse.csr_matrix, regularization: float = REGULARIZATION, iterations: int = 10
) -> tuple[Matrix, Matrix]:
    """Return factors of users and items, float32 (users, 2) and (items, 2), of a model without latent factors."""
    rows, columns = matrix.astype(np.float64), matrix.T.tocsr().astype(np.float64)
    y = np.tile([1.0, 0.0], (matrix.shape[1], 1))
    for _ in range(iterations):
        x = _solve(rows, y, regularization, 0)
        y = _swapped(_solve(columns, _swapped(x), regularization, 0))
    return _solve(rows, y, regularization, 0).astype(np.float32), y.astype(np.float32)


def _swapped(factors: Numbers) -> Numbers:
    """Return [x, 1, b] of [x, b, 1], and the other way round."""
    return np.hstack((factors[:, :-2], factors[:, :-3:-1]))


def solve_whitened(rows: sparse.csr_matrix, whitened: Matrix, basis: Matrix, bias: Numbers, threads: int = 0) -> Matrix:
    """Return the factors of each row of ratings, float32 (rows, width), from what `for_queries` returns."""
    solved = _solve(rows.astype(np.float64), np.column_stack((whitened, bias)), 1.0, threads)
    return np.hstack((solved[:, :-1] @ basis.T, solved[:, -1:])).astype(np.float32)


def _solve(rows: sparse.csr_matrix, z: Numbers, regularization: float, threads: int) -> Numbers:
    """Return [t_u, 1] for each row, where t_u solves (Z_u^T Z_u + regularization sqrt(n_u) I) t_u = Z_u^T (e_u - b), float64
    (rows, width). Z_u has the rows of `z` of the user's items without the last number, which is b. Zeros for an empty row.

    Rows with the same number of entries are solved together: by their n equations if those are fewer than the unknowns.
    """
    solved = np.zeros((rows.shape[0], z.shape[1]))
    counts = np.diff(rows.indptr)
    z, bias, width = z[:, :-1], z[:, -1], z.shape[1] - 1

    def solve(block: NDArray[np.intp]) -> None:
        count = int(counts[block[0]])
        entries = rows.indptr[block, None] + np.arange(count)
        items = rows.indices[entries]
        z_u, e = z[items], (rows.data[entries] - bias[items])[:, :, None]
        least = regularization * count**0.5
        if count <= width:
            system = z_u @ z_u.transpose(0, 2, 1) + least * np.eye(count)
            t = z_u.transpose(0, 2, 1) @ np.linalg.solve(system, e)
        else:
            t = np.linalg.solve(z_u.transpose(0, 2, 1) @ z_u + least * np.eye(width), z_u.transpose(0, 2, 1) @ e)
        solved[block, :-1], solved[block, -1] = t[:, :, 0], 1

    try:
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads or None) as pool:
            list(pool.map(solve, _blocks(counts, width)))
    except np.linalg.LinAlgError as error:
        raise TrainingDiverged(what=f"the equations of the users have no unique solution: {error}") from None
    return solved


def _blocks(counts: NDArray[np.integer], width: int) -> Iterator[NDArray[np.intp]]:
    """Yield rows with the same number of entries, as many as BLOCK_NUMBERS allows."""
    order = np.argsort(counts, kind="stable")
    for block in np.split(order, np.flatnonzero(np.diff(counts[order])) + 1):
        count = int(counts[block[0]])
        if count:
            step = max(1, BLOCK_NUMBERS // (width * max(count, min(count, width))))
            yield from (block[start : start + step] for start in range(0, len(block), step))


def _loss(rows: sparse.csr_matrix, x: Numbers, y: Numbers, regularization: float) -> float:
    """Return what the training minimizes, divided by the number of ratings."""
    user = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    total = 0.0
    for start in range(0, rows.nnz, BLOCK_NUMBERS // x.shape[1]):
        part = slice(start, start + BLOCK_NUMBERS // x.shape[1])
        predicted = np.einsum("nf,nf->n", x[user[part]], y[rows.indices[part]])
        total += float(((rows.data[part] - predicted) ** 2).sum())
    for side, index in ((x[:, :-1], user), (np.delete(y, -2, axis=1), rows.indices)):
        weights = np.bincount(index, minlength=len(side)) ** 0.5
        total += regularization * float(weights @ (side**2).sum(axis=1))
    return total / max(1, rows.nnz)
