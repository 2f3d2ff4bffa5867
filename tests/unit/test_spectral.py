import numpy as np
import pytest
from scipy import sparse
from test_trainers import clicks

from recstore.definition import Hyperparameters
from recstore.errors import DeviceUnavailable
from recstore.model.trainers.spectral import Spectral, mean_score

SPECTRAL = Spectral()


def hyperparameters(**given):
    return Hyperparameters(**{"trainer": "spectral"} | given)


def dense_scores(matrix, factors, given):
    """The scores up to their scale, from NumPy's SVD of the dense matrix."""
    r = (matrix.toarray() > 0).astype(float)
    by_user, users_of_item = r.sum(axis=1) ** -given.user_exponent, r.sum(axis=0)
    by_item = users_of_item**-given.view_exponent
    _, s, v = np.linalg.svd(by_user[:, None] * r * by_item)
    weights = (s**given.singular_exponent / (1 + given.ridge * (s[0] / s) ** 2))[:factors]
    v = v[:factors].T
    return ((r * by_item) @ v * weights) @ (v * users_of_item[:, None] ** given.item_exponent).T


LOW_PASS = {"user_exponent": 0.5, "view_exponent": 0.5, "item_exponent": 0.5, "ridge": 0.0}


@pytest.mark.parametrize(
    "given",
    [
        {},
        LOW_PASS,
        LOW_PASS | {"item_exponent": 0.3, "singular_exponent": 2.0},
        dict.fromkeys(LOW_PASS, 0.0) | {"ridge": 0.1},
    ],
)
@pytest.mark.parametrize("transposed", [False, True])
def test_it_is_the_truncated_svd(given, transposed):
    matrix = clicks().T.tocsr() if transposed else clicks()
    given = hyperparameters(**given)
    trained = SPECTRAL.train(matrix, given, factors=4)
    expected = dense_scores(matrix, 4, given)
    expected /= expected[matrix.toarray() > 0].mean()
    np.testing.assert_allclose(trained.user_factors @ trained.item_factors.T, expected, atol=2e-3)
    assert mean_score(matrix, trained.user_factors, trained.item_factors) == pytest.approx(1, abs=1e-5)


def test_with_all_the_rank_and_no_weight_of_singular_values_the_scores_are_the_views():
    """A low-pass filter that lets everything through: x_u . y_i is 1 for a pair, else 0."""
    matrix = clicks(users=200, items=19)
    matrix = sparse.hstack([matrix, matrix[:, :1]], format="csr")
    trained = SPECTRAL.train(matrix, hyperparameters(**LOW_PASS), factors=19)
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


@pytest.mark.parametrize(("users", "items", "factors"), [(3, 40, 30), (1, 1, 1), (40, 2, 5), (5, 5, 4)])
def test_where_the_data_determine_fewer_factors_the_rest_is_zero(users, items, factors):
    matrix = sparse.csr_matrix(np.tril(np.ones((users, items)), items - users), dtype="f4")
    trained = SPECTRAL.train(matrix, hyperparameters(ridge=0), factors=factors)
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


def test_a_user_is_the_weighted_sum_of_her_items():
    trained = SPECTRAL.train(clicks(), hyperparameters(), factors=8)
    row = sparse.csr_matrix((np.array([7, 2, 3], "f4"), [4, 11, 50], [0, 3]), shape=(1, 60))
    weights = trained.fold_in.item_users[[4, 11, 50]] ** -0.65
    expected = weights @ trained.item_factors[[4, 11, 50]].astype(float) * trained.fold_in.constants["scales"]
    np.testing.assert_allclose(SPECTRAL.solve_users(row, trained.fold_in)[0], expected, rtol=1e-4)


def test_neither_the_values_nor_the_signs_of_the_seed_matter():
    matrix, other_values = clicks(), clicks()
    other_values.data[:] = 61
    one, same, other = (
        SPECTRAL.train(given, hyperparameters(seed=seed), factors=4)
        for given, seed in ((matrix, 42), (other_values, 42), (matrix, 8))
    )
    np.testing.assert_array_equal(one.item_factors, same.item_factors)
    np.testing.assert_array_equal(one.user_factors, same.user_factors)
    np.testing.assert_allclose(other.item_factors, one.item_factors, atol=2e-3)


def test_there_is_no_gpu_for_it():
    with pytest.raises(DeviceUnavailable):
        SPECTRAL.train(clicks(), hyperparameters(), factors=4, device="gpu")


def test_a_spectral_model_of_an_earlier_version_keeps_its_exponents():
    stored = {"trainer": "spectral", "seed": 42, "item_exponent": 0.3, "singular_exponent": 0.5}
    kept = Hyperparameters.model_validate(stored)
    assert (kept.user_exponent, kept.view_exponent, kept.item_exponent) == (0.5, 0.5, 0.3)
    assert (kept.singular_exponent, kept.ridge) == (0.5, 0)
    assert Hyperparameters.model_validate(stored | {"trainer": "als"}) == Hyperparameters()
    assert Hyperparameters.model_validate(kept.model_dump()) == kept
