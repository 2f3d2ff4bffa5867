"""From the confidence matrix to factors: the protocol of trainers, and how one is found by name.

The step between confidence and vectors. Knows no database; a trainer is imported when it is requested.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recstore.definition import DEFAULT_FACTORS, DEFAULT_RATING_FACTORS, MAX_FACTORS, RATINGS, Hyperparameters
from recstore.errors import InvalidInput, TooManyFactors
from recstore.model.arrays import Matrix

Device = Literal["auto", "cpu", "gpu"]
OnIteration = Callable[[int, float, float | None], None]
"""Called after each iteration with its number from 0, its seconds, and the loss if requested. The numbers start again if the
CPU takes over from a failed GPU. An exception from it ends the training and propagates."""

NOISE = 0.5
"""Default regularization, relative to the largest singular value of noise: docs/decisions/0018-defaults.md."""

ENOUGH = 0.03
"""Factors, relative to the lesser of users and items, above which the default regularization stays the same."""

GROUP = "recstore.trainers"
"""Entry point group of trainers from other packages."""


@dataclass(frozen=True, eq=False)
class FoldIn:
    """The input for folding in users: the trained items and constants of the trainer. A published generation stores it all."""

    item_factors: Matrix  # (items, factors)
    item_users: NDArray[np.int64]  # (items,), number of users of each item in training
    constants: dict[str, Any]  # for JSON: numbers, and lists with one number per factor


@dataclass(frozen=True, eq=False)
class QueryFoldIn:
    """The input for folding in a user by SQL: the solved factors, if any, then the summed ones, if any.

    The solved factors are basis t, where t solves (I + sum a_i z_i z_i^T) t = sum b_i z_i over the user's items; z_i is the row
    `whitened` of item i, a_i = c_ui - 1, and b_i = c_ui, or 0 for a dislike. The summed ones are the sum of the user's
    `summands`, those of dislikes subtracted. With `bias`, values are ratings; see `RatingsALS.for_queries`.
    """

    whitened: Matrix | None = None  # (items, solved factors)
    basis: Matrix | None = None  # (solved factors, solved factors)
    summands: Matrix | None = None  # (items, summed factors)
    solved_weight: float = 1.0  # x_u . y_i is this times t . z_i, for solved factors
    idf: NDArray[np.float64] | None = None  # (items,), of the confidence functions bm25 and power
    bias: NDArray[np.float64] | None = None  # (items,), of ratings


OnFactors = Callable[[int, FoldIn], bool | None]
"""Called after each iteration, after `OnIteration`, with its number from 0 and the current input for folding in users. The
arrays are valid during the call only. True ends the training with these factors; an exception ends it and propagates. A
trainer without iterations calls it once, with 0."""


@dataclass(frozen=True, eq=False)
class Factors:
    """The result of training. The predicted preference is p_ui = user_factors[u] . item_factors[i].

    `user_factors` need not be exact, since ALS ends with a step on the items; `Trainer.solve_users` returns the exact ones.
    """

    user_factors: Matrix  # (users, factors)
    fold_in: FoldIn
    device: str  # "cpu" or "gpu"
    warnings: tuple[str, ...]

    @property
    def item_factors(self) -> Matrix:
        return self.fold_in.item_factors


class Trainer(Protocol):
    """Trains factors on a confidence matrix, and solves users exactly against item factors.

    A trainer whose users can be folded in by SQL also has a method `for_queries(fold_in: FoldIn) -> QueryFoldIn`. Without it,
    a user who came after the training gets popular items until the next one.

    One that can also solve items that came after the training has a method `solve_items(seen, new, fold_in, threads) -> Matrix`:
    the factors, float32 (new items, factors), from the confidences `new` (users x new items), where `seen` (users x items) are
    those of the same users with the trained items.
    """

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
        """Train on `matrix` (users x items, float32 CSR, c = 1 + alpha w, -c for a dislike).

        `factors` replaces the hyperparameter of that name and is at most items - 1. `threads` 0 means all cores.
        `item_factors`, float32 (items, factors), is a warm start, with rows of zeros for new items; trainers without
        iterations ignore it. On the CPU the same input gives the same factors to the bit, for any number of threads. The
        device "auto" is the GPU if it is usable and has enough memory, else the CPU; "gpu" never falls back.

        Raises:
            TooManyFactors, DeviceUnavailable, TrainingDiverged.
            InvalidInput: for a warm start of another shape.
        """

    def solve_users(self, rows: sparse.csr_matrix, fold_in: FoldIn, threads: int = 0) -> Matrix:
        """Return the exact factors of each row of confidences over the trained items, float32 (rows, factors).

        An empty row gives zeros. Raises TrainingDiverged if the factors are not determined."""


def item_users(matrix: sparse.csr_matrix) -> NDArray[np.int64]:
    """Return the number of users of each item, those who dislike it left out, int64 (items,)."""
    return np.bincount(matrix.indices[matrix.data > 0], minlength=matrix.shape[1]).astype(np.int64)


def liked(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return a matrix of confidences without the dislikes."""
    if (matrix.data > 0).all():
        return matrix
    positive = matrix.maximum(0).tocsr()
    positive.eliminate_zeros()
    return positive


