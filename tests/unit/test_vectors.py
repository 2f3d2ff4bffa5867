import numpy as np
import pytest

from recstore.errors import FactorsCollapsed, TrainingDiverged
from recstore.model.vectors import ItemWeights, factors_from, item_vectors, later_items, user_vectors

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype(np.float32) * RNG.random((40, 1)).astype(np.float32)
Y = RNG.normal(size=(30, 6)).astype(np.float32) * RNG.random((30, 1)).astype(np.float32)


def test_what_is_published():
    items, users = item_vectors(Y, 64), user_vectors(X, 64)
    assert items.embedding.shape == items.preference.shape == (30, 64)
    assert items.embedding.dtype == items.preference.dtype == users.preference.dtype == np.float32
    assert not items.embedding[:, 6:].any()
    np.testing.assert_allclose(np.linalg.norm(items.embedding, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(users.preference, axis=1), 1, rtol=1e-6)
    assert np.linalg.norm(items.preference, axis=1).max() == pytest.approx(1)
    assert items.longest == items.length.max()
    assert items.published.all()
    assert users.published.all()
    assert items.length.dtype == users.length.dtype == np.float64
    unit = Y / np.linalg.norm(Y, axis=1, keepdims=True)
    np.testing.assert_allclose(items.embedding @ items.embedding.T, unit @ unit.T, atol=1e-6)


def test_collapsed_rows_are_not_published():
    factors = Y.copy()
    factors[3] *= 1e-13
    factors[4] = 0
    items = item_vectors(factors, 6)
    assert np.flatnonzero(~items.published).tolist() == [3, 4]
    assert not items.embedding[[3, 4]].any()
    assert not items.preference[[3, 4]].any()
    assert 0 < items.length[3] < 1e-12
    assert not factors_from(items.embedding, items.length, 6)[[3, 4]].any()
    limit = np.diag([1.0, 2e-6, 0.5e-6]).astype(np.float32)  # a millionth of the longest
    assert item_vectors(limit, 3).published.tolist() == [True, True, False]


def test_weighted_items_rank_by_their_weights_and_keep_their_cosines():
    users_of = RNG.integers(0, 50, len(Y))
    weights = ItemWeights.of(users_of, 0.3)
    mean_over_pairs = float((weights(users_of) * users_of).sum() / users_of.sum())
    assert mean_over_pairs == pytest.approx(1)
    plain, items, users = item_vectors(Y, 6), item_vectors(Y, 6, weights=weights(users_of)), user_vectors(X, 6)
    scores = users.preference @ items.preference.T * users.length[:, None] * items.longest
    wanted = X @ Y.T * np.maximum(users_of, 1) ** 0.3 * weights.scale
    np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(wanted, X @ weights.weighted(Y, users_of).T, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(items.embedding, plain.embedding)
    np.testing.assert_array_equal(items.length, plain.length)
    assert np.linalg.norm(items.preference, axis=1).max() == pytest.approx(1)
    later, clipped = later_items(Y, 6, items.longest, weights(users_of))
    assert clipped == 0
    np.testing.assert_allclose(later.preference, items.preference, atol=1e-6)
    later, clipped = later_items(Y, 6, items.longest / 2, weights(users_of))
    assert 0 < clipped < len(Y)
    assert np.linalg.norm(later.preference, axis=1).max() == pytest.approx(1)


def test_without_an_exponent_nothing_is_weighted():
    users_of = RNG.integers(0, 50, len(Y))
    weights = ItemWeights.of(users_of, 0)
    assert weights == ItemWeights(0.0, 1.0)
    assert weights.weighted(Y, users_of) is Y
    np.testing.assert_array_equal(
        item_vectors(Y, 6, weights=weights(users_of)).preference, item_vectors(Y, 6).preference
    )


def test_the_mean_user_counts_every_published_user_once():
    factors = np.array([[10, 0], [0, 1], [0, 0], [0, 2], [3, 0]], dtype=np.float32)
    mean = user_vectors(factors, 3).mean()
    np.testing.assert_allclose(mean, [0.5, 0.5, 0])
    assert mean.dtype == np.float32
    np.testing.assert_allclose(user_vectors(factors[:1], 2).mean(), [1, 0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("vectors", [item_vectors, user_vectors])
def test_what_is_not_a_number_is_refused(vectors, bad):
    factors = Y.copy()
    factors[[2, 5], 1] = bad
    with pytest.raises(TrainingDiverged, match="2 of 30"):
        vectors(factors, 6)


@pytest.mark.parametrize("scale", [1e-14, 0])
@pytest.mark.parametrize("vectors", [item_vectors, user_vectors])
def test_factors_that_all_shrank_to_nothing_are_refused(vectors, scale):
    with pytest.raises(FactorsCollapsed, match="regularization"):
        vectors(Y * np.float32(scale), 6)
