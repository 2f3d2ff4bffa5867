"""Points of lines in an SVG of fixed size, for the templates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, EDGE = 320, 90, 6


@dataclass(frozen=True)
class Line:
    """A line in a drawing: its name, its points as SVG writes them, and the values at its ends."""

    name: str
    points: str
    dots: list[tuple[float, float, str]]
    last: float


@dataclass(frozen=True)
class Drawing:
    """Lines on a common scale."""

    lines: list[Line]
    low: float
    high: float
    first: str
    last: str


def drawing(
    series: Mapping[str, Sequence[tuple[float, float]]], words: str, low: float | None = None
) -> Drawing | None:
    """Draw each series of (x, y) with increasing x, from `low` or from the lowest y. None where none has two points."""
    series = {name: points for name, points in series.items() if points}
    if max((len(points) for points in series.values()), default=0) < 2:
        return None
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    left, right, high = min(xs), max(xs), max(ys)
    low = min(ys) if low is None else low

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / (right - left or 1)
        up = (y - low) / (high - low) if high > low else 0.5
        return round(EDGE + across * (WIDTH - 2 * EDGE), 1), round(HEIGHT - EDGE - up * (HEIGHT - 2 * EDGE), 1)

    lines = []
    for name, points in series.items():
        dots = [(*place(x, y), words.format(x=x, y=y)) for x, y in points]
        lines.append(Line(name, " ".join(f"{x},{y}" for x, y, _ in dots), dots, points[-1][1]))
    return Drawing(lines, low, high, f"{left:g}", f"{right:g}")