_BUILT_IN = {
    "als": EntryPoint("als", "recstore.model.trainers.als:ALS", GROUP),
    "hybrid": EntryPoint("hybrid", "recstore.model.trainers.hybrid:Hybrid", GROUP),
    RATINGS: EntryPoint(RATINGS, "recstore.model.trainers.ratings:RatingsALS", GROUP),
    "spectral": EntryPoint("spectral", "recstore.model.trainers.spectral:Spectral", GROUP),
}


def trainer(name: str) -> Trainer:
    """Return a trainer of recstore, or else one from an installed package: an entry point of the group `recstore.trainers`
    whose object, called without arguments, returns a `Trainer`.

    Raises InvalidInput if there is none of that name, or if it cannot be loaded."""
    found = _BUILT_IN.get(name) or _installed().get(name)
    if found is None:
        raise InvalidInput(f"There is no trainer named {name!r}; choose one of: {', '.join(trainer_names())}.")
    try:
        loaded: Trainer = found.load()()
        missing = [method for method in ("train", "solve_users") if not callable(getattr(loaded, method, None))]
    except Exception as error:
        if name in _BUILT_IN:
            raise
        raise InvalidInput(f"{_origin(found)} cannot be loaded: {type(error).__name__}: {error}.") from error
    if missing:
        raise InvalidInput(f"{_origin(found)} is not a trainer: it has no method {' and no method '.join(missing)}.")
    return loaded


def for_queries(name: str, fold_in: FoldIn) -> QueryFoldIn | None:
    """Return the input for folding in by SQL; None if the trainer `name` cannot do that."""
    method = getattr(trainer(name), "for_queries", None)
    found: QueryFoldIn | None = method(fold_in) if method else None
    return found


def solves_items(name: str) -> bool:
    """Return whether the trainer `name` solves items that came after the training."""
    return callable(getattr(trainer(name), "solve_items", None))


def solve_items(
    name: str, seen: sparse.csr_matrix, new: sparse.csr_matrix, fold_in: FoldIn, threads: int = 0
) -> Matrix:
    """Return the factors of items that came after the training; see `Trainer`. Raises TrainingDiverged."""
    solved: Matrix = trainer(name).solve_items(seen, new, fold_in, threads)  # type: ignore[attr-defined]
    return solved


def later_items(name: str, fold_in: FoldIn, queries: QueryFoldIn) -> QueryFoldIn:
    """Return the input for folding in by SQL of solved items, in the coordinates of `queries`: those of the training."""
    found = for_queries(name, fold_in)
    assert found is not None
    whitened = None
    if queries.basis is not None:
        solved = fold_in.item_factors[:, : len(queries.basis)]
        whitened = solved @ (queries.basis / np.float32(queries.solved_weight))
    return QueryFoldIn(whitened=whitened, summands=found.summands)


def fold_in(queries: QueryFoldIn, rows: sparse.csr_matrix, threads: int = 0) -> Matrix:
    """Return the factors of each row of confidences, float32 (rows, factors), as SQL folds in users; zeros for an empty row."""
    parts = []
    if queries.bias is not None and queries.whitened is not None and queries.basis is not None:
        from recstore.model.trainers import ratings

        return ratings.solve_whitened(rows, queries.whitened, queries.basis, queries.bias, threads)
    if queries.whitened is not None and queries.basis is not None:
        from recstore.model.trainers.als import solve_whitened

        parts.append(solve_whitened(rows, queries.whitened, threads) @ queries.basis.T)
    if queries.summands is not None:
        parts.append(signed_sums(rows, queries.summands))
    return np.hstack(parts)


def signed_sums(rows: sparse.csr_matrix, summands: Matrix) -> Matrix:
    """Return the sum of each row's items, less the disliked ones, float32 (rows, factors); zeros for a row of which it knows only
    these. An item with zeros is not known."""
    signs = np.sign(rows.data).astype(np.float32)
    sums: Matrix = sparse.csr_matrix((signs, rows.indices, rows.indptr), shape=rows.shape) @ summands
    known: NDArray[np.bool_] = np.any(summands != 0, axis=1)
    likes = ((signs > 0) & known[rows.indices]).astype(np.int64)
    sums[sparse.csr_array((likes, rows.indices, rows.indptr), shape=rows.shape).sum(axis=1) == 0] = 0
    return sums


def trainer_names() -> list[str]:
    """Return the names of all trainers, those of installed packages included, sorted."""
    return sorted(_BUILT_IN.keys() | _installed().keys())


