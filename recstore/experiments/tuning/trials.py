"""The trials of a search, and what they say: the best one, the value of each relative to its kind, the cost of another.
Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from recstore.evaluation.results import CurvePoint, Evaluation
from recstore.experiments.tuning.space import Parameters

COST = 1.4
"""Power of the factors with which time grows (measured: 1.2 to 1.6)."""

Kind = Literal["optuna", "grid"]
State = Literal["running", "complete", "pruned", "failed"]


@dataclass(frozen=True)
class TrialResult:
    """One training of a search. `value` is the metric on the validation part at the best point of `curve`, whose iteration
    is `iterations` (None for a trainer that has none); of a pruned trial the best that was reached. `parameters` differ
    from the recommender's own settings, with the names of `recstore create`'s options."""

    number: int
    state: State
    parameters: Parameters
    value: float | None = None
    iterations: int | None = None
    curve: list[CurvePoint] = field(default_factory=list)
    seconds: float | None = None
    stage: str = ""
    error: str | None = None

    @property
    def finished(self) -> bool:
        return self.state != "running"


Trials = Sequence[TrialResult]


@dataclass(frozen=True)
class SearchResult:
    """A whole search with its finished trials: `best` is the number of the winning one, `scales` has parameter -> "log",
    "linear" or "categorical", `evaluation` is the one measurement of the test part, None before it was made."""

    study: int
    recommender: str
    metric: str
    split: str
    kind: Kind
    scales: dict[str, str]
    trials: list[TrialResult]
    best: int
    evaluation: Evaluation | None
    state: str
    outcome: str | None

    @property
    def winner(self) -> TrialResult:
        return next(trial for trial in self.trials if trial.number == self.best)

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)


def of_trainer(trials: Iterable[TrialResult], trainer: str) -> list[TrialResult]:
    return [trial for trial in trials if trial.parameters["trainer"] == trainer]


def best(trials: Iterable[TrialResult]) -> TrialResult | None:
    """Return the complete trial with the highest value; of equals the one with the fewest factors, then the earliest."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    return min(complete, key=lambda t: (-(t.value or 0.0), t.parameters.get("factors") or 0, t.number), default=None)


def levels(trials: Iterable[TrialResult]) -> dict[int, TrialResult]:
    """Return the best trial for each number of factors."""
    found: dict[int, list[TrialResult]] = {}
    for trial in trials:
        found.setdefault(trial.parameters["factors"], []).append(trial)
    return {factors: top for factors, group in sorted(found.items()) if (top := best(group))}


def rated(trials: Trials, trainer: str) -> list[tuple[Parameters, float | None]]:
    """Return the trials of a trainer with their value as a part of the best with as many factors, so that few factors
    inform many; 0 for a failed trial, None for one at work."""
    own = of_trainer(trials, trainer)
    tops = {factors: top.value or 1.0 for factors, top in levels(own).items()}

    def rate(trial: TrialResult) -> float | None:
        return (trial.value or 0.0) / tops.get(trial.parameters["factors"], 1.0) if trial.finished else None

    return [(trial.parameters, rate(trial)) for trial in own]


def seconds_of(trials: Iterable[TrialResult]) -> float:
    """Return the seconds that the finished ones took together."""
    return sum(trial.seconds or 0.0 for trial in trials)


def guess(trials: Trials, trainer: str, factors: int) -> float:
    """Return the seconds that a trial will take: extrapolated from the longest complete one of the trainer with the nearest
    number of factors; 0 where there is none."""
    own = [trial for trial in of_trainer(trials, trainer) if trial.state == "complete" and trial.seconds]
    if not own:
        return 0.0
    nearest = min((t.parameters["factors"] for t in own), key=lambda known: abs(known - factors))
    longest = max(t.seconds or 0.0 for t in own if t.parameters["factors"] == nearest)
    return float(longest * (factors / nearest) ** COST)
