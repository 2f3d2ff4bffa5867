"""The scores of the baselines, against their formulas written out, and what is chosen by the training pairs."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse
from test_metrics_definitions import pairs

from recstore.evaluation import baselines, ranking
from recstore.evaluation.baselines import FORMS, Ease, Form, ItemKNN, Popularity
from recstore.evaluation.metrics import evaluate
from recstore.evaluation.scorers import FactorScorer

COSINE = Form(0.5, 0.5, 0.5, 100)


def test_popularity_counts_users():
    train = pairs([[0, 2], [2], [2, 3], []], 5)
    train.data[:] = [7, 9, 2, 5, 1]  # views do not count
    scores = Popularity(train).scores(np.array([1, 3]))
    assert scores.dtype == np.float32
    assert scores.tolist() == [[1, 0, 3, 1, 0]] * 2
    scores[0] = 5  # the caller's own
    assert Popularity(train).scores(np.array([1])).tolist() == [[1, 0, 3, 1, 0]]


def test_item_knn_by_hand():
    """Users 0 and 1 have items 0 and 1, user 2 items 1 and 2, user 3 item 3, so users weigh 2^-1/2. Items have 2, 3, 1 and
    1 users: s01 = 2 / sqrt(2 * 2 * 3), s12 = 1 / sqrt(2 * 3 * 1), others 0."""
    train = pairs([[0, 1], [0, 1], [1, 2], [3]], 4)
    train.data[:] = 1 + 40 * np.arange(7)  # a confidence matrix: taken as binary
    train.indices[:2] = [1, 0]  # not in order
    before = train.indices.copy()
    s01, s12 = 2 / 12**0.5, 1 / 6**0.5
    scores = ItemKNN(train, COSINE).scores(np.arange(4))
    assert scores.dtype == np.float32
    one_or_two = [[s01, s01, s12, 0]] * 2
    np.testing.assert_allclose(scores, [*one_or_two, [s01, s12, s12, 0], [0, 0, 0, 0]], rtol=1e-6)
    nearest = ItemKNN(train, replace(COSINE, neighbours=1)).scores(
        np.arange(4)
    )  # of item 1 that is item 0; of 2 item 1
    np.testing.assert_allclose(nearest, [*one_or_two, [s01, 0, s12, 0], [0, 0, 0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(train.indices, before)  # the caller's own
    assert ItemKNN(pairs([[0, 1], [0]], 5)).scores(np.arange(2)).shape == (2, 5)  # the last items have no users


@pytest.mark.parametrize("form", [*FORMS, Form(0.5, 0.25, 0.4, 3)])
def test_item_knn_as_dense_matrices_give_it(monkeypatch, form):
    """In several blocks of items; an item without users, a user without items."""
    monkeypatch.setattr(ranking, "BLOCK_USERS", 30)
    random = np.random.default_rng(4)
    seen = random.random((200, 100)) < 0.1
    seen[:, 7] = seen[11] = False
    user, item = (np.maximum(1, seen.sum(axis=axis)).astype(float) for axis in (1, 0))
    similar = (seen * user[:, None] ** -form.user).T @ seen * item**-form.own  # row j, column i
    np.fill_diagonal(similar, 0)
    weakest = np.sort(similar, axis=1)[:, -min(form.neighbours, 100)]
    similar[similar < weakest[:, None] * (1 - 1e-9)] = 0
    similar *= item[:, None] ** -form.other
    scores = ItemKNN(sparse.csr_matrix(seen), form, threads=2).scores(np.arange(200))
    np.testing.assert_allclose(scores, seen @ similar.T, rtol=1e-5, atol=1e-6)


def test_among_equal_neighbours_the_lower_item_counts():
    """Item 0 is equally near to 1, 2 and 3."""
    train = pairs([[0, 1, 2, 3], [1], [2], [3], [0]], 4)
    scores = ItemKNN(train, replace(COSINE, neighbours=2)).scores(np.arange(1, 4))
    assert (scores[:, 0] > 0).tolist() == [True, True, False]


def test_many_items_have_fewer_neighbours(monkeypatch):
    train = pairs([[0, 1, 2, 3], [1], [2], [3], [0]], 4)
    monkeypatch.setattr(baselines, "CELLS", 8)
    np.testing.assert_array_equal(
        ItemKNN(train, COSINE).scores(np.arange(5)), ItemKNN(train, replace(COSINE, neighbours=2)).scores(np.arange(5))
    )


def test_ease_solves_its_least_squares():
    """Each column is the ridge regression of an item on all others."""
    random = np.random.default_rng(6)
    seen = (random.random((80, 30)) < 0.2).astype(np.float64)
    seen[:, 4] = 0
    expected = np.zeros((80, 30))
    for item in range(30):
        others = np.delete(np.arange(30), item)
        x = seen[:, others]
        expected[:, item] = x @ np.linalg.solve(x.T @ x + 3 * np.eye(29), x.T @ seen[:, item])
    train = sparse.csr_matrix(seen)
    train.data *= 7  # taken as binary
    scores = Ease(train, 3.0, threads=2).scores(np.arange(80))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def planted() -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Return training and test pairs of two halves of users who each like their own half of the items, popular ones more."""
    random = np.random.default_rng(5)
    liked = np.kron(np.eye(2), np.ones((100, 50))) * np.tile(np.linspace(0.5, 0.05, 50), 2)
    seen, split = random.random((200, 100)) < liked, random.random((200, 100)) < 0.7
    return sparse.csr_matrix(seen & split), sparse.csr_matrix(seen & ~split)


def test_baselines_find_what_is_planted(planted):
    """Neighbours and EASE beat popularity, and popularity a random order."""
    train, test = planted
    random = np.random.default_rng(5)
    blind = FactorScorer("blind", np.ones((200, 1), np.float32), random.random((100, 1), dtype=np.float32))
    models = (blind, Popularity(train), ItemKNN(train), Ease(train))
    recall = {model.name: evaluate(model, train, test).values["recall@10"] for model in models}
    assert recall["blind"] < recall["popularity"] - 0.05
    assert recall["popularity"] < min(recall["item-kNN"], recall["EASE"]) - 0.05


def test_the_best_on_held_out_training_pairs_is_chosen(planted, monkeypatch):
    """A single neighbour and an overwhelming regularization are worse, wherever they stand in the list."""
    train, _ = planted
    bad = Form(0.5, 0.5, 0.5, 1)
    for forms in ((bad, COSINE), (COSINE, bad)):
        monkeypatch.setattr(baselines, "FORMS", forms)
        assert ItemKNN(train).settings["neighbours"] == 100
    for values in ((1e-6, 30), (30, 1e-6)):
        monkeypatch.setattr(baselines, "REGULARIZATIONS", values)
        assert Ease(train).settings == {"regularization": 30}


def test_a_choice_needs_few_pairs():
    for train in (pairs([[0]], 3), pairs([[0, 1], []], 2)):
        assert ItemKNN(train).settings["neighbours"] == FORMS[0].neighbours
        assert Ease(train).scores(np.arange(train.shape[0])).shape == train.shape
