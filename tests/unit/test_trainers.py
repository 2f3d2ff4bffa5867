"""The promises of every trainer, whatever its method."""

import json

import numpy as np
import pytest
from scipy import sparse
from threadpoolctl import threadpool_info, threadpool_limits

from recstore.definition import Hyperparameters
from recstore.errors import InvalidInput, TrainingDiverged
from recstore.model import trainers, vectors
from recstore.model.trainers import Factors, FoldIn, item_users, trainer

TRAINERS = {
    "als": Hyperparameters(regularization=5.0, iterations=5, seed=7),
    "hybrid": Hyperparameters(
        trainer="hybrid", regularization=5.0, iterations=5, spectral_share=0.25, spectral_weight=0.3
    ),
    "spectral": Hyperparameters(trainer="spectral"),
}
ITERATIVE = ["als", "hybrid"]


def clicks(users=150, items=60, seed=3):
    """A confidence matrix of users of four tastes."""
    rng = np.random.default_rng(seed)
    chance = np.where(np.arange(users)[:, None] % 4 == np.arange(items) % 4, 0.5, 0.05) * (1 + np.arange(items) % 3) / 3
    weights = np.where(rng.random((users, items)) < chance, 1 + 9 * rng.random((users, items)), 0)
    return sparse.csr_matrix(weights, dtype=np.float32)


def train(name, matrix=None, *, factors=12, altered=None, **more):
    given = TRAINERS[name].model_copy(update=altered or {})
    matrix = clicks() if matrix is None else matrix
    return trainer(name).train(matrix, given, factors=factors, **{"device": "cpu"} | more)


def first_loss(name, item_factors):
    seen = []
    altered, watch = {"iterations": 1}, lambda *progress: seen.append(progress[2])
    train(name, altered=altered, item_factors=item_factors, on_iteration=watch, with_loss=True)
    return seen[0]


@pytest.mark.parametrize("name", TRAINERS)
def test_what_it_returns(name):
    seen = []
    trained = train(name, on_iteration=lambda *progress: seen.append(progress), with_loss=True)
    assert isinstance(trained, Factors)
    assert (trained.user_factors.shape, trained.item_factors.shape) == ((150, 12), (60, 12))
    assert trained.user_factors.dtype == trained.item_factors.dtype == np.float32
    assert (trained.device, trained.warnings) == ("cpu", ())
    np.testing.assert_array_equal(trained.fold_in.item_users, (clicks() > 0).sum(axis=0).A1)
    numbers, seconds, losses = zip(*seen, strict=True)
    assert numbers == tuple(range(5 if name in ITERATIVE else 1))
    assert min(seconds) >= 0
    assert list(losses) == (sorted(losses, reverse=True) if name in ITERATIVE else [None])


@pytest.mark.parametrize("name", TRAINERS)
def test_the_same_seed_gives_the_same_bits_with_any_number_of_threads(name):
    matrix = clicks(users=700, items=600)  # more items than the decomposition takes at once
    trained = []
    for threads in (1, 3):
        with threadpool_limits(threads):
            trained.append(train(name, matrix, factors=40, threads=threads))
    one, three = trained
    np.testing.assert_array_equal(one.user_factors, three.user_factors)
    np.testing.assert_array_equal(one.item_factors, three.item_factors)
    other_seed = train(name, matrix, factors=40, altered={"seed": 8})
    assert not np.array_equal(one.item_factors, other_seed.item_factors)
    np.testing.assert_array_equal(*(trainer(name).solve_users(matrix, one.fold_in, threads) for threads in (1, 3)))


