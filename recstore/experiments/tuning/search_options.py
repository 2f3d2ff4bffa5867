"""The options of a search, whatever the data are. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from recstore.definition import MAX_FACTORS, Definition
from recstore.errors import InvalidInput
from recstore.evaluation.rating_errors import R2
from recstore.evaluation.splits import SEED
from recstore.experiments.tuning import space as spaces
from recstore.experiments.tuning.space import BOUNDS, EVERYTHING, Parameters, Space, narrowed

METRICS = ("ndcg", "recall", "precision", "map", "hit_rate")
"""Metrics that can be searched by, each with its k."""


def default_metric(definition: Definition) -> str:
    """Return the metric of a search that names none. Of ratings it is r2, the highest where RMSE is the lowest."""
    return R2 if definition.source.explicit else "ndcg@20"


@dataclass(frozen=True)
class Options:
    """The options of a search, ready for JSON. `trials` None: all of a grid, else TRIALS. `grid` has lists of values as
    texts; `space` narrows the default one, see `space.narrowed`. `users`: most users of the validation part that a trial is
    measured on, the same in every trial. `curve`: iterations between two points of a trial's curve; None: 1 to 3.
    `include_seen`: rank the items of the training part, too."""

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
    curve: int | None = None
    include_seen: bool = False
    users: int = 4000
    seed: int = SEED

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON; `Options(**..)` restores it."""
        return asdict(self) | {"trainers": list(self.trainers)}

    @property
    def k(self) -> int:
        return 20 if self.metric == R2 else int(self.metric.partition("@")[2])

    @property
    def every(self) -> int:
        """Return the iterations between two points of a trial's curve."""
        return self.curve or max(1, min(3, self.most_iterations // 3))

    def __post_init__(self) -> None:
        """Raise InvalidInput for what is wrong whatever the data are."""
        name, _, k = self.metric.partition("@")
        if self.metric != R2 and (name not in METRICS or not k.isdecimal() or int(k) < 1):
            known = ", ".join(f"{metric}@20" for metric in METRICS)
            raise InvalidInput(
                f"{self.metric!r} cannot be searched by; choose one of {known}, another k, or r2 of ratings."
            )
        self.limits(Space(EVERYTHING, (1, MAX_FACTORS), BOUNDS))

    def limits(self, space: Space) -> tuple[Space, list[Parameters]]:
        """Return the part of `space` that is searched, and the points of a grid. Raises InvalidInput."""
        changes = dict(self.space)
        if self.trainers:
            changes["trainer"] = list(self.trainers)
        if self.max_factors is not None:
            changes["factors"] = {"low": min(space.factors[0], self.max_factors), "high": self.max_factors}
        if self.grid and changes:
            raise InvalidInput("A grid is the whole space: give either --grid or what narrows the search, not both.")
        return narrowed(space, changes), spaces.grid(self.grid) if self.grid else []
