import json

import numpy as np
import pytest
from scipy import sparse
from threadpoolctl import threadpool_limits

from recstore.definition import Hyperparameters
from recstore.errors import DeviceUnavailable
from recstore.model import vectors
from recstore.model.trainers import FoldIn, item_users
from recstore.model.trainers.spectral import Spectral, mean_score

SPECTRAL = Spectral()


def hyperparameters(**given):
    return Hyperparameters(**{"trainer": "spectral", "item_exponent": 0.4, "singular_exponent": 0.5} | given)


def clicks(users=150, items=60, seed=3):
    """Users of four tastes; the values are of no consequence."""
    rng = np.random.default_rng(seed)
    chance = np.where(np.arange(users)[:, None] % 4 == np.arange(items) % 4, 0.5, 0.05) * (1 + np.arange(items) % 3) / 3
    return sparse.csr_matrix(
        np.where(rng.random((users, items)) < chance, 1 + 9 * rng.random((users, items)), 0), dtype="f4"
    )


def dense_scores(matrix, factors, item_exponent, singular_exponent):
    """The scores up to their scale, from NumPy's SVD of the dense matrix."""
    r = (matrix.toarray() > 0).astype(float)
    by_user, by_item = r.sum(axis=1) ** -0.5, r.sum(axis=0) ** -0.5
    _, s, v = np.linalg.svd(by_user[:, None] * r * by_item)
    s, v = s[:factors], v[:factors].T
    return ((r * by_item) @ v * s**singular_exponent) @ (v * by_item[:, None] ** (-2 * item_exponent)).T


@pytest.mark.parametrize(("item_exponent", "singular_exponent"), [(0.5, 0.0), (0.0, 1.0), (0.3, 2.0)])
@pytest.mark.parametrize("transposed", [False, True])
def test_it_is_the_truncated_svd(item_exponent, singular_exponent, transposed):
    matrix = clicks().T.tocsr() if transposed else clicks()
    given = hyperparameters(item_exponent=item_exponent, singular_exponent=singular_exponent)
    trained = SPECTRAL.train(matrix, given, factors=4)
    expected = dense_scores(matrix, 4, item_exponent, singular_exponent)
    expected /= expected[matrix.toarray() > 0].mean()
    np.testing.assert_allclose(trained.user_factors @ trained.item_factors.T, expected, atol=2e-3)
    assert mean_score(matrix, trained.user_factors, trained.item_factors) == pytest.approx(1, abs=1e-5)


def test_with_all_the_rank_and_no_weight_of_singular_values_the_scores_are_the_views():
    """A low-pass filter that lets everything through: x_u . y_i is 1 for a pair, else 0."""
    matrix = clicks(users=200, items=19)
    matrix = sparse.hstack([matrix, matrix[:, :1]], format="csr")
    trained = SPECTRAL.train(matrix, hyperparameters(item_exponent=0.5, singular_exponent=0), factors=19)
    np.testing.assert_allclose(trained.user_factors @ trained.item_factors.T, matrix.toarray() > 0, atol=1e-4)


