"""Build a report's tables as text: models next to each other, a search's trials."""

from collections.abc import Sequence
from dataclasses import dataclass

from recstore.evaluation.curves import METRIC
from recstore.evaluation.results import ModelResult, baselines
from recstore.experiments.report.trial_rows import parameters
from recstore.experiments.report.words import best_of, better, between, change, elapsed, metric_name, score, setting
from recstore.experiments.tuning.trials import SearchResult


@dataclass(frozen=True)
class Cell:
    """One model's metric: its text, true if no model has a better one, its difference to popularity, and its interval."""

    text: str
    best: bool
    change: str | None
    interval: str | None = None


def comparison(results: Sequence[ModelResult]) -> list[tuple[str, list[Cell]]]:
    """Return a row for each metric: its name and a cell for each model, in the order of `results`.

    Best are all that read the same as the best one, if several models have the metric.
    """
    reference = next((result for result in results if result.name.casefold().startswith("popularity")), None)
    rows = []
    for metric in _metrics(results):
        values = [result.metrics.get(metric) for result in results]
        known = [value for value in values if value is not None]
        top = score(best_of(metric, known)) if better(metric) and len(known) > 1 else None
        cells = []
        for result, value in zip(results, values, strict=True):
            compared = None if reference in (None, result) else change(value, reference.metrics.get(metric))
            limits = result.intervals.get(metric)
            best = value is not None and score(value) == top
            cells.append(Cell(score(value), best, compared, limits and between(limits)))
        rows.append((metric_name(metric), cells))
    return rows


def differences(results: Sequence[ModelResult]) -> list[tuple[str, list[Cell]]]:
    """Return a row for each metric: its name and the first model's difference to each other model, best where its interval
    does not contain 0; no rows for an evaluation without intervals."""
    own, *others = results
    rows = []
    for metric in _metrics(others):
        cells = []
        for other in others:
            mine, its, limits = own.metrics.get(metric), other.metrics.get(metric), other.differences.get(metric)
            if mine is None or its is None or limits is None:
                cells.append(Cell("–", False, None))
            else:
                cells.append(Cell(score(mine - its), not limits[0] <= 0 <= limits[1], None, between(limits)))
        if any(cell.interval for cell in cells):
            rows.append((metric_name(metric), cells))
    return rows


def primary(results: Sequence[ModelResult]) -> str:
    """Return the metric of the first sentence: NDCG@20 if it was measured, else another NDCG, else the first."""
    return min(_metrics(results), key=lambda metric: (metric != METRIC, not metric.startswith("ndcg")))


def _metrics(results: Sequence[ModelResult]) -> list[str]:
    return list(dict.fromkeys(metric for result in results for metric in result.metrics))


def verdict(results: Sequence[ModelResult]) -> str:
    """Compare the first model's primary metric with the baselines in one sentence."""
    metric = primary(results)
    own = results[0]
    text = f"{metric_name(metric)} is {score(own.metrics.get(metric))}"
    if limits := own.intervals.get(metric):
        text += f" (95 % interval {between(limits)})"
    differences = []
    for other in baselines(results):
        difference = change(own.metrics.get(metric), other.metrics.get(metric))
        if difference is not None:
            differences.append(f"{difference} against {other.name} ({score(other.metrics.get(metric))})")
    return text + (": " + ", ".join(differences) if differences else "") + "."


def trials(search: SearchResult) -> tuple[list[str], list[list[str]]]:
    """Return column heads and a row for each trial: the best first, those without a value last."""
    names = [parameter.name for parameter in parameters(search)]
    rows = [
        [
            str(trial.number),
            "best" if trial.number == search.best else trial.state,
            score(trial.value),
            *(setting(trial.parameters[name]) if name in trial.parameters else "–" for name in names),
            "–" if trial.iterations is None else str(trial.iterations),
            elapsed(trial.seconds),
            trial.stage,
        ]
        for trial in sorted(search.trials, key=lambda trial: (trial.value is None, -(trial.value or 0.0), trial.number))
    ]
    return ["trial", "state", metric_name(search.metric), *names, "iterations", "time", "stage"], rows
