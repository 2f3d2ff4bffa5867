"""Start training from the live generation's items if they fit, which takes a third of the iterations. Pure.

Users are not reused: they were solved with the held-out pairs, which the items have never seen. Measurements:
docs/decisions/0021-warm-start.md.
"""

import numpy as np

from recstore.definition import Definition
from recstore.model.arrays import Matrix
from recstore.model.held_out import HeldOut
from recstore.model.interactions import IdMap
from recstore.model.trained import Stored

LEAST_KNOWN = 0.5
"""Minimum share of the items that the live generation knows."""


def initial_items(
    live: Stored | None, definition: Definition, items: IdMap, held: HeldOut, factors: int
) -> Matrix | None:
    """Return the live generation's factors of `items`, float32 (items, factors), those of ratings with biases, and zeros for
    unknown ones.

    None means a cold start: nothing is live, the settings of training changed, too few items are known, or the live
    generation was trained on pairs that are held out now."""
    if live is None or not definition.hyperparameters.warm_iterations:
        return None
    width = factors + definition.hyperparameters.bias_factors
    if _trained(live.definition) != _trained(definition) or live.fold_in.item_factors.shape[1] != width:
        return None
    if held and (live.held_out is None or live.held_out["users_below"] < held.users_below):
        return None
    position = live.items.lookup(items.ids)
    known = position >= 0
    if known.mean() < LEAST_KNOWN:
        return None
    start = np.zeros((len(items), width), dtype=np.float32)
    start[known] = live.fold_in.item_factors[position[known]]
    return start


def _trained(definition: Definition) -> tuple[object, object]:
    """Return the settings that determine the result of training, whatever the start."""
    how = {"iterations", "warm_iterations", "seed", "popularity_exponent"}
    return definition.confidence, definition.hyperparameters.model_dump(exclude=how)
