"""Generate interactions with something to learn: a popularity curve, and users who each like a few clusters of items."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Planted(NamedTuple):
    """Distinct pairs of a user and an item, as numbers from 0, sorted; if the item is to the user's taste; the cluster of each
    item."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    liked: NDArray[np.bool_]
    clusters: NDArray[np.int64]


def pairs(
    users: int,
    items: int,
    count: int,
    clusters: int,
    *,
    seed: int,
    tastes: int = 3,
    noise: float = 0.15,
    steepness: float = 0.8,
) -> Planted:
    """Return about `count` distinct pairs.

    Each user has `tastes` of the clusters. Of the user's interactions the part `noise` goes to items of any cluster. Within its
    cluster, and among all, the item of rank r is drawn in proportion to r ** -steepness. The number of items of a user has a
    long tail.
    """
    random = np.random.default_rng(seed)
    cluster = random.integers(0, clusters, items)
    weight = np.arange(1, items + 1) ** -steepness  # item 0 is the most popular
    by_cluster = np.argsort(cluster, kind="stable")
    ends = np.cumsum(weight[by_cluster])
    bounds = np.concatenate(([0.0], ends[np.cumsum(np.bincount(cluster, minlength=clusters)) - 1]))
    all_ends = np.cumsum(weight)

    own = random.integers(0, clusters, (users, tastes))
    activity = random.lognormal(0.0, 1.1, users)
    found = np.empty(0, dtype=np.int64)
    while len(found) < count:  # a pair that is drawn again counts once
        user = random.choice(users, int(1.1 * (count - len(found))) + 100, p=activity / activity.sum())
        taste = own[user, np.minimum(random.geometric(0.5, len(user)) - 1, tastes - 1)]
        low, high = bounds[taste], bounds[taste + 1]
        place = random.random(len(user))
        liked = by_cluster[np.minimum(np.searchsorted(ends, low + place * (high - low)), items - 1)]
        any_item = np.minimum(np.searchsorted(all_ends, place * all_ends[-1]), items - 1)
        item = np.where(random.random(len(user)) < noise, any_item, liked)
        found = np.unique(np.concatenate((found, user * np.int64(items) + item)))
    found = np.sort(random.choice(found, count, replace=False))
    user, item = found // items, found % items
    return Planted(user, item, (own[user] == cluster[item, None]).any(axis=1), cluster)
