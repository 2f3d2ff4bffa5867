"""From interactions to what is trained on and what is held out. Pure, and seeded.

Three parts where something is chosen: trials are measured on the validation part only; then the winner is trained on all but
the test part (`Split.refit`), and the test part is measured, once.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from recstore.errors import InvalidInput, SplitImpossible, TimesMissing
from recstore.model.interactions import NO_TIME, IdMap, Index, Interactions, Times

SHARE = 0.2
"""Of the pairs, held out by time and by share."""

SEED = 42

MOST_ITEMS = 10
"""Held out of a user by default: enough to measure one by."""

DATED = 0.5
"""Least share of pairs with a time for a split by time to be the default."""

By = Literal["time", "user", "share"]
Mask = NDArray[np.bool_]
_Pick = Callable[[Interactions], tuple[Mask, str]]
"""Marks the pairs to hold out, and says which they are."""


@dataclass(frozen=True, eq=False)
class Split:
    """Disjoint parts of the same interactions; all have the same id maps, so an index means the same in each."""

    train: Interactions
    validation: Interactions | None
    test: Interactions
    how: str  # a sentence, without its full stop
    notes: tuple[str, ...] = ()  # sentences: what else there is to know of it

    def users(self, held_out: Interactions | None = None) -> NDArray[np.intp]:
        """The users to be measured, ascending: those with a pair in `held_out` (default: the test part) and one in the
        training part, without which no model knows anything of them."""
        held_out = self.test if held_out is None else held_out
        users = len(self.train.users)
        both = [np.bincount(part.user_index, minlength=users) > 0 for part in (self.train, held_out)]
        return np.flatnonzero(both[0] & both[1])

    def refit(self) -> "Split":
        """The same test part, with the validation part back in training: for the one measurement at the end."""
        if self.validation is None:
            return self
        return replace(self, train=_joined(self.train, self.validation), validation=None)

    def remarks(self) -> list[str]:
        """Sentences about what a reader of the test part's metrics should know: `notes`, and what no model could find even
        after the `refit`."""
        learned = [part for part in (self.train, self.validation) if part is not None]
        users, items = np.zeros(len(self.test.users), np.bool_), np.zeros(len(self.test.items), np.bool_)
        for part in learned:
            users[part.user_index] = True
            items[part.item_index] = True
        tested = np.unique(self.test.user_index)
        sentences = list(self.notes)
        if strangers := int(np.count_nonzero(~users[tested])):
            sentences.append(
                f"{strangers} of the test part's {len(tested)} users have no training pair and are not measured."
            )
        if unfindable := int(np.count_nonzero(~items[self.test.item_index])):
            sentences.append(
                f"{unfindable} of the {len(self.test)} test pairs are of items without a training pair: no model can find"
                " them."
            )
        return sentences


@dataclass(frozen=True)
class SplitChoice:
    """How interactions are to be split, as a person says it. `by` None: by time where most pairs have one, else by user.
    `share` goes with time and share, `items` with user; unset: their defaults."""

    by: By | None = None
    share: float | None = None
    items: int | None = None
    seed: int = SEED

    def __post_init__(self) -> None:
        if self.by not in (None, "time", "user", "share"):
            raise InvalidInput(f"Interactions can not be split by {self.by!r}; choose one of: time, user, share.")
        if self.share is not None and not 0 < self.share < 1:
            raise InvalidInput(f"The share to hold out must be between 0 and 1, not {self.share:g}.")
        if self.items is not None and self.items < 1:
            raise InvalidInput(f"The number of items of each user to hold out must be at least 1, not {self.items}.")
        if self.share is not None and self.items is not None:
            raise InvalidInput("Hold out either a share of the pairs or a number of items of each user.")
        if self.by == "user" and self.share is not None:
            raise InvalidInput("A split by user holds out a number of items of each user, not a share.")
        if self.by in ("time", "share") and self.items is not None:
            raise InvalidInput(f"A split by {self.by} holds out a share, not a number of items of each user.")

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; `SplitChoice(**..)` gives it back."""
        return asdict(self)


def choose(interactions: Interactions, choice: SplitChoice, *, validation: bool = False) -> Split:
    """Splits as `choice` says; the test part is the same with and without `validation`. Raises TimesMissing,
    SplitImpossible."""
    by = choice.by
    if by is None and choice.share is None:
        by = "user" if choice.items is not None or not _dated(interactions) else "time"
    elif by is None:
        by = "time" if _dated(interactions) else "share"
    share = SHARE if choice.share is None else choice.share
    match by:
        case "time":
            return by_time(interactions, share, validation=validation)
        case "user":
            return by_user(interactions, choice.items, choice.seed, validation=validation)
        case "share":
            return by_share(interactions, share, choice.seed, validation=validation)


