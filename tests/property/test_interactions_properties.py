"""Id maps, duplicates and filters against plain Python over dictionaries."""

import uuid
from collections import defaultdict
from math import isfinite

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recstore.definition import Filters
from recstore.errors import NothingLeft
from recstore.model.filters import apply
from recstore.model.interactions import InteractionsBuilder
from recstore.types import IdType

IDS = {
    IdType.SMALLINT: st.integers(-(2**15), 2**15 - 1),
    IdType.INTEGER: st.integers(-(2**31), 2**31 - 1),
    IdType.BIGINT: st.integers(-(2**63), 2**63 - 1),
    IdType.UUID: st.uuids(),
    IdType.TEXT: st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
}
SMALL = st.none() | st.integers(0, 3)
VALUES = st.integers(-1, 6).map(lambda value: value / 2)


def arrow(ids, id_type):
    if id_type is not IdType.UUID:
        return pa.array(ids, id_type.arrow)
    return pa.ExtensionArray.from_storage(pa.uuid(), pa.array([one and one.bytes for one in ids], pa.binary(16)))


def build(rows, batch_rows, user_type=IdType.SMALLINT, item_type=IdType.SMALLINT, duplicates="sum"):
    builder = InteractionsBuilder(user_type, item_type, duplicates, 1.0, "retail")
    for start in range(0, len(rows), batch_rows):
        users, items, values, times = zip(*rows[start : start + batch_rows], strict=True)
        columns = [arrow(users, user_type), arrow(items, item_type), pa.array(values, pa.float64())]
        names = ["user_id", "item_id", "value", "last_at"]
        builder.add(pa.RecordBatch.from_arrays([*columns, pa.array(times, pa.timestamp("us", "UTC"))], names))
    return builder.build()


def as_dict(interactions):
    pairs = zip(interactions.user_index.tolist(), interactions.item_index.tolist(), strict=True)
    keys = [(interactions.users.to_python(user), interactions.items.to_python(item)) for user, item in pairs]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, interactions.values.tolist(), strict=True))


def sort_key(one):
    return one.bytes if isinstance(one, uuid.UUID) else one.encode() if isinstance(one, str) else one


@pytest.mark.parametrize("id_type", IDS)
@given(data=st.data(), batch_rows=st.integers(1, 7))
def test_id_maps_are_sorted_unique_and_inverse(id_type, data, batch_rows):
    ids = data.draw(st.lists(IDS[id_type], min_size=1, max_size=20))
    rows = [(one, 1, 1.0, None) for one in ids]
    interactions, report = build(rows, batch_rows, user_type=id_type)
    users = interactions.users
    assert [users.to_python(index) for index in range(len(users))] == sorted(set(ids), key=sort_key)
    assert users.ids.type == id_type.arrow
    known = users.lookup(arrow(ids, id_type))
    assert [users.to_python(index) for index in known] == ids
    assert users.take(known).equals(pa.array([getattr(one, "bytes", one) for one in ids], id_type.arrow))
    others = data.draw(st.lists(IDS[id_type], max_size=5))
    found = users.lookup(arrow([*others, None], id_type))
    assert [index >= 0 for index in found] == [one in ids for one in others] + [False]
    assert report.pairs == report.users == len(users)


@given(
    rows=st.lists(
        st.tuples(SMALL, SMALL, st.none() | st.sampled_from([float("nan"), float("inf")]) | VALUES, SMALL), max_size=40
    ),
    batch_rows=st.integers(1, 9),
    duplicates=st.sampled_from(["sum", "max", "mean", "last"]),
)
def test_duplicates_against_a_dictionary(rows, batch_rows, duplicates):
    rows = [*rows, (9, 9, 1.0, None)]
    groups, nulls, nonpositive = defaultdict(list), 0, 0
    for number, (user, item, value, time) in enumerate(rows):
        if user is None or item is None or value is None or not isfinite(value):
            nulls += 1
        elif value <= 0:
            nonpositive += 1
        else:
            groups[user, item].append((-1 if time is None else time, number, value))
    combine = {
        "sum": lambda group: sum(value for *_, value in group),
        "max": lambda group: max(value for *_, value in group),
        "mean": lambda group: sum(value for *_, value in group) / len(group),
        "last": lambda group: max(group)[2],
    }[duplicates]

    interactions, report = build(rows, batch_rows, duplicates=duplicates)
    found = as_dict(interactions)
    assert list(found) == sorted(groups)
    assert found == pytest.approx({pair: combine(group) for pair, group in groups.items()})
    assert (report.rows, report.nulls, report.nonpositive) == (len(rows), nulls, nonpositive)
    assert report.duplicates == len(rows) - nulls - nonpositive - len(groups)
    times = [time for group in groups.values() for time, *_ in group if time >= 0]
    assert (report.newest is not None) == bool(times)


def naive_filter(pairs, filters):
    """The filters one after the other, over a dictionary of (user, item) to value."""
    if filters.max_value is not None:
        pairs = {pair: min(value, filters.max_value) for pair, value in pairs.items()}
    rules = [
        (1, "views", filters.min_item_views, filters.max_item_views),
        (1, "pairs", filters.min_users_per_item, None),
        (0, "views", filters.min_user_views, None),
        (0, "pairs", filters.min_items_per_user, filters.max_items_per_user),
    ]
    while True:
        before = len(pairs)
        for side, total, least, most in rules:
            totals = defaultdict(float)
            for pair, value in pairs.items():
                totals[pair[side]] += value if total == "views" else 1
            pairs = {
                pair: value
                for pair, value in pairs.items()
                if (least is None or totals[pair[side]] >= least) and (most is None or totals[pair[side]] <= most)
            }
        if len(pairs) == before or not filters.until_stable:
            return pairs


views, counts = st.none() | st.integers(1, 8), st.none() | st.integers(1, 4)


@given(
    pairs=st.dictionaries(
        st.tuples(st.integers(0, 6), st.integers(0, 6)), st.integers(1, 5).map(float), min_size=1, max_size=30
    ),
    filters=st.builds(
        Filters,
        min_item_views=views,
        max_item_views=views.map(lambda value: value and value + 10),
        min_users_per_item=counts,
        min_user_views=views,
        min_items_per_user=counts,
        max_items_per_user=counts.map(lambda value: value and value + 3),
        max_value=st.none() | st.integers(1, 4),
        until_stable=st.booleans(),
    ),
)
def test_filters_against_a_dictionary(pairs, filters):
    interactions, _ = build([(*pair, value, None) for pair, value in pairs.items()], 100)
    expected = naive_filter(pairs, filters)
    try:
        left, drops = apply(interactions, filters)
    except NothingLeft as error:
        assert not expected
        left, drops = None, error.drops
    if left is not None:
        assert as_dict(left) == expected
        assert len(left.users) == len({user for user, _ in expected})
        assert len(left.items) == len({item for _, item in expected})
    assert sum(drop.interactions for drop in drops) == len(pairs) - len(expected)
    assert sum(drop.users for drop in drops) == len({pair[0] for pair in pairs}) - len({pair[0] for pair in expected})
    assert sum(drop.items for drop in drops) == len({pair[1] for pair in pairs}) - len({pair[1] for pair in expected})
