import json
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_interactions import batch, build

from recstore.errors import InvalidInput, SplitImpossible, TimesMissing
from recstore.evaluation import splits
from recstore.evaluation.splits import SplitChoice, by_share, by_time, by_user, choose
from recstore.model.interactions import NO_TIME, InteractionsBuilder
from recstore.types import IdType

DAY = 24 * 3600 * 10**6


def dated(rows):
    """Interactions of (user, item, value, microseconds since 1970 or None)."""
    builder = InteractionsBuilder(IdType.BIGINT, IdType.BIGINT, "sum", 0.0, "retail", with_times=True)
    builder.add(batch(rows, with_times=True))
    return builder.build()[0]


def pairs(part):
    return list(
        zip(part.users.take(part.user_index).to_pylist(), part.items.take(part.item_index).to_pylist(), strict=True)
    )


def rows_of(part):
    times = part.times.tolist() if part.times is not None else [None] * len(part)
    return list(zip(pairs(part), part.values.tolist(), times, strict=True))


def assert_remarks(remarks, *beginnings):
    assert len(remarks) == len(beginnings)
    assert all(remark.startswith(beginning) for remark, beginning in zip(remarks, beginnings, strict=True))


def each_with(items, users=3):
    """Every user viewed items 0 .. `items` - 1."""
    return build(batch([(user, item, 1.0) for user in range(users) for item in range(items)]))[0]


def test_the_newest_pairs_are_held_out_and_the_newest_before_them_validate():
    interactions = dated([(user, item, 1.0, (10 * item + user) * DAY) for user in range(2) for item in range(5)])
    split = by_time(interactions, 0.2, validation=True)
    assert pairs(split.test) == [(0, 4), (1, 4)]
    assert pairs(split.validation) == [(0, 3), (1, 3)]
    assert len(split.train) == 6
    held_out = "by time: the newest 20 % of the pairs, since 1970-02-10, are held out"
    assert split.how == f"{held_out}; the newest 25 % of the others, since 1970-01-31, are the validation part"
    assert by_time(interactions, 0.2).how == held_out


@pytest.mark.parametrize(
    ("share", "held_out"),
    [(0.01, [3]), (0.3, [3]), (0.35, [3]), (0.5, [3]), (0.51, [1, 2, 3]), (0.74, [1, 2, 3]), (0.99, [1, 2, 3])],
)
def test_pairs_of_the_same_time_stay_together_at_the_cut_that_is_nearest(share, held_out):
    """Times of 4 pairs: 1, 2, 2, 3; so a quarter or three quarters can be cut off."""
    split = by_time(dated([(1, item, 1.0, (1, 2, 2, 3)[item] * DAY) for item in range(4)]), share)
    assert [item for _, item in pairs(split.test)] == held_out


def test_pairs_without_a_time_are_the_oldest():
    interactions = dated([(1, 1, 1.0, None), (1, 2, 1.0, 3 * DAY), (2, 1, 1.0, None), (2, 2, 1.0, -9 * DAY)])
    split = by_time(interactions, 0.25)
    assert pairs(split.test) == [(1, 2)]
    assert_remarks(split.notes, "2 of 4 pairs have no time")
    assert by_time(interactions, 0.25, validation=True).notes == split.notes
    assert pairs(by_time(interactions, 0.9).test) == [(1, 2), (2, 2)]
    assert "since 1969-12-23," in by_time(interactions, 0.9).how


def test_the_time_of_a_pair_is_that_of_its_newest_row_and_its_whole_value_is_held_out():
    interactions = dated([(1, 1, 5.0, DAY), (1, 2, 1.0, 2 * DAY), (1, 3, 1.0, 3 * DAY), (1, 1, 1.0, 4 * DAY)])
    assert rows_of(by_time(interactions).test) == [((1, 1), 6.0, 4 * DAY)]


