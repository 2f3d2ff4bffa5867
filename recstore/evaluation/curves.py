"""Measure learning curves: metrics after every n-th iteration, on the training pairs and on the held-out ones.

Where training still gains and validation loses, more iterations only memorize the training pairs. The number of iterations
is therefore read off the curve of one training, not searched for. Pure.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recstore.evaluation.metrics import evaluate
from recstore.evaluation.results import CurvePoint as CurvePoint
from recstore.evaluation.scorers import FactorScorer
from recstore.evaluation.splits import SEED, Split
from recstore.model.trainers import FoldIn, Trainer

METRIC = "ndcg@20"
"""Default metric by which a curve is judged."""

USERS = 2000
"""Most users measured at each point; points are compared on the same users, so few are enough."""

LOWER_IS_BETTER = frozenset({"mse"})


@dataclass(frozen=True)
class Patience:
    """The rule that ends a training: `metric` on the validation part has not improved for `points` points."""

    metric: str = METRIC
    points: int = 3

    def over(self, curve: Sequence[CurvePoint]) -> bool:
        """Return true if the best point is that far back."""
        return bool(curve) and len(curve) - 1 - curve.index(best(curve, self.metric)) >= self.points


class LearningCurve:
    """Watch one training and collect `points`: the metrics of `users` after every `every`-th iteration and the last.

    Pass it as `watch` to `fitted.fit(split.train, ...)`. `seconds` is the time that measuring took.

    Args:
        split: has a validation part, which is what is held out.
        users: indices; None samples USERS of those with a pair in both parts, drawn from `seed`.
        on_train: measure the training part as well.
        mse: measure the MSE, which takes longest.
        patience: ends the training; the model is then that of the best point.
        on_point: called with each point; an error that it raises ends the training.
    """

    def __init__(
        self,
        split: Split,
        *,
        every: int = 1,
        ks: tuple[int, ...] = (10, 20),
        users: NDArray[np.intp] | None = None,
        seed: int = SEED,
        on_train: bool = True,
        mse: bool = True,
        patience: Patience | None = None,
        on_point: Callable[[CurvePoint], None] | None = None,
        threads: int = 0,
    ) -> None:
        if split.validation is None:
            raise ValueError("a learning curve needs a split with a validation part")
        self.points: list[CurvePoint] = []
        self.seconds = 0.0
        self.users = sample(split.users(split.validation), USERS, seed) if users is None else users
        self._train, self._validation = (part.matrix()[self.users] for part in (split.train, split.validation))
        self._every, self._ks, self._on_train, self._mse, self._threads = every, ks, on_train, mse, threads
        self._patience, self._on_point = patience, on_point
        self._done = 0
        self._best: FoldIn | None = None

    def begin(self, trainer: Trainer, matrix: sparse.csr_matrix, iterations: int) -> None:
        """Prepare for a training on this confidence matrix, with at most this number of iterations."""
        self._trainer, self._rows, self._iterations = trainer, matrix[self.users], iterations
        self._began = time.perf_counter()

    def __call__(self, number: int, fold_in: FoldIn) -> bool:
        """Observe an iteration, as `trainers.OnFactors`; return true to end the training."""
        if number == 0:  # also where the CPU starts over after the GPU failed
            self.points.clear()
        self._done = number + 1
        if self._done % self._every:
            return False
        self._measure(fold_in)
        return self._patience is not None and self._patience.over(self.points)

    def finish(self, fold_in: FoldIn) -> tuple[FoldIn, int]:
        """Return the input for folding in users after the training, and the number of iterations that reproduces it."""
        if not self.points or self.points[-1].iteration < self._done:
            self._measure(fold_in)
        if self._done <= 1:  # called once at most: a trainer without iterations gives this model for any number
            self.points[-1] = replace(self.points[-1], iteration=self._iterations)
        if self._patience is None or self._best is None:
            return fold_in, self.points[-1].iteration
        return self._best, best(self.points, self._patience.metric).iteration

    def _measure(self, fold_in: FoldIn) -> None:
        now = time.perf_counter()
        trained = now - self._began - self.seconds
        user_factors = self._trainer.solve_users(self._rows, fold_in, self._threads)
        scorer = FactorScorer("", user_factors, fold_in.item_factors)
        point = CurvePoint(
            iteration=max(1, self._done),
            train=self._metrics(scorer, self._train, exclude_train=False) if self._on_train else {},
            validation=self._metrics(scorer, self._validation, exclude_train=True),
            seconds=trained,
        )
        self.points.append(point)
        if self._patience is not None and best(self.points, self._patience.metric) is point:
            self._best = copy.deepcopy(fold_in)
        self.seconds += time.perf_counter() - now
        if self._on_point is not None:
            self._on_point(point)

    def _metrics(self, scorer: FactorScorer, held_out: sparse.csr_matrix, *, exclude_train: bool) -> dict[str, float]:
        """Return the defined metrics without mean popularity, which a sample of the users does not show."""
        metrics = evaluate(
            scorer,
            self._train,
            held_out,
            ks=self._ks,
            exclude_train=exclude_train,
            threads=self._threads,
            auc=False,
            mse=self._mse,
        )
        return {
            name: value
            for name, value in metrics.values.items()
            if value is not None and not name.startswith("mean_popularity")
        }


def best(curve: Sequence[CurvePoint], metric: str = METRIC) -> CurvePoint:
    """Return the point with the best `metric` on the validation part, the earliest of equals.

    Raises ValueError if no point has the metric.
    """
    sign = -1 if metric in LOWER_IS_BETTER else 1
    measured = [point for point in curve if metric in point.validation]
    if not measured:
        raise ValueError(f"no point of the curve has a validation {metric}")
    return max(measured, key=lambda point: sign * point.validation[metric])


def sample(users: NDArray[np.intp], most: int, seed: int) -> NDArray[np.intp]:
    """Return `most` random users, ascending; all if there are not more."""
    if len(users) <= most:
        return users
    return np.sort(np.random.default_rng(seed).choice(users, most, replace=False))
