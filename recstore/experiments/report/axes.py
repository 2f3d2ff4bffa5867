"""Axes for a search: a parameter's values along x, on a scale of their own kind, and the metric along y."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from recstore.experiments.report.canvas import BLUE, INK, MUTED, ORANGE, PAPER
from recstore.experiments.report.trial_rows import limits, scale, tried
from recstore.experiments.report.words import finite, setting
from recstore.experiments.tuning.trials import SearchResult

FEW_VALUES = 7
"""Up to this many distinct values each has its tick, if these are far enough apart."""

APART = 0.11
"""Of the axis: what labels need so as to leave each other room."""

STEPS = [1, 2, 2.5, 5, 10]
"""Of ticks: numbers that are easy to read between."""

LONG = 34
"""Letters in all labels of an axis above which they stand aslant."""

Place = Callable[[Any], float]


def metric_axis(axes: Axes, search: SearchResult, values: list[float]) -> Callable[[float], float]:
    """Limits and ticks of y; returns what brings a value within them (a point that is far worse stands on the edge)."""
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=STEPS))
    found = limits(search.metric, values)
    if found is None:
        axes.set_yticks([])
        axes.set_ylim(0, 1)
        return lambda value: value
    low, high = found
    axes.set_ylim(low, high)
    edge = 0.025 * (high - low)
    return lambda value: min(max(value, low + edge), high - edge)


def parameter_axis(axes: Axes, search: SearchResult, parameter: str) -> Place:
    """Scale and ticks of x; returns where a value stands."""
    values, kind = tried(search, parameter), scale(search, parameter)
    axes.set_xlabel(f"{parameter} (log scale)" if kind == "log" else parameter)
    if kind == "categorical":
        names = [setting(value) for value in values]
        axes.set_xticks(range(len(names)), [written(value) for value in values])
        axes.set_xlim(-0.6, max(1, len(names)) - 0.4)
        axes.grid(False, axis="x")
        if sum(map(len, names)) > LONG:
            axes.tick_params(axis="x", rotation=30, rotation_mode="xtick")
        return lambda value: names.index(setting(value))
    numbers = [float(value) for value in values]
    axes.set_xscale(kind)
    if kind == "log":
        _log_ticks(axes, numbers)
    elif len(numbers) <= FEW_VALUES and _apart(numbers):
        axes.xaxis.set_major_locator(FixedLocator(numbers))
    else:
        whole = all(number.is_integer() for number in numbers)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=whole, steps=STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: plain(number)))
    axes.set_xlim(*_around(numbers, kind))
    return float


def plain(number: float) -> str:
    """A tick's label, three significant digits of what is no whole number: 0.001, 56.2, 1984, 10k, 1M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if max(size, 10_000) <= abs(number) < 1000 * size:
            return f"{number / size:.4g}{letter}"
    return f"{number:.0f}" if number.is_integer() and abs(number) < 10_000 else f"{number:.3g}"


def written(value: Any) -> str:
    """A value of a parameter as a tick's label; a letter that the font lacks is a question mark."""
    number = finite(value)
    return setting(value).encode("latin-1", "replace").decode("latin-1") if number is None else plain(number)


def star(axes: Axes, x: float, y: float, label: str) -> None:
    """The mark of the best trial."""
    axes.plot(
        [x],
        [y],
        linestyle="none",
        marker="*",
        markersize=14,
        color=ORANGE,
        markeredgecolor=PAPER,
        zorder=5,
        label=label,
    )


def marks(axes: Axes, state: str, x: Sequence[float], y: Sequence[float], size: float = 5.0) -> None:
    """A mark for each trial of one state: a full circle ran to its end, a hollow triangle was pruned, a cross failed;
    nothing where there is none."""
    if not x:
        return
    mark, fill, edge = {"complete": ("o", BLUE, PAPER), "pruned": ("v", "none", MUTED)}.get(state, ("x", "none", INK))
    axes.plot(
        x,
        y,
        linestyle="none",
        marker=mark,
        markersize=size,
        markerfacecolor=fill,
        markeredgecolor=edge,
        markeredgewidth=0.5 if state == "complete" else 1.0,
        alpha=0.85,
        zorder=3 if state == "complete" else 2,
        label=state,
    )


def _around(numbers: list[float], kind: str) -> tuple[float, float]:
    """Limits with room at both ends, also around a single number."""
    low, high = min(numbers), max(numbers)
    if kind == "log":
        room = (high / low) ** 0.06 if high > low else 2.0
        return low / room, high * room
    room = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    return low - room, high + room


def _log_ticks(axes: Axes, numbers: list[float]) -> None:
    """Each value where there are few; else powers of ten, with 2 and 5 between where there would be fewer than three, or
    evenly spaced ones within a power of two."""
    low, high = min(numbers), max(numbers)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [10.0**decade for decade in decades]
    if len(numbers) <= FEW_VALUES and _apart([math.log10(number) for number in numbers]):
        ticks = numbers
    elif high / low < 2:
        ticks = [float(tick) for tick in MaxNLocator(nbins=5, steps=STEPS).tick_values(low, high)]
    elif high / low < 300:
        ticks = [step * tick for tick in ticks for step in (1, 2, 5)]
    elif len(ticks) > 8:
        ticks = ticks[::2]
    ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001] or numbers[:1]
    axes.xaxis.set_major_locator(FixedLocator(ticks))


def _apart(places: list[float]) -> bool:
    """Whether labels at these places of an axis, ascending, leave each other room."""
    width = places[-1] - places[0]
    return all(after - before >= APART * width for before, after in itertools.pairwise(places))
