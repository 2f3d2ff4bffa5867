"""The scores of factors, against the formula written out."""

import numpy as np
import pytest

from recstore.evaluation.scorers import FactorScorer


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
