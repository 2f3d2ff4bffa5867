"""The pictures as figures of matplotlib, for a program or a notebook; `report` puts the same ones on a page.

Every function returns a `matplotlib.figure.Figure` of its own; `save_png` writes one.
"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from recstore.evaluation.results import CurvePoint
from recstore.experiments.report import canvas, curve_plots, grids, searches
from recstore.experiments.report.canvas import save_png
from recstore.experiments.tuning.trials import SearchResult

__all__ = [
    "best_so_far",
    "grid_heat_map",
    "grid_lines",
    "learning_curve",
    "learning_curves",
    "parameter",
    "save_png",
    "search_traces",
    "trial_curves",
]


def learning_curve(curve: Sequence[CurvePoint], metric: str, chosen: int | None = None) -> Figure:
    """One metric over the iterations, on train and validation, the chosen number of iterations marked (without one, the
    best on validation)."""
    return canvas.figure(curve_plots.panel(curve, metric, chosen))


def learning_curves(curve: Sequence[CurvePoint], chosen: int | None = None) -> Figure:
    """All metrics of the curve, a panel each, with the same iteration marked (without one, the best of the first metric).
    Raises ValueError for a curve without a metric."""
    panels = list(curve_plots.panels(curve, chosen).values())
    if not panels:
        raise ValueError("the curve has no metric")
    return canvas.sheet(panels)


def search_traces(search: SearchResult) -> Figure:
    """Everything there is to see of a search, a panel each: for a grid the metric over its axes, else the best so far
    and the value against each parameter; the trials' learning curves."""
    return canvas.sheet(searches.panels(search))


def best_so_far(search: SearchResult) -> Figure:
    """Every trial's value in order, and the best until then."""
    return canvas.figure(searches.best_so_far(search))


def parameter(search: SearchResult, name: str) -> Figure:
    """Every trial's value against one parameter, on its scale; pruned and failed trials told apart, the best marked."""
    return canvas.figure(searches.parameter(search, name))


def trial_curves(search: SearchResult) -> Figure:
    """The validation curves of all trials."""
    return canvas.figure(searches.trial_curves(search))


def grid_lines(search: SearchResult, name: str) -> Figure:
    """The metric over one axis of a grid, a line for each combination of the others."""
    return canvas.figure(grids.lines(search, name))


def grid_heat_map(search: SearchResult, rows: str, columns: str) -> Figure:
    """The metric over two axes of a grid, the best over all others in each cell."""
    return canvas.figure(grids.heat_map(search, rows, columns))
