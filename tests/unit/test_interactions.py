import json
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from recstore.errors import SourceEmpty, SourceInvalid, TooManyNulls
from recstore.model.interactions import NO_TIME, IdMap, Interactions, InteractionsBuilder, SourceReport
from recstore.types import IdType

BIGINT = pa.int64()


def batch(rows, user_type=BIGINT, item_type=BIGINT, with_times=False):
    users, items, values, *times = zip(*rows, strict=True)
    columns = {
        "user_id": pa.array(users, user_type),
        "item_id": pa.array(items, item_type),
        "value": pa.array(values, pa.float64()),
    }
    if with_times:
        columns["last_at"] = pa.array(times[0], pa.timestamp("us", "UTC"))
    return pa.RecordBatch.from_pydict(columns)


def build(*batches, user_type=IdType.BIGINT, item_type=IdType.BIGINT, duplicates="sum", max_nulls=1.0, **options):
    builder = InteractionsBuilder(user_type, item_type, duplicates, max_nulls, "retail", **options)
    for one in batches:
        builder.add(one)
    return builder.build()


def triples(interactions: Interactions):
    return [
        (interactions.users.to_python(user), interactions.items.to_python(item), value)
        for user, item, value in zip(
            interactions.user_index, interactions.item_index, interactions.values.tolist(), strict=True
        )
    ]


def test_pairs_are_sorted_merged_and_counted():
    interactions, report = build(
        batch([(7, 30, 1.0), (5, 20, 2.0), (None, 20, 9.0)]),
        batch([(5, 10, 4.0), (7, 30, 2.5), (5, 20, None), (5, 20, float("nan")), (5, 20, float("inf")), (5, 9, 0.0)]),
        batch([(7, 10, 0.0), (7, 10, -3.0), (-1, 20, 1.0)]),
    )
    assert triples(interactions) == [(-1, 20, 1.0), (5, 10, 4.0), (5, 20, 2.0), (7, 30, 3.5)]
    assert report == SourceReport(
        rows=12, nulls=4, nonpositive=3, duplicates=1, pairs=4, users=3, items=3, total=10.5, newest=None
    )
    assert report.as_dict()["newest"] is None
    assert interactions.user_index.dtype == interactions.item_index.dtype == np.int32
    assert interactions.values.dtype == np.float64


def test_last_is_the_newest_row_and_among_equals_the_one_read_last():
    def at(day):
        return datetime(2024, 1, day, tzinfo=UTC)

    interactions, report = build(
        batch([(1, 1, 3.0, at(9)), (2, 1, 1.0, at(2)), (3, 1, 8.0, at(1))], with_times=True),
        batch([(1, 1, 5.0, at(4)), (2, 1, 2.0, at(2)), (3, 1, 9.0, None)], with_times=True),
        duplicates="last",
    )
    assert triples(interactions) == [(1, 1, 3.0), (2, 1, 2.0), (3, 1, 8.0)]
    assert report.newest == at(9)
    assert json.loads(json.dumps(report.as_dict()))["newest"] == "2024-01-09T00:00:00+00:00"
    assert triples(build(batch([(1, 1, 3.0), (1, 1, 5.0), (1, 1, 4.0)]), duplicates="last")[0]) == [(1, 1, 4.0)]


def test_newest_without_a_time_zone_or_as_a_date():
    rows = {"user_id": [1, 2], "item_id": [1, 2], "value": [1.0, 1.0]}
    for times, newest in (
        (pa.array([datetime(2024, 1, 2), None], pa.timestamp("us")), datetime(2024, 1, 2)),
        (pa.array([datetime(2024, 1, 2), datetime(2024, 1, 3)]).cast(pa.date32()), datetime(2024, 1, 3)),
    ):
        _, report = build(pa.RecordBatch.from_pydict(rows | {"last_at": times}))
        assert report.newest == newest


