"""Split interactions into parts to train on and parts to hold out. Pure and seeded.

A search uses three parts: it measures trials on the validation part, trains the winner on everything except the test part
(`Split.refit`), and measures the test part once.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recstore.errors import InvalidInput, SplitImpossible, TimesMissing
from recstore.model.arrays import Mask, Times
from recstore.model.interactions import FOREVER, NO_TIME, IdMap, Interactions

SHARE = 0.2
"""Default share of pairs to hold out by time or by share."""

SEED = 42

MOST_ITEMS = 10
"""Maximum items to hold out per user by default."""

DATED = 0.5
"""Minimum share of pairs with a time for a split by time to be the default."""

By = Literal["time", "user", "share"]
_Pick = Callable[[Interactions], tuple[Mask, str]]
"""Returns a mask of the pairs to hold out and a phrase that describes them."""


@dataclass(frozen=True, eq=False)
class Split:
    """Disjoint parts of the same interactions, with the same id maps, so that an index has the same meaning in each."""

    train: Interactions
    validation: Interactions | None
    test: Interactions
    how: str  # a sentence without full stop
    notes: tuple[str, ...] = ()  # further sentences

    def users(self, held_out: Interactions | None = None) -> NDArray[np.intp]:
        """Return the users to measure, ascending: those with pairs in `held_out` (default: the test part) and in training."""
        held_out = self.test if held_out is None else held_out
        users = len(self.train.users)
        both = [np.bincount(part.user_index, minlength=users) > 0 for part in (self.train, held_out)]
        return np.flatnonzero(both[0] & both[1])

    def refit(self) -> "Split":
        """Return the split with the validation part in training, for the final measurement of the test part."""
        if self.validation is None:
            return self
        return replace(self, train=_joined(self.train, self.validation), validation=None)

    def remarks(self) -> list[str]:
        """Return sentences on the metrics of the test part: `notes`, and users and items that no model could know."""
        parts = [part for part in (self.train, self.validation) if part is not None]
        users = np.isin(np.unique(self.test.user_index), np.concatenate([part.user_index for part in parts]))
        items = np.isin(self.test.item_index, np.concatenate([part.item_index for part in parts]))
        sentences = list(self.notes)
        if strangers := int(np.count_nonzero(~users)):
            sentences.append(
                f"{strangers} of the test part's {len(users)} users have no training pair and are not measured."
            )
        if unfindable := int(np.count_nonzero(~items)):
            of = f"{unfindable} of the {len(self.test)} test pairs are of items without a training pair"
            sentences.append(f"{of}: no model can find them.")
        return sentences


@dataclass(frozen=True)
class SplitChoice:
    """A choice of split. `by` None means by time if most pairs have one, else by user. `share` is that of the pairs, by user
    that of the users; `items` belongs to user. None means their defaults."""

    by: By | None = None
    share: float | None = None
    items: int | None = None
    seed: int = SEED

    def __post_init__(self) -> None:
        if self.by not in (None, "time", "user", "share"):
            raise InvalidInput(f"Interactions cannot be split by {self.by!r}; choose one of: time, user, share.")
        if self.share is not None and not 0 < self.share < 1:
            raise InvalidInput(f"The share to hold out must be between 0 and 1, not {self.share:g}.")
        if self.items is not None and self.items < 1:
            raise InvalidInput(f"The number of items of each user to hold out must be at least 1, not {self.items}.")
        if self.by is None and self.share is not None and self.items is not None:
            raise InvalidInput("Hold out either a share of the pairs or a number of items of each user.")
        if self.by in ("time", "share") and self.items is not None:
            raise InvalidInput(f"A split by {self.by} holds out a share, not a number of items of each user.")

    def as_dict(self) -> dict[str, Any]:
        """Return the choice for JSON. `SplitChoice(**choice)` is the inverse."""
        return asdict(self)


def choose(interactions: Interactions, choice: SplitChoice, *, validation: bool = False) -> Split:
    """Split by `choice`. The test part is the same with and without `validation`. Raises TimesMissing, SplitImpossible."""
    by = choice.by
    if by is None:
        undated: By = "user" if choice.share is None else "share"
        by = undated if choice.items is not None or not _dated(interactions) else "time"
    share = SHARE if choice.share is None else choice.share
    match by:
        case "time":
            return by_time(interactions, share, validation=validation)
        case "user":
            return by_user(interactions, choice.items, choice.seed, share=choice.share, validation=validation)
        case "share":
            return by_share(interactions, share, choice.seed, validation=validation)


def by_time(interactions: Interactions, share: float = SHARE, *, validation: bool = False) -> Split:
    """Hold out the newest `share` of the pairs as the test part, and of the rest as the validation part.

    Pairs of the same time stay together, since they would reveal each other. The cut between two times is the one closest to
    `share` (the smaller of two equally close). Pairs without a time are older than all others, so they are trained on. The
    time of a pair is that of its newest interaction, so a pair with interactions on both sides of the cut is held out whole.

    Raises TimesMissing, and SplitImpossible if all pairs have the same time.
    """
    times = interactions.times
    if times is None or not (times != NO_TIME).any():
        raise TimesMissing()

    undated = int(np.count_nonzero(times == NO_TIME))
    notes = (f"{undated} of {len(times)} pairs have no time and count as the oldest.",) if undated else ()
    return _split(interactions, _newest(interactions, share), "time", validation, notes)


def by_user(
    interactions: Interactions,
    items: int | None = None,
    seed: int = SEED,
    *,
    share: float | None = None,
    validation: bool = False,
) -> Split:
    """Hold out `items` random items of each user with at least twice as many as the test part, and of each user who still has
    twice as many as the validation part. Other users are only trained on. With `share`, each part is of a random share of
    the users with enough items.

    The default is a fifth of the median number of items, of users with at least two, between 1 and MOST_ITEMS. Raises
    SplitImpossible if no user has enough items.
    """
    random = np.random.default_rng(seed)
    if items is None:
        counts = np.bincount(interactions.user_index)
        counts = counts[counts >= 2]
        items = int(np.clip(np.median(counts) // 5, 1, MOST_ITEMS)) if len(counts) else 1

    def some_of_each(part: Interactions) -> tuple[Mask, str]:
        counts = np.bincount(part.user_index, minlength=len(part.users))
        enough = counts >= 2 * items
        if not enough.any():
            reason = f"no user has {2 * items} items{' left' if part is not interactions else ''}"
            remedy = "Hold out fewer items of each user." if items > 1 else "Split by share."
            raise SplitImpossible(how="by user", reason=reason, remedy=remedy)
        of = f"each of the {np.count_nonzero(enough)} users"
        if share is not None:
            able = np.flatnonzero(enough)
            chosen = random.permutation(able)[: max(1, round(share * len(able)))]
            enough = np.isin(np.arange(len(counts)), chosen)
            of = f"each of {len(chosen)} of the {len(able)} users"
        # pairs are sorted by user: within each user, take the first ones of a random order
        order = np.argsort(part.user_index * np.int64(len(part)) + random.permutation(len(part)))
        place = np.arange(len(part)) - np.repeat(np.cumsum(counts) - counts, counts)
        mask = np.zeros(len(part), dtype=np.bool_)
        mask[order[(place < items) & enough[part.user_index]]] = True
        plural = "items" if items > 1 else "item"
        return mask, f"{items} {plural} of {of} with at least {2 * items} {{left}}are {{held}}"

    return _split(interactions, some_of_each, "user", validation)


def by_share(interactions: Interactions, share: float = SHARE, seed: int = SEED, *, validation: bool = False) -> Split:
    """Hold out a random `share` of the pairs as the test part, and of the rest as the validation part, at least one pair each.
    Raises SplitImpossible for a single pair."""
    return _split(interactions, _random_share(interactions, share, seed), "share", validation)


def given(
    train: Interactions,
    test: Interactions,
    seed: int = SEED,
    *,
    validation: bool = False,
    when: Times | None = None,
) -> Split:
    """Return two sets of interactions as one split, with id maps for the ids of both.

    The validation part is a part of `train`, with the same share as the test part has of both (at most half): the newest
    pairs if the test part is newer than the training pairs, by its times or by `when`, else random ones. Pairs that are in
    both sets are dropped from the test part, with their number in `notes`.

    Raises InvalidInput for ids of different types, SplitImpossible if no test pair is left.
    """
    users, items = _merged(train.users, test.users, "user"), _merged(train.items, test.items, "item")
    train, test = (_mapped(part, users, items) for part in (train, test))
    seen = np.isin(_keys(test), _keys(train))
    notes: tuple[str, ...] = ()
    if seen.any():
        notes = (f"{np.count_nonzero(seen)} of {len(test)} test pairs are also training pairs and were dropped.",)
        test = test.part(~seen)
    if not len(test):
        reason = "every test pair is also a training pair"
        raise SplitImpossible(how="as given", reason=reason, remedy="Provide other test pairs.")
    how = f"given: {len(test)} pairs are held out"
    if not validation:
        return Split(train, None, test, how, notes)
    share = min(0.5, len(test) / (len(train) + len(test)))
    newer = _newer(test.times if when is None else when, train, share)
    mask, phrase = (_newest(train, share) if newer else _random_share(train, share, seed))(train)
    how += "; " + phrase.format(what="the others", held="the validation part")
    return Split(train.part(~mask), train.part(mask), test, how, notes)


def without(interactions: Interactions, others: Interactions) -> Interactions:
    """Return the part of the interactions whose pairs are not among the others, which may have other id maps."""
    return interactions.part(~_among(interactions, others))


def common(interactions: Interactions, others: Interactions) -> Interactions:
    """Return the rest: the part whose pairs are among the others, with its own values."""
    return interactions.part(_among(interactions, others))


def _among(interactions: Interactions, others: Interactions) -> Mask:
    users, items = _merged(interactions.users, others.users, "user"), _merged(interactions.items, others.items, "item")
    own, taken = (_keys(_mapped(part, users, items)) for part in (interactions, others))
    return np.isin(own, taken)


def _split(interactions: Interactions, pick: _Pick, by: By, validation: bool, notes: tuple[str, ...] = ()) -> Split:
    """Hold out the test part and then, by the same rule, the validation part from the rest."""
    mask, phrase = pick(interactions)
    how = f"by {by}: " + phrase.format(what="the pairs", left="", held="held out")
    test, train = interactions.part(mask), interactions.part(~mask)
    if not validation:
        return Split(train, None, test, how, notes)
    mask, phrase = pick(train)
    how += "; " + phrase.format(what="the others", left="left ", held="the validation part")
    return Split(train.part(~mask), train.part(mask), test, how, notes)


def _newest(interactions: Interactions, share: float) -> _Pick:
    def newest(part: Interactions) -> tuple[Mask, str]:
        assert part.times is not None
        moments, pairs = np.unique(part.times, return_counts=True)
        if len(moments) < 2:
            reason = f"all {len(part)} pairs {'that are left ' if part is not interactions else ''}have the same time"
            raise SplitImpossible(how="by time", reason=reason, remedy="Split by user or by share.")
        since = np.cumsum(pairs[::-1])[:-1]  # pairs of the newest moment, of the two newest, and so on
        chosen = moments[-1 - np.argmin(np.abs(since - share * len(part)))]
        mask = part.times >= chosen
        return mask, f"the newest {_percent(mask)} of {{what}}, since {_written(chosen)}, are {{held}}"

    return newest


def _newer(times: Times | None, train: Interactions, share: float) -> bool:
    """Return whether most test pairs are newer than what a share of the newest training pairs begins with."""
    if times is None or not len(times) or not _dated(train) or train.times is None:
        return False
    return bool(train.times.min() < train.times.max() and np.median(times) > np.quantile(train.times, 1 - share))


def _random_share(interactions: Interactions, share: float, seed: int) -> _Pick:
    random = np.random.default_rng(seed)

    def some(part: Interactions) -> tuple[Mask, str]:
        if len(part) < 2:
            reason = f"there is only one pair{' left' if part is not interactions else ''}"
            raise SplitImpossible(how="by share", reason=reason, remedy="Provide more interactions.")
        mask = random.permutation(len(part)) < np.clip(round(share * len(part)), 1, len(part) - 1)
        return mask, f"at random {_percent(mask)} of {{what}} are {{held}}"

    return some


def _dated(interactions: Interactions) -> bool:
    times = interactions.times
    return times is not None and bool(np.count_nonzero(times != NO_TIME) >= DATED * len(times))


def _percent(mask: Mask) -> str:
    return _percent_of(int(mask.sum()), len(mask))


def _percent_of(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g} %"


def _written(microseconds: np.int64) -> str:
    """Return the time in UTC, of any year, without trailing zeros; for midnight the date only."""
    if microseconds == FOREVER:
        return "infinity"
    text = str(np.datetime_as_string(np.datetime64(int(microseconds), "us"))).replace("T", " ")
    return text.removesuffix(".000000").removesuffix(":00").removesuffix(" 00:00")


def _keys(interactions: Interactions) -> Times:
    """Return one number per pair, in ascending order."""
    return interactions.user_index.astype(np.int64) * len(interactions.items) + interactions.item_index


def _joined(one: Interactions, other: Interactions) -> Interactions:
    """Return the pairs of two disjoint parts with the same id maps."""
    order = np.argsort(np.concatenate((_keys(one), _keys(other))), kind="stable")

    def both(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate((a, b))[order]

    times = None if one.times is None or other.times is None else both(one.times, other.times)
    user_index, item_index = both(one.user_index, other.user_index), both(one.item_index, other.item_index)
    values = both(one.values, other.values)
    return replace(one, user_index=user_index, item_index=item_index, values=values, times=times)


def _merged(one: IdMap, other: IdMap, side: str) -> IdMap:
    """Return the ids of both, with the wider type of two integer types."""
    types = [ids.ids.type for ids in (one, other)]
    kind = types[0]
    if types[0] != types[1]:
        if not all(map(pa.types.is_integer, types)):
            raise InvalidInput(
                f"The {side} ids have type {types[0]} in the training pairs, {types[1]} in the test pairs."
            )
        kind = max(types, key=lambda integer: integer.bit_width)
    ids = pc.unique(pa.concat_arrays([one.ids.cast(kind), other.ids.cast(kind)]))
    return IdMap(ids.take(pc.sort_indices(ids)))


def _mapped(part: Interactions, users: IdMap, items: IdMap) -> Interactions:
    """Return the same pairs, in the same order, with larger id maps."""
    user_index = users.lookup(part.users.ids)[part.user_index]
    item_index = items.lookup(part.items.ids)[part.item_index]
    return replace(part, users=users, items=items, user_index=user_index, item_index=item_index)
