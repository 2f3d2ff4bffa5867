"""Suggest parameters of a trial by Optuna's tree-structured Parzen estimator (Bergstra et al., "Algorithms for
Hyper-Parameter Optimization", NeurIPS 2011), with the regularization as a part of the noise in the data. Pure.

An Optuna study exists only while a question is answered: it is made from the trials, so every process that has these gets
the same answer.

The regularization that works best depends on the confidences: it rises and falls with alpha. As a part of the largest
singular value that a random matrix of the same size and sum of squares would have (see `trainers.regularization_for`), the
best one is nearly the same for every alpha and function: on a retailer's purchases 0.4 to 0.8 for alphas from 0.5 to 50. So
that part is the coordinate of the search; a trial and a definition have the number itself. Few factors need less, by the rule of
the default, so what few factors show holds for many.
"""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recstore.definition import Confidence, Hyperparameters
from recstore.evaluation.fitted import weigh
from recstore.experiments.tuning.space import Bounds, Choices, Parameters, Range
from recstore.model.confidence import alpha_for
from recstore.model.interactions import Interactions
from recstore.model.trainers import few_factors

PART = "part_of_noise"
"""Name of the coordinate that replaces the regularization."""

PARTS = Range(1e-3, 2.0, log=True)
"""Bounds of the part: at twice the noise nothing of the data is left."""

STARTUP = 5
"""Trials drawn at random before the estimator is used."""

Seen = Iterable[tuple[Parameters, float | None]]
"""Parameters of earlier trials with their values, higher is better; None for those at work."""


@dataclass(frozen=True)
class Noise:
    """The noise of a set of interactions: `pairs`, `spread` = 1 / sqrt(users) + 1 / sqrt(items), the lesser of users and items,
    the default alpha, and for each function w the sums of w and of its squares over the pairs."""

    pairs: int
    spread: float
    ends: int
    alpha: float
    sums: Mapping[str, tuple[float, float]]

    def edge(self, parameters: Parameters) -> float:
        """Return the largest singular value of a random matrix with these parameters' confidences 1 + alpha w, times what so
        few factors leave of it."""
        alpha = float(parameters["alpha"])
        once, squared = self.sums[parameters["confidence"]]
        norm = float(np.sqrt(self.pairs + 2 * alpha * once + alpha**2 * squared))
        return norm * self.spread * few_factors(parameters["factors"], self.ends)

    def bounds(self, bounds: Mapping[str, Bounds]) -> dict[str, Bounds]:
        """Return the bounds with the part instead of the regularization, where that is a range and the noise is known."""
        functions = bounds.get("confidence")
        known = isinstance(functions, Choices) and all(function in self.sums for function in functions.values)
        if not (known and "alpha" in bounds and isinstance(bounds.get("regularization"), Range)):
            return dict(bounds)
        return {PART if name == "regularization" else name: bound for name, bound in bounds.items()} | {PART: PARTS}

    def to(self, parameters: Parameters, bounds: Mapping[str, Bounds]) -> Parameters:
        """Return the parameters with the part instead of the regularization, where the bounds have that."""
        if PART not in self.bounds(bounds) or "regularization" not in parameters:
            return parameters
        part = PARTS.nearest(parameters["regularization"] / self.edge(parameters))
        return _renamed(parameters, "regularization", PART, part)

    def back(self, parameters: Parameters, bounds: Mapping[str, Bounds]) -> Parameters:
        """Return the parameters with the regularization instead of the part: three digits, within its bounds."""
        if PART not in parameters:
            return parameters
        value = float(f"{parameters[PART] * self.edge(parameters):.3g}")
        return _renamed(parameters, PART, "regularization", bounds["regularization"].nearest(value))


def noise_of(train: Interactions, confidence: Confidence, functions: Iterable[str]) -> Noise:
    """Return the noise of the training part, with the constants of `confidence`."""
    users, items = (len(np.unique(index)) for index in (train.user_index, train.item_index))
    sums = {}
    for function in functions:
        weighting = confidence.model_copy(update={"function": function})
        weights = np.abs(weigh(train, weighting, Hyperparameters(alpha=1.0)).matrix.data.astype(np.float64)) - 1
        sums[function] = float(weights.sum()), float((weights**2).sum())
    return Noise(len(train), users**-0.5 + items**-0.5, min(users, items), alpha_for(train, None), sums)


def _renamed(parameters: Parameters, old: str, new: str, value: float) -> Parameters:
    return {new if name == old else name: value if name == old else kept for name, kept in parameters.items()}


def suggest(bounds: Mapping[str, Bounds], seen: Seen, seed: int) -> Parameters:
    """Return a value for each of `bounds`, the same for the same arguments.

    Ignores earlier trials outside the bounds, or without a value for one of them. Trials at work count as bad ones (the
    "constant liar" of Ginsbourger, Le Riche and Carraro, 2010), so several workers try different things.
    """
    import optuna  # takes half a second, and only a search needs it

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: _distribution(bound, optuna) for name, bound in bounds.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=STARTUP)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for parameters, value in seen:
            if all(name in parameters and bound.allows(parameters[name]) for name, bound in bounds.items()):
                own = {name: parameters[name] for name in bounds}
                state = optuna.trial.TrialState.RUNNING if value is None else optuna.trial.TrialState.COMPLETE
                study.add_trial(
                    optuna.trial.create_trial(state=state, params=own, distributions=distributions, value=value)
                )
        asked = study.ask(distributions).params
    return {name: _rounded(asked[name], bound) for name, bound in bounds.items()}


def _distribution(bound: Bounds, optuna: Any) -> Any:
    if isinstance(bound, Choices):
        return optuna.distributions.CategoricalDistribution(bound.values)
    return optuna.distributions.FloatDistribution(bound.low, bound.high, log=bound.log)


def _rounded(value: Any, bound: Bounds) -> Any:
    """Return three digits of a number: more than a metric distinguishes, and easy to read and type."""
    return bound.nearest(float(f"{value:.3g}")) if isinstance(bound, Range) else value