def default(interactions: Interactions, seed: int = SEED, *, validation: bool = False) -> Split:
    """By time where at least half of the pairs have one, else by user."""
    return choose(interactions, SplitChoice(seed=seed), validation=validation)


def by_time(interactions: Interactions, share: float = SHARE, *, validation: bool = False) -> Split:
    """The newest `share` of the pairs is the test part, and the newest `share` of the rest the validation part.

    Pairs of the same time stay together, since what was viewed at once would give itself away: the cut lies between two
    times, where the share comes nearest to the one wanted (of two as near, the smaller). A pair without a time counts as
    older than any, so it is trained on. The time of a pair is that of its newest interaction: a pair that was interacted
    with before the cut and after it is held out with its whole value, so training sees nothing of it.

    Raises TimesMissing, and SplitImpossible where all pairs have the same time.
    """
    times = interactions.times
    if times is None or not (times != NO_TIME).any():
        raise TimesMissing()

    def newest(part: Interactions) -> tuple[Mask, str]:
        assert part.times is not None
        moments, pairs = np.unique(part.times, return_counts=True)
        if len(moments) < 2:
            raise SplitImpossible(
                how="by time",
                reason=f"all {len(part)} pairs {'that are left ' if part is not interactions else ''}have the same time",
                remedy="Split by user or by share.",
            )
        since = np.cumsum(pairs[::-1])[:-1]  # pairs of the newest moment, of the two newest, ..
        chosen = moments[-1 - np.argmin(np.abs(since - share * len(part)))]
        mask = part.times >= chosen
        return mask, f"the newest {_percent(mask)} of {{what}}, since {_written(chosen)}, are {{held}}"

    undated = int(np.count_nonzero(times == NO_TIME))
    notes = (f"{undated} of {len(times)} pairs have no time and count as the oldest.",) if undated else ()
    return _split(interactions, newest, "time", validation, notes)


