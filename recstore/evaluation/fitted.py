"""From a part of the interactions to a model to measure: the steps of a retrain, without a database.

interactions -> confidence matrix -> training -> exact users -> scorer
"""

import time
from dataclasses import dataclass, replace

from scipy import sparse

from recstore.definition import Confidence, Hyperparameters
from recstore.evaluation.scorers import FactorScorer
from recstore.model import confidence, trainers
from recstore.model.arrays import Matrix
from recstore.model.confidence import Weighted
from recstore.model.interactions import Interactions
from recstore.model.trainers import Device, Factors, OnIteration
from recstore.model.vectors import ItemWeights


@dataclass(frozen=True, eq=False)
class FittedModel:
    """A trained model. The predicted preference is p_ui = user_factors[u] . item_factors[i], with the items' weights."""

    name: str  # of the trainer
    hyperparameters: Hyperparameters  # with the factors and the alpha that were used
    weighted: Weighted  # the training pairs
    factors: Factors  # user_factors are exact
    item_factors: Matrix  # of `factors`, weighted
    seconds: float  # from interactions to exact users

    @property
    def matrix(self) -> sparse.csr_matrix:
        return self.weighted.matrix

    @property
    def latent(self) -> int:
        """Number of factors that are no biases."""
        return self.hyperparameters.factors or 0

    @property
    def user_factors(self) -> Matrix:
        return self.factors.user_factors

    @property
    def scorer(self) -> FactorScorer:
        return FactorScorer(self.name, self.user_factors, self.item_factors)


def fit(
    interactions: Interactions,
    weighting: Confidence,
    hyperparameters: Hyperparameters,
    *,
    most_factors: int | None = None,
    device: Device = "auto",
    threads: int = 0,
    on_iteration: OnIteration | None = None,
) -> FittedModel:
    """Train on `interactions`, then solve all users exactly.

    Ids without a pair, as in a part of other interactions, get zero factors. Unset factors are at most
    `most_factors`, a recommender's dimensions. `device`, `threads` and `on_iteration` are passed to the trainer.
    Raises what the trainer raises.
    """
    began = time.perf_counter()
    weighted = weigh(interactions, weighting, hyperparameters)
    matrix = weighted.matrix
    trainer = trainers.trainer(hyperparameters.trainer)
    trained = trainer.train(
        matrix,
        hyperparameters,
        factors=trainers.wanted_factors(hyperparameters, len(interactions.items), most_factors),
        device=device,
        threads=threads,
        on_iteration=on_iteration,
    )
    user_factors = trainer.solve_users(matrix, trained.fold_in, threads)
    users = interactions.item_users()
    weights = ItemWeights.of(users, hyperparameters.list_exponent)
    used = {"factors": trained.item_factors.shape[1] - hyperparameters.bias_factors, "alpha": weighted.alpha}
    return FittedModel(
        name=hyperparameters.trainer,
        hyperparameters=hyperparameters.model_copy(update=used),
        weighted=weighted,
        factors=replace(trained, user_factors=user_factors),
        item_factors=weights.weighted(trained.item_factors, users),
        seconds=time.perf_counter() - began,
    )


def weigh(interactions: Interactions, weighting: Confidence, hyperparameters: Hyperparameters) -> Weighted:
    """Return the matrix of a part. Means and frequencies count only users with a pair in it."""
    if hyperparameters.explicit:
        return confidence.rate(interactions)
    model = confidence.fit(interactions.shrunk(users=True, items=False), weighting)
    alpha = confidence.alpha_for(interactions, hyperparameters.alpha)
    return Weighted(model, alpha, model.matrix(interactions, alpha))
