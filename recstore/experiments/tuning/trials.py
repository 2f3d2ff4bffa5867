"""What the trials so far say: which is best, how good each is beside those of its kind, what another would take. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from recstore.evaluation.results import CurvePoint, Evaluation
from recstore.experiments.tuning.space import Parameters

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
class SearchResult:
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


COST = 1.4
"""Time grows with this power of the factors (measured: 1.2 to 1.6), for guessing what is still affordable."""

Trials = Sequence[TrialResult]


def of_trainer(trials: Iterable[TrialResult], trainer: str) -> list[TrialResult]:
    return [trial for trial in trials if trial.parameters["trainer"] == trainer]


def best(trials: Iterable[TrialResult]) -> TrialResult | None:
    """The complete one with the highest value; of equals the one with the fewest factors, then the earliest."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    return min(complete, key=lambda t: (-(t.value or 0.0), t.parameters.get("factors") or 0, t.number), default=None)


def levels(trials: Iterable[TrialResult]) -> dict[int, TrialResult]:
    """The best trial for each number of factors."""
    found: dict[int, list[TrialResult]] = {}
    for trial in trials:
        found.setdefault(trial.parameters["factors"], []).append(trial)
    return {factors: top for factors, group in sorted(found.items()) if (top := best(group))}


def rated(trials: Trials, trainer: str) -> list[tuple[Parameters, float | None]]:
    """The trials of a trainer with their value as a part of the best with as many factors, so that few factors tell of
    many; 0 for what failed, None for what is at work."""
    own = of_trainer(trials, trainer)
    tops = {factors: top.value or 0.0 for factors, top in levels(own).items()}
    rates: list[tuple[Parameters, float | None]] = []
    for trial in own:
        top = tops.get(trial.parameters["factors"]) or 1.0
        rates.append((trial.parameters, None if trial.state == "running" else (trial.value or 0.0) / top))
    return rates


def seconds_of(trials: Iterable[TrialResult]) -> float:
    """What the finished ones took together."""
    return sum(trial.seconds or 0.0 for trial in trials)


def guess(trials: Trials, trainer: str, factors: int) -> float:
    """The seconds that a trial will take about: as the longest of the trainer's with the nearest number of factors that
    ran to its end; 0 where there is none to go by."""
    own = [trial for trial in of_trainer(trials, trainer) if trial.state == "complete" and trial.seconds]
    if not own:
        return 0.0
    nearest = min((t.parameters["factors"] for t in own), key=lambda known: abs(known - factors))
    longest = max(t.seconds or 0.0 for t in own if t.parameters["factors"] == nearest)
    return float(longest * (factors / nearest) ** COST)
