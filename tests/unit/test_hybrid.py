import numpy as np
import pytest
from scipy import sparse
from test_trainers import TRAINERS, clicks

from recstore.model import vectors
from recstore.model.trainers import hybrid, trainer
from recstore.model.trainers.spectral import mean_score

HYBRID = hybrid.Hybrid()


def hyperparameters(**given):
    return TRAINERS["hybrid"].model_copy(update=given)


def scores(name, matrix, given, factors):
    """Of exact users, dense."""
    used = trainer(name)
    trained = used.train(matrix, given, factors=factors, device="cpu")
    return used.solve_users(matrix, trained.fold_in) @ trained.item_factors.T


def test_the_score_is_the_weighted_sum_of_both_at_the_same_mean():
    matrix, given = clicks(), hyperparameters()
    of_als, of_spectral = scores("als", matrix, given, 9), scores("spectral", matrix, given, 3)
    seen = matrix.toarray() > 0
    expected = 0.7 * of_als + 0.3 * of_spectral * of_als[seen].mean() / of_spectral[seen].mean()
    np.testing.assert_allclose(scores("hybrid", matrix, given, 12), expected, atol=1e-5)


def test_a_popularity_exponent_weights_the_als_part_alone():
    """The weights of the lists come on top of both parts, so the spectral one is trained with that much less."""
    matrix = clicks()
    plain, weighted = (
        HYBRID.train(matrix, hyperparameters(popularity_exponent=p), factors=12, device="cpu").fold_in for p in (0, 0.3)
    )
    np.testing.assert_array_equal(weighted.item_factors[:, :9], plain.item_factors[:, :9])
    by_users = plain.item_users[:, None].astype(float) ** 0.3
    spectral = weighted.item_factors[:, 9:] * by_users / plain.item_factors[:, 9:]
    np.testing.assert_allclose(spectral, spectral[0, 0], rtol=1e-4)


def test_the_cosine_of_items_mixes_both_by_the_weight():
    trained = HYBRID.train(clicks(), hyperparameters(), factors=12, device="cpu")
    squares = (trained.item_factors.astype(float) ** 2).sum(axis=0)
    assert squares[9:].sum() / squares.sum() == pytest.approx(0.3, abs=1e-5)
    assert [(part["trainer"], part["factors"]) for part in trained.fold_in.constants["parts"]] == [
        ("als", 9),
        ("spectral", 3),
    ]


def test_the_mean_is_taken_over_a_sample_of_users(monkeypatch):
    matrix, given = clicks(), hyperparameters()
    whole = scores("hybrid", matrix, given, 12)
    monkeypatch.setattr(hybrid, "SAMPLE", 40)
    sampled = scores("hybrid", matrix, given, 12)
    assert not np.array_equal(sampled, whole)
    np.testing.assert_allclose(sampled, whole, atol=0.05)
    assert hybrid._sample(sparse.vstack([matrix[:3], sparse.csr_matrix((9, 60))], format="csr"), 1).shape == (3, 60)


@pytest.mark.parametrize(
    ("share", "factors", "parts"),
    [(0.5, 1, [1]), (0.5, 2, [1, 1]), (0.01, 12, [11, 1]), (0.99, 12, [1, 11]), (0.5, 90, [29, 30])],
)
def test_each_part_has_a_factor_at_least_if_there_are_two(share, factors, parts):
    matrix = clicks()
    trained = HYBRID.train(matrix, hyperparameters(spectral_share=share), factors=factors, device="cpu")
    assert [part["factors"] for part in trained.fold_in.constants["parts"]] == parts
    assert trained.item_factors.shape == (60, sum(parts))
    assert trained.fold_in.constants["parts"][0]["weight"] == (0.7 if len(parts) > 1 else 1)
    assert HYBRID.solve_users(matrix, trained.fold_in).shape == trained.user_factors.shape == (150, sum(parts))
    assert len(trained.warnings) == (factors > 59)


def test_exact_users_keep_the_spectral_part_and_the_mean_score():
    matrix = clicks()
    trained = HYBRID.train(matrix, hyperparameters(iterations=30), factors=12, device="cpu")
    exact = HYBRID.solve_users(matrix, trained.fold_in)
    np.testing.assert_allclose(trained.user_factors[:, 9:], exact[:, 9:], rtol=1e-5, atol=1e-6)
    means = [mean_score(matrix, users, trained.item_factors) for users in (exact, trained.user_factors)]
    assert means[0] == pytest.approx(means[1], rel=0.01)


def test_factors_that_als_shrinks_to_nothing_leave_nothing():
    trained = HYBRID.train(clicks(), hyperparameters(regularization=1e9), factors=12, device="cpu")
    assert np.abs(trained.item_factors).max() < vectors.NOTHING
    assert np.isfinite(trained.user_factors).all()
