"""Draw learning curves: a metric after each iteration, on the training and on the validation part."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import FigureBase

from recstore.evaluation.results import CurvePoint, Evaluation
from recstore.experiments.report import canvas
from recstore.experiments.report.canvas import BLUE, MUTED, ORANGE, PAPER, Panel, whole_numbers
from recstore.experiments.report.result_tables import primary
from recstore.experiments.report.words import best_of, elapsed, metric_name, score

LOOKS: dict[str, dict[str, Any]] = {
    "validation": {"color": BLUE, "marker": "o"},
    "train": {"color": MUTED, "marker": "s", "linestyle": "--"},
}
"""Each part of a learning curve, in the order of its axes."""

Line = dict[int, float]  # value by iteration


def panels(evaluation: Evaluation) -> list[Panel]:
    """Return a panel for the page's metric, or the first of the curve, then for each other at the same k or without one.

    At another k the curves look the same, and the page has their numbers. All panels mark the iterations that the model
    was trained for, if a point has them, else the best of the first metric. A single point has no panel.
    """
    curve = evaluation.curve
    if len(curve) < 2:
        return []
    names, metric = _metrics(curve), primary(evaluation.results)
    metric = metric if metric in names else names[0]
    metrics = [name for name in names if name.partition("@")[2] in ("", metric.partition("@")[2])]
    metrics.sort(key=lambda name: name != metric)
    chosen = evaluation.results[0].hyperparameters.get("iterations")
    if chosen not in {point.iteration for point in curve}:
        chosen = _best(metrics[0], _line(curve, "validation", metrics[0]))
    return [panel(curve, name, chosen) for name in metrics]


def numbers(curve: Sequence[CurvePoint]) -> tuple[list[str], list[list[str]]]:
    """Return column heads and a row for each point: validation, then train, of every metric."""
    lines = {
        f"{metric_name(metric)}, {part}": line
        for metric in _metrics(curve)
        for part in LOOKS
        if (line := _line(curve, part, metric))
    }
    rows = [
        [str(point.iteration), elapsed(point.seconds), *(score(line.get(point.iteration)) for line in lines.values())]
        for point in curve
    ]
    return ["iterations", "time", *lines], rows


def _metrics(curve: Sequence[CurvePoint]) -> list[str]:
    return list(dict.fromkeys(name for point in curve for name in [*point.validation, *point.train]))


def _line(curve: Sequence[CurvePoint], part: str, metric: str) -> Line:
    points = ((point.iteration, getattr(point, part)) for point in curve)
    return {iteration: metrics[metric] for iteration, metrics in points if metric in metrics}


def _best(metric: str, line: Line) -> int:
    """Return the first iteration with the best value."""
    top = best_of(metric, line.values())
    return next(iteration for iteration, value in line.items() if value == top)


def panel(curve: Sequence[CurvePoint], metric: str, chosen: int | None) -> Panel:
    """Return the panel of one metric; each part has its own axes, because training pairs are found far more often."""
    lines = {part: line for part in LOOKS if (line := _line(curve, part, metric))}

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots(len(lines), 1, sharex=True, squeeze=False, height_ratios=[3, 2][: len(lines)])[:, 0]
        for one, (part, line) in zip(axes, lines.items(), strict=True):
            one.plot(list(line), list(line.values()), markersize=2.5, label=part, **LOOKS[part])
            if chosen is not None:
                one.axvline(chosen, color=ORANGE, linestyle=":", zorder=1, label=f"chosen: {chosen}")
            if chosen in line:
                one.plot([chosen], [line[chosen]], markersize=7, markeredgecolor=PAPER, **LOOKS[part])
            one.margins(x=0.04, y=0.12)
        whole_numbers(axes[-1], "iterations")
        canvas.legend(figure, *axes)

    validation = lines["validation"]
    best = _best(metric, validation)
    text = f"Best on validation: {score(validation[best])} after {best} of {max(validation)} iterations."
    for part, line in lines.items():
        text += f" On {part} {score(line[chosen])} after {chosen}." if chosen in line else ""
    return Panel(f"{metric_name(metric)} by iterations", text, draw)
