"""Read a search's trials before anything is drawn: which one won, what each measured, which parameters were tried."""

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

from recstore.experiments.report.words import best_of, finite, setting
from recstore.experiments.tuning.trials import SearchResult, TrialResult

FEW = 10
"""Measured trials below which a picture's axis covers all of them."""

REACH = 2.5
"""Distance from the best to the end of an axis, in distances from the best to the median."""

EDGE = 0.02
"""Share of a range at its ends: a best value there may have a better one beyond."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a search: its scale, its distinct values (numbers by size, then text), the best trial's value."""

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
    def at_end(self) -> bool:
        """Return true if the best value is at an end of what was tried."""
        if self.scale == "categorical" or self.best is None or len(self.values) < 3:
            return False
        numbers = (self.best, self.values[0], self.values[-1])
        best, low, high = map(math.log, numbers) if self.scale == "log" else numbers
        return bool(min(best - low, high - best) <= EDGE * (high - low))


def parameters(search: SearchResult) -> list[Parameter]:
    """Return every parameter that a trial has, in the search's order.

    Its scale is the search's, unless a value does not allow it.
    """
    best = winner(search)
    found = []
    for name in dict.fromkeys([*search.scales, *(name for trial in search.trials for name in trial.parameters)]):
        values = [trial.parameters[name] for trial in search.trials if name in trial.parameters]
        values = list({setting(value): value for value in values}.values())
        values.sort(key=lambda value: (finite(value) is None, finite(value) or 0.0, setting(value)))
        scale = search.scales.get(name, "linear")
        if any(finite(value) is None for value in values):
            scale = "categorical"
        elif values and scale == "log" and values[0] <= 0:
            scale = "linear"
        if values:
            found.append(Parameter(name, scale, values, best and best.parameters.get(name)))
    return found


def winner(search: SearchResult) -> TrialResult | None:
    """Return the best trial; None if the search has none yet."""
    return next((trial for trial in search.trials if trial.number == search.best), None)


def measured(search: SearchResult, trial: TrialResult) -> float | None:
    """Return what the trial reached on the validation part; None if it failed.

    A pruned trial without a value has the last point of its learning curve.
    """
    if trial.state == "failed":
        return None
    value = finite(trial.value)
    if value is None and trial.curve:
        value = finite(trial.curve[-1].validation.get(search.metric))
    return value


def complete(search: SearchResult) -> list[tuple[TrialResult, float]]:
    """Return the complete trials by number, each with its value."""
    trials = sorted(search.trials, key=lambda trial: trial.number)
    pairs = [(trial, measured(search, trial)) for trial in trials if trial.state == "complete"]
    return [(trial, value) for trial, value in pairs if value is not None]


def limits(search: SearchResult) -> tuple[float, float]:
    """Return a range of the metric that separates the good trials.

    With FEW trials or more it ends REACH times as far from the best as the median, if there are worse ones.
    """
    values = [value for trial in search.trials if (value := measured(search, trial)) is not None] or [0.0]
    low, high = min(values), max(values)
    if len(values) >= FEW:
        top = best_of(search.metric, values)
        reach = REACH * abs(top - median(values)) or high - low
        low, high = max(low, top - reach), min(high, top + reach)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def far_worse(search: SearchResult) -> list[int]:
    """Return the numbers of the trials beyond the limits."""
    low, high = limits(search)
    values = {trial.number: measured(search, trial) for trial in search.trials}
    return [number for number, value in values.items() if value is not None and not low <= value <= high]


def best_by(search: SearchResult, *parameters: Parameter) -> dict[tuple[str, ...], float]:
    """Return the best value of the complete trials for each combination of these parameters, as text."""
    cells: dict[tuple[str, ...], float] = {}
    for trial, value in complete(search):
        key = tuple(setting(trial.parameters.get(parameter.name)) for parameter in parameters)
        cells[key] = best_of(search.metric, [value, cells.get(key, value)])
    return cells
