"""Draw a search: the best value so far, the value against each parameter, a grid's heat map, the trials' curves.

Optuna's plots are no substitute: its history and slices leave out pruned and failed trials, are squashed by one that is
far worse, have no dark form, and need pyplot.
"""

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

from recstore.experiments.report import canvas
from recstore.experiments.report.canvas import BLUE, INK, MUTED, ORANGE, PAPER, Panel, whole_numbers
from recstore.experiments.report.trial_rows import Parameter, best_by, complete, limits, parameters
from recstore.experiments.report.words import metric_name, score, setting
from recstore.experiments.tuning.trials import SearchResult

FEW_TICKS, APART, LONG = 7, 0.11, 34
"""Values up to which each has a tick, their least distance in axis lengths, and letters from which labels are slanted."""

CELL_WIDTH, CELL_HEIGHT, WIDEST = 0.62, 0.32, 12
"""Inches of a cell of the heat map, and columns up to which cells show their numbers."""

MARKS: dict[str, dict[str, Any]] = {
    "complete": {"marker": "o", "color": BLUE, "markeredgecolor": PAPER, "markeredgewidth": 0.5},
    "pruned": {"marker": "v", "color": MUTED, "fillstyle": "none", "linestyle": "--"},
    "failed": {"marker": "x", "color": INK},
    "far worse": {"marker": "d", "color": BLUE, "fillstyle": "none"},
}


def panels(search: SearchResult) -> list[Panel]:
    """Return every picture of a search, the most telling first."""
    found = [parameter_panel(search, parameter) for parameter in parameters(search)]
    if search.kind != "grid":
        found.insert(0, best_so_far(search))
    elif len(pair := most_telling(search)) == 2:
        found.insert(0, heat_map(search, *pair))
    return [*found, trial_curves(search)]


def most_telling(search: SearchResult) -> list[Parameter]:
    """Return the two varied parameters that move the best reachable value most, the one with more values last."""

    def moved(parameter: Parameter) -> float:
        values = best_by(search, parameter).values()
        return max(values) - min(values)

    varied = [parameter for parameter in parameters(search) if len(parameter.values) > 1]
    return sorted(sorted(varied, key=moved)[-2:], key=lambda parameter: len(parameter.values))


def best_so_far(search: SearchResult) -> Panel:
    """Return the panel of every trial's value in order, and the best until then."""
    ended = complete(search)
    best = list(accumulate((value for _, value in ended), max))

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        places = {trial.number: float(trial.number) for trial in search.trials}
        _marks(axes, search, places)
        order = [*(trial.number for trial, _ in ended), max(places)]
        axes.step(order, [*best, best[-1]], where="post", color=INK, label="best so far")
        whole_numbers(axes, "trial")
        canvas.legend(figure, axes)

    return Panel(f"{metric_name(search.metric)}: best so far", f"From {score(best[0])} to {score(best[-1])}.", draw)


def parameter_panel(search: SearchResult, parameter: Parameter) -> Panel:
    """Return the panel of every trial's value against one parameter; a grid has a line for each combination of the rest."""
    # points of one category are spread, so that they do not hide one another
    spread = (
        0.5 * min(1.0, len(search.trials) / 50) if parameter.scale == "categorical" and search.kind != "grid" else 0
    )

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        place = _parameter_axis(axes, parameter)
        if search.kind == "grid":
            _combinations(axes, search, parameter, place)
        places = {
            trial.number: place(trial.parameters[parameter.name]) + spread * (trial.number * 0.618 % 1 - 0.5)
            for trial in search.trials
            if parameter.name in trial.parameters
        }
        _marks(axes, search, places)
        canvas.legend(figure, axes)

    text = f"Tried: {parameter.tried}{' on a log scale' if parameter.scale == 'log' else ''}."
    text += "" if parameter.best is None else f" The best trial has {setting(parameter.best)}."
    return Panel(f"{metric_name(search.metric)} by {parameter.name}", text, draw)


def trial_curves(search: SearchResult) -> Panel:
    """Return the panel of all trials' validation curves, which end where a trial was pruned."""

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        best = search.winner
        curves = [trial for trial in search.trials if trial.curve]
        for trial in sorted(curves, key=lambda trial: (trial is best, trial.state, trial.number)):
            line = {point.iteration: point.validation[search.metric] for point in trial.curve}
            look = MARKS[trial.state] | {"linewidth": 0.9, "alpha": 0.55, "label": trial.state}
            if trial is best:
                look = {"color": ORANGE, "linewidth": 2.2}
                chosen = trial.iterations or max(line)
                _star(axes, chosen, line[chosen], search)
            axes.plot(list(line), list(line.values()), markevery=[-1], **look)
        whole_numbers(axes, "iterations")
        canvas.legend(figure, axes)

    text = "A line for each trial, on the validation part; it ends where the trial was pruned."
    return Panel(f"{metric_name(search.metric)} of the trials by iterations", text, draw)


