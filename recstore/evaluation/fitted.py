"""From a part of the interactions to a model that can be measured: the same steps as a retrain takes, without a database.

interactions -> confidence matrix -> training -> exact users -> scorer
"""

import time
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from recstore.definition import Confidence, Hyperparameters
from recstore.evaluation.scorers import FactorScorer
from recstore.model import confidence, trainers
from recstore.model.confidence import ConfidenceModel
from recstore.model.interactions import IdMap, Interactions
from recstore.model.trainers import Device, Factors, FoldIn, Matrix, OnIteration, Trainer


class Watcher(Protocol):
    """What looks on while a model is trained, and may end it (`curves.LearningCurve` does both)."""

    seconds: float
    """What its looking took, which is no part of the training's time."""

    def begin(self, trainer: Trainer, matrix: sparse.csr_matrix, iterations: int) -> None:
        """Before the training on this confidence matrix, with so many iterations at most."""

    def __call__(self, number: int, fold_in: FoldIn) -> bool | None:
        """After each iteration; see `training.OnFactors`."""

    def finish(self, fold_in: FoldIn) -> tuple[FoldIn, int]:
        """After the training that gave `fold_in`: what users are to be folded in against, and the iterations that give it
        again."""


@dataclass(frozen=True, eq=False)
class FittedModel:
    """A trained model; the predicted preference p_ui is user_factors[u] . item_factors[i]."""

    name: str  # the trainer's
    hyperparameters: Hyperparameters  # with the factors that were used, and the iterations
    weights: ConfidenceModel
    matrix: sparse.csr_matrix  # the confidences trained on: every stored pair is a training pair
    factors: Factors  # user_factors are the exact ones, of the users that were asked for; the others' are zero
    seconds: float  # from interactions to exact users

    @property
    def user_factors(self) -> Matrix:
        """(users, factors)"""
        return self.factors.user_factors

    @property
    def scorer(self) -> FactorScorer:
        """What the metrics take."""
        return FactorScorer(self.name, self.user_factors, self.factors.item_factors)


def fit(
    interactions: Interactions,
    weighting: Confidence,
    hyperparameters: Hyperparameters,
    *,
    most_factors: int | None = None,
    device: Device = "auto",
    threads: int = 0,
    item_factors: Matrix | None = None,
    on_iteration: OnIteration | None = None,
    watch: Watcher | None = None,
    users: NDArray[np.intp] | None = None,
) -> FittedModel:
    """Trains on `interactions`, which may be a part of others (ids without a pair get zero factors), then solves `users`
    exactly: positions in the id map, None for all.

    Hyperparameters without factors take as many as a retrain does: `training.default_factors`, at most `most_factors`
    (of a recommender, its dimensions). `device`, `threads`, `item_factors` and `on_iteration` are the trainer's. Raises
    what the trainer does, and what `watch` does, for instance to give up.
    """
    began = time.perf_counter()
    alpha = confidence.alpha_for(interactions, hyperparameters.alpha)
    weights, matrix = weigh(interactions, weighting, alpha)
    factors = hyperparameters.factors or trainers.default_factors(len(interactions.items))
    trainer = trainers.trainer(hyperparameters.trainer)
    if watch is not None:
        watch.begin(trainer, matrix, hyperparameters.iterations)
    trained = trainer.train(
        matrix,
        hyperparameters,
        factors=factors if hyperparameters.factors or not most_factors else min(factors, most_factors),
        device=device,
        threads=threads,
        item_factors=item_factors,
        on_iteration=on_iteration,
        on_factors=watch,
    )
    fold_in, iterations = trained.fold_in, hyperparameters.iterations
    if watch is not None:
        fold_in, iterations = watch.finish(fold_in)
    if users is None:
        user_factors = trainer.solve_users(matrix, fold_in, threads)
    else:
        user_factors = np.zeros((len(interactions.users), fold_in.item_factors.shape[1]), dtype=np.float32)
        user_factors[users] = trainer.solve_users(matrix[users], fold_in, threads)
    used = {"factors": fold_in.item_factors.shape[1], "iterations": iterations, "alpha": alpha}
    return FittedModel(
        name=hyperparameters.trainer,
        hyperparameters=hyperparameters.model_copy(update=used),
        weights=weights,
        matrix=matrix,
        factors=replace(trained, user_factors=user_factors, fold_in=fold_in),
        seconds=time.perf_counter() - began - (watch.seconds if watch is not None else 0.0),
    )


def weigh(interactions: Interactions, weighting: Confidence, alpha: float) -> tuple[ConfidenceModel, sparse.csr_matrix]:
    """The confidence matrix of a part. Its means and frequencies are those of the users who have a pair in it, as if the
    others were not known yet."""
    present = np.bincount(interactions.user_index, minlength=len(interactions.users)) > 0
    learned = interactions
    if not present.all():
        users = IdMap(interactions.users.ids.filter(pa.array(present)))
        position = np.cumsum(present, dtype=np.int32) - np.int32(1)
        learned = replace(interactions, users=users, user_index=position[interactions.user_index])
    weights = confidence.fit(learned, weighting)
    return weights, weights.matrix(interactions, alpha)
