from datetime import UTC, datetime

import pyarrow as pa
import pytest
from test_interactions import batch, build, triples

from recstore.definition import Filters
from recstore.errors import NothingLeft
from recstore.model.filters import FilterDrop, apply
from recstore.types import IdType

ROWS = [
    ("ann", "a", 5.0), ("ann", "b", 1.0), ("ann", "c", 1.0),
    ("bob", "a", 2.0), ("bob", "b", 3.0),
    ("cat", "a", 1.0),
    ("dan", "d", 40.0),
]  # fmt: skip


@pytest.fixture
def interactions():
    return build(batch(ROWS, pa.string(), pa.string()), user_type=IdType.TEXT, item_type=IdType.TEXT)[0]


@pytest.mark.parametrize(
    ("filters", "kept", "drop"),
    [
        ({"min_item_views": 4}, "a5 b1 a2 b3 a1 d40", FilterDrop("min_item_views", 4, 1, 0, 1)),
        ({"max_item_views": 39}, "a5 b1 c1 a2 b3 a1", FilterDrop("max_item_views", 39, 1, 1, 1)),
        ({"min_users_per_item": 2}, "a5 b1 a2 b3 a1", FilterDrop("min_users_per_item", 2, 2, 1, 2)),
        ({"min_user_views": 6}, "a5 b1 c1 d40", FilterDrop("min_user_views", 6, 3, 2, 0)),
        ({"min_items_per_user": 2}, "a5 b1 c1 a2 b3", FilterDrop("min_items_per_user", 2, 2, 2, 1)),
        ({"max_items_per_user": 2}, "a2 b3 a1 d40", FilterDrop("max_items_per_user", 2, 3, 1, 1)),
        ({"max_value": 4}, "a4 b1 c1 a2 b3 a1 d4", FilterDrop("max_value", 4, clipped=2)),
    ],
)
def test_each_filter(interactions, filters, kept, drop):
    left, drops = apply(interactions, Filters(**filters))
    assert " ".join(f"{item}{value:g}" for _, item, value in triples(left)) == kept
    assert drops == [drop]
    assert len(left.items) == len({item for _, item, _ in triples(left)})


def test_without_filters_nothing_changes(interactions):
    left, drops = apply(interactions, Filters())
    assert left is interactions
    assert drops == []


def test_the_cap_comes_before_the_totals_and_items_before_users(interactions):
    left, drops = apply(interactions, Filters(max_value=3, min_item_views=4, min_items_per_user=2))
    assert triples(left) == [("ann", "a", 3.0), ("ann", "b", 1.0), ("bob", "a", 2.0), ("bob", "b", 3.0)]
    assert drops == [
        FilterDrop("max_value", 3, clipped=2),
        FilterDrop("min_item_views", 4, interactions=2, users=1, items=2),
        FilterDrop("min_items_per_user", 2, interactions=1, users=1, items=0),
    ]


def test_once_or_until_stable(interactions):
    filters = Filters(min_item_views=8, min_user_views=2)
    left, _ = apply(interactions, filters)
    assert triples(left) == [("ann", "a", 5.0), ("bob", "a", 2.0), ("dan", "d", 40.0)]
    left, drops = apply(interactions, filters.model_copy(update={"until_stable": True}))
    assert triples(left) == [("dan", "d", 40.0)]
    assert drops == [FilterDrop("min_item_views", 8, 5, 2, 3), FilterDrop("min_user_views", 2, 1, 1, 0)]


def test_times_pass_the_filters():
    rows = [(*row, datetime(2024, 1, 1 + number, tzinfo=UTC)) for number, row in enumerate(ROWS)]
    made = batch(rows, pa.string(), pa.string(), with_times=True)
    interactions, _ = build(made, user_type=IdType.TEXT, item_type=IdType.TEXT, with_times=True)
    left, _ = apply(interactions, Filters(max_value=4, min_item_views=4, min_items_per_user=2))
    assert triples(left) == [("ann", "a", 4.0), ("ann", "b", 1.0), ("bob", "a", 2.0), ("bob", "b", 3.0)]
    assert left.times.tolist() == interactions.times[[0, 1, 3, 4]].tolist()


def test_nothing_left_says_what_each_filter_dropped(interactions):
    with pytest.raises(NothingLeft, match=r"min_item_views = 5 dropped 3 .*; min_users_per_item = 4 dropped") as caught:
        apply(interactions, Filters(min_item_views=5, min_users_per_item=4))
    assert caught.value.drops[0].items == 2