def test_text_ids_sort_by_their_bytes_whatever_the_arrow_type():
    for arrow in (pa.string(), pa.large_string()):
        rows = [("b", "x", 1.0), ("a", "x", 1.0), ("B", "x", 1.0), ("é", "x", 1.0), ("", "x", 1.0), ("z", "x", 1.0)]
        interactions, _ = build(batch(rows, arrow, arrow), user_type=IdType.TEXT, item_type=IdType.TEXT)
        assert interactions.users.ids.to_pylist() == ["", "B", "a", "b", "z", "é"]
        assert interactions.users.ids.type == pa.string()


def test_lookup_and_take():
    ids = IdMap(pa.array([3, 5, 8], pa.int16()))
    assert len(ids) == 3
    assert ids.lookup(pa.array([8, 4, None, 3, 10**12], pa.int64())).tolist() == [2, -1, -1, 0, -1]
    assert ids.lookup(pa.chunked_array([[5], [3]])).tolist() == [1, 0]
    assert ids.lookup(pa.array([])).tolist() == []
    assert ids.take(np.array([2, 0])).to_pylist() == [8, 3]


@pytest.mark.parametrize(("how", "value"), [("sum", 8.0), ("max", 5.0), ("mean", 4.0), ("last", 3.0)])
def test_a_pair_has_the_time_of_its_newest_row(how, value):
    def at(day):
        return datetime(1970, 1, day, tzinfo=UTC)

    batches = [
        batch([(1, 1, 5.0, at(2)), (2, 1, 1.0, None), (3, 1, 1.0, None)], with_times=True),
        batch([(1, 1, 3.0, at(9)), (2, 1, 1.0, at(3)), (1, 1, 0.0, at(20)), (1, 2, 1.0, at(1))], with_times=True),
        batch([(2, 1, -1.0, at(20))], with_times=True),
    ]
    interactions, report = build(*batches, duplicates=how, with_times=True)
    assert report.newest == at(9)
    day = 24 * 3600 * 10**6
    assert interactions.times.tolist() == [8 * day, 0, 2 * day, NO_TIME]
    assert interactions.times.dtype == np.int64
    assert triples(interactions)[::2] == [(1, 1, value), (2, 1, 2.0 if how == "sum" else 1.0)]
    assert build(*batches, duplicates=how)[0].times is None
    assert build(batch([(1, 1, 1.0, None)], with_times=True), duplicates=how, with_times=True)[0].times is None


def test_times_stay_with_their_pairs():
    rows = [
        (user, item, 1.0 + item, datetime(2024, 1, 1 + item, user, tzinfo=UTC)) for user in (1, 2) for item in range(4)
    ]
    interactions, _ = build(batch(rows, with_times=True), with_times=True)
    keep = interactions.values >= 3
    for left in (interactions.subset(keep), interactions.part(keep)):
        assert left.times.tolist() == interactions.times[keep].tolist()
    untimed, _ = build(batch(rows, with_times=True))
    assert untimed.subset(keep).times is None
    assert untimed.part(keep).times is None


def test_subset_shrinks_the_maps_and_a_part_keeps_them():
    interactions, _ = build(batch([(1, 10, 1.0), (1, 20, 2.0), (2, 20, 3.0), (3, 30, 4.0)]))
    chosen = interactions.values >= 3
    left, part = interactions.subset(chosen), interactions.part(chosen)
    assert triples(left) == triples(part) == [(2, 20, 3.0), (3, 30, 4.0)]
    assert (left.users.ids.to_pylist(), left.items.ids.to_pylist()) == ([2, 3], [20, 30])
    assert interactions.part(~chosen).item_users().tolist() == [1, 1, 0]
    assert part.users is interactions.users
    assert part.items is interactions.items
    of_users, of_items = part.shrunk(users=True, items=False), part.shrunk(users=False, items=True)
    assert (of_users.items, of_items.users) == (interactions.items, interactions.users)
    assert (len(of_users.users), len(of_items.items)) == (2, 2)


