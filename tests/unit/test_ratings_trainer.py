"""The trainer of explicit feedback against plain equations, and the scale of its ratings."""

import numpy as np
import pytest
from scipy import sparse

from recstore.definition import Hyperparameters
from recstore.errors import DeviceUnavailable, InvalidInput, TrainingDiverged
from recstore.evaluation import rating_errors
from recstore.model import trainers
from recstore.model.ratings import Ratings
from recstore.model.trainers import FoldIn, ratings, trainer

GIVEN = Hyperparameters(trainer="ratings", iterations=6)


@pytest.fixture(scope="module")
def matrix() -> sparse.csr_matrix:
    """Users with 1 to 40 ratings of 40 items, one of them without any, about their mean; exact zeros among them."""
    random = np.random.default_rng(8)
    taste, kind = random.normal(size=(60, 2)), random.normal(size=(40, 2))
    full = np.rint(taste @ kind.T + random.normal(size=(60, 1)) + random.normal(size=(1, 40)))
    rows = [random.choice(40, 1 + n % 40, replace=False) for n in range(60)]
    rows[7] = rows[7][:0]
    user = np.repeat(np.arange(60), [len(row) for row in rows])
    item = np.concatenate(rows)
    found = sparse.csr_matrix((full[user, item].astype(np.float32), (user, item)), shape=(60, 40))
    found.sort_indices()
    assert (found.data == 0).any()
    return found


def test_users_are_solved_by_their_ridge_regressions(matrix: sparse.csr_matrix) -> None:
    """With fewer ratings than unknowns, and with more; a rating of 0 counts, and no rating gives zeros."""
    trained = trainer("ratings").train(matrix, GIVEN, factors=5)
    y = trained.item_factors.astype(np.float64)
    z, bias = y[:, :-1], y[:, -1]
    assert trained.item_factors.shape == (40, 7)
    np.testing.assert_array_equal(y[:, -2], 1)
    for user, found in enumerate(trained.user_factors):
        row = matrix[[user]]
        if not row.nnz:
            assert not found.any()
            continue
        own = z[row.indices]
        system = own.T @ own + ratings.REGULARIZATION * row.nnz**0.5 * np.eye(6)
        expected = np.linalg.solve(system, own.T @ (row.data - bias[row.indices]))
        np.testing.assert_allclose(found[:-1], expected, atol=2e-5)
        assert found[-1] == 1


def test_each_iteration_lowers_the_loss_and_training_repeats_to_the_bit(matrix: sparse.csr_matrix) -> None:
    losses: list[float | None] = []
    first = trainer("ratings").train(
        matrix, GIVEN, factors=5, threads=1, with_loss=True, on_iteration=lambda _n, _s, loss: losses.append(loss)
    )
    assert len(losses) == GIVEN.iterations
    assert losses == sorted(losses, reverse=True)
    again = trainer("ratings").train(matrix, GIVEN, factors=5, threads=3)
    np.testing.assert_array_equal(first.item_factors, again.item_factors)
    np.testing.assert_array_equal(first.user_factors, again.user_factors)
    warm = trainer("ratings").train(
        matrix, GIVEN.model_copy(update={"iterations": 1}), factors=5, item_factors=first.item_factors
    )
    assert np.abs(warm.item_factors - first.item_factors).max() < np.abs(first.item_factors).max() / 4


def test_a_callback_may_end_it(matrix: sparse.csr_matrix) -> None:
    seen: list[int] = []

    def enough(number: int, _fold_in: FoldIn) -> bool:
        seen.append(number)
        return number == 1

    trainer("ratings").train(matrix, GIVEN, factors=5, on_factors=enough)
    assert seen == [0, 1]


def test_what_it_cannot_do_is_said(matrix: sparse.csr_matrix) -> None:
    with pytest.raises(DeviceUnavailable, match="CPU only"):
        trainer("ratings").train(matrix, GIVEN, factors=5, device="gpu")
    with pytest.raises(InvalidInput, match=r"\(40, 5\), not \(40, 7\)"):
        trainer("ratings").train(matrix, GIVEN, factors=5, item_factors=np.zeros((40, 5), np.float32))
    broken = matrix.copy()
    broken.data[3] = np.nan
    with pytest.raises(TrainingDiverged), np.errstate(invalid="ignore"):
        trainer("ratings").train(broken, GIVEN, factors=5)


def test_what_sql_gets_solves_the_same_users(matrix: sparse.csr_matrix) -> None:
    trained = trainer("ratings").train(matrix, GIVEN.model_copy(update={"regularization": 0.3}), factors=5)
    queries = trainers.for_queries("ratings", trained.fold_in)
    assert queries is not None
    np.testing.assert_allclose(trainers.fold_in(queries, matrix), trained.user_factors, atol=1e-5)


def test_biases_alone_are_a_model_without_taste(matrix: sparse.csr_matrix) -> None:
    users, items = ratings.biases(matrix)
    trained = trainer("ratings").train(matrix, GIVEN, factors=5)
    one = Ratings(mean=0, scale_factor=1, lowest=-9, highest=9)
    alone, with_taste = (
        rating_errors.measure(x, y, one, matrix).rmse
        for x, y in ((users, items), (trained.user_factors, trained.item_factors))
    )
    assert with_taste < 0.8 * alone < 0.8 * float(np.sqrt((matrix.data**2).mean()))


def test_errors_are_those_of_plain_arithmetic_within_the_range() -> None:
    model = Ratings.of(np.array([1.0, 2.0, 5.0, 4.0]))
    assert (model.mean, model.lowest, model.highest) == (3.0, 1.0, 5.0)
    assert Ratings.restored(model.constants()) == model
    assert Ratings.of(np.full(4, 7.0)).scale_factor == 1
    rated = sparse.csr_matrix(([5.0, 0.0, 2.0], ([0, 0, 2], [0, 1, 1])), shape=(3, 2))
    users, items = np.array([[1.0], [0], [-9]], np.float32), np.array([[9.0], [0]], np.float32)
    found = rating_errors.measure(users, items, model, rated)  # predicts 5 (of more), 3, 3
    assert found.rmse == pytest.approx((10 / 3) ** 0.5)
    assert found.mae == pytest.approx(4 / 3)
    assert found.r2 == pytest.approx(1 - 10 / (4 + 9 + 1))
    np.testing.assert_allclose(found.of_user, [4.5**0.5, np.nan, 1])
    assert rating_errors.relevant(rated, model.mean).nnz == 1
    assert rating_errors.relevant(rated).nnz == 2
