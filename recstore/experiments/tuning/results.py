"""What a search found, as plain data: stored as JSON, printed by the command line, drawn by the report."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from recstore.evaluation.curves import CurvePoint
from recstore.evaluation.results import Evaluation

Kind = Literal["optuna", "grid"]
State = Literal["running", "complete", "pruned", "failed"]


@dataclass(frozen=True)
class TrialResult:
    """One training of a search. `value` is the metric on the validation part at the best point of `curve`, whose iteration
    is `iterations` (None for a trainer that has none); of a pruned trial it is the best that was reached. `parameters` say
    what differs from the recommender's own settings, with the names of `recstore create`'s options. A search that has ended
    has no `running` one."""

    number: int
    state: State
    parameters: dict[str, Any]
    value: float | None
    iterations: int | None
    curve: list[CurvePoint]
    seconds: float | None
    stage: str = ""
    error: str | None = None

    @property
    def finished(self) -> bool:
        return self.state != "running"


@dataclass(frozen=True)
class Search:
    """A whole search: `best` is the number of the winning trial, `scales` has parameter -> "log", "linear" or "categorical",
    `evaluation` is the one measurement of the test part, None before it was made."""

    study: int
    recommender: str
    metric: str
    split: str
    kind: Kind
    scales: dict[str, str]
    trials: list[TrialResult]
    best: int
    evaluation: Evaluation | None

    @property
    def winner(self) -> TrialResult:
        """The winning trial."""
        return next(trial for trial in self.trials if trial.number == self.best)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)
