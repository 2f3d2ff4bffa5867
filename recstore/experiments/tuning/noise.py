"""How strong a regularization is beside the noise in the data. Pure.

What regularization is good depends on the confidences: with alpha it rises and falls. As a part of the largest singular
value that a random matrix of the same size and sum of squares would have (`training.regularization_for`, which says where
that comes from), the best one is nearly the same for every alpha and function: on a retailer's purchases 0.4 to 0.8 for
alphas from 0.5 to 50. So that part is what is searched over; a trial and a definition have the number itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from recstore.definition import Confidence
from recstore.evaluation.fitted import weigh
from recstore.experiments.tuning.space import Bounds, Choices, Parameters, Range
from recstore.model.confidence import alpha_for
from recstore.model.interactions import Interactions

PART = "part_of_noise"
"""Name of the coordinate that stands for the regularization."""

PARTS = Range(1e-3, 2.0, log=True)
"""From twice the noise on nothing of the data is left."""


@dataclass(frozen=True)
class Noise:
    """Of a set of interactions: `pairs`, `spread` = 1 / sqrt(users) + 1 / sqrt(items), the alpha that a definition takes
    which does not say any, and for each function w the sums of w and of its squares over the pairs."""

    pairs: int
    spread: float
    alpha: float
    sums: Mapping[str, tuple[float, float]]

    def edge(self, parameters: Parameters) -> float:
        """The largest singular value that a random matrix would have with these parameters' confidences 1 + alpha w."""
        alpha = float(parameters["alpha"])
        once, squared = self.sums[parameters["confidence"]]
        return float(np.sqrt(self.pairs + 2 * alpha * once + alpha**2 * squared)) * self.spread

    def bounds(self, bounds: Mapping[str, Bounds]) -> dict[str, Bounds]:
        """Bounds with the part instead of the regularization, where that is a range and the noise can be told."""
        if not self._tells(bounds):
            return dict(bounds)
        return {PART if name == "regularization" else name: bound for name, bound in bounds.items()} | {PART: PARTS}

    def to(self, parameters: Parameters, bounds: Mapping[str, Bounds]) -> Parameters:
        """Parameters with the part instead of the regularization."""
        if not self._tells(bounds) or "regularization" not in parameters:
            return parameters
        part = PARTS.clipped(parameters["regularization"] / self.edge(parameters))
        return {
            PART if n == "regularization" else n: part if n == "regularization" else v for n, v in parameters.items()
        }

    def back(self, parameters: Parameters, bounds: Mapping[str, Bounds]) -> Parameters:
        """Parameters with the regularization instead of the part, three digits, within its bounds."""
        if PART not in parameters:
            return parameters
        allowed = bounds["regularization"]
        assert isinstance(allowed, Range)
        value = allowed.clipped(float(f"{parameters[PART] * self.edge(parameters):.3g}"))
        return {"regularization" if n == PART else n: value if n == PART else v for n, v in parameters.items()}

    def _tells(self, bounds: Mapping[str, Bounds]) -> bool:
        functions = bounds.get("confidence")
        known = isinstance(functions, Choices) and all(function in self.sums for function in functions.values)
        return known and "alpha" in bounds and isinstance(bounds.get("regularization"), Range)


def noise_of(train: Interactions, confidence: Confidence, functions: Iterable[str]) -> Noise:
    """Of the training part, with the constants of `confidence`."""
    users, items = (len(np.unique(index)) for index in (train.user_index, train.item_index))
    sums = {}
    for function in functions:
        weights = weigh(train, confidence.model_copy(update={"function": function}), 1.0)[1].data.astype(np.float64) - 1
        sums[function] = float(weights.sum()), float((weights**2).sum())
    return Noise(len(train), users**-0.5 + items**-0.5, alpha_for(train, None), sums)
