"""Draw lists of similar models: a page and a picture."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from examples.likes import data

HEAD = '<!DOCTYPE html><meta charset="utf-8"><title>Similar models</title><style>td { font: 12px sans-serif }</style>'


def write(folder: Path, lists: Sequence[dict[str, Any]]) -> None:
    """Write similar.html and similar.svg: a model in each row, then those most similar to it."""
    rows = [[row["model"], *row["similar"]] for row in lists]
    body = "".join(f"<tr>{''.join(f'<td>{data.drawing(t)}<br>{escape(t)}' for t in row)}" for row in rows)
    (folder / "similar.html").write_text(f"{HEAD}<h1>Similar models</h1><table>{body}</table>")
    cells = [
        f'<svg x="{10 + 84 * column + 20 * (column > 0)}" y="{10 + 84 * line}">{data.drawing(title)}</svg>'
        for line, row in enumerate(rows)
        for column, title in enumerate(row)
    ]
    size = f'width="{30 + 84 * max(map(len, rows))}" height="{16 + 84 * len(rows)}"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><rect width="100%" height="100%" fill="white"/>'
    (folder / "similar.svg").write_text(f"{svg}{''.join(cells)}</svg>\n")
