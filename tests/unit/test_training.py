import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse

from recstore.definition import MAX_FACTORS, Confidence, Hyperparameters
from recstore.errors import TooManyFactors, TrainingDiverged
from recstore.model.confidence import fit
from recstore.model.trainers import (
    FoldIn,
    als,
    regularization_for,
    usable_factors,
    wanted_factors,
    warnings_for,
)

ALS = als.ALS()


def hyperparameters(**given):
    return Hyperparameters(**{"regularization": 1.0, "iterations": 15, "seed": 7} | given)


def small_matrix(users=30, items=20, density=0.25, seed=0, alpha=10.0):
    rng = np.random.default_rng(seed)
    weights = rng.random((users, items)) * (rng.random((users, items)) < density)
    weights[:, 0] = np.maximum(weights[:, 0], 0.1)
    matrix = sparse.csr_matrix(weights)
    matrix.data = 1 + alpha * matrix.data
    return matrix.astype(np.float32)


@pytest.fixture(scope="module")
def matrix(course):
    return fit(course, Confidence()).matrix(course, 60)


def against(item_factors, regularization):
    return FoldIn(item_factors, np.ones(len(item_factors), dtype=np.int64), {"regularization": regularization})


def solve(confidence, y, regularization):
    """Hu, Koren and Volinsky's equation (4) for each row of a dense matrix of confidences, 0 where nothing was viewed:
    x_u = (Y^T C^u Y + regularization I)^-1 Y^T C^u p_u."""
    solved = []
    for row in confidence:
        c, p = np.where(row > 0, row, 1.0), (row > 0).astype(float)
        solved.append(np.linalg.solve(y.T @ (c[:, None] * y) + regularization * np.eye(y.shape[1]), y.T @ (c * p)))
    return np.array(solved)


def dense_als(confidence, factors, given):
    rng = np.random.default_rng(given.seed)
    x = rng.random((confidence.shape[0], factors), dtype=np.float32) * np.float32(0.01)
    y = (rng.random((confidence.shape[1], factors), dtype=np.float32) * np.float32(0.01)).astype(float)
    for _ in range(given.iterations):
        x = solve(confidence, y, given.regularization)
        y = solve(confidence.T, x, given.regularization)
    return x, y


def loss(confidence, x, y, regularization):
    c, p = np.where(confidence > 0, confidence, 1.0), (confidence > 0).astype(float)
    return (c * (p - x @ y.T) ** 2).sum() + regularization * ((x**2).sum() + (y**2).sum())


