"""Choose pairs to hold out from training, so that two generations can be compared on pairs that neither has seen. Pure.

The step between filters and confidence. A keyed hash of the ids chooses the same pairs in every run, whatever else changes in
the source; without the key they cannot be predicted. The users with the lowest hashes are the sample, and a fifth of their
pairs is held out. Each generation stores its bounds: pairs within the bounds of two generations were seen by neither.
"""

import hashlib
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recstore.model.arrays import Mask
from recstore.model.interactions import IdMap, Interactions

PAIRS_OF_USER = 0.2
"""Share of a sampled user's pairs that is held out. The user is folded in from the rest."""

USERS = 10_000
"""Maximum users in the sample: enough to detect differences of one percent at little cost."""

MIN_USERS = 50
"""Minimum users in the sample. With fewer, nothing is held out."""

MIN_USERS_OF_ITEM = 5
"""Minimum users of an item that may lose a pair, so that it keeps some."""

_RANGE = 1 << 64

PAIRS_BELOW = int(PAIRS_OF_USER * _RANGE)
"""Bound on the hashes of held-out pairs of sampled users."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """`pairs` marks the held-out pairs. The sample is the users with a hash below `users_below`, out of 2**64."""

    pairs: Mask
    users_below: int

    def __bool__(self) -> bool:
        return bool(self.pairs.any())

    def details(self) -> dict[str, Any]:
        return {"pairs": int(self.pairs.sum())}

    def __str__(self) -> str:
        if not self:
            return "nothing: too few users to compare by, or switched off"
        return f"{int(self.pairs.sum()):,} pairs, for the gate"

    def stored(self, interactions: Interactions) -> dict[str, Any] | None:
        """Return the bounds for JSON, with the number of held-out pairs per item; None if nothing is held out.

        The published number of users of an item, less this number, is the number in training."""
        if not self:
            return None
        items, counts = np.unique(interactions.item_index[self.pairs], return_counts=True)
        return {
            "users_below": self.users_below,
            "pairs_below": PAIRS_BELOW,
            "min_users": MIN_USERS_OF_ITEM,
            "users": len(np.unique(interactions.user_index[self.pairs])),
            "pairs": int(self.pairs.sum()),
            "items": items.tolist(),
            "counts": counts.tolist(),
        }


def choose(interactions: Interactions, key: UUID, share: float) -> HeldOut:
    """Choose at most `share` of the pairs, or none if these have fewer than MIN_USERS users."""
    nothing = HeldOut(np.zeros(len(interactions), dtype=np.bool_), 0)
    if share <= 0:
        return nothing
    of_user = user_hashes(interactions.users, key)
    within = min(1.0, share / PAIRS_OF_USER, USERS / len(of_user))
    users_below = min(int(within * _RANGE), _RANGE - 1)

    users = interactions.item_users()
    candidates = np.flatnonzero(
        (of_user < np.uint64(users_below))[interactions.user_index]
        & (users >= MIN_USERS_OF_ITEM)[interactions.item_index]
        & interactions.liked
    )
    user, item = interactions.user_index[candidates], interactions.item_index[candidates]
    of_item = _hashes(interactions.items, key, b"item")
    chosen = candidates[_mixed(of_user[user], of_item[item]) < np.uint64(PAIRS_BELOW)]

    most = int(share * len(interactions))
    if len(chosen) > most:  # active users: end the sample before the user that exceeds the share
        hashes = of_user[interactions.user_index[chosen]]
        users_below = int(np.sort(hashes)[most])
        chosen = chosen[hashes < np.uint64(users_below)]
    if len(np.unique(interactions.user_index[chosen])) < MIN_USERS:
        return nothing
    pairs = nothing.pairs
    pairs[chosen] = True
    return HeldOut(pairs, users_below)


def within(interactions: Interactions, key: UUID, users_below: int, pairs_below: int) -> Mask:
    """Return the pairs within these bounds, whatever the number of the item's users."""
    of_user, of_item = user_hashes(interactions.users, key), _hashes(interactions.items, key, b"item")
    sampled: Mask = (of_user < np.uint64(users_below))[interactions.user_index]
    pairs = np.flatnonzero(sampled)
    mixed = _mixed(of_user[interactions.user_index[pairs]], of_item[interactions.item_index[pairs]])
    sampled[pairs] = mixed < np.uint64(pairs_below)
    return sampled


def user_hashes(users: IdMap, key: UUID) -> NDArray[np.uint64]:
    """Return the hash of each user's id, uniform over 64 bits."""
    return _hashes(users, key, b"user")


def _hashes(ids: IdMap, key: UUID, side: bytes) -> NDArray[np.uint64]:
    """Return the keyed BLAKE2b of each id, equal for equal numbers of any type. Takes about a microsecond each."""
    plain: Any = ids.ids.to_pylist()
    if pa.types.is_integer(ids.ids.type):
        plain = [number.to_bytes(8, "big", signed=True) for number in plain]
    elif pa.types.is_string(ids.ids.type):
        plain = [text.encode() for text in plain]
    hasher = hashlib.blake2b(digest_size=8, key=key.bytes, person=side)
    digests = bytearray()
    for value in plain:
        hashed = hasher.copy()
        hashed.update(value)
        digests += hashed.digest()
    return np.frombuffer(bytes(digests), dtype=">u8").astype(np.uint64)


def _mixed(of_user: NDArray[np.uint64], of_item: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Combine two hashes by the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), modulo 2**64."""
    mixed = of_user + np.uint64(0x9E3779B97F4A7C15) * of_item
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)