def heat_map(search: SearchResult, rows: Parameter, columns: Parameter) -> Panel:
    """Return the panel of the metric over two parameters: in each cell the best over all others, the winner's framed."""
    cells = best_by(search, rows, columns)
    names = [[setting(value) for value in parameter.values] for parameter in (rows, columns)]

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        values = np.array([[cells.get((row, column), np.nan) for column in names[1]] for row in names[0]])
        mesh = axes.pcolormesh(values, cmap="cividis")
        axes.set_xticks(np.arange(len(names[1])) + 0.5, [canvas.shown(name, 12) for name in names[1]])
        axes.set_yticks(np.arange(len(names[0])) + 0.5, [canvas.shown(name, 20) for name in names[0]])
        axes.tick_params(length=0)
        axes.grid(False)
        axes.set(xlabel=canvas.shown(columns.name, 36), ylabel=canvas.shown(rows.name, 30))
        if len(names[1]) > WIDEST:
            axes.tick_params(axis="x", rotation=45, rotation_mode="xtick")
            figure.colorbar(mesh, ax=axes, label=metric_name(search.metric))
        for (y, x), value in np.ndenumerate(values):
            if len(names[1]) <= WIDEST and np.isfinite(value):
                dark = np.dot(mesh.to_rgba(value)[:3], (0.299, 0.587, 0.114)) < 0.5
                axes.text(x + 0.5, y + 0.5, score(value), ha="center", va="center", color=str(float(dark)), size=7.5)
            if (names[0][y], names[1][x]) == (setting(rows.best), setting(columns.best)):
                axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=ORANGE, linewidth=2.5, clip_on=False))

    return Panel(
        f"{metric_name(search.metric)} by {rows.name} and {columns.name}",
        "In each cell the best over all other parameters; the best trial's is framed.",
        draw,
        width=max(canvas.WIDTH, 1.2 + CELL_WIDTH * min(len(names[1]), WIDEST)),
        height=max(canvas.HEIGHT, 0.9 + CELL_HEIGHT * len(names[0])),
    )


def _marks(axes: Axes, search: SearchResult, places: dict[int, float]) -> None:
    """Mark each trial at its place on x: complete, pruned (at what it had reached), failed (at the bottom), or the best.

    A trial beyond the limits stands on the edge.
    """
    low, high = limits(search)
    axes.set_ylim(low, high)
    axes.margins(x=0.06)
    edge = 0.025 * (high - low)
    points: dict[str, list[tuple[float, float]]] = {state: [] for state in MARKS}
    for trial in search.trials:
        height = max(trial.value or low, low + edge)
        if trial.number in places and trial.number == search.best:
            _star(axes, places[trial.number], height, search)
        elif trial.number in places:
            mark = "far worse" if trial.value is not None and trial.value < low else trial.state
            points[mark].append((places[trial.number], height))
    for state, look in MARKS.items():
        if points[state]:
            axes.plot(*zip(*points[state], strict=True), **look | {"linestyle": "none", "alpha": 0.85, "label": state})


def _star(axes: Axes, x: float, y: float, search: SearchResult) -> None:
    look: dict[str, Any] = {"marker": "*", "markersize": 14, "color": ORANGE, "markeredgecolor": PAPER}
    axes.plot([x], [y], linestyle="none", zorder=5, label=f"best ({search.best})", **look)


def _combinations(axes: Axes, search: SearchResult, parameter: Parameter, place: Callable[[Any], float]) -> None:
    """Draw a line over one axis of a grid for each combination of the others, the winner's bold."""
    lines: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    of_best: tuple[str, ...] | None = None
    for trial, value in complete(search):
        key = tuple(setting(own) for name, own in sorted(trial.parameters.items()) if name != parameter.name)
        lines.setdefault(key, []).append((place(trial.parameters[parameter.name]), value))
        of_best = key if trial.number == search.best else of_best
    for key, line in sorted(lines.items(), key=lambda item: item[0] == of_best):
        look: dict[str, Any] = {"color": MUTED, "linewidth": 0.8, "label": "others"}
        if key == of_best:
            look = {"color": BLUE, "linewidth": 2.2, "label": "with the best"}
        axes.plot(*zip(*sorted(line), strict=True), **look)


def _parameter_axis(axes: Axes, parameter: Parameter) -> Callable[[Any], float]:
    """Set scale and ticks of x; return the function from a value to its place."""
    axes.set_xlabel(canvas.shown(parameter.name, 24) + (" (log scale)" if parameter.scale == "log" else ""))
    if parameter.scale == "categorical":
        names = list(map(setting, parameter.values))
        labels = [canvas.shown(value, 20) for value in names]
        axes.set_xticks(range(len(names)), labels)
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.grid(False, axis="x")
        if sum(map(len, labels)) > LONG:
            axes.tick_params(axis="x", rotation=30, rotation_mode="xtick")
        return lambda value: names.index(setting(value))
    axes.set_xscale(parameter.scale)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda number, _: f"{number:.4g}" if number < 1000 else f"{number:,.0f}")
    numbers = np.array(parameter.values, dtype=float)
    places = np.log(numbers) if parameter.scale == "log" else numbers
    if len(numbers) <= FEW_TICKS and np.all(np.diff(places) >= APART * np.ptp(places)):
        axes.xaxis.set_major_locator(FixedLocator(numbers.tolist()))
    elif parameter.scale == "log" and numbers[-1] > 5 * numbers[0]:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if numbers[-1] < 300 * numbers[0] else (1,)))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=bool(np.all(numbers % 1 == 0))))
    return float
