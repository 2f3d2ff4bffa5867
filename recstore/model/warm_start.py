"""Where a training begins: from the live generation's items where they fit, which takes a third of the iterations. Pure.

Items alone go on: they were never trained on the pairs held out, while the published users have been solved with them.
Measured in docs/decisions/0021-warm-start.md.
"""

import numpy as np

from recstore.definition import Definition
from recstore.model.held_out import HeldOut
from recstore.model.interactions import IdMap
from recstore.model.trained import Stored
from recstore.model.trainers import Matrix

LEAST_KNOWN = 0.5
"""Share of the items that the live generation has to know."""


def initial_items(
    live: Stored | None, definition: Definition, items: IdMap, held: HeldOut, factors: int
) -> Matrix | None:
    """The live generation's factors of `items`, (items, factors), zeros for those it does not know; None for a cold start:
    where nothing is live, what is trained was altered, too few items are known, or it saw pairs that are held out now."""
    if live is None or not definition.hyperparameters.warm_iterations:
        return None
    if _trained(live.definition) != _trained(definition) or live.fold_in.item_factors.shape[1] != factors:
        return None
    if held and (live.held_out is None or live.held_out["users_below"] < held.users_below):
        return None
    position = live.items.lookup(items.ids)
    known = position >= 0
    if known.mean() < LEAST_KNOWN:
        return None
    start = np.zeros((len(items), factors), dtype=np.float32)
    start[known] = live.fold_in.item_factors[position[known]]
    return start


def _trained(definition: Definition) -> tuple[object, object]:
    """The settings that decide what the factors come to, however they are reached."""
    how = {"iterations", "warm_iterations", "seed"}
    return definition.confidence, definition.hyperparameters.model_dump(exclude=how)
