"""What a search's trials say, before anything is drawn: which one won, what each measured, what was varied."""

from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import Any

from recstore.experiments.report.words import better, finite, setting
from recstore.experiments.tuning.trials import SearchResult, TrialResult

FEW = 10
"""With fewer trials measured than this all of them are shown, however far apart."""

REACH = 2.5


def winner(search: SearchResult) -> TrialResult | None:
    """The trial that the search calls its best; None where it is not among the trials."""
    return next((trial for trial in search.trials if trial.number == search.best), None)


def measured(search: SearchResult, trial: TrialResult) -> float | None:
    """What the trial reached on the validation part: its value, or where it has none (a pruned one) the last point of
    its learning curve; None for a failed one."""
    if trial.state == "failed":
        return None
    value = finite(trial.value)
    if value is None and trial.curve:
        value = finite(trial.curve[-1].validation.get(search.metric))
    return value


def complete(search: SearchResult) -> list[tuple[TrialResult, float]]:
    """The trials that ran to their end, with what they reached, in order of their numbers."""
    return [
        (trial, value)
        for trial in sorted(search.trials, key=lambda trial: trial.number)
        if trial.state == "complete" and (value := measured(search, trial)) is not None
    ]


def best_of(metric: str, values: Sequence[float]) -> float:
    """The greatest, or the least for an error; of one value at least."""
    return min(values) if better(metric) == "lower" else max(values)


def limits(metric: str, values: Sequence[float]) -> tuple[float, float] | None:
    """The range of a value axis on which the good trials can be told apart: from the best to REACH times as far from
    it as the median, if there are worse ones and many trials; with a margin. None without a value."""
    if not values:
        return None
    low, high = min(values), max(values)
    if len(values) >= FEW:
        top = best_of(metric, values)
        reach = REACH * abs(top - median(values))
        if reach and better(metric) == "lower":
            high = min(high, top + reach)
        elif reach:
            low = max(low, top - reach)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def scale(search: SearchResult, parameter: str) -> str:
    """log, linear or categorical: as the search says, unless the values tried do not allow it."""
    values = [trial.parameters[parameter] for trial in search.trials if parameter in trial.parameters]
    said = search.scales.get(parameter, "linear")
    if said == "categorical" or any(finite(value) is None for value in values):
        return "categorical"
    if said == "log" and all(float(value) > 0 for value in values):
        return "log"
    return "linear"


def parameters(search: SearchResult) -> list[str]:
    """Every parameter that a trial has, in the search's order."""
    return list(dict.fromkeys([*search.scales, *(name for trial in search.trials for name in trial.parameters)]))


def ordered(values: Sequence[Any]) -> list[Any]:
    """The distinct values, numbers by size and then the rest by name."""
    distinct = {setting(value): value for value in values}.values()
    return sorted(distinct, key=lambda value: (finite(value) is None, finite(value) or 0.0, setting(value)))


def varied(search: SearchResult) -> list[str]:
    """The parameters with more than one value."""
    return [name for name in parameters(search) if len(tried(search, name)) > 1]


def tried(search: SearchResult, parameter: str) -> list[Any]:
    """The distinct values of a parameter over all trials, in order."""
    return ordered([trial.parameters[parameter] for trial in search.trials if parameter in trial.parameters])


def most_telling(search: SearchResult) -> tuple[str, str] | None:
    """The two varied parameters whose choice moves the best that can be reached the most, the one with more values
    first; None where fewer than two were varied."""

    def span(pair: tuple[str, str]) -> tuple[float, int]:
        cells = best_by(search, *pair)
        moved = 0.0
        for place in (0, 1):
            best: dict[str, float] = {}
            for key, trial in cells.items():
                value = measured(search, trial) or 0.0
                best[key[place]] = best_of(search.metric, [value, best.get(key[place], value)])
            moved += max(best.values(), default=0.0) - min(best.values(), default=0.0)
        return moved, len(cells)

    pairs = list(combinations(varied(search), 2))
    if not pairs:
        return None
    first, second = max(pairs, key=span)
    if len(tried(search, second)) > len(tried(search, first)):
        first, second = second, first
    return first, second


def best_by(search: SearchResult, first: str, second: str) -> dict[tuple[str, str], TrialResult]:
    """The best trial of each combination of two parameters' values (as written), over all others: of those that ran to
    their end, else of the pruned ones."""
    cells: dict[tuple[str, str], TrialResult] = {}
    sign = -1 if better(search.metric) == "lower" else 1

    def rank(trial: TrialResult) -> tuple[bool, float]:
        return trial.state == "complete", sign * (measured(search, trial) or 0.0)

    for trial in search.trials:
        if measured(search, trial) is not None and first in trial.parameters and second in trial.parameters:
            key = setting(trial.parameters[first]), setting(trial.parameters[second])
            cells[key] = max(cells.get(key, trial), trial, key=rank)
    return cells