def _installed() -> dict[str, EntryPoint]:
    """Return trainers of other packages by name. Of two with one name, the package first in the alphabet wins."""
    found = sorted(entry_points(group=GROUP), key=lambda point: point.dist.name if point.dist else "", reverse=True)
    return {point.name: point for point in found}


def _origin(point: EntryPoint) -> str:
    package = f" of the package {point.dist.name}" if point.dist else ""
    return f"The trainer {point.name!r}{package} ({point.value})"


def wanted_factors(hyperparameters: Hyperparameters, items: int, most: int | None = None) -> int:
    """Return the hyperparameter or, if unset, min(256, items - 1), for ratings min(62, items - 1), at least 1. Vectors of `most`
    dimensions have room for it."""
    default = max(1, min(DEFAULT_RATING_FACTORS if hyperparameters.explicit else DEFAULT_FACTORS, items - 1))
    return hyperparameters.factors or min(default, (most or MAX_FACTORS) - hyperparameters.bias_factors)


def usable_factors(factors: int, items: int) -> tuple[int, list[str]]:
    """Return `factors`, reduced to items - 1, with a warning if they are. Raises TooManyFactors if they cannot be published."""
    if factors > MAX_FACTORS:
        raise TooManyFactors(factors=factors, limit=MAX_FACTORS)
    usable = max(1, min(factors, items - 1))
    if usable == factors:
        return factors, []
    return usable, [f"{factors} factors are more than {items} items can determine; {usable} are used (items - 1)."]


def warnings_for(matrix: sparse.csr_matrix, iterations: int, regularization: float) -> list[str]:
    """Return a warning for each setting that is known to be bad for this confidence matrix (c = 1 + alpha w)."""
    sentences = []
    weight = float(np.abs(matrix.data).mean(dtype=np.float64)) - 1
    if weight <= 1.001:
        sentences.append(
            f"The mean weight of a view is only {weight:.3g} (alpha * w, against 1 for no view), so counts have little "
            "effect. Raise alpha, or leave it unset with w scaled to the mean 1."
        )
    strongest = _largest_singular_value(matrix, enough=regularization)
    if regularization >= strongest:
        sentences.append(
            f"A regularization of {regularization:g} is too strong for these data: from {strongest:.3g} on, all factors "
            "become zero. Choose a tenth of that or less, or leave it unset."
        )
    elif iterations > 30 and regularization < strongest / 1000:
        sentences.append(
            f"{iterations} iterations with a regularization of {regularization:g} tend to overfit. "
            "Use about 15, or raise the regularization."
        )
    return sentences


def regularization_for(matrix: sparse.csr_matrix, hyperparameters: Hyperparameters, factors: int) -> float:
    """Return the regularization of ALS for this confidence matrix C: the hyperparameter or, if unset, NOISE times the
    largest singular value of a random matrix with the size and sum of squares of C, to three digits.

    That value is the root of the sum of squares times (1 / sqrt(users) + 1 / sqrt(items)), counting users and items with
    pairs: the edge of the distribution of Marchenko and Pastur (1967). Fewer factors than ENOUGH need less, since they leave
    out noise by themselves. The limit is a quarter of the largest singular value of C, at which all factors become zero.
    """
    if hyperparameters.regularization is not None:
        return hyperparameters.regularization
    users, items = np.count_nonzero(np.diff(matrix.indptr)), np.count_nonzero(item_users(matrix))
    edge = float(np.linalg.norm(matrix.data.astype(np.float64))) * (users**-0.5 + items**-0.5)
    chosen = NOISE * edge * few_factors(factors, int(min(users, items)))
    return float(f"{min(chosen, _largest_singular_value(matrix, enough=4 * chosen) / 4):.3g}")


def few_factors(factors: int, ends: int) -> float:
    """Return what the noise is multiplied by for this number of factors; `ends` is the lesser of users and items."""
    return float(min(1.0, factors / (ENOUGH * ends)) ** 0.5)


def _largest_singular_value(matrix: sparse.csr_matrix, enough: float) -> float:
    """Return the largest singular value of a positive matrix, by power iteration, or a lower bound above `enough`.

    Near zero the loss is sum_u,i -2 c_ui x_u . y_i + regularization (|x_u|^2 + |y_i|^2) to second order, so zero factors are
    a minimum if and only if the regularization is at least this value.
    """
    matrix = liked(matrix)
    vector = np.full(matrix.shape[1], matrix.shape[1] ** -0.5, dtype=np.float32)
    value = 0.0
    for _ in range(30):
        product = matrix.T @ (matrix @ vector)
        with np.errstate(over="ignore"):
            length = float(np.linalg.norm(product))
        value = length**0.5
        if value > enough:
            break
        vector = product / np.float32(length)
    return value
