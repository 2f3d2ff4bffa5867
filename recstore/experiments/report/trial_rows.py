"""Read a search's trials before anything is drawn: which parameters were tried, and where the axes end."""

import math
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from recstore.definition import MAX_FACTORS
from recstore.experiments.report.words import setting
from recstore.experiments.tuning.space import is_number
from recstore.experiments.tuning.trials import SearchResult, TrialResult

FEW = 10
"""Measured trials below which a picture's axis covers all of them."""

REACH = 2.5
"""Distance from the best to the end of an axis, in distances from the best to the median."""

EDGE = 0.02
"""Share of a range at its ends: a best value there may have a better one beyond."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a search: its scale, its distinct values in order, the best trial's value; None if it has none."""

    name: str
    scale: str  # log, linear or categorical
    values: list[Any]
    best: Any | None

    @property
    def tried(self) -> str:
        """Return the values as text; many numbers as their range."""
        if self.scale != "categorical" and len(self.values) > 8:
            return f"{setting(self.values[0])} to {setting(self.values[-1])}"
        return ", ".join(map(setting, self.values))

    @property
    def end(self) -> Literal["smallest", "largest"] | None:
        """Return the end of what was tried at which the best value is, if it is at one."""
        if self.scale == "categorical" or self.best is None or len(self.values) < 3:
            return None
        numbers = (self.best, self.values[0], self.values[-1])
        best, low, high = map(math.log, numbers) if self.scale == "log" else numbers
        if best - low <= EDGE * (high - low):
            return "smallest"
        return "largest" if high - best <= EDGE * (high - low) else None


def parameters(search: SearchResult) -> list[Parameter]:
    """Return every parameter that a trial has, in the search's order.

    Its scale is the search's, unless a value does not allow it.
    """
    found = []
    for name in dict.fromkeys([*search.scales, *(name for trial in search.trials for name in trial.parameters)]):
        tried = [trial.parameters[name] for trial in search.trials if name in trial.parameters]
        numbers = all(map(is_number, tried))
        values = sorted({setting(value): value for value in tried}.values(), key=None if numbers else setting)
        scale = search.scales.get(name, "linear") if numbers else "categorical"
        if values:
            scale = "linear" if scale == "log" and values[0] <= 0 else scale
            found.append(Parameter(name, scale, values, search.winner.parameters.get(name)))
    return found


def edges(search: SearchResult) -> list[str]:
    """Return a sentence for each setting whose best value is at an end of what was tried, unless no other is possible."""
    most = min(MAX_FACTORS, search.evaluation.items - 1 if search.evaluation else MAX_FACTORS)
    sentences = []
    for found in parameters(search):
        if found.end and not (found.name == "factors" and found.end == "largest" and (found.best or 0) >= most):
            other = {"smallest": "smaller", "largest": "larger"}[found.end]
            text = f"{found.name} {setting(found.best)} is the {found.end} value tried; a {other} one may be better"
            sentences.append(f"{text}: --grid {found.name}=..")
    return sentences


def complete(search: SearchResult) -> list[tuple[TrialResult, float]]:
    """Return the complete trials by number, each with its value."""
    return [(trial, trial.value) for trial in search.trials if trial.state == "complete" and trial.value is not None]


def limits(search: SearchResult) -> tuple[float, float]:
    """Return a range of the metric that separates the good trials.

    With FEW trials or more it ends REACH times as far from the best as the median, if there are worse ones.
    """
    values = [trial.value for trial in search.trials if trial.value is not None]
    low, high = min(values), max(values)
    if len(values) >= FEW:
        low = max(low, high - (REACH * (high - median(values)) or high - low))
    margin = 0.06 * (high - low) or 0.05 * high or 1.0
    return low - margin, high + margin


def far_worse(search: SearchResult) -> list[int]:
    """Return the numbers of the trials beyond the limits."""
    low, _ = limits(search)
    return [trial.number for trial in search.trials if trial.value is not None and trial.value < low]


def best_by(search: SearchResult, *parameters: Parameter) -> dict[tuple[str, ...], float]:
    """Return the best value of the complete trials for each combination of these parameters, as text."""
    cells: dict[tuple[str, ...], float] = {}
    for trial, value in complete(search):
        key = tuple(setting(trial.parameters.get(parameter.name)) for parameter in parameters)
        cells[key] = max(value, cells.get(key, value))
    return cells
