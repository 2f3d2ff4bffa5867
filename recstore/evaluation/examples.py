"""Lists that a person can judge: what is similar to a few popular items, and to a few of middling popularity. Pure."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

POPULAR, MIDDLING, ROWS = 3, 3, 6
"""Items of each kind that are shown, and similar ones of each."""

LEAST_USERS = 3
"""Of an item that is shown as similar, as `similar_items` has it."""

COLLAPSED = 1e-6
"""Of the longest: factors shorter than this have no direction (design: why the vectors look like this)."""


@dataclass(frozen=True)
class Similar:
    """An item, how many users it has, and the items most similar to it with their cosines, best first. Indices."""

    item: int
    users: int
    similar: list[tuple[int, float]]


def similar_items(item_factors: NDArray[np.float32], item_users: NDArray[np.integer[Any]]) -> list[Similar]:
    """The most popular items, then those in the middle by number of users among all that have LEAST_USERS; by cosine of
    the factors (items, factors). `item_users` (items,). Ties by index; empty where no item can be shown."""
    lengths = np.linalg.norm(item_factors, axis=1)
    shown = np.flatnonzero((item_users >= LEAST_USERS) & (lengths > COLLAPSED * lengths.max(initial=0)))
    if len(shown) < 2:
        return []
    by_users = shown[np.argsort(-item_users[shown], kind="stable")]
    middle = by_users[max(POPULAR, (len(by_users) - MIDDLING) // 2) :]
    unit = item_factors[shown] / lengths[shown, None]
    found = []
    for item in [*by_users[:POPULAR], *middle[:MIDDLING]]:
        cosines = unit @ (item_factors[item] / lengths[item])
        cosines[shown == item] = -np.inf
        best = np.argsort(-cosines, kind="stable")[: min(ROWS, len(shown) - 1)]
        similar = [(int(shown[n]), float(cosines[n])) for n in best]
        found.append(Similar(int(item), int(item_users[item]), similar))
    return found