@pytest.mark.parametrize("factors", [1, 2, 3])
def test_up_to_three_factors_each_half_sweep_is_the_paper_s_exact_solution(factors):
    matrix, given = small_matrix(), hyperparameters()
    x, y = dense_als(matrix.toarray().astype(float), factors, given)
    trained = ALS.train(matrix, given, factors=factors, device="cpu")
    np.testing.assert_allclose(trained.user_factors, x, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(trained.item_factors, y, rtol=2e-3, atol=2e-4)


def test_with_more_factors_it_reaches_the_loss_of_the_exact_alternation():
    matrix, given = small_matrix(), hyperparameters(iterations=60)
    confidence = matrix.toarray().astype(float)
    exact = loss(confidence, *dense_als(confidence, 8, given), given.regularization)
    trained = ALS.train(matrix, given, factors=8, device="cpu")
    found = loss(confidence, trained.user_factors.astype(float), trained.item_factors.astype(float), 1.0)
    assert found == pytest.approx(exact, rel=0.01)


def test_exact_users_of_any_rows_in_any_blocks(matrix, monkeypatch):
    trained = ALS.train(matrix, hyperparameters(regularization=20.0), factors=32, device="cpu")
    everyone = ALS.solve_users(matrix, trained.fold_in)
    some = ALS.solve_users(matrix[[5, 300]], trained.fold_in)
    np.testing.assert_allclose(some, everyone[[5, 300]], rtol=1e-6, atol=1e-7)
    monkeypatch.setattr(als, "SOLVED_BYTES", 5000)
    monkeypatch.setattr(als, "BLOCK_BYTES", 7 * 32 * 8)  # seven items
    np.testing.assert_allclose(ALS.solve_users(matrix, trained.fold_in), everyone, rtol=1e-6, atol=1e-7)


def test_exact_users_with_any_number_of_items_and_dislikes():
    """Fewer items than factors, as many, and more; up to ten, and a tenth more, in one block; confidences below 1, too."""
    random = np.random.default_rng(4)
    y = random.normal(size=(60, 16)).astype(np.float32)
    counts = random.permutation(np.repeat(np.arange(49), 3))
    rows = np.zeros((len(counts), 60), dtype=np.float32)
    for row, count in zip(rows, counts, strict=True):
        row[random.permutation(60)[:count]] = random.uniform(0.5, 9, count) * random.choice([1, 1, -1], count)
    found = ALS.solve_users(sparse.csr_matrix(rows), against(y, 3.0), threads=3)
    double = y.astype(float)
    for row, x in zip(rows.astype(float), found, strict=True):
        weights = np.where(row == 0, 1, np.abs(row))
        system = (double.T * weights) @ double + 3 * np.eye(16)
        np.testing.assert_allclose(x, np.linalg.solve(system, double.T @ np.maximum(row, 0)), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("factors", [2, 20])
def test_users_that_are_not_determined_are_an_error(factors):
    matrix = small_matrix(density=0.2)
    y = np.zeros((20, factors), dtype=np.float32)
    y[:, 0] = 1
    with pytest.raises(TrainingDiverged, match=r"no unique solution.*regularization"):
        ALS.solve_users(matrix, against(y, 0.0))


def test_a_known_answer():
    """Two groups, each of 3 users who viewed the same 2 items, one factor per group. With p = x . y inside a group the
    loss of a group is 6 c (1 - p)^2 + regularization (3 x^2 + 2 y^2), least at 3 x^2 = 2 y^2, so at
    p = 1 - sqrt(6) regularization / (6 c); across groups p = 0."""
    groups = np.kron(np.eye(2), np.ones((3, 2)))
    matrix = sparse.csr_matrix(groups * 41, dtype=np.float32)
    trained = ALS.train(matrix, hyperparameters(regularization=10.0, iterations=100), factors=2, device="cpu")
    predicted = ALS.solve_users(matrix, against(trained.item_factors, 10.0)) @ trained.item_factors.T
    np.testing.assert_allclose(predicted, groups * (1 - 6**0.5 * 10 / (6 * 41)), atol=1e-4)


@pytest.mark.statistical
def test_planted_clusters_are_recovered():
    rng = np.random.default_rng(3)
    users, items = np.arange(120) % 4, np.arange(60) % 4
    chance = np.where(users[:, None] == items[None], 0.5, 0.01)
    matrix = sparse.csr_matrix((rng.random((120, 60)) < chance).astype(np.float32) * 41)
    trained = ALS.train(matrix, hyperparameters(regularization=20.0), factors=4, device="cpu")
    predicted = ALS.solve_users(matrix, against(trained.item_factors, 20.0)) @ trained.item_factors.T
    predicted[matrix.toarray() > 0] = -np.inf
    top = np.argsort(-predicted, axis=1)[:, :3]
    assert (items[top] == users[:, None]).mean() > 0.95
    unit = trained.item_factors / np.linalg.norm(trained.item_factors, axis=1, keepdims=True)
    cosine = unit @ unit.T - 2 * np.eye(60)
    assert (items[cosine.argmax(axis=1)] == items).mean() > 0.95


@pytest.mark.statistical
def test_it_beats_popularity_on_real_views(course):
    held_out = np.random.default_rng(0).random(len(course)) < 0.2
    kept = course.subset(~held_out)
    matrix = fit(kept, Confidence()).matrix(kept, 60)
    trained = ALS.train(matrix, hyperparameters(regularization=50.0), factors=16, device="cpu")
    scores = ALS.solve_users(matrix, against(trained.item_factors, 50.0)) @ trained.item_factors.T
    users = kept.users.lookup(course.users.ids)[course.user_index[held_out]]
    items = kept.items.lookup(course.items.ids)[course.item_index[held_out]]
    known = (users >= 0) & (items >= 0)
    wanted = np.zeros(matrix.shape, dtype=bool)
    wanted[users[known], items[known]] = True

    def recall_at_10(scores):
        top = np.argsort(-np.where(matrix.toarray() > 0, -np.inf, scores), axis=1)[:, :10]
        return np.take_along_axis(wanted, top, axis=1).sum() / wanted.sum()

    popularity = np.broadcast_to(np.diff(matrix.tocsc().indptr), matrix.shape)
    assert recall_at_10(scores) > max(0.76, 1.03 * recall_at_10(popularity))


def test_the_number_of_factors():
    unset, given = Hyperparameters(), hyperparameters(factors=64)
    assert [wanted_factors(unset, items) for items in (1, 2, 50, 129, 10**6)] == [1, 1, 49, 128, 256]
    assert [wanted_factors(each, 100, 8) for each in (unset, given)] == [8, 64]
    assert [usable_factors(64, items)[0] for items in (1, 2, 64, 65)] == [1, 1, 63, 64]
    assert usable_factors(MAX_FACTORS, 10**6) == (MAX_FACTORS, [])
    assert len(usable_factors(64, 64)[1]) == 1
    with pytest.raises(TooManyFactors, match="1985 factors"):
        usable_factors(MAX_FACTORS + 1, 10**6)


def test_no_regularization_is_allowed_where_the_data_determine_the_factors():
    matrix = small_matrix()
    trained = ALS.train(matrix, hyperparameters(regularization=0), factors=2, device="cpu")
    users = ALS.solve_users(matrix, against(trained.item_factors, 0.0))
    assert np.isfinite(trained.item_factors).all()
    assert np.isfinite(users).all()
    assert (np.linalg.norm(users, axis=1) > 0).all()


def test_factors_that_are_no_finite_numbers_are_refused_and_counted(monkeypatch):
    fitted = als._fit_cpu

    def broken(*given):
        x, y = fitted(*given)
        y[[2, 5], 0] = np.nan
        return x, y

    monkeypatch.setattr(als, "_fit_cpu", broken)
    with pytest.raises(TrainingDiverged, match="2 of 20 items"):
        ALS.train(small_matrix(), hyperparameters(), factors=3, device="cpu")


def test_settings_known_to_be_bad_are_warned_of(course, matrix):
    unweighted = fit(course, Confidence()).matrix(course, 1)
    assert warnings_for(matrix, 15, 20.0) == warnings_for(matrix, 50, 20.0) == warnings_for(matrix, 15, 0.01) == []
    assert "have little effect" in warnings_for(unweighted, 15, 1.0)[0]
    assert "overfit" in warnings_for(matrix, 50, 0.01)[0]


def test_the_regularization_that_shrinks_all_to_zero_is_named(matrix):
    limit = np.linalg.norm(matrix.toarray(), 2)
    assert warnings_for(matrix, 15, 0.9 * limit) == []
    assert f"from {limit:.3g} on" in warnings_for(matrix, 15, 1.1 * limit)[0]

    def longest(regularization):
        given = hyperparameters(regularization=regularization, iterations=30)
        return np.abs(ALS.train(matrix, given, factors=8, device="cpu").item_factors).max()

    assert longest(1.5 * limit) < 1e-6
    assert longest(0.7 * limit) > 0.01


def test_the_default_regularization_is_half_of_what_noise_would_need():
    """A random matrix of this size and sum of squares has a largest singular value near the root of the latter times
    (1 / sqrt(users) + 1 / sqrt(items)), when its mean is taken away. With fewer factors than 3 % of the items it is less."""
    rng = np.random.default_rng(5)
    dense = np.where(rng.random((600, 300)) < 0.1, 1 + 5 * rng.random((600, 300)), 0)
    matrix = sparse.csr_matrix(dense, dtype=np.float32)
    edge = np.linalg.norm(dense) * (600**-0.5 + 300**-0.5)
    assert np.linalg.norm(dense - dense.mean(), 2) == pytest.approx(edge, rel=0.05)
    unset = Hyperparameters()
    assert regularization_for(matrix, unset, 300) == regularization_for(matrix, unset, 9)
    assert regularization_for(matrix, unset, 9) == pytest.approx(0.5 * edge, rel=0.005)
    assert regularization_for(matrix, unset, 4) == pytest.approx(0.5 * edge * 2 / 3, rel=0.005)
    padded = sparse.csr_matrix(np.pad(dense, ((0, 50), (20, 0))), dtype=np.float32)  # those without pairs do not count
    assert regularization_for(padded, unset, 8) == regularization_for(matrix, unset, 8)
    assert regularization_for(matrix, Hyperparameters(regularization=3), 8) == 3
    trained = ALS.train(matrix, unset, factors=4, device="cpu")
    assert trained.fold_in.constants == {"regularization": regularization_for(matrix, unset, 4)}


@pytest.mark.parametrize("shape", [(1, 1), (40, 40), (3, 2)])
def test_the_default_regularization_leaves_something_where_all_is_noise(shape):
    """Everybody viewed one item of their own: all singular values are as large as noise's, or twice that."""
    matrix = sparse.csr_matrix(np.eye(*shape), dtype=np.float32) * 21
    assert regularization_for(matrix, Hyperparameters(), 2) == pytest.approx(21 / 4, rel=0.01)
    trained = ALS.train(matrix, Hyperparameters(), factors=2, device="cpu")
    assert np.abs(trained.item_factors).max() > 0.1


def test_importing_the_protocol_or_the_job_imports_no_trainer_and_no_cuda():
    """A worker's parent process imports these and forks; `implicit` would have touched the GPU in it."""
    modules = "sys, recstore.model.trainers, recstore.pipeline"
    code = f"import {modules}; assert not {{'implicit', 'rmm', 'cuda'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
