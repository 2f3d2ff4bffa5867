"""Blocks of lists, against the plainest way to say the same."""

import threading
import uuid
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from recstore.lists import shapes, snapshots
from recstore.lists.blocks import REASONS, Block, Items, ListRows, Scoring
from recstore.model.interactions import IdMap
from recstore.types import IdType

ITEMS, USERS, FACTORS, K = 300, 150, 8, 6


def made(seed: int = 3, k: int = K, **options: object) -> tuple[Items, Block, ListRows]:
    random = np.random.default_rng(seed)
    vectors = random.integers(-9, 10, (ITEMS, FACTORS)).astype(np.float32)  # products are exact, and many tie
    items = Items(
        IdMap(pa.array(range(ITEMS), pa.int32())),
        vectors,
        random.random(ITEMS) < 0.95,
        random.random(ITEMS) < 0.7,
        random.integers(0, 5, ITEMS),
        random.integers(0, 3, ITEMS).astype(np.float64),
        generation=7,
    )
    counts = random.integers(0, 30, USERS)
    counts[3] = 0
    seen = random.integers(-1, ITEMS, counts.sum())
    present = random.random(USERS) < 0.8
    present[[0, 70, 149]] = False
    folded_in = present & (random.random(USERS) < 0.5)
    block = Block(
        pa.array(range(1000, 1000 + USERS)),
        random.integers(-9, 10, (USERS, FACTORS)).astype(np.float32),
        present,
        folded_in,
        random.random(USERS) + 0.5,
        np.concatenate(([0], np.cumsum(counts))),
        seen,
    )
    with Scoring(items, k, 2, **options) as scoring:  # type: ignore[arg-type]
        return items, block, next(scoring.lists([block]))[1]


def expected(items: Items, block: Block, user: int, k: int) -> tuple[list[int], NDArray[np.float64], int]:
    """Positions of items, best first, their scores, and how many of them the vectors rank; popular items follow."""
    seen = set(block.seen[block.seen_starts[user] : block.seen_starts[user + 1]].tolist())
    if block.present[user]:
        products = (items.vectors @ block.vectors[user]).astype(np.float64)
        scores = products * block.factor[user]
        allowed = [i for i in range(ITEMS) if items.present[i] and items.eligible[i] and i not in seen]
        order = sorted(allowed, key=lambda i: (-products[i], i))
    else:
        order, scores = [], np.empty(0)
    allowed = [i for i in range(ITEMS) if items.eligible[i] and i not in (seen | set(order))]
    popular = sorted(allowed, key=lambda i: (-items.users[i], -items.views[i], i))
    both = np.concatenate((scores[order] if order else scores, items.users[popular] / 100))
    return (order + popular)[:k], both[:k], min(k, len(order))


@pytest.mark.parametrize("k", [1, K, 250])
def test_every_list_is_the_best_of_what_may_be_listed(k: int) -> None:
    items, block, lists = made(k=k, popular_users=100)
    assert lists.owner.tolist() == sorted(lists.owner)
    for user in range(USERS):
        mine = lists.owner == user
        reason = "fold_in" if block.folded_in[user] else "trained" if block.present[user] else "popular"
        order, scores, ranked = expected(items, block, user, k)
        assert lists.item[mine].tolist() == order
        assert lists.rank[mine].tolist() == list(range(1, len(order) + 1))
        assert lists.score[mine].tolist() == scores.tolist()
        reasons = [REASONS[number] for number in lists.reason[mine]]
        assert reasons == [reason] * ranked + ["popular"] * (len(order) - ranked)


def test_without_popular_items_who_has_no_vector_has_no_list() -> None:
    _, block, lists = made()
    assert set(lists.owner) == set(np.flatnonzero(block.present))
    assert lists.score.max() > 1
    assert made(most=1.0)[2].score.max() == 1


def test_no_items_or_no_users() -> None:
    items, block, _ = made()
    none = replace(items, eligible=np.zeros(ITEMS, dtype=bool))
    with Scoring(none, K, 1, popular_users=100) as scoring:
        assert len(next(scoring.lists([block]))[1]) == 0
    empty = Block(
        block.ids[:0],
        block.vectors[:0],
        block.present[:0],
        block.folded_in[:0],
        block.factor[:0],
        np.array([0]),
        block.seen[:0],
    )
    with Scoring(items, K, 1, popular_users=100) as scoring:
        assert len(next(scoring.lists([empty]))[1]) == 0


def test_a_list_does_not_depend_on_the_block_or_the_threads() -> None:
    items, block, lists = made(popular_users=100)
    before = threading.active_count()
    part = Block(
        block.ids[10:80],
        block.vectors[10:80],
        block.present[10:80],
        block.folded_in[10:80],
        block.factor[10:80],
        block.seen_starts[10:81] - block.seen_starts[10],
        block.seen[block.seen_starts[10] : block.seen_starts[80]],
    )
    with Scoring(items, K, 3, popular_users=100) as scoring:
        again = next(scoring.lists([part]))[1]
    mine = (lists.owner >= 10) & (lists.owner < 80)
    assert again.item.tolist() == lists.item[mine].tolist()
    assert again.score.tolist() == lists.score[mine].tolist()
    assert threading.active_count() == before


def test_uuid_ids_are_text_in_files() -> None:
    ids = [uuid.UUID(int=n) for n in (1, 2**127, 7)]
    text = shapes.as_text(pa.array([each.bytes for each in ids], pa.binary(16)), IdType.UUID)
    assert text.to_pylist() == [str(each) for each in ids]


def test_vectors_are_joined_with_offsets_for_more_than_two_gigabytes() -> None:
    chunks = pa.chunked_array([[b"ab", None], [b"cd"]], pa.binary())
    table = snapshots.joined(pa.table({"item_id": pa.chunked_array([[1], [2, 3]]), "vector": chunks}))
    assert table.schema.field("vector").type == pa.large_binary()
    assert table["vector"].num_chunks == 1
    assert table.to_pydict() == {"item_id": [1, 2, 3], "vector": [b"ab", None, b"cd"]}
