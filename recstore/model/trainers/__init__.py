"""From the confidence matrix to factors: the protocol of a trainer, found by its name.

The step between confidence and vectors. Knows no database and no particular trainer; `als` is imported when asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recstore.definition import DEFAULT_FACTORS, MAX_FACTORS, Hyperparameters
from recstore.errors import InvalidInput, TooManyFactors

Device = Literal["auto", "cpu", "gpu"]
Matrix = NDArray[np.float32]
OnIteration = Callable[[int, float, float | None], None]
"""Called after each iteration with its number from 0, its seconds, and the loss if it was asked for. Where the GPU fails
and the CPU starts over, the numbers start over too. What it raises ends the training and passes through."""

NOISE = 0.5
"""The default regularization as a part of the largest singular value of noise: docs/decisions/0018-defaults.md."""

ENOUGH = 0.03
"""From this part of the number of users or items (the lesser) on, more factors need no more regularization."""

GROUP = "recstore.trainers"
"""The entry point group by which other packages bring trainers of their own."""


@dataclass(frozen=True, eq=False)
class FoldIn:
    """What users are folded in against: the trained items, and what else the trainer's formula takes.

    All of it can be had from a published generation: the factors from vectors and lengths, the other two as they are.
    """

    item_factors: Matrix  # (items, factors)
    item_users: NDArray[np.int64]  # (items,), the users that each item had in the matrix it was trained on
    constants: dict[str, Any]  # of the trainer, ready for JSON: numbers, and lists of one number per factor


OnFactors = Callable[[int, FoldIn], bool | None]
"""Called after each iteration (after `OnIteration`) with its number from 0 and what users could be folded in against at that
moment; the arrays are valid during the call only, since training goes on in place. Returning True ends the training with
these factors. What it raises ends the training and passes through. A trainer without iterations calls it once, at its
end, with the number 0."""


@dataclass(frozen=True, eq=False)
class Factors:
    """What a training gives: the predicted preference p_ui is user_factors[u] . item_factors[i].

    `user_factors` are as the training left them, which need not be the exact ones (ALS ends with the items): for those
    see `Trainer.solve_users`, which takes `fold_in`.
    """

    user_factors: Matrix  # (users, factors)
    fold_in: FoldIn
    device: str  # "cpu" or "gpu"
    warnings: tuple[str, ...]

    @property
    def item_factors(self) -> Matrix:
        """(items, factors)"""
        return self.fold_in.item_factors


class Trainer(Protocol):
    """Trains factors on a confidence matrix, and solves users exactly against given item factors."""

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
        """Trains on `matrix` (users x items, float32 CSR, c = 1 + alpha w).

        `factors` overrides the hyperparameter of that name and is reduced to items - 1 where it is more. `threads` 0
        means all cores. `item_factors`, (items, factors) float32, is a warm start; a row of zeros stands for an item
        that is new; a trainer without iterations ignores it. The same input gives the same factors on the CPU, to the
        bit and whatever the number of threads. The device "auto" is the GPU where it can be used and has room, else the
        CPU; "gpu" is an error where "auto" would be the CPU. Raises TooManyFactors, DeviceUnavailable, TrainingDiverged,
        and InvalidInput for a warm start of another shape.
        """

    def solve_users(self, rows: sparse.csr_matrix, fold_in: FoldIn, threads: int = 0) -> Matrix:
        """The exact factors of each row of confidences (any rows, columns as `fold_in.item_factors`), float32
        (rows, factors); zeros for an empty row. Raises TrainingDiverged where they are not determined."""


def item_users(matrix: sparse.csr_matrix) -> NDArray[np.int64]:
    """The users of each item, (items,)."""
    return np.bincount(matrix.indices, minlength=matrix.shape[1]).astype(np.int64)


_BUILT_IN = {
    "als": EntryPoint("als", "recstore.model.trainers.als:ALS", GROUP),
    "hybrid": EntryPoint("hybrid", "recstore.model.trainers.hybrid:Hybrid", GROUP),
    "spectral": EntryPoint("spectral", "recstore.model.trainers.spectral:Spectral", GROUP),
}


def trainer(name: str) -> Trainer:
    """The trainer of that name: one of recstore's, else one that an installed package brings: an entry point of the group
    `recstore.trainers` whose object, called without arguments, gives a `Trainer`. Raises InvalidInput with the names
    there are, or with what is wrong with the package's."""
    found = _BUILT_IN.get(name) or _installed().get(name)
    if found is None:
        raise InvalidInput(f"There is no trainer named {name!r}; choose one of: {', '.join(trainer_names())}.")
    try:
        made = found.load()()
        missing = [method for method in ("train", "solve_users") if not callable(getattr(made, method, None))]
    except Exception as error:
        if name in _BUILT_IN:
            raise
        raise InvalidInput(f"{_origin(found)} can not be loaded: {type(error).__name__}: {error}.") from error
    if missing:
        raise InvalidInput(f"{_origin(found)} is no trainer: it has no method {' and no method '.join(missing)}.")
    loaded: Trainer = made
    return loaded


