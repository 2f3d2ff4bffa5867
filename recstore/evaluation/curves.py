"""Measure learning curves: metrics after every n-th iteration, on the training pairs and on the held-out ones.

Where training still gains and validation loses, more iterations only memorize the training pairs. The number of iterations
is therefore read off the curve of one training, not searched for. Pure.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recstore.definition import Confidence, Hyperparameters
from recstore.evaluation import rating_errors
from recstore.evaluation.fitted import weigh
from recstore.evaluation.metrics import evaluate
from recstore.evaluation.results import CurvePoint as CurvePoint
from recstore.evaluation.scorers import FactorScorer
from recstore.evaluation.splits import SEED, Split
from recstore.model import trainers
from recstore.model.ratings import Ratings
from recstore.model.trainers import Device, FoldIn, Trainer
from recstore.model.vectors import ItemWeights

METRIC = "ndcg@20"
"""Default metric by which a curve is judged."""

USERS = 2000
"""Most users measured at each point; points are compared on the same users, so few are enough."""


class LearningCurve:
    """Train once and collect `points`: the metrics of `users` after every `every`-th iteration and the last.

    Args:
        split: has a validation part, which is what is held out.
        users: indices; None samples USERS of those with a pair in both parts, drawn from `seed`.
        on_train: measure the training part as well.
        include_seen: rank the items of the training part in the validation, too.
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
        include_seen: bool = False,
        on_point: Callable[[CurvePoint], None] | None = None,
    ) -> None:
        if split.validation is None:
            raise ValueError("a learning curve needs a split with a validation part")
        self.points: list[CurvePoint] = []
        self._pairs = split.train
        self.users = sample(split.users(split.validation), USERS, seed) if users is None else users
        self._train, self._validation = (part.matrix()[self.users] for part in (split.train, split.validation))
        self._every, self._ks, self._on_train, self._on_point = every, ks, on_train, on_point
        self._include_seen = include_seen
        self._done = 0
        self._ratings: Ratings | None = None
        self._item_users, self._weights = split.train.item_users(), ItemWeights()

    def follow(
        self,
        weighting: Confidence,
        hyperparameters: Hyperparameters,
        *,
        most_factors: int | None = None,
        device: Device = "auto",
        threads: int = 0,
    ) -> None:
        """Train on the training part as `fitted.fit` does. Raises what the trainer and `on_point` raise."""
        weighted = weigh(self._pairs, weighting, hyperparameters)
        matrix = weighted.matrix
        self._ratings = weighted.model if isinstance(weighted.model, Ratings) else None
        self._weights = ItemWeights.of(self._item_users, hyperparameters.list_exponent)
        trainer = trainers.trainer(hyperparameters.trainer)
        self.begin(trainer, matrix, threads)
        trained = trainer.train(
            matrix,
            hyperparameters,
            factors=trainers.wanted_factors(hyperparameters, len(self._pairs.items), most_factors),
            device=device,
            threads=threads,
            on_factors=self,
        )
        self.finish(trained.fold_in, hyperparameters.iterations)

    def begin(self, trainer: Trainer, matrix: sparse.csr_matrix, threads: int = 0) -> None:
        """Prepare for a training on this confidence matrix."""
        self._trainer, self._rows, self._threads = trainer, matrix[self.users], threads
        self._began, self._measuring = time.perf_counter(), 0.0

    def __call__(self, number: int, fold_in: FoldIn) -> None:
        """Observe an iteration, as `trainers.OnFactors`."""
        if number == 0:  # also where the CPU starts over after the GPU failed
            self.points.clear()
        self._done = number + 1
        if self._done % self._every == 0:
            self._measure(fold_in)

    def finish(self, fold_in: FoldIn, iterations: int) -> None:
        """Measure the end of a training with this number of iterations, unless its last one was measured."""
        if not self.points or self.points[-1].iteration < self._done:
            self._measure(fold_in)
        if self._done <= 1:  # called once at most: a trainer without iterations gives this model for any number
            self.points[-1] = replace(self.points[-1], iteration=iterations)

    def _measure(self, fold_in: FoldIn) -> None:
        now = time.perf_counter()
        trained = now - self._began - self._measuring
        user_factors = self._trainer.solve_users(self._rows, fold_in, self._threads)
        scorer = FactorScorer("", user_factors, self._weights.weighted(fold_in.item_factors, self._item_users))
        point = CurvePoint(
            iteration=max(1, self._done),
            train=self._metrics(scorer, self._train, exclude_train=False) if self._on_train else {},
            validation=self._metrics(scorer, self._validation, exclude_train=not self._include_seen),
            seconds=trained,
        )
        self.points.append(point)
        self._measuring += time.perf_counter() - now
        if self._on_point is not None:
            self._on_point(point)

    def _metrics(self, scorer: FactorScorer, held_out: sparse.csr_matrix, *, exclude_train: bool) -> dict[str, float]:
        """Return the defined metrics without mean popularity, which a sample of the users does not show."""
        errors: dict[str, float | None] = {}
        if self._ratings:
            found = rating_errors.measure(scorer.user_factors, scorer.item_factors, self._ratings, held_out)
            errors = found.values()
        relevant = rating_errors.relevant(held_out, self._ratings.mean if self._ratings else None)
        metrics = evaluate(
            scorer,
            self._train,
            relevant,
            ks=self._ks,
            exclude_train=exclude_train,
            threads=self._threads,
            auc=False,
        )
        return {
            name: value
            for name, value in (errors | metrics.values).items()
            if value is not None and not name.startswith("mean_popularity")
        }


def sample(users: NDArray[np.intp], most: int, seed: int) -> NDArray[np.intp]:
    """Return `most` random users, ascending; all if there are not more."""
    if len(users) <= most:
        return users
    return np.sort(np.random.default_rng(seed).choice(users, most, replace=False))
