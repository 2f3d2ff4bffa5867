"""Tables of a report, as text ready to be shown: models side by side, a search's parameters and trials."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recstore.evaluation.curves import METRIC
from recstore.evaluation.results import ModelResult
from recstore.experiments.report.trial_rows import measured, parameters, scale, tried, winner
from recstore.experiments.report.words import better, change, duration, finite, metric_name, score, setting, settings
from recstore.experiments.tuning.trials import SearchResult, TrialResult

EDGE = 0.02
"""Share of a range at its ends: a best value there may have a better one beyond."""

_STATES = ("complete", "pruned", "running", "failed")


@dataclass(frozen=True)
class Cell:
    """One model's metric: its text, whether no model has a better one, and its difference to popularity."""

    text: str
    best: bool
    change: str | None


@dataclass(frozen=True)
class Row:
    """One metric of all models."""

    name: str
    cells: list[Cell]


def comparison(results: Sequence[ModelResult]) -> list[Row]:
    """A row for each metric, a cell for each model in the order given. Best are all that read the same as the best one,
    where there are several models and the metric has a better and a worse."""
    reference = next((result for result in results if result.name.casefold().startswith("popularity")), None)
    rows = []
    for metric in dict.fromkeys(metric for result in results for metric in result.metrics):
        values = [finite(result.metrics.get(metric)) for result in results]
        known = [value for value in values if value is not None]
        way = better(metric)
        top = None
        if way is not None and len(known) > 1:
            top = score(min(known) if way == "lower" else max(known))
        cells = []
        for result, value in zip(results, values, strict=True):
            compared = None if reference in (None, result) else change(value, reference.metrics.get(metric))
            cells.append(Cell(score(value), value is not None and score(value) == top, compared))
        rows.append(Row(metric_name(metric), cells))
    return rows


def primary(results: Sequence[ModelResult]) -> str | None:
    """The metric that a first sentence is about: NDCG@20 where it was measured, else another NDCG, else the first."""
    metrics = list(dict.fromkeys(metric for result in results for metric in result.metrics))
    if METRIC in metrics:
        return METRIC
    return next((metric for metric in metrics if metric.startswith("ndcg")), metrics[0] if metrics else None)


def verdict(results: Sequence[ModelResult], metric: str) -> str:
    """The first model's metric beside the two baselines', which come next, in one sentence."""
    own, *others = results[:3]
    text = f"{metric_name(metric)} is {score(own.metrics.get(metric))}"
    beside = []
    for other in others:
        difference = change(own.metrics.get(metric), other.metrics.get(metric))
        if difference is not None:
            beside.append(f"{difference} against {other.name} ({score(other.metrics.get(metric))})")
    return text + (": " + ", ".join(beside) if beside else "") + "."


@dataclass(frozen=True)
class Searched:
    """One parameter of a search: its scale, what was tried, what won, and whether that is at an end of it."""

    name: str
    scale: str
    tried: str
    best: str
    at_end: bool


def searched(search: SearchResult) -> list[Searched]:
    """Every parameter that a trial had."""
    best = winner(search)
    rows = []
    for name in parameters(search):
        values = tried(search, name)
        if not values:
            continue
        kind = scale(search, name)
        number = None if best is None else finite(best.parameters.get(name))
        at_end = number is not None and kind != "categorical" and len(values) > 2 and _at_end(number, values, kind)
        many = kind != "categorical" and len(values) > 8
        text = f"{setting(values[0])} to {setting(values[-1])}" if many else ", ".join(map(setting, values))
        chosen = setting(best.parameters[name]) if best is not None and name in best.parameters else "–"
        rows.append(Searched(name, kind, text, chosen, at_end))
    return rows


def _at_end(number: float, values: Sequence[float], kind: str) -> bool:
    low, high = float(values[0]), float(values[-1])
    if kind == "log":
        room = math.exp(EDGE * math.log(high / low))
        return number <= low * room or number >= high / room
    room = EDGE * (high - low)
    return number <= low + room or number >= high - room


def trials(search: SearchResult) -> tuple[list[str], list[list[str]]]:
    """The heads of the columns and a row for each trial: the best first, those without a value last."""
    names = [name for name in parameters(search) if tried(search, name)]
    staged = any(getattr(trial, "stage", "") for trial in search.trials)
    sign = 1 if better(search.metric) == "lower" else -1

    def place(trial: TrialResult) -> tuple[int, float, int]:
        value = measured(search, trial)
        return _STATES.index(trial.state) if value is None else -1, sign * (value or 0.0), trial.number

    rows = []
    for trial in sorted(search.trials, key=place):
        state = "best" if trial.number == search.best else trial.state
        row = [str(trial.number), state, score(measured(search, trial))]
        row += [setting(trial.parameters[name]) if name in trial.parameters else "–" for name in names]
        row += ["–" if trial.iterations is None else str(trial.iterations), duration(trial.seconds)]
        rows.append(row + ([trial.stage] if staged else []))
    heads = ["trial", "state", metric_name(search.metric), *names, "iterations", "time"]
    return heads + (["stage"] if staged else []), rows


def counted(search: SearchResult) -> str:
    """How many trials there were and how they ended: `200 (61 complete, 135 pruned, 4 failed)`."""
    states = Counter(str(trial.state) for trial in search.trials)
    parts = [f"{states[state]} {state}" for state in _STATES if states[state]]
    return f"{len(search.trials)} ({', '.join(parts)})" if parts else "0"


def chosen_iterations(result: ModelResult) -> int | None:
    """The iterations that a model was trained for, if its hyperparameters say so."""
    found: Any = dict(settings(result.hyperparameters)).get("iterations", "")
    return int(found) if found.isdigit() else None
