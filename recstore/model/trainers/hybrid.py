"""Concatenated factors of ALS and the spectral embedding, whose inner product is the weighted sum of both scores.

With w the hyperparameter `spectral_weight`, the score is (1 - w) times that of ALS plus w times the spectral one, which is
first scaled to the same mean over the pairs of a sample of users. The spectral items are scaled so that the mean squares of
the lengths of the spectral and the ALS part are as w to 1 - w, which is then about their weight in the cosine of two items.
The users' factors compensate for that scale.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse

from recstore.definition import Hyperparameters
from recstore.errors import InvalidInput
from recstore.model.arrays import Matrix
from recstore.model.trainers import (
    Factors,
    FoldIn,
    OnFactors,
    QueryFoldIn,
    Trainer,
    liked,
    usable_factors,
)
from recstore.model.trainers.als import ALS
from recstore.model.trainers.spectral import Spectral, embed, mean_score

SAMPLE = 500
"""Users over whose pairs the mean scores of the parts are compared."""

_PARTS: dict[str, Trainer] = {"als": ALS(), "spectral": Spectral()}


class Hybrid:
    """The trainer named "hybrid"; see `recstore.model.trainers.Trainer`.

    The constants of its fold-in are {"parts": [..]} in the order of their factors, each part {"trainer": name, "factors":
    number, "weight": number, "constants": of that trainer}. A user's factors of a part are those that its trainer solves
    against the items' factors of the part, times the weight.
    """

    def train(
        self,
        matrix: sparse.csr_matrix,
        hyperparameters: Hyperparameters,
        *,
        factors: int,
        threads: int = 0,
        item_factors: Matrix | None = None,
        on_factors: OnFactors | None = None,
        **of_als_alone: Any,
    ) -> Factors:
        """See `Trainer.train`. Iterations, loss, warm start and device apply to the ALS part. `factors` is the number of both
        parts together; each has at least one, and a single factor belongs to ALS."""
        factors, sentences = usable_factors(factors, matrix.shape[1])
        of_spectral = min(max(1, round(factors * hyperparameters.spectral_share)), factors - 1)
        of_als = factors - of_spectral
        shape = matrix.shape[1], factors
        if item_factors is not None and item_factors.shape != shape:
            raise InvalidInput(f"The initial item factors have the shape {item_factors.shape}, not {shape}.")

        # the weights of the lists, which have this exponent, come on top
        item_exponent = hyperparameters.item_exponent - hyperparameters.list_exponent
        of_part = hyperparameters.model_copy(update={"item_exponent": item_exponent})
        spectral = embed(matrix, of_part, of_spectral, threads) if of_spectral else None
        sample = _sample(liked(matrix), hyperparameters.seed)

        def combined(als: FoldIn) -> FoldIn:
            if spectral is None:
                return _fold_in(als, [("als", als.item_factors, 1.0, als.constants)])
            scale, weight = _balance(sample, als, spectral, hyperparameters.spectral_weight)
            items = spectral.item_factors * np.float32(scale)
            return _fold_in(
                als,
                [
                    ("als", als.item_factors, 1 - hyperparameters.spectral_weight, als.constants),
                    ("spectral", items, weight, spectral.constants),
                ],
            )

        als = _PARTS["als"].train(
            matrix,
            hyperparameters,
            factors=of_als,
            threads=threads,
            item_factors=None if item_factors is None else item_factors[:, :of_als],
            on_factors=on_factors and (lambda number, fold_in: on_factors(number, combined(fold_in))),
            **of_als_alone,
        )
        fold_in = combined(als.fold_in)
        user_factors = als.user_factors
        if spectral is not None:
            folded_in = _solve_part(matrix, fold_in, 1, threads)
            user_factors = np.hstack(
                [als.user_factors * np.float32(fold_in.constants["parts"][0]["weight"]), folded_in]
            )
        return Factors(user_factors, fold_in, als.device, (*sentences, *als.warnings))

    def solve_users(self, rows: sparse.csr_matrix, fold_in: FoldIn, threads: int = 0) -> Matrix:
        """Solve each part by its trainer. See `Trainer.solve_users`."""
        parts = range(len(fold_in.constants["parts"]))
        return np.hstack([_solve_part(rows, fold_in, number, threads) for number in parts])

    def solve_items(self, seen: sparse.csr_matrix, new: sparse.csr_matrix, fold_in: FoldIn, threads: int = 0) -> Matrix:
        """Solve each part by its trainer. See `Trainer`."""
        parts = enumerate(fold_in.constants["parts"])
        solved = [
            _PARTS[part["trainer"]].solve_items(seen, new, _part(fold_in, number), threads)  # type: ignore[attr-defined]
            for number, part in parts
        ]
        return np.hstack(solved)

    def for_queries(self, fold_in: FoldIn) -> QueryFoldIn:
        """Return the ALS part's factors to solve, and the spectral part's to sum, with their weights."""
        als, *spectral = fold_in.constants["parts"]
        solved = ALS().for_queries(_part(fold_in, 0))
        assert solved.basis is not None
        solved = replace(solved, basis=solved.basis * np.float32(als["weight"]), solved_weight=als["weight"])
        if not spectral:
            return solved
        summed = Spectral().for_queries(_part(fold_in, 1))
        assert summed.summands is not None
        return replace(solved, summands=summed.summands * np.float32(spectral[0]["weight"]))


def _part(fold_in: FoldIn, number: int) -> FoldIn:
    """Return one part's items and constants."""
    parts = fold_in.constants["parts"]
    start = sum(part["factors"] for part in parts[:number])
    items = np.ascontiguousarray(fold_in.item_factors[:, start : start + parts[number]["factors"]])
    return FoldIn(items, fold_in.item_users, parts[number]["constants"])


def _solve_part(rows: sparse.csr_matrix, fold_in: FoldIn, number: int, threads: int) -> Matrix:
    """Return the users' factors of one part."""
    part = fold_in.constants["parts"][number]
    solved = _PARTS[part["trainer"]].solve_users(rows, _part(fold_in, number), threads)
    return solved * np.float32(part["weight"])


def _fold_in(als: FoldIn, parts: list[tuple[str, Matrix, float, dict[str, Any]]]) -> FoldIn:
    """Combine parts of (trainer, item factors, weight, constants)."""
    described = [
        {"trainer": name, "factors": items.shape[1], "weight": weight, "constants": constants}
        for name, items, weight, constants in parts
    ]
    return FoldIn(np.hstack([items for _, items, _, _ in parts]), als.item_users, {"parts": described})


def _balance(sample: sparse.csr_matrix, als: FoldIn, spectral: FoldIn, share: float) -> tuple[float, float]:
    """Return the factors for the spectral part's items and for its users; zeros if those of ALS are zero."""
    lengths, scores = [], []
    for name, fold_in in (("als", als), ("spectral", spectral)):
        lengths.append(float(np.einsum("if,if->", fold_in.item_factors, fold_in.item_factors, dtype=np.float64)) ** 0.5)
        scores.append(mean_score(sample, _PARTS[name].solve_users(sample, fold_in), fold_in.item_factors))
    scale = (share / (1 - share)) ** 0.5 * lengths[0] / lengths[1]
    return scale, share * scores[0] / scores[1] / scale**2 if scale else 0.0


def _sample(matrix: sparse.csr_matrix, seed: int) -> sparse.csr_matrix:
    """Return the rows of at most SAMPLE users with pairs."""
    users = np.flatnonzero(np.diff(matrix.indptr))
    return matrix[np.sort(np.random.default_rng(seed).choice(users, min(SAMPLE, len(users)), replace=False))]