@pytest.mark.parametrize("name", TRAINERS)
def test_users_are_folded_in_from_what_a_generation_publishes(name):
    matrix, used = clicks(), trainer(name)
    trained = train(name, matrix, altered={"iterations": 30})
    published = vectors.item_vectors(trained.item_factors, dimensions=64)
    again = FoldIn(
        vectors.factors_from(published.embedding, published.length, 12),
        item_users(matrix),
        json.loads(json.dumps(trained.fold_in.constants)),
    )
    exact = used.solve_users(matrix, trained.fold_in)
    longest = np.abs(exact).max()
    np.testing.assert_allclose(trained.user_factors, exact, atol=0.02 if name in ITERATIVE else 1e-6 * longest)
    np.testing.assert_allclose(used.solve_users(matrix, again), exact, rtol=1e-4, atol=1e-5 * longest)
    some = sparse.vstack([matrix[7], matrix[100], sparse.csr_matrix((1, 60), dtype=np.float32)], format="csr")
    solved = used.solve_users(some, again)
    np.testing.assert_allclose(solved[:2], exact[[7, 100]], rtol=1e-4, atol=1e-5 * longest)
    assert solved.dtype == np.float32
    assert not solved[2].any()
    assert used.solve_users(matrix[:0], again).shape == (0, 12)


@pytest.mark.parametrize("name", TRAINERS)
def test_after_each_iteration_it_hands_out_what_it_would_have_ended_with_and_may_be_stopped(name):
    seen, kept = [], []

    def on_factors(number, fold_in):
        seen.append(number)
        kept.append(FoldIn(fold_in.item_factors.copy(), fold_in.item_users, fold_in.constants))
        assert max(blas["num_threads"] for blas in threadpool_info() if blas["user_api"] == "blas") == 2
        return number == 2

    with threadpool_limits(2):
        stopped = train(name, on_iteration=lambda number, *_: seen.append(number), on_factors=on_factors)
    shorter = train(name, altered={"iterations": 3})
    assert seen == ([0, 0, 1, 1, 2, 2] if name in ITERATIVE else [0, 0])
    np.testing.assert_array_equal(stopped.user_factors, shorter.user_factors)
    for fold_in in (stopped.fold_in, kept[-1]):
        np.testing.assert_array_equal(fold_in.item_factors, shorter.item_factors)
        assert fold_in.constants == shorter.fold_in.constants
    assert name not in ITERATIVE or not np.array_equal(kept[0].item_factors, kept[1].item_factors)


@pytest.mark.parametrize("callback", ["on_iteration", "on_factors"])
@pytest.mark.parametrize("name", TRAINERS)
def test_an_error_of_a_callback_propagates(name, callback):
    def stop(*_):
        raise KeyError("lost the lock")

    with pytest.raises(KeyError, match="lost the lock"):
        train(name, **{callback: stop})


@pytest.mark.parametrize("name", ITERATIVE)
def test_a_warm_start_begins_from_the_given_items_and_leaves_them_alone(name):
    start = np.asfortranarray(train(name).item_factors)
    start[3] = 0
    before = start.copy()
    assert first_loss(name, start) < 0.9 * first_loss(name, None)
    np.testing.assert_array_equal(start, before)
    assert train(name, altered={"iterations": 1}, item_factors=start).item_factors[3].any()
    with pytest.raises(InvalidInput, match=r"\(60, 9\), not \(60, 12\)"):
        first_loss(name, start[:, :9])


@pytest.mark.parametrize("broken", [np.nan, 3e38])
@pytest.mark.parametrize("name", ITERATIVE)
def test_factors_that_are_not_numbers_are_an_error(name, broken):
    matrix = clicks()
    matrix.data[0] = broken
    with pytest.raises(TrainingDiverged, match="regularization"):
        train(name, matrix)


@pytest.mark.parametrize("name", TRAINERS)
def test_more_factors_than_the_items_allow_are_fewer_and_a_warning(name):
    trained = train(name, factors=90)
    assert (trained.item_factors.shape, trained.user_factors.shape) == ((60, 59), (150, 59))
    assert "59 are used" in trained.warnings[0]
    assert train(name, clicks(1, 1) + sparse.eye(1, dtype="f4"), factors=1).item_factors.shape == (1, 1)


@pytest.mark.parametrize("name", ["als", "hybrid", "spectral"])
def test_dislikes_are_folded_in_as_a_training_solves_them(name):
    matrix = clicks()
    matrix.data[::3] *= -1
    trained = train(name, matrix)
    expected = trainer(name).solve_users(matrix, trained.fold_in)
    folded_in = trainers.fold_in(trainers.for_queries(name, trained.fold_in), matrix)
    np.testing.assert_allclose(folded_in, expected, atol=1e-3 * np.abs(expected).max())
