"""Draw figures of a tutorial as bars."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure


def bars(file: Path, label: str, values: Mapping[str, tuple[float, str]], *, log: bool = False) -> None:
    """Draw a bar for each name, from the top, with a text behind it."""
    figure = Figure(figsize=(6.4, 0.9 + 0.4 * len(values)), layout="constrained")
    axes = figure.subplots()
    lengths, texts = zip(*values.values(), strict=True)
    axes.barh(list(values), lengths, color="#0072b2")
    axes.bar_label(axes.containers[0], texts, padding=4)
    if log:
        axes.set_xscale("log")
        axes.set_xlim(min(lengths) / 2, max(lengths) * 30)
    else:
        axes.set_xlim(0, max(lengths) * 1.3)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=100)


def curves(file: Path, across: str, up: str, names: tuple[str, str], points: Mapping[int, tuple[float, float]]) -> None:
    """Draw two lines over the same places, each with its name at its end."""
    figure = Figure(figsize=(6.4, 3), layout="constrained")
    axes = figure.subplots()
    for name, values, colour in zip(names, zip(*points.values(), strict=True), ("#0072b2", "#d55e00"), strict=True):
        axes.plot(list(points), values, color=colour, marker="o")
        axes.annotate(name, (max(points), values[-1]), (6, 0), textcoords="offset points", color=colour, va="center")
    axes.set_xlim(0.5, max(points) * 1.35)
    axes.set(xlabel=across, ylabel=up, xticks=list(points))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=100)
