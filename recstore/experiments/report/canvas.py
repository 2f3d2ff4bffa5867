"""Draw panels: alone as SVG within a page, several on a sheet as PNG; colours, fonts and sizes of every picture.

Matplotlib's settings are the package's own during a call, whatever a user's matplotlibrc says. Colours are those of
Okabe and Ito (Color Universal Design, 2008), which any colour vision distinguishes. Each kind of mark has its own shape.
"""

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib.style
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator

THEME = {
    "ink": ("#1c2127", "#e8ebef"),
    "muted": ("#5f6974", "#9aa5b1"),
    "line": ("#d6dbe1", "#39414b"),
    "paper": ("#fefefe", "#15191e"),
    "blue": ("#0072b2", "#56b4e9"),
    "orange": ("#d55e00", "#ff9f50"),
}
"""Colour by name: on a light page and in every PNG, on a dark page."""

INK, MUTED, LINE, PAPER, BLUE, ORANGE = (light for light, _ in THEME.values())

WIDTH, HEIGHT = 3.9, 2.7
"""Inches of a panel; across a phone its letters are as large as small print."""

_STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib
    "font.size": 9.0,
    "figure.titlesize": 10.0,
    "figure.titleweight": "bold",
    "text.parse_math": False,  # a dollar sign in a value is a dollar sign
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("figure.facecolor", "savefig.facecolor"), PAPER),
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.0,
    "svg.fonttype": "path",
    "svg.hashsalt": "recstore",
}

_style = partial(matplotlib.style.context, ["default", _STYLE])

_LEFT_OUT = re.compile(
    r'\A.*?(?=<svg)|<!--.*?-->|<style.*?</style>|\s+xmlns(:xlink)?="[^"]*"|xlink:(?=href)', re.DOTALL
)


@dataclass(frozen=True)
class Panel:
    """One picture: a title, a description in words, and the function that draws it into a figure."""

    title: str
    description: str
    draw: Callable[[FigureBase], None]
    width: float = WIDTH
    height: float = HEIGHT


def figure(panel: Panel) -> Figure:
    """Return the panel alone, without its title."""
    with _style():
        made = Figure((panel.width, panel.height), layout="constrained")
        panel.draw(made)
    return made


def sheet(panels: Sequence[Panel]) -> Figure:
    """Return panels with their titles, in rows of at most three; at least one panel."""
    rows = math.ceil(len(panels) / 3)
    columns = math.ceil(len(panels) / rows)
    width = sum(max(panel.width for panel in panels[column::columns]) for column in range(columns))
    height = sum(max(panel.height for panel in panels[row * columns : (row + 1) * columns]) for row in range(rows))
    with _style():
        made = Figure((width, height), layout="constrained")
        parts = made.subfigures(rows, columns, squeeze=False, wspace=0.03, hspace=0.03)
        for panel, part in zip(panels, parts.flat, strict=False):
            part.suptitle(shown(panel.title, 40), x=0.01, ha="left")
            panel.draw(part)
    return made


def png(figure: Figure) -> bytes:
    """Return the picture as PNG; the same figure gives the same bytes."""
    file = io.BytesIO()
    with _style():
        figure.savefig(file, format="png", dpi=160, metadata={"Software": None})
    return file.getvalue()


def svg(panel: Panel, name: str) -> Markup:
    """Return the panel as an SVG element for a page, as wide as its place.

    It has no style sheet, address or text. Its ids begin with `name`, its colours are CSS variables, and the element of
    id `name`-caption describes it.
    """
    file = io.StringIO()
    made = figure(panel)
    with _style():
        made.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    text = _LEFT_OUT.sub("", file.getvalue())
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r'(?<=[ "])(-?\d+\.\d\d)\d+', r"\1", text)  # hundredths of a point are enough, but not of a scale
    for colour, (light, _) in THEME.items():
        text = text.replace(light, f"var(--{colour})")
    return Markup(text.replace("<svg", f'<svg class="plot" role="img" aria-labelledby="{name}-caption"', 1))


def legend(figure: FigureBase, *axes: Axes) -> None:
    """Add a legend below the axes, each label once."""
    entries = {label: handle for one in axes for handle, label in zip(*one.get_legend_handles_labels(), strict=True)}
    if entries:
        figure.legend(list(entries.values()), list(entries), loc="outside lower left", ncols=min(4, len(entries)))


def whole_numbers(axes: Axes, label: str) -> None:
    """Set the label of x, and ticks at whole numbers only."""
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))


def shown(text: str, most: int) -> str:
    """Return a text as a picture can show it: shortened, with a question mark for a letter the font may not have."""
    text = text.encode("latin-1", "replace").decode("latin-1")
    return text if len(text) <= most else f"{text[: most - 1]}…"
