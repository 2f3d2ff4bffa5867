"""What no training sees: the same pairs in every run, few enough, of enough users, and never an item's last ones."""

from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest

from recstore.model.held_out import MIN_USERS_OF_ITEM, PAIRS_BELOW, choose, user_hashes, within
from recstore.model.interactions import IdMap, Interactions

KEY = UUID(int=1)


def interactions_of(pairs, kind=None):
    """Of rows (user, item), numbered in ascending order of the ids."""
    (users, user_index), (items, item_index) = (np.unique(side, return_inverse=True) for side in np.array(pairs).T)
    order = np.lexsort((item_index, user_index))
    return Interactions(
        IdMap(pa.array(users, kind)),
        IdMap(pa.array(items, kind)),
        user_index[order].astype(np.int32),
        item_index[order].astype(np.int32),
        np.ones(len(order)),
    )


def random_pairs(users=2000, items=60, each=12, seed=0):
    random = np.random.default_rng(seed)
    return [(user, item) for user in range(users) for item in random.choice(items, each, replace=False)]


def ids(interactions, pairs):
    chosen = interactions.user_index[pairs], interactions.item_index[pairs]
    return set(
        zip(interactions.users.take(chosen[0]).to_pylist(), interactions.items.take(chosen[1]).to_pylist(), strict=True)
    )


def test_a_fifth_of_a_tenth_of_the_users_pairs():
    interactions = interactions_of(random_pairs())
    held = choose(interactions, KEY, 0.02)
    users, counts = np.unique(interactions.user_index[held.pairs], return_counts=True)
    assert 0.014 < held.pairs.mean() <= 0.02
    assert 0.06 < len(users) / 2000 < 0.11
    assert 1.9 < counts.mean() < 3.1  # of 12 each
    assert (within(interactions, KEY, held.users_below, PAIRS_BELOW) == held.pairs).all()
    stored = held.stored(interactions)
    assert (stored["users"], stored["pairs"]) == (len(users), held.pairs.sum())
    lost = np.bincount(interactions.item_index[held.pairs], minlength=60)
    assert (stored["items"], stored["counts"]) == (np.flatnonzero(lost).tolist(), lost[lost > 0].tolist())


def test_the_same_pairs_whatever_else_comes_or_goes():
    pairs = random_pairs()
    whole, part = interactions_of(pairs), interactions_of([pair for pair in pairs if pair[0] % 3])
    both = ids(whole, choose(whole, KEY, 0.02).pairs), ids(part, choose(part, KEY, 0.02).pairs)
    of_part = {pair for pair in both[0] if pair[0] % 3}
    assert len(of_part) > 100
    assert of_part <= both[1]


def test_more_users_make_the_sample_no_larger_than_the_bounds_say(monkeypatch):
    monkeypatch.setattr("recstore.model.held_out.USERS", 100)
    interactions = interactions_of(random_pairs())
    held = choose(interactions, KEY, 0.02)
    sampled = user_hashes(interactions.users, KEY) < np.uint64(held.users_below)
    assert 60 < sampled.sum() < 140
    assert sampled[interactions.user_index[held.pairs]].all()


def test_heavy_users_do_not_make_it_more_than_its_share():
    hashes = user_hashes(interactions_of([(user, 0) for user in range(2000)]).users, KEY)
    heavy = set(np.argsort(hashes)[:150].tolist())  # all of them in the sample
    pairs = [(user, item) for user in range(2000) for item in range(40 if user in heavy else 10)]
    interactions = interactions_of(pairs)
    held = choose(interactions, KEY, 0.02)
    assert 0 < held.pairs.sum() <= 0.02 * len(pairs)
    sampled = hashes < np.uint64(held.users_below)
    assert set(interactions.user_index[held.pairs].tolist()) == {user for user in heavy if sampled[user]}


def test_an_id_hashes_alike_whatever_its_type():
    pairs = random_pairs(users=600)
    chosen = [
        ids(found, choose(found, KEY, 0.2).pairs)
        for found in map(interactions_of, [pairs] * 3, [pa.int16(), pa.int32(), pa.int64()])
    ]
    assert chosen[0] == chosen[1] == chosen[2] != set()


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(16)])
def test_other_types_of_ids(kind):
    pairs = np.array(random_pairs(users=600))
    named = np.char.zfill(pairs.astype(str), 16)
    interactions = interactions_of(named)
    interactions = Interactions(
        IdMap(interactions.users.ids.cast(kind)), IdMap(interactions.items.ids.cast(kind)),
        interactions.user_index, interactions.item_index, interactions.values,
    )  # fmt: skip
    assert 0.15 < choose(interactions, KEY, 0.2).pairs.mean() <= 0.2


def test_the_hashes_never_change():
    """Every generation's held-out pairs are found by them: with others a gate would compare on pairs that a training saw."""
    interactions = interactions_of([(user, item) for user in (-3, 8, 70_000) for item in range(20)])
    assert user_hashes(interactions.users, KEY).tolist() == [
        3911498520722328509, 15748210480846351039, 7551082832253773941,
    ]  # fmt: skip
    held = np.flatnonzero(within(interactions, KEY, 2**64 - 1, PAIRS_BELOW))
    assert held.tolist() == [0, 3, 8, 9, 18, 19, 25, 28, 29, 31, 34, 36, 37, 39, 47, 58]


def test_another_key_holds_out_others():
    interactions = interactions_of(random_pairs())
    one, other = (choose(interactions, UUID(int=key), 0.02).pairs for key in (1, 2))
    assert (one & other).sum() < 0.2 * one.sum()


def test_an_item_of_few_users_loses_no_pair():
    pairs = random_pairs() + [(user, 1000 + user % 500) for user in range(2000)]
    interactions = interactions_of(pairs)
    held = choose(interactions, KEY, 0.1)
    users = np.bincount(interactions.item_index)
    assert (users < MIN_USERS_OF_ITEM).sum() == 500
    assert users[interactions.item_index[held.pairs]].min() >= MIN_USERS_OF_ITEM


@pytest.mark.parametrize(("users", "share"), [(240, 0.02), (2000, 0.0), (2000, 1e-5)])
def test_nothing_where_too_few_would_be_compared(users, share):
    interactions = interactions_of(random_pairs(users=users))
    held = choose(interactions, KEY, share)
    assert not held
    assert held.stored(interactions) is None
