"""From ratings to what the trainer of explicit feedback fits: each rating less the mean, in standard deviations.

Takes the place of `confidence` where values are ratings. Pure: no database, no trainer.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recstore.model.arrays import Values
from recstore.model.interactions import Interactions

FUNCTION = "rating"
"""Name under which a generation stores this in the place of a confidence function."""

SMALLEST_DEVIATION = 1e-6
"""Standard deviation, relative to the greatest absolute rating, below which all ratings count as equal."""


@dataclass(frozen=True)
class Ratings:
    """The mean and the standard deviation of the ratings in training, and their range."""

    mean: float
    scale_factor: float
    """The standard deviation: the unit of a predicted preference."""
    lowest: float
    highest: float

    function: ClassVar[str] = FUNCTION
    idf: ClassVar[None] = None

    @classmethod
    def of(cls, values: Values) -> Self:
        """Return those of the ratings of a training. The unit is 1 if all ratings are equal."""
        deviation, most = float(values.std()), float(np.abs(values).max())
        return cls(
            mean=float(values.mean()),
            scale_factor=deviation if deviation > SMALLEST_DEVIATION * most else 1.0,
            lowest=float(values.min()),
            highest=float(values.max()),
        )

    @classmethod
    def restored(cls, constants: dict[str, Any]) -> Self | None:
        """Return the inverse of `constants`; None if these are a confidence function's."""
        if constants["function"] != FUNCTION:
            return None
        return cls(**{name: value for name, value in constants.items() if name != "function"})

    def constants(self) -> dict[str, Any]:
        """Return the constants for JSON."""
        return asdict(self) | {"function": FUNCTION}

    def matrix(self, interactions: Interactions, alpha: float = 1.0) -> sparse.csr_matrix:  # noqa: ARG002
        """Return (r - mean) / standard deviation of each pair as float32 CSR, users x items, with sorted indices. A stored 0
        is a rating, too."""
        return interactions.matrix(((interactions.values - self.mean) / self.scale_factor).astype(np.float32))

    def ratings(self, preferences: NDArray[np.floating[Any]]) -> Values:
        """Return predicted ratings within the range, float64, of predicted preferences."""
        return np.clip(self.mean + self.scale_factor * preferences.astype(np.float64), self.lowest, self.highest)
