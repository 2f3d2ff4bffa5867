"""Apply a recommender's filters to its interactions, and count the interactions that each filter drops.

The step between interactions and confidence. Pure: no database, no settings except `Filters`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recstore.definition import Filters
from recstore.errors import NothingLeft
from recstore.model.arrays import Mask
from recstore.model.interactions import IdMap, Interactions


@dataclass(frozen=True)
class FilterDrop:
    """Effect of one filter over all rounds: dropped interactions, and users and items that lost their last one. `clipped`
    counts the values that max_value, which drops nothing, lowered to the cap."""

    filter: str
    threshold: float
    interactions: int = 0
    users: int = 0
    items: int = 0
    clipped: int = 0

    def __str__(self) -> str:
        if self.filter == "max_value":
            return f"max_value = {self.threshold:g} lowered {self.clipped} values"
        return (
            f"{self.filter} = {self.threshold:g} dropped {self.interactions} interactions, "
            f"{self.users} users and {self.items} items"
        )


class Filtered(NamedTuple):
    """The interactions that are left, and the effect of each filter."""

    interactions: Interactions
    drops: list[FilterDrop]

    def details(self) -> dict[str, Any]:
        left = self.interactions
        counts = {"users": len(left.users), "items": len(left.items), "pairs": len(left)}
        return counts | {"dropped": [str(drop) for drop in self.drops]}

    def __str__(self) -> str:
        left = self.interactions
        words = f"{len(left):,} interactions of {len(left.users):,} users with {len(left.items):,} items"
        return "; ".join([*map(str, self.drops), f"left: {words}"]) if self.drops else words


def apply(interactions: Interactions, filters: Filters, exempt: IdMap | None = None) -> Filtered:
    """Return the interactions that pass every filter, with reduced id maps, and one FilterDrop per filter that is set.

    `max_value` comes first, so totals count capped values. The filters of items follow, then those of users, each on the
    result of the previous one. One round may leave an item below its threshold, because users were dropped after it;
    `until_stable` repeats the rounds until nothing more is dropped. The filters of items drop none that is `exempt`. Raises
    NothingLeft.
    """
    drops: dict[str, FilterDrop] = {}
    if filters.max_value is not None:
        clipped = int(np.count_nonzero(interactions.values > filters.max_value))
        drops["max_value"] = FilterDrop("max_value", filters.max_value, clipped=clipped)
        interactions = replace(interactions, values=np.minimum(interactions.values, filters.max_value))
    active = [rule for rule in _RULES if getattr(filters, rule.filter) is not None]
    while active:
        before = len(interactions)
        for rule in active:
            threshold = getattr(filters, rule.filter)
            left = rule.apply(interactions, threshold, exempt)
            earlier = drops.get(rule.filter, FilterDrop(rule.filter, threshold))
            drops[rule.filter] = replace(
                earlier,
                interactions=earlier.interactions + len(interactions) - len(left),
                users=earlier.users + len(interactions.users) - len(left.users),
                items=earlier.items + len(interactions.items) - len(left.items),
            )
            if len(left) == 0:
                raise NothingLeft(report="; ".join(map(str, drops.values())), drops=list(drops.values()))
            interactions = left
        if len(interactions) == before or not filters.until_stable:
            break
    return Filtered(interactions, list(drops.values()))


@dataclass(frozen=True)
class _Rule:
    """A bound on a total per item or per user: the sum of values ("views") or the number of pairs."""

    filter: str
    side: str
    total: str
    passes: Callable[[NDArray[Any], float], Mask]

    def apply(self, interactions: Interactions, threshold: float, exempt: IdMap | None) -> Interactions:
        index = interactions.item_index if self.side == "items" else interactions.user_index
        totals = np.bincount(index, weights=np.maximum(interactions.values, 0) if self.total == "views" else None)
        passed: Mask = self.passes(totals, threshold)
        if exempt is not None and self.side == "items":
            passed = passed | (exempt.lookup(interactions.items.ids) >= 0)
        return interactions if passed.all() else interactions.subset(passed[index])


_RULES = (
    _Rule("min_item_views", "items", "views", np.greater_equal),
    _Rule("max_item_views", "items", "views", np.less_equal),
    _Rule("min_users_per_item", "items", "pairs", np.greater_equal),
    _Rule("min_user_views", "users", "views", np.greater_equal),
    _Rule("min_items_per_user", "users", "pairs", np.greater_equal),
    _Rule("max_items_per_user", "users", "pairs", np.less_equal),
)
