"""Choose lists that a person can judge: items similar to a few popular and a few less popular ones. Pure."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recstore.model.vectors import COLLAPSED

POPULAR, MIDDLING, ROWS = 3, 3, 6
"""Number of popular items, of items of middling popularity, and of similar items for each."""

LEAST_USERS = 3
"""Least number of users of an item that is shown, as in `similar_items`."""


@dataclass(frozen=True)
class Similar:
    """An item, its number of users, and the most similar items with their cosines, best first; items are indices."""

    item: int
    users: int
    similar: list[tuple[int, float]]


def similar_items(item_factors: NDArray[np.float32], item_users: NDArray[np.integer[Any]]) -> list[Similar]:
    """Return the items most similar, by cosine, to the most popular items and to those in the middle by number of users.

    `item_factors` is (items, factors), `item_users` (items,). Only items with LEAST_USERS users count. Ties are broken by
    index. The result is empty if fewer than two items can be shown.
    """
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