def trainer_names() -> list[str]:
    """The names that `trainer` knows, recstore's own and those of installed packages, sorted."""
    return sorted(_BUILT_IN.keys() | _installed().keys())


def _installed() -> dict[str, EntryPoint]:
    """Of other packages; where two bring the same name, the package that comes first by name."""
    found = sorted(entry_points(group=GROUP), key=lambda point: point.dist.name if point.dist else "", reverse=True)
    return {point.name: point for point in found}


def _origin(point: EntryPoint) -> str:
    package = f" of the package {point.dist.name}" if point.dist else ""
    return f"The trainer {point.name!r}{package} ({point.value})"


def default_factors(items: int) -> int:
    """min(256, items - 1), at least 1."""
    return max(1, min(DEFAULT_FACTORS, items - 1))


def usable_factors(factors: int, items: int) -> int:
    """`factors`, at most items - 1 and at least 1. Raises TooManyFactors above what can be published."""
    if factors > MAX_FACTORS:
        raise TooManyFactors(factors=factors, limit=MAX_FACTORS)
    return max(1, min(factors, items - 1))


def warnings_for_factors(factors: int, items: int) -> list[str]:
    """A sentence if that many factors are reduced. Raises TooManyFactors."""
    usable = usable_factors(factors, items)
    if usable == factors:
        return []
    return [f"{factors} factors are more than {items} items can determine; {usable} are used (items - 1)."]


def warnings_for(matrix: sparse.csr_matrix, hyperparameters: Hyperparameters, factors: int) -> list[str]:
    """A sentence for each setting that is known to be bad for this confidence matrix (c = 1 + alpha w, float32 CSR)."""
    sentences = warnings_for_factors(factors, matrix.shape[1])
    weight = float(matrix.data.mean(dtype=np.float64)) - 1
    if weight <= 1.001:
        sentences.append(
            f"A view weighs only {weight:.3g} on average (alpha * w, beside 1 for no view), so counts hardly matter; "
            "raise alpha, or leave it unset with w scaled to the mean 1."
        )
    regularization = regularization_for(matrix, hyperparameters, factors)
    strongest = _largest_singular_value(matrix, enough=regularization)
    if regularization >= strongest:
        sentences.append(
            f"A regularization of {regularization:g} is more than these data can resist: from {strongest:.3g} on all "
            "factors shrink towards zero. Choose a tenth of that or less, or leave it unset."
        )
    elif hyperparameters.iterations > 30 and regularization < strongest / 1000:
        sentences.append(
            f"{hyperparameters.iterations} iterations at a regularization of {regularization:g} tend to overfit; "
            "15 are usually enough, or raise the regularization."
        )
    return sentences


def regularization_for(matrix: sparse.csr_matrix, hyperparameters: Hyperparameters, factors: int) -> float:
    """The regularization of ALS on this confidence matrix with so many factors: the hyperparameter; if unset NOISE times the
    largest singular value that a random matrix of C's size and sum of squares would have, less with fewer factors than
    ENOUGH, and at most a quarter of C's own largest, since from that on all factors are zero. Three digits.

    A random matrix's is the root of the sum of squares times (1 / sqrt(users) + 1 / sqrt(items)), counting those that have
    pairs (the edge of Marchenko and Pastur's distribution, 1967). Fewer factors leave out noise by themselves.
    """
    if hyperparameters.regularization is not None:
        return hyperparameters.regularization
    users, items = np.count_nonzero(np.diff(matrix.indptr)), np.count_nonzero(item_users(matrix))
    edge = float(np.linalg.norm(matrix.data.astype(np.float64))) * (users**-0.5 + items**-0.5)
    chosen = NOISE * edge * min(1.0, factors / (ENOUGH * min(users, items))) ** 0.5
    return float(f"{min(chosen, _largest_singular_value(matrix, enough=4 * chosen) / 4):.3g}")


def _largest_singular_value(matrix: sparse.csr_matrix, enough: float) -> float:
    """The largest singular value of a positive matrix, by power iteration; a lower bound once that is above `enough`.

    Near zero the loss is sum_u,i -2 c_ui x_u . y_i + regularization (|x_u|^2 + |y_i|^2) to second order, so the zero
    factors are a minimum exactly when the regularization is at least this value.
    """
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
