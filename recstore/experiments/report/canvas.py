"""What all pictures have in common: colours, fonts, sizes, panels, and their two forms: PNG, and SVG for a page.

Matplotlib's objects alone, never pyplot; its settings are the package's own for the time of a call, whatever a user's
matplotlibrc says. Colours are those of Okabe and Ito (Color Universal Design, 2008), told apart with any colour
vision, and every kind of mark differs in shape as well. Inside an SVG each colour is a CSS variable, so the page
chooses between light and dark.
"""

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import matplotlib.style
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from recstore.atomic import write_bytes

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
"""Of one panel in inches: across a phone its letters are as large as small print."""

_STYLE = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "figure.titlesize": 10.0,
    "figure.titleweight": "bold",
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a value is a dollar sign
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.0,
    "legend.handletextpad": 0.5,
    "legend.borderpad": 0.1,
    "svg.fonttype": "path",
    "svg.hashsalt": "recstore",
    "svg.image_inline": True,
}

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_VARIABLES = {light: f"var(--{name})" for name, (light, _) in THEME.items()}
_LONG_NUMBERS = re.compile(r"(\.\d\d)\d+")  # hundredths of a point are enough
_COLOURS = re.compile("|".join(_VARIABLES))


@dataclass(frozen=True)
class Panel:
    """One picture: its name (for files and ids: letters, digits, hyphens), its title, what can be read from it in
    words, how it is drawn into a figure, and its size in inches."""

    name: str
    title: str
    description: str
    draw: Callable[[FigureBase], None]
    width: float = WIDTH
    height: float = HEIGHT


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's own defaults with these settings, for the time of the block."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


def figure(panel: Panel, titled: bool = True) -> Figure:
    """The panel alone, with its title or without."""
    with style():
        made = Figure((panel.width, panel.height), layout="constrained")
        _draw(panel, made, titled)
    return made


def sheet(panels: Sequence[Panel]) -> Figure:
    """Panels side by side in rows of three at most, as few empty places as possible; at least one panel."""
    rows = math.ceil(len(panels) / 3)
    columns = math.ceil(len(panels) / rows)
    with style():
        width = sum(max(panel.width for panel in panels[column::columns]) for column in range(columns))
        height = sum(max(panel.height for panel in panels[row * columns : (row + 1) * columns]) for row in range(rows))
        made = Figure((width, height), layout="constrained")
        parts = made.subfigures(rows, columns, squeeze=False, wspace=0.03, hspace=0.03)
        for panel, part in zip(panels, parts.flat, strict=False):
            _draw(panel, part, titled=True)
    return made


def _draw(panel: Panel, figure: FigureBase, titled: bool) -> None:
    if titled:
        figure.suptitle(panel.title, x=0.01, ha="left")
    panel.draw(figure)


def legend(figure: FigureBase, axes: Sequence[Axes]) -> None:
    """Below the axes, where it covers nothing; each label once, none where nothing has a label."""
    entries = {label: handle for one in axes for handle, label in zip(*one.get_legend_handles_labels(), strict=True)}
    if entries:
        figure.legend(list(entries.values()), list(entries), loc="outside lower left", ncols=min(4, len(entries)))


def slug(text: str) -> str:
    """The text as part of a file's name or an id: `ndcg@20` as ndcg-20."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "it"


def png(figure: Figure) -> bytes:
    """The same bytes for the same figure: no time, no version inside."""
    file = io.BytesIO()
    with style():
        figure.savefig(file, format="png", dpi=160, metadata={"Software": None})
    return file.getvalue()


def save_png(figure: Figure, path: Path) -> None:
    """Writes the picture, whole or not at all. Raises ReportNotWritten."""
    write_bytes(path, png(figure))


def svg(figure: Figure, name: str, labelled_by: str) -> Markup:
    """The picture as an element to stand within HTML, as wide as its place: no style sheet, no address and no text
    inside, ids that begin with `name`, colours as CSS variables; its label is the element of id `labelled_by`."""
    file = io.StringIO()
    with style():
        figure.savefig(file, format="svg", transparent=True)
    root = ElementTree.fromstring(file.getvalue())  # drops comments and the document type
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.text = element.tail = None
        element.attrib = {key.removeprefix(_XLINK): _themed(key, value, name) for key, value in element.attrib.items()}
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib |= {"role": "img", "aria-labelledby": labelled_by, "class": "plot"}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _themed(attribute: str, value: str, name: str) -> str:
    if attribute == "id":
        return f"{name}-{value}"
    if value.startswith("#"):
        return f"#{name}-{value[1:]}"
    value = value.replace("url(#", f"url(#{name}-").replace("\n", "")
    if attribute in ("d", "x", "y"):
        return _LONG_NUMBERS.sub(r"\1", value)
    return _COLOURS.sub(lambda found: _VARIABLES[found[0]], value)