@pytest.mark.parametrize(
    ("microseconds", "written"),
    [
        (0, "1970-01-01"),
        (60 * 10**6, "1970-01-01 00:01"),
        (1, "1970-01-01 00:00:00.000001"),
        (10**6, "1970-01-01 00:00:01"),
    ],
)
def test_a_time_is_written_as_precisely_as_it_is(microseconds, written):
    split = by_time(dated([(1, 1, 1.0, -DAY), (1, 2, 1.0, microseconds)]))
    assert f"since {written}, are" in split.how


def test_interactions_without_times_cannot_be_split_by_time():
    for interactions in (each_with(5), dated([(1, 1, 1.0, None), (1, 2, 1.0, None)])):
        with pytest.raises(TimesMissing, match="--last-at"):
            by_time(interactions)
        with pytest.raises(TimesMissing):
            choose(interactions, SplitChoice("time"))


ONE_TIME = [(1, item, 1.0, DAY) for item in range(3)]
TWO_TIMES = [(1, item, 1.0, (item == 3) * DAY) for item in range(4)]


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (lambda: by_time(dated(ONE_TIME)), "all 3 pairs have"),
        (lambda: by_time(dated(TWO_TIMES), validation=True), "all 3 pairs that are left"),
        (lambda: by_user(each_with(5), 3), "no user has 6 items. Hold out fewer items"),
        (lambda: by_user(each_with(1)), "no user has 2 items. Split by share"),
        (lambda: by_user(each_with(5), 2, validation=True), "no user has 4 items left. Hold out fewer items"),
        (lambda: by_share(each_with(1, users=1)), "only one pair. "),
        (lambda: by_share(each_with(2, users=1), validation=True), "only one pair left"),
        (lambda: splits.given(each_with(1), each_with(1)), "every test pair"),
    ],
)
def test_a_split_that_would_leave_a_part_empty_is_refused(refused, words):
    with pytest.raises(SplitImpossible, match=re.escape(words)):
        refused()


def test_k_items_of_each_user_with_at_least_twice_as_many():
    interactions, _ = build(batch([(user, item, 1.0) for user in range(1, 10) for item in range(user)]))
    split = by_user(interactions, 2, validation=True)
    assert np.bincount(split.test.user_index, minlength=9).tolist() == [0, 0, 0, 2, 2, 2, 2, 2, 2]
    assert np.bincount(split.validation.user_index, minlength=9).tolist() == [0, 0, 0, 0, 0, 2, 2, 2, 2]
    assert split.how == (
        "by user: 2 items of each of the 6 users with at least 4 are held out; 2 items of each of the 4 users with at least 4"
        " left are the validation part"
    )


def test_items_of_a_share_of_the_users_are_held_out():
    interactions, _ = build(batch([(user, item, 1.0) for user in range(40) for item in range(12 if user < 30 else 3)]))
    split = by_user(interactions, 2, share=0.2, validation=True)
    for part in (split.test, split.validation):
        assert (
            np.unique(np.bincount(part.user_index), return_counts=True)[1][-1] == len(np.unique(part.user_index)) == 6
        )
        assert part.user_index.max() < 30
    assert set(split.test.user_index) != set(split.validation.user_index)
    assert split.how.startswith("by user: 2 items of each of 6 of the 30 users with at least 4 are held out; 2 items")
    assert pairs(by_user(interactions, 2, share=0.2).test) == pairs(split.test)


@pytest.mark.parametrize(("items", "held_out"), [(2, 1), (5, 1), (9, 1), (10, 2), (30, 6), (200, 10)])
def test_by_default_a_fifth_of_the_median_is_held_out(items, held_out):
    split = by_user(each_with(items))
    assert np.bincount(split.test.user_index).tolist() == [held_out] * 3


def test_users_of_one_item_do_not_count_for_the_median():
    few = [(user, 0, 1.0) for user in range(100, 150)]
    interactions, _ = build(batch([(user, item, 1.0) for user in range(3) for item in range(20)] + few))
    assert len(by_user(interactions).test) == 3 * 4
    of_two = [(user, item, 1.0) for user in range(10, 15) for item in range(2)]  # these do
    interactions, _ = build(batch([(user, item, 1.0) for user in range(3) for item in range(20)] + of_two))
    assert len(by_user(interactions).test) == 3 + 5


