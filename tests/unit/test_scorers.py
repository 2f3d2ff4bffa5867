"""The scores of factors and of the two baselines, against their formulas written out."""

import numpy as np
import pytest
from scipy import sparse
from test_metrics_definitions import pairs

from recstore.evaluation import ranking
from recstore.evaluation.metrics import evaluate
from recstore.evaluation.scorers import FactorScorer, ItemKNN, Popularity


def test_factors_score_by_the_inner_product():
    random = np.random.default_rng(1)
    x, y = random.standard_normal((9, 5), dtype=np.float32), random.standard_normal((33, 5), dtype=np.float32)
    users = np.array([8, 0, 3])
    scores = FactorScorer("model", x, y).scores(users)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, x[users].astype(np.float64) @ y.T.astype(np.float64), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dimensions", [3, 64, 130])
def test_items_of_equal_factors_tie_exactly(dimensions):
    """BLAS alone gives many of them other last bits, depending on the column."""
    random = np.random.default_rng(2)
    x, y = random.standard_normal((70, dimensions)), random.standard_normal((700, dimensions))
    y[[5, 123, 502, 699]] = y[3]
    y[[77, 600]] = y[9]
    y[[50, 51]] = 0
    y[52] = -0.0
    model = FactorScorer("model", x.astype(np.float32), y.astype(np.float32))
    scores = model.scores(np.arange(70))
    for kind in ([3, 5, 123, 502, 699], [9, 77, 600], [50, 51, 52]):
        assert (scores[:, kind] == scores[:, kind[:1]]).all()
    assert not scores[:, 50].any()
    assert (scores[:, 3] != scores[:, 9]).all()


def test_a_user_scores_alike_in_any_company():
    random = np.random.default_rng(3)
    x, y = random.standard_normal((64, 96), dtype=np.float32), random.standard_normal((501, 96), dtype=np.float32)
    model = FactorScorer("model", x, y)
    together = model.scores(np.arange(64))
    for few in (1, 2, 17):
        np.testing.assert_array_equal(model.scores(np.arange(few)), together[:few])


def test_popularity_counts_users():
    train = pairs([[0, 2], [2], [2, 3], []], 5)
    train.data[:] = [7, 9, 2, 5, 1]  # views do not count
    scores = Popularity(train).scores(np.array([1, 3]))
    assert scores.dtype == np.float32
    assert scores.tolist() == [[1, 0, 3, 1, 0]] * 2
    scores[0] = 5  # the caller's own
    assert Popularity(train).scores(np.array([1])).tolist() == [[1, 0, 3, 1, 0]]


def test_item_knn_by_hand():
    """Users 0 and 1 have items 0 and 1, user 2 items 1 and 2, user 3 item 3; weights ln(1 + 4/2) = ln 3 and ln 5. Item 0 has
    weight 2 ln 3, item 1 3 ln 3, item 2 ln 3: s01 = 2 / sqrt(6), s12 = 1 / sqrt(3), others 0."""
    train = pairs([[0, 1], [0, 1], [1, 2], [3]], 4)
    train.data[:] = 1 + 40 * np.arange(7)  # a confidence matrix: taken as binary
    train.indices[:2] = [1, 0]  # not in order
    before = train.indices.copy()
    s01, s12 = 2 / 6**0.5, 1 / 3**0.5
    scores = ItemKNN(train).scores(np.arange(4))
    assert scores.dtype == np.float32
    one_or_two = [[s01, s01, s12, 0]] * 2
    np.testing.assert_allclose(scores, [*one_or_two, [s01, s12, s12, 0], [0, 0, 0, 0]], rtol=1e-6)
    nearest = ItemKNN(train, neighbours=1).scores(np.arange(4))  # of item 1 that is item 0; of item 2 item 1
    np.testing.assert_allclose(nearest, [*one_or_two, [s01, 0, s12, 0], [0, 0, 0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(train.indices, before)  # the caller's own
    assert ItemKNN(pairs([[0, 1], [0]], 5)).scores(np.arange(2)).shape == (2, 5)  # the last items have no users


@pytest.mark.parametrize("neighbours", [3, 400])
def test_item_knn_as_dense_matrices_give_it(monkeypatch, neighbours):
    """In several blocks of items; an item without users, a user without items."""
    monkeypatch.setattr(ranking, "BLOCK_USERS", 30)
    random = np.random.default_rng(4)
    seen = random.random((200, 100)) < 0.1
    seen[:, 7] = seen[11] = False
    weight = np.log(1 + 100 / np.maximum(1, seen.sum(axis=1)))
    common = (seen * weight[:, None]).T @ seen
    norm = np.sqrt(np.outer(np.diag(common), np.diag(common)))
    similar = np.divide(common, norm, out=np.zeros_like(common), where=norm > 0)
    np.fill_diagonal(similar, 0)
    weakest = np.sort(similar, axis=1)[:, -min(neighbours, 100)]
    similar[similar < weakest[:, None]] = 0
    scores = ItemKNN(sparse.csr_matrix(seen), neighbours=neighbours, threads=2).scores(np.arange(200))
    np.testing.assert_allclose(scores, seen @ similar.T, rtol=1e-5, atol=1e-6)


def test_among_equal_neighbours_the_lower_item_counts():
    """Item 0 is equally near to 1, 2 and 3."""
    train = pairs([[0, 1, 2, 3], [1], [2], [3], [0]], 4)
    scores = ItemKNN(train, neighbours=2).scores(np.arange(1, 4))
    assert (scores[:, 0] > 0).tolist() == [True, True, False]


def test_both_baselines_find_what_is_planted():
    """Two halves of users who each like their own half of the items, popular ones more: neighbours beat popularity, and
    popularity a random order."""
    random = np.random.default_rng(5)
    liked = np.kron(np.eye(2), np.ones((100, 50))) * np.tile(np.linspace(0.5, 0.05, 50), 2)
    seen, split = random.random((200, 100)) < liked, random.random((200, 100)) < 0.7
    train, test = sparse.csr_matrix(seen & split), sparse.csr_matrix(seen & ~split)
    blind = FactorScorer("blind", np.ones((200, 1), np.float32), random.random((100, 1), dtype=np.float32))
    recall = {m.name: evaluate(m, train, test).values["recall@10"] for m in (blind, Popularity(train), ItemKNN(train))}
    assert recall["blind"] < recall["popularity"] - 0.05 < recall["item-kNN"] - 0.1