def test_the_digest_is_of_ids_values_and_the_times_that_there_are():
    def digest(hour, with_times, value=2.0):
        rows = [(7, "b", 1.0, None), (5, "a", value, datetime(2024, 1, 1, hour, tzinfo=UTC)), (7, "b", 0.5, None)]
        made = batch(rows, item_type=pa.string(), with_times=True)
        return build(made, item_type=IdType.TEXT, with_times=with_times)[0].digest()

    # stored with each generation: another digest would train every recommender once more
    assert digest(1, False) == digest(2, False) == "0b05b947c8123b281debd260d2e8d1c4"
    assert len({digest(1, False), digest(1, True), digest(2, True), digest(1, True, 3.0)}) == 4
    assert digest(1, True) == digest(1, True)


def test_too_many_nulls_are_refused_with_the_counts():
    rows = [(1, 1, 1.0)] * 98 + [(None, 1, 1.0)] * 2
    assert build(batch(rows), max_nulls=0.02)[1].nulls == 2
    with pytest.raises(TooManyNulls, match=r"2 of 100 rows .*2\.0%"):
        build(batch(rows), max_nulls=0.01)


@pytest.mark.parametrize("batches", [[], [batch([(1, 1, 0.0), (None, 2, 1.0)])]])
def test_a_source_without_usable_rows_is_refused(batches):
    with pytest.raises(SourceEmpty, match="retail") as caught:
        build(*batches)
    assert caught.value.rows == 2 * len(batches)


def test_values_that_add_up_to_infinity_are_refused():
    with pytest.raises(SourceInvalid, match="infinite"):
        build(batch([(1, 1, 1.5e308), (1, 1, 1.5e308)]))


def test_many_batches_are_encoded_in_blocks(monkeypatch):
    monkeypatch.setattr("recstore.model.interactions.BLOCK_ROWS", 8)
    rng = np.random.default_rng(0)
    rows = [(int(user), int(item), 1.0) for user, item in rng.integers(0, 200, (1000, 2))]
    interactions, report = build(*(batch(rows[start : start + 5]) for start in range(0, 1000, 5)))
    assert {(user, item) for user, item, _ in triples(interactions)} == {row[:2] for row in rows}
    assert report.total == 1000


def test_negative_rows_are_dropped_or_netted_with_those_of_their_pair():
    rows = [(1, 1, 0.1), (1, 1, 0.2), (1, 2, 5.0), (1, 1, -0.3), (1, 2, -5.0), (2, 2, 5.0), (2, 2, -3.0), (3, 3, -1.0)]
    rows += [(4, 1, -1.0)]
    interactions, report = build(batch([*rows, (4, 2, 0.0), (4, 2, 2.0)]))
    assert triples(interactions) == [(1, 1, pytest.approx(0.3)), (1, 2, 5.0), (2, 2, 5.0), (4, 2, 2.0)]
    counts = report.nonpositive, report.mixed, report.duplicates, report.users, report.items
    assert counts == (6, 3, 1, 3, 2)
    interactions, report = build(batch([*rows, (4, 2, 0.0), (4, 2, 2.0)]), negative="net")
    assert triples(interactions) == [(2, 2, 2.0), (4, 2, 2.0)]
    counts = report.rows, report.nonpositive, report.mixed, report.duplicates, report.pairs, report.items
    assert counts == (11, 4, 0, 5, 2, 1)
    assert triples(build(batch([(1, 1, 1.0), (1, 2, 0.0)]), negative="net")[0]) == [(1, 1, 1.0)]
    for how in ("sum", "mean"):
        with pytest.raises(SourceEmpty):
            build(batch(rows[:5]), negative="net", duplicates=how)
    with pytest.raises(SourceEmpty):
        build(batch([(1, 1, -1.0), (1, 2, 0.0)]))


def test_the_newest_row_decides_where_rows_are_netted():
    def at(day):
        return datetime(2024, 1, day, tzinfo=UTC)

    rows = batch([(1, 1, 0.0, at(9)), (1, 1, 1.0, at(2)), (1, 2, 1.0, at(3)), (1, 2, -1.0, None)], with_times=True)
    interactions, report = build(rows, duplicates="last", negative="net")
    assert triples(interactions) == [(1, 2, 1.0)]
    assert report.newest == at(9)
    assert build(rows, duplicates="last")[1].newest == at(3)