def test_any_item_of_a_user_is_held_out_as_often_as_any_other():
    interactions = each_with(5, users=2)
    times = np.zeros(10)
    for seed in range(400):
        test = by_user(interactions, 2, seed).test
        times[test.user_index * 5 + test.item_index] += 1
    assert np.abs(times - 160).max() < 5 * np.sqrt(400 * 0.4 * 0.6)


def test_a_random_share_is_held_out():
    split = by_share(each_with(10, users=10), 0.2, validation=True)
    assert (len(split.train), len(split.validation), len(split.test)) == (64, 16, 20)
    assert split.how.startswith("by share")
    assert split.how.count("20 %") == 2


def test_a_share_is_at_least_one_pair_and_never_all():
    assert len(by_share(each_with(3, users=1), 0.01).test) == 1
    assert len(by_share(each_with(3, users=1), 0.99).test) == 2


def test_two_sets_become_one_split_with_common_ids():
    train, _ = build(batch([(1, 10, 2.0), (1, 20, 1.0), (3, 10, 4.0)], pa.int64(), pa.int64()))
    test, _ = build(
        batch([(2, 20, 1.0), (1, 30, 7.0), (1, 20, 5.0)], pa.int16(), pa.int64()), user_type=IdType.SMALLINT
    )
    split = splits.given(train, test)
    assert rows_of(split.train) == rows_of(train)
    assert rows_of(split.test) == [((1, 30), 7.0, None), ((2, 20), 1.0, None)]
    assert split.train.users is split.test.users
    assert split.train.users.ids.equals(pa.array([1, 2, 3], pa.int64()))
    assert split.train.items.ids.to_pylist() == [10, 20, 30]
    assert [note[:6] for note in split.notes] == ["1 of 3"]
    assert_remarks(split.remarks(), "1 of 3 test pairs", "1 of the test part's 2 users", "1 of the 2 test pairs")
    assert split.users().tolist() == [0]


def test_given_sets_keep_their_times():
    old, new = dated([(1, 1, 1.0, DAY), (1, 2, 1.0, None)]), dated([(1, 3, 1.0, 2 * DAY)])
    split = splits.given(old, new)
    assert (split.train.times.tolist(), split.test.times.tolist()) == ([DAY, NO_TIME], [2 * DAY])
    undated, _ = build(batch([(1, 3, 1.0)]))
    assert splits.given(old, undated).train.times.tolist() == [DAY, NO_TIME]
    assert splits.given(undated, old).train.times is None


def test_the_validation_part_of_given_sets_is_in_proportion_to_the_test_part():
    whole = each_with(10, users=10)
    late = np.arange(100) % 10 >= 8
    split = splits.given(whole.subset(~late), whole.subset(late), validation=True)
    assert (len(split.train), len(split.validation), len(split.test)) == (64, 16, 20)
    again = splits.given(whole.subset(~late), whole.subset(late), validation=True)
    assert pairs(again.validation) == pairs(split.validation)
    assert split.how.startswith("given: 20 pairs are held out; at random 20 %")
    alone = splits.given(whole.subset(~late), whole.subset(late))
    assert (alone.how, alone.notes) == ("given: 20 pairs are held out", ())
    assert split.notes == ()
    assert len(splits.given(whole.subset(~late), whole, validation=True).notes) == 1
    assert splits.given(whole.subset(late), whole.subset(~late), validation=True).how.count("50 %") == 1


def test_the_validation_part_of_newer_test_pairs_are_the_newest_training_pairs():
    rows = [(user, item, 1.0, (10 * item + user) * DAY) for user in range(10) for item in range(10)]
    train, newer = (dated([row for row in rows if (row[1] >= 8) is late]) for late in (False, True))
    split = splits.given(train, newer, validation=True)
    assert split.how.endswith("; the newest 20 % of the others, since 1970-03-06, are the validation part")
    assert {item for _, item in pairs(split.validation)} == {6, 7}
    undated, _ = build(batch([row[:3] for row in rows if row[1] >= 8]))
    assert "at random" in splits.given(train, undated, validation=True).how
    assert splits.given(train, undated, validation=True, when=newer.times).how == split.how

    among, others = (dated([row for row in rows if (row[0] >= 8) is late]) for late in (True, False))
    assert "at random" in splits.given(others, among, validation=True).how  # as old as the training pairs
    at_once = dated([(user, 1, 1.0, DAY) for user in range(10)])
    assert "at random" in splits.given(at_once, newer, validation=True).how
    assert "at random" in splits.given(train, undated, validation=True, when=newer.times[:0]).how


