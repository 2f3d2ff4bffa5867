"""The similar items that an evaluation shows, and the random negatives that it samples."""

import numpy as np
import pyarrow as pa
import pytest

from recstore.evaluation.examples import MIDDLING, POPULAR, ROWS, similar_items
from recstore.evaluation.negatives import sampled_negatives
from recstore.evaluation.splits import by_share
from recstore.model.interactions import IdMap, Interactions


def test_similar_items_of_popular_and_middling_ones_by_cosine() -> None:
    angles = np.deg2rad([0, 10, 20, 80, 90, 100, 0, 45, 50, 55, 60, 5])
    factors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32) * np.arange(1, 13)[:, None]
    factors[6] = 0  # collapsed
    users = np.array([50, 9, 9, 40, 9, 9, 60, 8, 7, 6, 30, 2])  # the last is too rare to be shown
    found = similar_items(factors, users)
    assert [similar.item for similar in found] == [0, 3, 10, 1, 2, 4]
    assert len(found) == POPULAR + MIDDLING
    assert len({similar.item for similar in found}) == len(found)
    assert [item for item, _ in found[0].similar] == [1, 2, 7, 8, 9, 10][:ROWS]
    assert np.allclose([cosine for _, cosine in found[0].similar[:2]], np.cos(np.deg2rad([10, 20])))
    assert found[1].similar[0][0] == 4  # 10 degrees away; of item 10, at 60, the nearest is 9
    assert found[2].similar[0] == (9, pytest.approx(np.cos(np.deg2rad(5)), rel=1e-6))
    two = np.where(np.arange(12) < 2, 3, 2)  # as few users, and as few items, as can be shown
    assert [similar.similar[0][0] for similar in similar_items(factors, two)] == [1, 0]
    assert similar_items(factors, np.zeros(12, dtype=np.int64)) == []
    assert similar_items(factors[:0], users[:0]) == []


def test_sampled_negatives_are_others_and_seeded() -> None:
    random = np.random.default_rng(1)
    seen = random.random((30, 200)) < 0.2
    seen[0, 40:] = True  # whose others are few
    seen[:, 199] = False  # no user's
    user, item = np.nonzero(seen)
    ids = IdMap(pa.array(range(30))), IdMap(pa.array(range(200)))
    whole = Interactions(*ids, user.astype(np.int32), item.astype(np.int32), np.ones(len(user)))
    split, users = by_share(whole, 0.2), np.arange(0, 30, 2)
    assert sampled_negatives(split, users[:0], 5, seed=3).nnz == 0
    for number in (5, 30):
        found = sampled_negatives(split, users, number, seed=3)
        rows = np.diff(found.indptr)
        assert set(rows[1::2]) == {0}
        assert set(rows[2::2]) == {number}
        assert rows[0] == min(number, 40 - seen[0, :40].sum())
        assert not found.multiply(split.train.matrix() + split.test.matrix()).nnz
        assert found.max() == 1
        assert not found[:, 199].nnz
        assert (found != sampled_negatives(split, users, number, seed=3)).nnz == 0
        assert (found != sampled_negatives(split, users, number, seed=4)).nnz > 0
