"""A grid's traces: the metric over each axis of the grid, and over two of them at once."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.figure import FigureBase
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from recstore.experiments.report import canvas
from recstore.experiments.report.axes import STEPS, marks, parameter_axis, star, written
from recstore.experiments.report.canvas import BLUE, MUTED, ORANGE, PAPER, Panel
from recstore.experiments.report.trial_rows import (
    best_by,
    complete,
    measured,
    most_telling,
    parameters,
    tried,
    varied,
    winner,
)
from recstore.experiments.report.words import better, metric_name, score, setting
from recstore.experiments.tuning.trials import SearchResult, TrialResult

CELL_WIDTH, CELL_HEIGHT = 0.62, 0.32
"""Inches of a cell of the heat map, wide enough for its number."""

WIDEST = 12
"""Columns up to which the cells have their numbers."""


def panels(search: SearchResult) -> list[Panel]:
    """The heat map of the two most telling axes, if there are two, and the lines over each axis with several values."""
    pair = most_telling(search)
    found = [] if pair is None else [heat_map(search, *pair)]
    return found + [lines(search, name) for name in varied(search) or parameters(search)]


def lines(search: SearchResult, name: str) -> Panel:
    """The metric over one axis: a line for each combination of the others, the winner's bold."""
    best = winner(search)
    others = [other for other in varied(search) if other != name]

    def rest(parameters: dict[str, object]) -> tuple[str, ...]:
        return tuple(setting(parameters.get(other)) for other in others)

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        place = parameter_axis(axes, search, name)
        groups: dict[tuple[str, ...], list[tuple[float, float]]] = {}
        for trial, value in complete(search):
            if name in trial.parameters:
                groups.setdefault(rest(trial.parameters), []).append((place(trial.parameters[name]), value))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=STEPS))
        axes.margins(y=0.08)
        of_best = None if best is None else rest(best.parameters)
        for key in sorted(groups, key=lambda key: (key == of_best, key)):
            x, y = zip(*sorted(groups[key]), strict=True)
            if key == of_best:
                label = "through the best" if others else None
                axes.plot(x, y, color=BLUE, marker="o", markersize=4.5, linewidth=2.2, label=label)
            else:
                axes.plot(x, y, color=MUTED, marker="o", markersize=2.5, linewidth=0.8, alpha=0.7, label="others")
        cut = [
            (place(trial.parameters[name]), reached)
            for trial in search.trials
            if trial.state == "pruned" and name in trial.parameters and (reached := measured(search, trial)) is not None
        ]
        marks(axes, "pruned", [x for x, _ in cut], [y for _, y in cut])
        top = None if best is None else measured(search, best)
        if best is not None and top is not None and name in best.parameters:
            star(axes, place(best.parameters[name]), top, f"best ({best.number})")
        canvas.legend(figure, [axes])

    text = f"A line for each combination of {', '.join(others)}." if others else f"The metric over {name}."
    if best is not None and name in best.parameters:
        text += f" The best trial has {setting(best.parameters[name])}."
    return Panel(f"grid-{canvas.slug(name)}", f"{metric_name(search.metric)} by {name}", text, draw)


def heat_map(search: SearchResult, rows: str, columns: str) -> Panel:
    """The metric over two axes, the best over all others in each cell; the winner's cell framed."""
    cells = best_by(search, rows, columns)
    row_values, column_values = tried(search, rows), tried(search, columns)
    grid = [[cells.get((setting(row), setting(column))) for column in column_values] for row in row_values]
    best = winner(search)

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        values = np.array([[np.nan if cell is None else measured(search, cell) for cell in row] for row in grid])
        known = values[np.isfinite(values)]
        mesh = axes.pcolormesh(
            values,
            cmap=matplotlib.colormaps["cividis_r" if better(search.metric) == "lower" else "cividis"],
            norm=Normalize(*(known.min(), known.max()) if known.size else (0.0, 1.0)),
            edgecolors=PAPER,
            linewidth=1.0,
        )
        axes.set_xticks(np.arange(len(column_values)) + 0.5, map(written, column_values))
        axes.set_yticks(np.arange(len(row_values)) + 0.5, map(written, row_values))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.grid(False)
        axes.set_xlabel(columns)
        axes.set_ylabel(rows)
        if len(column_values) <= WIDEST:
            _number(axes, mesh, grid, values)
        else:
            axes.tick_params(axis="x", rotation=45, rotation_mode="xtick")
            figure.colorbar(mesh, ax=axes, label=metric_name(search.metric)).outline.set_visible(False)
        if best is not None and rows in best.parameters and columns in best.parameters:
            corner = (
                [setting(value) for value in column_values].index(setting(best.parameters[columns])),
                [setting(value) for value in row_values].index(setting(best.parameters[rows])),
            )
            axes.add_patch(
                Rectangle(corner, 1, 1, fill=False, edgecolor=ORANGE, linewidth=2.5, clip_on=False, zorder=5)
            )

    over = [name for name in varied(search) if name not in (rows, columns)]
    text = f"In each cell the best over {', '.join(over)}." if over else "A cell for each trial."
    if any(cell is not None and cell.state == "pruned" for row in grid for cell in row):
        text += " In parentheses what pruned trials had reached."
    if best is not None and best in cells.values():
        text += f" Framed: the best, {score(measured(search, best))} at {rows} {setting(best.parameters[rows])} and"
        text += f" {columns} {setting(best.parameters[columns])}."
    return Panel(
        "heat-map",
        f"{metric_name(search.metric)} by {rows} and {columns}",
        text,
        draw,
        width=max(canvas.WIDTH, 1.2 + CELL_WIDTH * min(len(column_values), WIDEST)),
        height=max(canvas.HEIGHT, 0.9 + CELL_HEIGHT * len(row_values)),
    )


def _number(axes: Axes, mesh: QuadMesh, grid: list[list[TrialResult | None]], values: NDArray[np.float64]) -> None:
    """The cells' values, dark on light and light on dark."""
    digits = "{:.4f}".format if 0.01 <= np.nanmax(values, initial=0) < 1 else score
    for (row, column), value in np.ndenumerate(values):
        trial = grid[row][column]
        text, colour = "–", MUTED
        if trial is not None:
            text = f"({digits(value)})" if trial.state == "pruned" else digits(value)
            red, green, blue, _ = mesh.to_rgba(np.array([value]))[0]
            colour = "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#ffffff"
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=colour, fontsize=7.5)