def test_given_sets_of_other_id_types_are_refused():
    texts, _ = build(batch([(1, "1", 1.0)], item_type=pa.string()), item_type=IdType.TEXT)
    with pytest.raises(InvalidInput, match=r"item ids have type int64 .*, string"):
        splits.given(each_with(1), texts)


def test_the_default_is_by_time_where_most_pairs_have_one():
    half = [(user, item, 1.0, item * DAY if item % 2 else None) for user in range(3) for item in range(10)]
    less = [(*row[:3], None) if row[1] == 1 else row for row in half]
    for interactions, by in ((dated(half), "by time"), (dated(less), "by user"), (each_with(10), "by user")):
        assert choose(interactions, SplitChoice()).how.startswith(by)


@pytest.mark.parametrize(
    ("choice", "with_times", "how"),
    [
        (SplitChoice("time", share=0.1), True, "by time: the newest 10 %"),
        (SplitChoice("user", items=3), True, "by user: 3 items"),
        (SplitChoice("user", items=1), True, "by user: 1 item "),
        (SplitChoice("user", share=0.5, items=1), True, "by user: 1 item of each of 1 of the 2 users"),
        (SplitChoice("share", share=0.5), True, "by share: at random 50 %"),
        (SplitChoice(share=0.5), True, "by time: the newest 50 %"),
        (SplitChoice(share=0.5), False, "by share: at random 50 %"),
        (SplitChoice(items=3), True, "by user: 3 items"),
        (SplitChoice(), False, "by user: 2 items"),
    ],
)
def test_a_choice(choice, with_times, how):
    rows = [(user, item, 1.0, item * DAY) for user in range(2) for item in range(10)]
    interactions = dated(rows) if with_times else build(batch([row[:3] for row in rows]))[0]
    assert choose(interactions, choice).how.startswith(how)
    assert SplitChoice(**json.loads(json.dumps(choice.as_dict()))) == choice


@pytest.mark.parametrize("validation", [False, True])
def test_the_seed_of_a_choice_and_its_validation_part(validation):
    interactions = dated([(user, item, 1.0, item * DAY) for user in range(5) for item in range(10)])
    for by in ("time", "user", "share"):
        split, same, other = (
            choose(interactions, SplitChoice(by, seed=seed), validation=validation) for seed in (7, 7, 8)
        )
        assert (split.validation is not None) == validation
        assert pairs(split.test) == pairs(same.test)
        assert (pairs(split.test) == pairs(other.test)) == (by == "time")
    assert choose(interactions, SplitChoice("share")).validation is None


@pytest.mark.parametrize("by", ["item", None, "time", "user", "share"])
@pytest.mark.parametrize("more", [{"share": 1.0}, {"share": 0}, {"items": 0}])
def test_a_choice_that_makes_no_sense_is_refused(by, more):
    with pytest.raises(InvalidInput):
        SplitChoice(by, **more)


@pytest.mark.parametrize(
    ("by", "more"), [(None, {"share": 0.2, "items": 3}), ("time", {"items": 3}), ("share", {"items": 3})]
)
def test_a_choice_of_what_its_way_does_not_have_is_refused(by, more):
    with pytest.raises(InvalidInput, match=r"share|number of items"):
        SplitChoice(by, **more)


WAYS = {
    "time": lambda interactions, seed, **given: by_time(interactions, 0.3, **given),  # noqa: ARG005
    "user": lambda interactions, seed, **given: by_user(interactions, 1, seed, **given),
    "share of users": lambda interactions, seed, **given: by_user(interactions, 1, seed, share=0.5, **given),
    "default user": lambda interactions, seed, **given: by_user(interactions, None, seed, **given),
    "share": lambda interactions, seed, **given: by_share(interactions, 0.3, seed, **given),
}


