"""The leading singular values of a sparse matrix and their right vectors, by subspace iteration with Chebyshev filters.

A block of vectors is improved by a polynomial in A^T A that grows fast above the smallest value of the block and stays
small below it; then Rayleigh and Ritz's procedure finds the best approximations in the space that the block spans. The
algorithm: Zhou and Saad, "A Chebyshev-Davidson Algorithm for Large Symmetric Eigenproblems", SIAM J. Matrix Anal. 2007.
A degree is limited so that the largest value does not drown the others in the rounding of float32.

Libraries: randomized SVD (scikit-learn) stops at approximations that are further away and takes longer, ARPACK (SciPy) takes
minutes for a thousand vectors; see docs/decisions/0039-spectral-family.md.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from threadpoolctl import threadpool_limits

from recstore.config import cores
from recstore.model.arrays import Matrix

PRODUCTS = 10
"""Least number of products with A^T A."""

MOST_DEGREE = 8
"""Largest degree of a filter."""

MOST_GROWTH = 1e4
"""Largest ratio by which a filter may raise the largest value above the others."""

SMALL = 500
"""Number of columns up to which all values are computed at once."""

COLUMNS, ROWS = 64, 8192
"""Sizes of the blocks that threads compute. The same for any number of threads, and so are the results."""


def leading(
    matrix: sparse.csr_matrix, number: int, *, seed: int = 0, threads: int = 0
) -> tuple[NDArray[np.float64], Matrix]:
    """Return the `number` largest singular values of `matrix`, float32 (rows, columns), in descending order, float64 (number,),
    and the right singular vectors, float32 (columns, number). `number` is at most the number of columns.

    The same arguments give the same bits, whatever `threads` (0: all cores). Values beyond the rank are near 0.
    """
    rows, columns = matrix.shape
    if rows < columns:
        values, left = leading(sparse.csr_matrix(matrix.T), min(number, rows), seed=seed, threads=threads)
        vectors = np.zeros((columns, number), dtype=np.float32)
        known = np.flatnonzero(values > np.finfo(np.float32).eps * values[0])
        vectors[:, known] = matrix.T @ (left[:, known] / values[known])
        return np.pad(values, (0, number - len(values))), vectors
    with threadpool_limits(1, "blas"):
        if columns <= max(SMALL, 4 * number):
            dense = (matrix.T.astype(np.float64) @ matrix.astype(np.float64)).toarray()
            squares, whole = linalg.eigh(dense, subset_by_index=(columns - number, columns - 1))
            return np.sqrt(np.maximum(squares[::-1], 0)), whole[:, ::-1].astype(np.float32)
        with ThreadPoolExecutor(threads or cores()) as pool:
            squares, block = _filtered(matrix, number, np.random.default_rng(seed), pool)
    return np.sqrt(np.maximum(squares[:number], 0)), np.ascontiguousarray(block[:, :number])


def _filtered(
    matrix: sparse.csr_matrix, number: int, random: np.random.Generator, pool: ThreadPoolExecutor
) -> tuple[NDArray[np.float64], Matrix]:
    """Return the squares of the leading singular values and the right singular vectors, a few more than `number`."""
    transposed = sparse.csr_matrix(matrix.T)

    def product(x: Matrix) -> Matrix:
        """Return A^T A x."""
        blocks = (np.ascontiguousarray(x[:, at : at + COLUMNS]) for at in range(0, x.shape[1], COLUMNS))
        return np.hstack(list(pool.map(lambda block: transposed @ (matrix @ block), blocks)))

    size = min(matrix.shape[1], number + max(10, number // 10))
    block = product(random.standard_normal((matrix.shape[1], size), dtype=np.float32))
    done = 1
    while True:
        block = block / np.maximum(np.linalg.norm(block, axis=0), np.finfo(np.float32).tiny)
        image = product(block)
        try:
            squares, turn = _ritz(block, image, pool)
        except linalg.LinAlgError:  # columns that depend on each other
            block = np.ascontiguousarray(linalg.qr(block, mode="economic", check_finite=False)[0])
            image = product(block)
            squares, turn = _ritz(block, image, pool)
        block = _times(block, turn, pool)
        done += 1
        if done >= PRODUCTS:
            return squares, block
        # the filter maps [0, the smallest square] to [-1, 1], where Chebyshev's polynomials are small
        half = np.float32(max(squares[-1], 1e-6 * squares[0]) / 2)
        growth = np.arccosh(squares[0] / half - 1)
        degree = int(np.clip(np.arccosh(MOST_GROWTH) // growth, 1, MOST_DEGREE))
        before, block = block, _times(image, turn, pool) / half - block
        for _ in range(degree - 1):
            before, block = block, 2 * (product(block) / half - block) - before
            done += 1


def _ritz(block: Matrix, image: Matrix, pool: ThreadPoolExecutor) -> tuple[NDArray[np.float64], Matrix]:
    """Return the best squares in the space of `block`, whose products are `image`, in descending order, and the vectors there.
    Raises LinAlgError if columns depend on each other."""
    projected = _inner(block, image, pool)
    squares, vectors = linalg.eigh((projected + projected.T) / 2, _inner(block, block, pool))
    return squares[::-1], vectors[:, ::-1].astype(np.float32)


def _inner(x: Matrix, y: Matrix, pool: ThreadPoolExecutor) -> NDArray[np.float64]:
    """Return x^T y."""
    return reduce(np.add, pool.map(lambda rows: (x[rows].T @ y[rows]).astype(np.float64), _slices(x)))


def _times(x: Matrix, turn: Matrix, pool: ThreadPoolExecutor) -> Matrix:
    """Return x turn."""
    return np.vstack(list(pool.map(lambda rows: x[rows] @ turn, _slices(x))))


def _slices(x: Matrix) -> list[slice]:
    return [slice(at, at + ROWS) for at in range(0, len(x), ROWS)]