def by_user(
    interactions: Interactions, items: int | None = None, seed: int = SEED, *, validation: bool = False
) -> Split:
    """`items` random ones of each user who has at least twice as many are the test part, and as many of each user who
    still has twice as many the validation part; other users are trained on only.

    `items` None is a fifth of the median number of items of the users with at least two, between 1 and MOST_ITEMS: for
    the median user a split by a share of 0.2, and most users have enough. Raises SplitImpossible where no user has.
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
            raise SplitImpossible(
                how="by user",
                reason=f"no user has {2 * items} items{' left' if part is not interactions else ''}",
                remedy="Hold out fewer items of each user." if items > 1 else "Split by share.",
            )
        # pairs lie together by user: within each stretch in random order, the first ones
        order = np.argsort(part.user_index * np.int64(len(part)) + random.permutation(len(part)))
        place = np.arange(len(part)) - np.repeat(np.cumsum(counts) - counts, counts)
        mask = np.zeros(len(part), dtype=np.bool_)
        mask[order[(place < items) & enough[part.user_index]]] = True
        plural = "items" if items > 1 else "item"
        phrase = (
            f"{items} {plural} of each of the {np.count_nonzero(enough)} users with at least {2 * items} {{left}}are"
        )
        return mask, phrase + " {held}"

    return _split(interactions, some_of_each, "user", validation)


def by_share(interactions: Interactions, share: float = SHARE, seed: int = SEED, *, validation: bool = False) -> Split:
    """A random `share` of the pairs is the test part, and the same share of the rest the validation part, at least one
    pair each. Raises SplitImpossible where there are too few pairs."""
    return _split(interactions, _random_share(interactions, share, seed), "share", validation)


def given(train: Interactions, test: Interactions, seed: int = SEED, *, validation: bool = False) -> Split:
    """Two sets of interactions, read apart, as one split: with id maps that hold the ids of both. The validation part is a
    random part of `train`, in proportion as large as the test part is of both (at most half).

    Pairs that are in both sets stay in the training part and are dropped from the test part, which `notes` tells with
    their number. Times are kept where both sets have them. Raises InvalidInput where the ids are of different kinds,
    SplitImpossible where no test pair is left.
    """
    users, items = _merged(train.users, test.users, "user"), _merged(train.items, test.items, "item")
    train, test = (_mapped(part, users, items) for part in (train, test))
    if train.times is None or test.times is None:
        train, test = replace(train, times=None), replace(test, times=None)
    seen = np.isin(_keys(test), _keys(train))
    notes: tuple[str, ...] = ()
    if seen.any():
        notes = (f"{np.count_nonzero(seen)} of {len(test)} test pairs are training pairs too and were dropped.",)
        test = test.part(~seen)
    if not len(test):
        raise SplitImpossible(
            how="as given", reason="every test pair is a training pair too", remedy="Give other test pairs."
        )
    how = f"given: {len(test)} pairs are held out"
    if not validation:
        return Split(train, None, test, how, notes)
    share = min(0.5, len(test) / (len(train) + len(test)))
    inner = _split(train, _random_share(train, share, seed), "share", False)
    how += f"; at random {_percent_of(len(inner.test), len(train))} of the others are the validation part"
    return Split(inner.train, inner.test, test, how, notes)


def count_matrix(interactions: Interactions) -> sparse.csr_matrix:
    """The values as they are, float64 CSR, users x items, indices sorted: what a metric takes for a part."""
    shape = len(interactions.users), len(interactions.items)
    pointers = np.concatenate(([0], np.cumsum(np.bincount(interactions.user_index, minlength=shape[0]))))
    return sparse.csr_matrix((interactions.values, interactions.item_index, pointers), shape=shape)


def _split(interactions: Interactions, pick: _Pick, by: By, validation: bool, notes: tuple[str, ...] = ()) -> Split:
    """Holds out the test part, then, by the same rule, the validation part from what is left."""
    mask, phrase = pick(interactions)
    how = f"by {by}: " + phrase.format(what="the pairs", left="", held="held out")
    test, train = interactions.part(mask), interactions.part(~mask)
    if not validation:
        return Split(train, None, test, how, notes)
    mask, phrase = pick(train)
    how += "; " + phrase.format(what="the others", left="left ", held="the validation part")
    return Split(train.part(~mask), train.part(mask), test, how, notes)


def _random_share(interactions: Interactions, share: float, seed: int) -> _Pick:
    random = np.random.default_rng(seed)

    def some(part: Interactions) -> tuple[Mask, str]:
        if len(part) < 2:
            raise SplitImpossible(
                how="by share",
                reason=f"there is only one pair{' left' if part is not interactions else ''}",
                remedy="Give more interactions.",
            )
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
    """The time in UTC, of any year, as precise as it is; the date alone for midnight."""
    text = str(np.datetime_as_string(np.datetime64(int(microseconds), "us"))).replace("T", " ")
    return text.removesuffix(".000000").removesuffix(":00").removesuffix(" 00:00")


def _keys(interactions: Interactions) -> Times:
    """One number for each pair, ascending as the pairs are."""
    return interactions.user_index.astype(np.int64) * len(interactions.items) + interactions.item_index


def _joined(one: Interactions, other: Interactions) -> Interactions:
    """The pairs of two disjoint parts with the same id maps."""
    order = np.argsort(np.concatenate((_keys(one), _keys(other))), kind="stable")

    def both(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate((a, b))[order]

    times = None if one.times is None or other.times is None else both(one.times, other.times)
    return Interactions(
        one.users,
        one.items,
        both(one.user_index, other.user_index),
        both(one.item_index, other.item_index),
        both(one.values, other.values),
        times,
    )


def _merged(one: IdMap, other: IdMap, side: str) -> IdMap:
    """The ids of both, of the wider type if both are integers."""
    types = [ids.ids.type for ids in (one, other)]
    kind = types[0]
    if types[0] != types[1]:
        if not all(map(pa.types.is_integer, types)):
            raise InvalidInput(
                f"The {side} ids of the training pairs are of the type {types[0]}, of the test {types[1]}."
            )
        kind = max(types, key=lambda integer: integer.bit_width)
    ids = pc.unique(pa.concat_arrays([one.ids.cast(kind), other.ids.cast(kind)]))
    return IdMap(ids.take(pc.sort_indices(ids)))


def _mapped(part: Interactions, users: IdMap, items: IdMap) -> Interactions:
    """The same pairs in larger id maps; their order stays, since both maps ascend."""

    def index(old: IdMap, new: IdMap, of: Index) -> Index:
        return new.lookup(old.ids)[of]

    return replace(
        part,
        users=users,
        items=items,
        user_index=index(part.users, users, part.user_index),
        item_index=index(part.items, items, part.item_index),
    )
