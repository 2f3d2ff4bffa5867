"""Generate likes of 3D models in the form of the original's file, and draw the models."""

import math
import re
from pathlib import Path

import numpy as np

from examples import planted

KINDS = 60
"""Clusters of models that the same people like."""

WORDS = ("Dragon", "Castle", "Robot", "Car", "Ship", "Helmet", "Tree", "Skull", "Sword", "Temple", "Lamp", "Fish")


def write(file: Path, small: bool) -> None:
    """Write lines of `modelname|mid|uid`, with `|` and quotes in some names, and some lines twice."""
    users, models, count, kinds = (600, 300, 9_000, 8) if small else (62_600, 28_800, 632_000, KINDS)
    likes = planted.pairs(users, models, count, kinds, seed=20)
    names = [f"{WORDS[kind % len(WORDS)]} {kind:02d}-{model}" for model, kind in enumerate(likes.clusters)]
    names[3], names[5] = f"\\{names[3]} | remix\\", f'{names[5]} "gold"'
    lines = [f"{names[i]}|{i:032x}|{u:032x}" for u, i in zip(likes.users.tolist(), likes.items.tolist(), strict=True)]
    np.random.default_rng(21).shuffle(lines)
    file.write_text("\n".join(["modelname|mid|uid", *lines, *lines[: count // 200]]) + "\n")


def drawing(title: str, size: int = 72) -> str:
    """Return a simple SVG of a generated model: form and colour of its kind, proportions of its own; any other is a circle."""
    found = re.match(r"\w+ (\d\d)-(\d+)", title)
    kind, model = (int(found[1]), int(found[2])) if found else (0, 0)
    sides, hue = 3 + kind % len(WORDS) % 6 if found else 40, 137.5 * kind % 360
    turn, stretch = model % 360, 0.7 + 0.3 * (model % 7) / 6
    points = [(36 + 30 * math.cos(a), 36 + 30 * stretch * math.sin(a)) for a in np.arange(sides) * 2 * math.pi / sides]
    outline = " ".join(f"{x:.0f},{y:.0f}" for x, y in points)
    return (
        f'<svg width="{size}" height="{size}" viewBox="0 0 72 72"><g transform="rotate({turn} 36 36)">'
        f'<polygon points="{outline}" fill="hsl({hue:.0f} 60% 55%)" stroke="hsl({hue:.0f} 60% 25%)" stroke-width="3"/>'
        f'<circle cx="36" cy="36" r="{6 + kind % 9}" fill="hsl({hue:.0f} 60% 85%)"/></g></svg>'
    )
