import json

import numpy as np
import pytest
from scipy import sparse

from recstore.definition import Hyperparameters
from recstore.errors import InvalidInput
from recstore.model import vectors
from recstore.model.trainers import FoldIn, hybrid, item_users, trainer
from recstore.model.trainers.spectral import mean_score

HYBRID = hybrid.Hybrid()


def hyperparameters(**given):
    chosen = {
        "trainer": "hybrid",
        "regularization": 5.0,
        "iterations": 5,
        "spectral_share": 0.25,
        "spectral_weight": 0.3,
    }
    return Hyperparameters(**chosen | given)


def clicks(users=150, items=60):
    rng = np.random.default_rng(3)
    chance = np.where(np.arange(users)[:, None] % 4 == np.arange(items) % 4, 0.5, 0.05)
    weights = np.where(rng.random((users, items)) < chance, 1 + 9 * rng.random((users, items)), 0)
    return sparse.csr_matrix(weights, dtype=np.float32)


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
    np.testing.assert_allclose(sampled, whole, atol=0.02)
    assert hybrid._sample(sparse.vstack([matrix[:3], sparse.csr_matrix((9, 60))], format="csr"), 1).shape == (3, 60)


def test_users_are_folded_in_from_what_a_generation_publishes():
    matrix = clicks()
    trained = HYBRID.train(matrix, hyperparameters(iterations=30), factors=12, device="cpu")
    published = vectors.item_vectors(trained.item_factors, dimensions=64)
    again = FoldIn(
        vectors.factors_from(published.embedding, published.length, 12),
        item_users(matrix),
        json.loads(json.dumps(trained.fold_in.constants)),
    )
    exact = HYBRID.solve_users(matrix, trained.fold_in)
    np.testing.assert_allclose(HYBRID.solve_users(matrix, again), exact, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trained.user_factors[:, 9:], exact[:, 9:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trained.user_factors[:, :9], exact[:, :9], atol=0.02)
    assert mean_score(matrix, exact, trained.item_factors) == pytest.approx(
        mean_score(matrix, trained.user_factors, trained.item_factors), rel=0.01
    )
    some = HYBRID.solve_users(sparse.vstack([matrix[7], sparse.csr_matrix((1, 60))], format="csr"), again)
    np.testing.assert_allclose(some[0], exact[7], rtol=1e-4, atol=1e-5)
    assert not some[1].any()


def test_after_each_iteration_it_hands_out_what_it_would_have_ended_with():
    matrix = clicks()
    seen, kept = [], []

    def on_factors(number, fold_in):
        kept.append(FoldIn(fold_in.item_factors.copy(), fold_in.item_users, fold_in.constants))
        return number == 2

    stopped = HYBRID.train(
        matrix, hyperparameters(), factors=12, device="cpu",
        on_iteration=lambda *progress: seen.append(progress[0]), on_factors=on_factors, with_loss=True,
    )  # fmt: skip
    shorter = HYBRID.train(matrix, hyperparameters(iterations=3), factors=12, device="cpu")
    assert seen == [0, 1, 2]
    for fold_in in (stopped.fold_in, kept[-1]):
        np.testing.assert_array_equal(fold_in.item_factors, shorter.item_factors)
        assert fold_in.constants == shorter.fold_in.constants
    assert not np.array_equal(kept[0].item_factors, kept[1].item_factors)


def test_the_same_seed_gives_the_same_bits_with_any_number_of_threads():
    one, three = (
        HYBRID.train(clicks(), hyperparameters(), factors=12, device="cpu", threads=threads) for threads in (1, 3)
    )
    np.testing.assert_array_equal(one.item_factors, three.item_factors)
    np.testing.assert_array_equal(one.user_factors, three.user_factors)


@pytest.mark.parametrize(
    ("share", "factors", "parts"),
    [(0.5, 1, [1]), (0.5, 2, [1, 1]), (0.01, 12, [11, 1]), (0.99, 12, [1, 11]), (0.5, 90, [29, 30])],
)
def test_each_part_has_a_factor_at_least_if_there_are_two(share, factors, parts):
    matrix = clicks()
    trained = HYBRID.train(matrix, hyperparameters(spectral_share=share), factors=factors, device="cpu")
    assert [part["factors"] for part in trained.fold_in.constants["parts"]] == parts
    assert trained.item_factors.shape == (60, sum(parts))
    assert HYBRID.solve_users(matrix, trained.fold_in).shape == trained.user_factors.shape == (150, sum(parts))
    assert len(trained.warnings) == (factors > 59)


def test_a_warm_start_begins_from_the_als_part():
    matrix = clicks()
    cold = HYBRID.train(matrix, hyperparameters(), factors=12, device="cpu")

    def first_loss(item_factors):
        seen = []
        HYBRID.train(
            matrix, hyperparameters(iterations=1), factors=12, device="cpu", item_factors=item_factors,
            on_iteration=lambda *progress: seen.append(progress[2]), with_loss=True,
        )  # fmt: skip
        return seen[0]

    assert first_loss(cold.item_factors) < 0.9 * first_loss(None)
    with pytest.raises(InvalidInput, match=r"\(60, 9\), not \(60, 12\)"):
        first_loss(cold.item_factors[:, :9])


def test_factors_that_als_shrinks_to_nothing_leave_nothing():
    trained = HYBRID.train(clicks(), hyperparameters(regularization=1e9), factors=12, device="cpu")
    assert np.abs(trained.item_factors).max() < vectors.NOTHING
    assert np.isfinite(trained.user_factors).all()
