"""The options of a search, and the plan they give on a split. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recstore.definition import MAX_FACTORS, Definition
from recstore.errors import InvalidInput
from recstore.evaluation.curves import sample
from recstore.evaluation.fitted import weigh
from recstore.evaluation.splits import SEED, Split
from recstore.experiments.tuning import space as spaces
from recstore.experiments.tuning.noise import noise_of
from recstore.experiments.tuning.space import BOUNDS, EVERYTHING, Choices, Parameters, Space, default_space, narrowed
from recstore.experiments.tuning.stages import Plan
from recstore.model import confidence
from recstore.model import trainers as training

METRICS = ("ndcg", "recall", "precision", "map", "hit_rate")
"""Metrics that can be searched by, each with its k."""


@dataclass(frozen=True)
class Options:
    """The options of a search, ready for JSON. `trials` None: all of a grid, else TRIALS. `grid` has lists of values as
    texts; `space` narrows the default one, see `space.narrowed`. `users`: most users of the validation part that a trial is
    measured on, the same in every trial."""

    TRIALS = 80
    SECONDS = 2700.0

    metric: str = "ndcg@20"
    trials: int | None = None
    seconds: float = SECONDS
    trainers: Sequence[str] = ()
    max_factors: int | None = None
    space: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Sequence[str]] = field(default_factory=dict)
    most_iterations: int = 30
    users: int = 4000
    seed: int = SEED

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON; `Options(**..)` restores it."""
        return asdict(self) | {"trainers": list(self.trainers)}

    @property
    def k(self) -> int:
        return int(self.metric.partition("@")[2])

    @property
    def every(self) -> int:
        """Return the iterations between two points of a trial's curve."""
        return max(1, min(3, self.most_iterations // 3))

    def check(self) -> None:
        """Raise InvalidInput for what is wrong whatever the data are."""
        name, _, k = self.metric.partition("@")
        if name not in METRICS or not k.isdecimal() or int(k) < 1:
            known = ", ".join(f"{metric}@20" for metric in METRICS)
            raise InvalidInput(f"{self.metric!r} cannot be searched by; choose one of {known}, or another k.")
        self._limits(Space(EVERYTHING, (1, MAX_FACTORS), BOUNDS))

    def measured(self, split: Split) -> NDArray[np.intp]:
        """Return the users that every trial is measured on, ascending. Raises InvalidInput where there is none."""
        users = sample(split.users(split.validation), self.users, self.seed)
        if not len(users):
            raise InvalidInput(
                "No user has both a training pair and a validation pair, so nothing can be chosen by these data."
            )
        return users

    def _limits(self, space: Space) -> tuple[Space, list[Parameters]]:
        """Return the part of `space` that is searched, and the points of a grid. Raises InvalidInput."""
        changes = dict(self.space)
        if self.trainers:
            changes["trainer"] = list(self.trainers)
        if self.max_factors is not None:
            changes["factors"] = {"low": min(space.factors[0], self.max_factors), "high": self.max_factors}
        if self.grid and changes:
            raise InvalidInput("A grid is the whole space: give either --grid or what narrows the search, not both.")
        return narrowed(space, changes), spaces.grid(self.grid) if self.grid else []

    def plan(self, split: Split, definition: Definition, most_factors: int | None = None) -> Plan:
        """Return the plan of the search on this split. Raises InvalidInput."""
        space, points = self._limits(default_space(split.train))
        functions = space.bounds["confidence"]
        weighed = {definition.confidence.function, *(functions.values if isinstance(functions, Choices) else ())}
        return Plan(
            space,
            present_settings(split, definition, most_factors),
            self.trials or len(points) or self.TRIALS,
            self.seconds,
            self.seed,
            noise_of(split.train, definition.confidence, sorted(weighed)),
            tuple(points),
        )

    def scales(self, plan: Plan) -> dict[str, str]:
        """Return "log", "linear" or "categorical" for each parameter that varies."""
        scales = plan.space.scales()
        if not self.grid:
            return scales
        known = scales | {"regularization": "log", "alpha": "log"}
        numbers = {name: all(isinstance(point[name], int | float) for point in plan.points) for name in self.grid}
        return {name: known.get(name, "linear" if numbers[name] else "categorical") for name in self.grid}


def present_settings(split: Split, definition: Definition, most_factors: int | None) -> Parameters:
    """Return the definition's settings, and where it leaves one open the value that a training takes."""
    hyperparameters = definition.hyperparameters
    default = training.default_factors(len(split.train.items))
    alpha = confidence.alpha_for(split.train, hyperparameters.alpha)
    matrix = weigh(split.train, definition.confidence, alpha)[1]
    factors = hyperparameters.factors or min(default, most_factors or default)
    regularization = training.regularization_for(matrix, hyperparameters, factors)
    return spaces.present(definition) | {"factors": factors, "alpha": alpha, "regularization": regularization}