def test_the_cosine_of_items_is_of_their_users():
    """Two items with the same users are one direction, two without a common one are at right angles."""
    views = np.zeros((12, 6))
    views[:6, :3], views[6:, 3:] = 1, 1
    views[0, 2] = 0
    trained = SPECTRAL.train(sparse.csr_matrix(views, dtype="f4"), hyperparameters(), factors=3)
    unit = trained.item_factors / np.linalg.norm(trained.item_factors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.testing.assert_allclose(cosine[3:, 3:], 1, atol=1e-5)
    np.testing.assert_allclose(cosine[:3, 3:], 0, atol=1e-5)
    assert cosine[0, 1] > 0.9999 > cosine[0, 2] > 0.8


def test_users_are_folded_in_from_what_a_generation_publishes():
    """As training left them; as the sum in the docstring; and anybody else's rows."""
    matrix, given = clicks(), hyperparameters()
    trained = SPECTRAL.train(matrix, given, factors=8)
    published = vectors.item_vectors(trained.item_factors, dimensions=64)
    again = FoldIn(
        vectors.factors_from(published.embedding, published.length, 8),
        item_users(matrix),
        json.loads(json.dumps(trained.fold_in.constants)),
    )
    longest = np.abs(trained.user_factors).max()
    np.testing.assert_allclose(SPECTRAL.solve_users(matrix, trained.fold_in), trained.user_factors, atol=1e-6 * longest)
    np.testing.assert_allclose(SPECTRAL.solve_users(matrix, again), trained.user_factors, atol=1e-6 * longest)

    row = sparse.csr_matrix((np.array([7, 2, 3], "f4"), [4, 11, 50], [0, 3, 3]), shape=(2, 60))
    solved = SPECTRAL.solve_users(row, again)
    weights = again.item_users[[4, 11, 50]] ** -0.9
    expected = weights @ trained.item_factors[[4, 11, 50]].astype(float) * again.constants["scales"]
    np.testing.assert_allclose(solved[0], expected, rtol=1e-4)
    assert solved.dtype == np.float32
    assert not solved[1].any()
    assert SPECTRAL.solve_users(matrix[:0], again).shape == (0, 8)


def test_the_same_pairs_and_seed_give_the_same_bits_with_any_number_of_threads_and_any_values():
    matrix = clicks(users=700, items=300)
    other_values = matrix.copy()
    other_values.data[:] = 61
    trained = []
    for threads, given in ((1, matrix), (3, other_values)):
        with threadpool_limits(threads):
            trained.append(SPECTRAL.train(given, hyperparameters(), factors=40, threads=threads))
    np.testing.assert_array_equal(trained[0].item_factors, trained[1].item_factors)
    np.testing.assert_array_equal(trained[0].user_factors, trained[1].user_factors)
    other = SPECTRAL.train(matrix, hyperparameters(seed=8), factors=4)
    same_signs = SPECTRAL.train(matrix, hyperparameters(), factors=4)
    assert not np.array_equal(other.item_factors, same_signs.item_factors)
    np.testing.assert_allclose(other.item_factors, same_signs.item_factors, atol=2e-3)


@pytest.mark.parametrize(("users", "items", "factors"), [(3, 40, 30), (1, 1, 1), (40, 2, 5), (5, 5, 4)])
def test_where_the_data_determine_fewer_factors_the_rest_is_zero(users, items, factors):
    matrix = sparse.csr_matrix(np.tril(np.ones((users, items)), items - users), dtype="f4")
    trained = SPECTRAL.train(matrix, hyperparameters(singular_exponent=0), factors=factors)
    assert trained.item_factors.shape == (items, max(1, min(factors, items - 1)))
    assert np.isfinite(trained.item_factors).all()
    assert np.isfinite(trained.user_factors).all()
    used = np.count_nonzero(np.abs(trained.item_factors).max(axis=0))
    assert used == min(np.linalg.matrix_rank(matrix.toarray()), trained.item_factors.shape[1])
    assert np.count_nonzero(trained.fold_in.constants["scales"]) == used
    assert len(trained.warnings) == (factors > max(1, items - 1))


def test_users_and_items_without_pairs_are_zero():
    matrix = sparse.csr_matrix(np.pad(clicks().toarray(), ((0, 1), (1, 0))))
    trained = SPECTRAL.train(matrix, hyperparameters(), factors=4)
    assert not trained.user_factors[-1].any()
    assert not trained.item_factors[0].any()
    np.testing.assert_allclose(
        trained.user_factors[:-1] @ trained.item_factors[1:].T,
        (lambda alone: alone.user_factors @ alone.item_factors.T)(
            SPECTRAL.train(clicks(), hyperparameters(), factors=4)
        ),
        atol=2e-3,
    )


def test_each_callback_is_called_once_and_there_is_no_gpu():
    seen = []
    trained = SPECTRAL.train(
        clicks(),
        hyperparameters(),
        factors=4,
        on_iteration=lambda number, seconds, loss: seen.append((number, seconds >= 0, loss)),
        on_factors=lambda number, fold_in: seen.append((number, fold_in)),
        with_loss=True,
    )
    assert seen == [(0, True, None), (0, trained.fold_in)]
    assert trained.device == "cpu"

    def stop(*_):
        raise KeyError("lost the lock")

    with pytest.raises(KeyError, match="lost the lock"):
        SPECTRAL.train(clicks(), hyperparameters(), factors=4, on_factors=stop)
    with pytest.raises(DeviceUnavailable, match="CPU only"):
        SPECTRAL.train(clicks(), hyperparameters(), factors=4, device="gpu")
