"""From a part of the interactions to a model to measure: the steps of a retrain, without a database.

interactions -> confidence matrix -> training -> exact users -> scorer
"""

import time
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from recstore.definition import Confidence, Hyperparameters
from recstore.evaluation.curves import LearningCurve
from recstore.evaluation.scorers import FactorScorer
from recstore.model import confidence, trainers
from recstore.model.arrays import Matrix, Positions
from recstore.model.confidence import ConfidenceModel
from recstore.model.interactions import Interactions
from recstore.model.trainers import Device, Factors, OnIteration


@dataclass(frozen=True, eq=False)
class FittedModel:
    """A trained model. The predicted preference is p_ui = user_factors[u] . item_factors[i]."""

    name: str  # of the trainer
    hyperparameters: Hyperparameters  # with the factors, alpha and iterations that were used
    weights: ConfidenceModel
    matrix: sparse.csr_matrix  # confidences of the training pairs
    factors: Factors  # user_factors are exact for the requested users, zero for the others
    seconds: float  # from interactions to exact users

    @property
    def user_factors(self) -> Matrix:
        return self.factors.user_factors

    @property
    def scorer(self) -> FactorScorer:
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
    watch: LearningCurve | None = None,
    users: Positions | None = None,
) -> FittedModel:
    """Train on `interactions`, then solve `users` exactly: positions in the id map, None for all.

    Ids without a pair, as in a part of other interactions, get zero factors. Unset factors are at most
    `most_factors`, a recommender's dimensions. `device`, `threads`, `item_factors` and `on_iteration` are passed to
    the trainer. Raises what the trainer and `watch` raise.
    """
    began = time.perf_counter()
    alpha = confidence.alpha_for(interactions, hyperparameters.alpha)
    weights, matrix = weigh(interactions, weighting, alpha)
    trainer = trainers.trainer(hyperparameters.trainer)
    if watch is not None:
        watch.begin(trainer, matrix, hyperparameters.iterations)
    trained = trainer.train(
        matrix,
        hyperparameters,
        factors=trainers.wanted_factors(hyperparameters, len(interactions.items), most_factors),
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
    """Return the confidence model and matrix of a part. Means and frequencies count only users with a pair in it."""
    weights = confidence.fit(interactions.shrunk(users=True, items=False), weighting)
    return weights, weights.matrix(interactions, alpha)
