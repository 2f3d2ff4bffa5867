"""Choose the parameters of a trial: a trainer's starting points, then Optuna's tree-structured Parzen estimator (Bergstra
et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011), asked for one trial at a time. Pure.

An Optuna study exists only while a question is answered: it is made from the trials, so every process that has these gets
the same answer.
"""

import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from recstore.definition import Confidence, Hyperparameters
from recstore.experiments.tuning.noise import PART, Noise
from recstore.experiments.tuning.space import OWN, Bounds, Choices, Parameters, Range, Space
from recstore.experiments.tuning.trials import Trials, best, of_trainer, rated
from recstore.model import trainers

STARTUP = 5
"""Trials drawn at random before the estimator is used."""

STARTS: dict[str, tuple[Parameters, ...]] = {
    "als": ({}, {"confidence": "binary"}, {"alpha": 0.15}, {"alpha": 6.0, "confidence": "log"}),
    "spectral": ({}, {"singular_exponent": 0.0}, {"singular_exponent": 1.0, "item_exponent": 0.2}),
    "hybrid": ({}, {"spectral_weight": 0.15}, {"spectral_share": 0.5, "spectral_weight": 0.6}),
}
"""Starting points of each trainer: its defaults, and points that lie apart from them; alpha as a multiple of the default."""

WIDE, NARROW = 0.2, 0.12
"""Parts of each range's width on either side of the best so far, to explore and to refine. On a simulated copy of a
retailer's landscape 16 trials of als came within 1.5 % of the best there was; with the whole ranges within 3.2 %."""

Seen = Iterable[tuple[Parameters, float | None]]
"""Parameters of earlier trials with their values, higher is better; None for those at work."""


@dataclass(frozen=True)
class Sampler:
    """Chooses within a space. `seed` is the search's; each number of trials derives another from it."""

    space: Space
    noise: Noise
    seed: int

    def explored(self, trainer: str, factors: int, trials: Trials) -> Parameters:
        """Return the trainer's next starting point, or something within a wide range around its best."""
        own = self.space.of(trainer)
        bounds, begin = self.noise.bounds(own), self._defaults()
        if trainer == "hybrid":  # made of the best of its parts; only their mixture is left to find
            for part in ("als", "spectral"):
                if found := best(of_trainer(trials, part)):
                    known = {name: found.parameters[name] for name in OWN[part] if name in found.parameters}
                    begin |= self.noise.to(known, own)
                    names = {*OWN[part], PART} & bounds.keys()
                    bounds = _around(bounds, begin, NARROW / 2, names)
                    bounds |= {name: Choices((begin[name],)) for name in names if isinstance(bounds[name], Choices)}
        fixed: Parameters = {"trainer": trainer, "factors": factors}
        tried = [trial.parameters for trial in trials]
        for change in STARTS.get(trainer, ({},)):
            start = begin | change | {"alpha": begin["alpha"] * change.get("alpha", 1.0)}
            point = {name: bound.nearest(start[name]) for name, bound in bounds.items()}
            parameters = fixed | self.noise.back(point, own)
            if parameters not in tried:
                return parameters
        if top := best(of_trainer(trials, trainer)):
            bounds = _around(bounds, self.noise.to(top.parameters, own), WIDE, bounds)
        return fixed | self._suggested(trainer, bounds, trials)

    def near(self, centre: Parameters, trials: Trials) -> Parameters:
        """Return parameters near these, for the same trainer with as many factors."""
        trainer = centre["trainer"]
        own = self.space.of(trainer)
        bounds = self.noise.bounds(own)
        bounds = _around(bounds, self.noise.to(centre, own), NARROW, bounds)
        return {"trainer": trainer, "factors": centre["factors"]} | self._suggested(trainer, bounds, trials)

    def _suggested(self, trainer: str, bounds: dict[str, Bounds], trials: Trials) -> Parameters:
        own = self.space.of(trainer)
        seen = [(self.noise.to(parameters, own), rate) for parameters, rate in rated(trials, trainer)]
        seed = (self.seed * 1_000_003 + len(trials)) % 2**31
        return self.noise.back(suggest(bounds, seen, seed), own)

    def _defaults(self) -> Parameters:
        """Return the settings of a recommender that sets none; the regularization as a part of the noise."""
        weighting = Confidence().model_dump() | {"confidence": Confidence().function}
        return Hyperparameters().model_dump() | weighting | {"alpha": self.noise.alpha, PART: trainers.NOISE}


def _around(
    bounds: Mapping[str, Bounds], centre: Parameters, spread: float, names: Collection[str]
) -> dict[str, Bounds]:
    """Return the bounds with those of `names` narrowed around the centre."""
    return {
        name: bound.around(centre[name], spread) if name in names and name in centre else bound
        for name, bound in bounds.items()
    }


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
