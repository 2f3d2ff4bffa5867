"""Learning curves: a metric after each iteration, on the training and on the validation part."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator

from recstore.evaluation.results import CurvePoint
from recstore.experiments.report import canvas
from recstore.experiments.report.axes import STEPS
from recstore.experiments.report.canvas import BLUE, MUTED, ORANGE, PAPER, Panel
from recstore.experiments.report.trial_rows import best_of
from recstore.experiments.report.words import better, duration, finite, metric_name, score

MANY = 30
"""Points of a line above which they are no longer marked one by one."""

Line = list[tuple[int, float]]  # iteration, value


def panels(curve: Sequence[CurvePoint], chosen: int | None = None, first: str = "") -> dict[str, Panel]:
    """A panel for each metric that was measured, by its name; `first` leads, the others in their order. Without a chosen
    number of iterations all have the one that is best for the first of them."""
    metrics = sorted(
        dict.fromkeys(name for point in curve for name in [*point.validation, *point.train]),
        key=lambda name: name != first,
    )
    metrics = [metric for metric in metrics if any(_lines(curve, metric))]
    if chosen is None and metrics:
        chosen = _best(metrics[0], _lines(curve, metrics[0])[1])
    return {metric: panel(curve, metric, chosen) for metric in metrics}


def panel(curve: Sequence[CurvePoint], metric: str, chosen: int | None = None) -> Panel:
    """The panel of one metric; it says so where nothing was measured."""
    train, validation = _lines(curve, metric)
    best = _best(metric, validation)
    chosen = best if chosen is None else chosen

    def draw(figure: FigureBase) -> None:
        if not train and not validation:
            figure.text(0.5, 0.5, "not measured", ha="center", va="center", color=MUTED)
        elif train and validation and _far_apart(train, validation):
            upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
            _plot(upper, [], validation, chosen)
            _plot(lower, train, [], chosen)
            lower.set_xlabel("iterations")
            canvas.legend(figure, [upper, lower])
        else:
            axes = figure.subplots()
            _plot(axes, train, validation, chosen)
            axes.set_xlabel("iterations")
            canvas.legend(figure, [axes])

    name = metric_name(metric)
    description = _description(train, validation, best, chosen)
    return Panel(f"curve-{canvas.slug(metric)}", f"{name} by iterations", description, draw)


def _lines(curve: Sequence[CurvePoint], metric: str) -> tuple[Line, Line]:
    """Train and validation, by iteration, where they are finite."""
    train, validation = (
        sorted(
            (point.iteration, value)
            for point in curve
            if (value := finite(getattr(point, part).get(metric))) is not None
        )
        for part in ("train", "validation")
    )
    return train, validation


def _best(metric: str, line: Line) -> int | None:
    """The first iteration with the best value; None for a metric without better and worse."""
    if not line or better(metric) is None:
        return None
    top = best_of(metric, [value for _, value in line])
    return next(iteration for iteration, value in line if value == top)


def _far_apart(train: Line, validation: Line) -> bool:
    """Whether one of the lines would look flat beside the other: on training pairs a model is often several times as
    good, and then the validation part gets axes of its own."""
    spans = [max(values) - min(values) for values in ([value for _, value in line] for line in (train, validation))]
    together = [value for _, value in train + validation]
    return min(len(train), len(validation)) > 1 and min(spans) < 0.25 * (max(together) - min(together))


def _plot(axes: Axes, train: Line, validation: Line, chosen: int | None) -> None:
    if chosen is not None:
        axes.axvline(chosen, color=ORANGE, linewidth=1.4, linestyle=(0, (1, 1.2)), zorder=1, label=f"chosen: {chosen}")
    for line, colour, mark, dashes, label in (
        (train, MUTED, "s", (0, (4, 1.5)), "train"),
        (validation, BLUE, "o", "solid", "validation"),
    ):
        if line:
            iterations, values = zip(*line, strict=True)
            marker = mark if len(line) <= MANY else "none"
            axes.plot(iterations, values, color=colour, linestyle=dashes, marker=marker, markersize=2.5, label=label)
            at_chosen = [point for point in line if point[0] == chosen]
            if at_chosen:
                axes.plot(*at_chosen[0], color=colour, marker=mark, markersize=7, markeredgecolor=PAPER)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=STEPS, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=STEPS))
    axes.margins(x=0.04, y=0.12)


def _description(train: Line, validation: Line, best: int | None, chosen: int | None) -> str:
    """What the picture shows, in a sentence for each part."""
    sentences = []
    if validation:
        values = dict(validation)
        said = []
        if best is not None:
            said.append(f"best with {score(values[best])} after {best} of {validation[-1][0]} iterations")
        if chosen in values and chosen != best:
            said.append(f"{score(values[chosen])} after the {chosen} that were chosen")
        sentences.append(f"Validation: {', '.join(said) or score(validation[-1][1])}.")
    if train:
        values = dict(train)
        at = chosen if chosen in values else train[-1][0]
        sentences.append(f"Train: {score(values[at])} after {at}.")
    return " ".join(sentences) or "Not measured."


def numbers(curve: Sequence[CurvePoint]) -> tuple[list[str], list[list[str]]]:
    """The heads of the columns and a row for each point: validation, then train, of every metric."""
    parts = [
        (metric, part)
        for metric in dict.fromkeys(name for point in curve for name in [*point.validation, *point.train])
        for part in ("validation", "train")
        if any(metric in getattr(point, part) for point in curve)
    ]
    rows = []
    for point in sorted(curve, key=lambda point: point.iteration):
        values = [score(getattr(point, part).get(metric)) for metric, part in parts]
        rows.append([str(point.iteration), duration(point.seconds), *values])
    return ["iterations", "time", *(f"{metric_name(metric)}, {part}" for metric, part in parts)], rows
