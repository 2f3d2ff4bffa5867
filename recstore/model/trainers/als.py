"""Alternating least squares on implicit feedback, by the `implicit` library, on the CPU or the GPU.

Minimizes sum over all u, i of c_ui (p_ui - x_u . y_i)^2 + regularization (sum |x_u|^2 + sum |y_i|^2), p_ui being 1 for
a stored pair, else 0 (Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008).
Each iteration improves all users, then all items, by three steps of conjugate gradients (Takacs, Pilaszy and Tikk,
RecSys 2011). The only module that imports `implicit`.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import solve_triangular
from threadpoolctl import threadpool_limits

from recstore.config import cores
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
    cuda,
    item_users,
    regularization_for,
    usable_factors,
    warnings_for,
)

cuda.load_libraries()
with warnings.catch_warnings(record=True) as _import_warnings:
    warnings.simplefilter("always")
    import implicit.cpu.als
    import implicit.gpu.als
    from implicit.recommender_base import ModelFitError

_IMPORTED_BY = os.getpid()
"""Process in which `implicit` has initialized CUDA, which does not survive a fork."""

BLOCK_BYTES = 1 << 25
"""Bytes of one block of items in products of all of them."""

SOLVED_BYTES = 1 << 20
"""Bytes of the items of one block of users in solve_users: what fits into the cache of a core."""


class ALS:
    """The trainer named "als"; see `recstore.model.trainers.Trainer`."""

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
        """See `Trainer.train`. Initial factors are uniform in [0, 0.01), drawn from the seed, users first.

        On the GPU sums have no fixed order, so results repeat only up to rounding. With the device "auto" and the extra
        `gpu` installed, `warnings` says why the GPU was not used or failed.
        """
        users, items = matrix.shape
        factors, sentences = usable_factors(factors, items)
        regularization = regularization_for(matrix, hyperparameters, factors)
        sentences += warnings_for(matrix, hyperparameters.iterations, regularization)
        problem = None if device == "cpu" else gpu_problem(factors, users, items, matrix.nnz)
        if problem and device == "gpu":
            raise DeviceUnavailable(reason=problem)
        if problem and implicit.gpu.HAS_RMM:
            sentences.append(f"The GPU was not used: {problem}. The CPU was used instead.")
        on_gpu = device != "cpu" and problem is None

        random = np.random.default_rng(hyperparameters.seed)
        x = random.random((users, factors), dtype=np.float32) * np.float32(0.01)
        y = random.random((items, factors), dtype=np.float32) * np.float32(0.01)
        if item_factors is not None:
            if item_factors.shape != y.shape:
                raise InvalidInput(f"The initial item factors have the shape {item_factors.shape}, not {y.shape}.")
            y = np.array(item_factors, dtype=np.float32, order="C")
        users_of_item = item_users(matrix)
        settings = {"regularization": regularization, "alpha": 1.0, "iterations": hyperparameters.iterations}
        settings |= {"calculate_training_loss": with_loss}

        def fold_in(item_factors: Matrix) -> FoldIn:
            return FoldIn(item_factors, users_of_item, {"regularization": regularization})

        def after_iteration(current: Callable[[], Matrix], number: int, seconds: float, loss: float | None) -> None:
            if on_iteration is not None:
                on_iteration(number, seconds, loss)
            if on_factors is None:
                return
            with threadpool_limits(blas.get_original_num_threads()):
                enough = on_factors(number, fold_in(current()))
            if enough:
                raise _Enough

        with threadpool_limits(1, "blas") as blas:
            if on_gpu:
                try:
                    x, y = _fit_gpu(matrix, x, y, settings, after_iteration)
                except _GPUFailed as failed:
                    if device == "gpu":
                        raise DeviceUnavailable(reason=str(failed)) from failed
                    sentences.append(
                        f"The GPU failed: {failed}. The CPU trained from the beginning, from the same initial factors; the "
                        "iterations were counted from 1 again."
                    )
                    on_gpu = False
            if not on_gpu:
                x, y = _fit_cpu(matrix, x, y, settings, threads, after_iteration)
        for side, trained in (("user", x), ("item", y)):
            broken = int(np.count_nonzero(~np.isfinite(trained).all(axis=1)))
            if broken:
                raise TrainingDiverged(what=f"{broken} of {len(trained)} {side}s")
        return Factors(x, fold_in(y), "gpu" if on_gpu else "cpu", tuple(sentences))

    def solve_users(self, rows: sparse.csr_matrix, fold_in: FoldIn, threads: int = 0) -> Matrix:
        """Solve (Y^T C_u Y + regularization I) x_u = Y^T C_u p_u in double precision. See `Trainer.solve_users`."""
        with threadpool_limits(1, "blas"):
            try:
                solved = _solve(
                    rows.astype(np.float32, copy=False),
                    fold_in.item_factors.astype(np.float64),
                    fold_in.constants["regularization"],
                    threads,
                )
            except (ValueError, np.linalg.LinAlgError) as error:
                raise TrainingDiverged(what=f"the equations of the users have no unique solution: {error}") from None
        if not np.isfinite(solved).all():
            raise TrainingDiverged(what="users, solved against the items")
        return solved

    def solve_items(self, seen: sparse.csr_matrix, new: sparse.csr_matrix, fold_in: FoldIn, threads: int = 0) -> Matrix:
        """Solve the same equation with the sides swapped, against the users as `seen` solves them. See `Trainer`."""
        users = self.solve_users(seen, fold_in, threads)
        return self.solve_users(sparse.csr_matrix(new.T), replace(fold_in, item_factors=users), threads)

    def for_queries(self, fold_in: FoldIn) -> QueryFoldIn:
        """Return the items in coordinates in which Y^T Y + regularization I = L L^T is the identity: z_i = L^-1 y_i. The users'
        equation is then (I + Z_u^T (C_u - I) Z_u) t = Z_u^T c_u, with x_u = L^-T t."""
        items = fold_in.item_factors
        with threadpool_limits(1, "blas"):
            try:
                double = items.astype(np.float64)
                basis = _inverse_root(double.T @ double + fold_in.constants["regularization"] * np.eye(items.shape[1]))
            except np.linalg.LinAlgError as error:
                raise TrainingDiverged(what=f"the equations of the users have no unique solution: {error}") from None
            whitened = np.empty_like(items)
            for block in _blocks(np.arange(len(items)), items.shape[1]):
                whitened[block] = items[block] @ basis
        return QueryFoldIn(whitened=whitened, basis=basis.astype(np.float32))


def solve_whitened(rows: sparse.csr_matrix, whitened: Matrix, threads: int = 0) -> Matrix:
    """Return the solution t of (I + Z_u^T (C_u - I) Z_u) t = Z_u^T c_u for each row of confidences; see `ALS.for_queries`."""
    z = whitened.astype(np.float64)
    with threadpool_limits(1, "blas"):
        return _solve(rows.astype(np.float32, copy=False), z, 0.0, threads, np.eye(z.shape[1]))


def gpu_problem(factors: int = 1, users: int = 1, items: int = 1, pairs: int = 0) -> str | None:
    """Return why the GPU cannot train a model of this size, if possible in the words of `implicit`; None if it can."""
    if not implicit.gpu.HAS_RMM:
        return "rmm is not installed (pip install 'recstore[gpu]')"
    if not implicit.gpu.HAS_CUDA:
        return "; ".join(str(warning.message) for warning in _import_warnings) or "implicit was built without CUDA"
    if os.getpid() != _IMPORTED_BY:
        return "this process was forked after CUDA was initialized, which CUDA does not support"
    return cuda.room_problem(users, items, pairs, factors)


class _GPUFailed(Exception):
    """An error of CUDA or of `implicit` on the GPU, with its reason and the number of complete iterations."""


class _Enough(Exception):
    """`on_factors` has ended the training."""


_AfterIteration = Callable[[Callable[[], Matrix], int, float, float | None], None]
"""Called with a function that returns the current item factors, then the arguments of OnIteration. Raises _Enough."""


def _fit_cpu(
    matrix: sparse.csr_matrix,
    x: Matrix,
    y: Matrix,
    settings: dict[str, Any],
    threads: int,
    after_iteration: _AfterIteration,
) -> tuple[Matrix, Matrix]:
    model = implicit.cpu.als.AlternatingLeastSquares(factors=x.shape[1], num_threads=threads, **settings)
    model.user_factors, model.item_factors = x, y
    try:
        with suppress(_Enough):
            model.fit(matrix, show_progress=False, callback=partial(after_iteration, lambda: y))
    except ModelFitError as error:
        raise TrainingDiverged(what=str(error)) from None
    return model.user_factors, model.item_factors


def _fit_gpu(
    matrix: sparse.csr_matrix,
    x: Matrix,
    y: Matrix,
    settings: dict[str, Any],
    after_iteration: _AfterIteration,
) -> tuple[Matrix, Matrix]:
    """Train on the GPU, leaving x and y unchanged. Raises _GPUFailed; exceptions of callbacks propagate unchanged."""
    factors = x.shape[1]
    padding = ((0, 0), (0, cuda.padded(factors) - factors))
    done, in_callback = 0, False

    def report(number: int, seconds: float, loss: float | None) -> None:
        nonlocal done, in_callback
        done, in_callback = number + 1, True
        after_iteration(on_host, number, seconds, loss)
        in_callback = False

    def on_host() -> Matrix:
        nonlocal in_callback
        in_callback = False
        copied = np.ascontiguousarray(model.item_factors.to_numpy()[:, :factors])
        in_callback = True
        return copied

    try:
        model = implicit.gpu.als.AlternatingLeastSquares(factors=cuda.padded(factors), **settings)
        model.user_factors = implicit.gpu.Matrix(np.pad(x, padding))
        model.item_factors = implicit.gpu.Matrix(np.pad(y, padding))
        with suppress(_Enough):
            model.fit(matrix, show_progress=False, callback=report)
        in_callback = False
        trained = [side.to_numpy()[:, :factors] for side in (model.user_factors, model.item_factors)]
        if np.array_equal(trained[0], x):  # implicit does not check the launch of its kernels
            raise RuntimeError("the factors did not change: implicit has no kernels for this GPU")
    except (RuntimeError, MemoryError) as error:  # from std::runtime_error (CUDA, cuBLAS), bad_alloc (rmm)
        if in_callback:
            raise
        cuda.keep_if_broken(error)
        raise _GPUFailed(f"{error}, after {done} of {settings['iterations']} iterations") from error
    return np.ascontiguousarray(trained[0]), np.ascontiguousarray(trained[1])


def _solve(
    rows: sparse.csr_matrix,
    y: NDArray[np.float64],
    regularization: float,
    threads: int,
    gram: NDArray[np.float64] | None = None,
) -> Matrix:
    """Solve users; `gram` replaces Y^T Y.

    With L L^T = Y^T Y + regularization I, S_u = Y_u L^-T and D = C_u - I, x_u = L^-T t, and for a user with n items either
    (I + S_u^T D S_u) t = S_u^T c_u, or by the Woodbury identity t = S_u^T (I + D S_u S_u^T)^-1 c_u: n equations instead of
    `factors`. c is 0 for a dislike. Users of about the same n form a block, those with fewer items filled up with D and c 0.
    """
    factors = y.shape[1]
    counts = np.diff(rows.indptr)
    of_rows = np.zeros(len(y), dtype=np.bool_)
    of_rows[rows.indices] = True
    s = np.empty_like(y)
    solved = np.zeros((rows.shape[0], factors), dtype=np.float32)

    def solve(block: NDArray[np.intp]) -> None:
        items = int(counts[block[-1]])
        place = np.arange(items)
        entries = rows.indptr[block, None] + place
        if filled := counts[block[0]] < items:
            given = place < counts[block, None]
            entries = np.where(given, entries, 0)
        c = rows.data[entries].astype(np.float64)[:, :, None]
        liked, excess = np.maximum(c, 0), np.abs(c) - 1
        if filled:
            liked, excess = (np.where(given[:, :, None], one, 0) for one in (liked, excess))
        s_u = s.take(rows.indices[entries], axis=0, mode="clip")  # half the time of s[..]
        transposed = s_u.transpose(0, 2, 1)
        if items <= factors:
            t = transposed @ np.linalg.solve(np.eye(items) + excess * (s_u @ transposed), liked)
        else:
            root = np.sqrt(np.abs(excess)) * s_u  # NumPy computes half of a product with the transposed itself
            other = root if (excess >= 0).all() else np.sign(excess) * root
            t = np.linalg.solve(np.eye(factors) + root.transpose(0, 2, 1) @ other, transposed @ liked)
        solved[block] = t[:, :, 0] @ basis.T

    def squared(block: NDArray[np.intp]) -> NDArray[np.float64]:
        part = y[block]  # NumPy computes half of a product with the transposed itself
        return np.asarray(part.T @ part)

    def transform(block: NDArray[np.intp]) -> None:
        s[block] = y[block] @ basis

    with ThreadPoolExecutor(threads or cores()) as pool:
        if gram is None:  # blocks, not threads, decide the order of the sum
            every = _blocks(np.arange(len(y)), factors, BLOCK_BYTES)
            gram = sum(pool.map(squared, every), np.zeros((factors, factors)))
        basis = _inverse_root(gram + regularization * np.eye(factors))
        used = _blocks(np.flatnonzero(of_rows), factors, BLOCK_BYTES)
        for work, blocks in ((transform, used), (solve, _alike(counts, factors))):
            for _ in pool.map(work, blocks):
                pass
    return solved


def _alike(counts: NDArray[np.integer[Any]], factors: int) -> Iterator[NDArray[np.intp]]:
    """Yield blocks of the users with items, whose numbers of items differ by a tenth at most."""
    users = np.argsort(counts, kind="stable")
    users = users[np.searchsorted(counts[users], 1) :]
    while len(users):
        most = int(1.1 * counts[users[0]])
        alike = int(np.searchsorted(counts[users], most, side="right"))
        yield from _blocks(users[:alike], factors * most, SOLVED_BYTES)
        users = users[alike:]


def _inverse_root(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return L^-T, where L L^T is this matrix. Raises LinAlgError."""
    return solve_triangular(np.linalg.cholesky(gram), np.eye(len(gram)), lower=True).T


def _blocks(rows: NDArray[np.intp], width: int, size: int = BLOCK_BYTES) -> Iterator[NDArray[np.intp]]:
    """Yield parts of `rows` whose memory, `width` float64 per row, stays within `size` bytes."""
    step = max(1, size // (8 * width))
    return (rows[start : start + step] for start in range(0, len(rows), step))
