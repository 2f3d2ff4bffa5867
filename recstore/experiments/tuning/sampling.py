"""The next parameters to try, by Optuna's tree-structured Parzen estimator (Bergstra et al., "Algorithms for
Hyper-Parameter Optimization", NeurIPS 2011), asked for one trial at a time. Pure.

There is no Optuna study but for the moment of a question: it is made anew from the trials there are, so whoever has these
asks, in whatever process.
"""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from recstore.experiments.tuning.space import Bounds, Choices, Parameters, Range, within

STARTUP = 5
"""Trials drawn at random, from the bounds' own scales, before the estimator is believed."""

Seen = Iterable[tuple[Parameters, float | None]]
"""Parameters tried with how good they were, higher is better; None for those still at work."""


def suggest(bounds: Mapping[str, Bounds], seen: Seen, seed: int) -> Parameters:
    """A value for each of `bounds`, the same for the same arguments.

    Of `seen`, those outside the bounds, or without a value for one of them, are left out. Trials at work count as bad ones
    meanwhile (the "constant liar" of Ginsbourger, Le Riche and Carraro, 2010), so that several workers try different
    things.
    """
    import optuna  # half a second, and needed by a search alone

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: _distribution(bound, optuna) for name, bound in bounds.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=STARTUP)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for parameters, value in seen:
            if all(name in parameters and within(parameters[name], bound) for name, bound in bounds.items()):
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
    """Three digits, which is more than a metric tells apart, and what a person can read and type."""
    return bound.clipped(float(f"{value:.3g}")) if isinstance(bound, Range) else value