@pytest.mark.parametrize("way", WAYS)
@given(
    rows=st.dictionaries(
        st.tuples(st.integers(0, 5), st.integers(0, 7)),
        st.tuples(st.integers(1, 9).map(float), st.none() | st.integers(0, 6)),
        min_size=1,
        max_size=40,
    ),
    seed=st.integers(0, 2**31 - 1),
    validation=st.booleans(),
    random=st.randoms(use_true_random=False),
)
def test_a_split_is_disjoint_complete_and_repeatable(way, rows, seed, validation, random):
    rows = [(*pair, *rest) for pair, rest in rows.items()]
    interactions = dated(rows)
    try:
        split = WAYS[way](interactions, seed, validation=validation)
    except (SplitImpossible, TimesMissing):
        return
    parts = [split.train, split.test] + ([split.validation] if validation else [])
    assert all(len(part) for part in parts if part is not split.train)
    assert all(part.users is interactions.users and part.items is interactions.items for part in parts)
    assert sorted(row for part in parts for row in rows_of(part)) == rows_of(interactions)
    assert all(pairs(part) == sorted(pairs(part)) for part in parts)

    assert rows_of(split.refit().train) == [row for row in rows_of(interactions) if row[0] not in pairs(split.test)]
    assert split.refit().validation is None
    assert rows_of(split.refit().test) == rows_of(split.test)
    assert rows_of(WAYS[way](interactions, seed).test) == rows_of(split.test)

    random.shuffle(rows)
    again = WAYS[way](dated(rows), seed, validation=validation)
    assert [rows_of(part) for part in (again.train, again.test)] == [rows_of(part) for part in parts[:2]]
    assert again.how == split.how

    trained, tested = ({user for user, _ in pairs(part)} for part in parts[:2])
    assert split.users().tolist() == [
        index for index in range(len(interactions.users)) if interactions.users.to_python(index) in trained & tested
    ]
    if way == "time":
        assert split.train.times.max(initial=NO_TIME) < split.test.times.min()
        for cut in set(interactions.times.tolist()) - {interactions.times.min()}:
            off = abs(np.count_nonzero(interactions.times >= cut) - 0.3 * len(rows))
            assert abs(len(split.test) - 0.3 * len(rows)) <= off + 1e-9
    if way == "user":
        counts = np.bincount(interactions.user_index)
        assert np.bincount(split.test.user_index, minlength=len(counts)).tolist() == (counts >= 2).astype(int).tolist()


@pytest.mark.parametrize("way", ["user", "default user", "share"])
def test_another_seed_gives_another_split(way):
    interactions = each_with(20, users=10)
    assert len({tuple(pairs(WAYS[way](interactions, seed).test)) for seed in range(5)}) == 5


def test_the_remarks_tell_what_no_model_could_find_after_the_refit():
    interactions = dated(
        [(1, 1, 1.0, DAY), (1, 2, 1.0, 2 * DAY), (1, 3, 1.0, 2 * DAY), (2, 2, 1.0, 3 * DAY), (3, 4, 1.0, 3 * DAY)]
    )
    split = by_time(interactions, 0.4, validation=True)
    assert split.users(split.validation).tolist() == [0]
    assert split.users().tolist() == []
    assert split.remarks() == split.refit().remarks()
    assert_remarks(split.remarks(), "2 of the test part's 2 users", "1 of the 2 test pairs")
    assert by_user(each_with(4)).remarks() == []


def test_the_counts_of_a_part_as_a_matrix():
    interactions, _ = build(batch([(1, 10, 2.0), (1, 20, 1.0), (2, 20, 0.5), (3, 10, 4.0)]))
    matrix = interactions.part(interactions.values > 1).matrix()
    assert matrix.toarray().tolist() == [[2.0, 0.0], [0.0, 0.0], [4.0, 0.0]]
    assert matrix.has_sorted_indices
