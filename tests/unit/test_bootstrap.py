"""Confidence intervals of metrics: against theory, paired, and of ratings against plain arithmetic."""

import numpy as np
import pytest
from scipy import sparse

from recstore.evaluation import bootstrap, rating_errors
from recstore.evaluation.bootstrap import Bootstrap, interval, intervals
from recstore.evaluation.metrics import Metrics

USERS = 800


def sums(values, defined=True):
    return np.where(defined, values, 0), np.broadcast_to(defined, values.shape).astype(np.float64)


def test_an_interval_has_the_width_that_theory_gives_and_repeats():
    values = np.random.default_rng(1).random(USERS) ** 2
    found = Bootstrap(USERS, 42).resampled({"recall@20": sums(values)})
    low, high = intervals(found)["recall@20"]
    error = values.std() / USERS**0.5
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.25 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.25 * error)
    again = Bootstrap(USERS, 42).resampled({"recall@20": sums(values)})
    assert intervals(again) == intervals(found)
    assert intervals(Bootstrap(USERS, 43).resampled({"recall@20": sums(values)})) != intervals(found)


def test_intervals_contain_the_truth_about_95_times_in_100():
    random = np.random.default_rng(2)
    inside = 0
    for seed in range(200):
        low, high = intervals(Bootstrap(100, seed).resampled({"m": sums(random.random(100))}))["m"]
        inside += low < 0.5 < high
    assert 178 <= inside <= 199


def test_differences_are_paired():
    """Two models that differ by little for every user: the difference is certain where each metric alone is not."""
    random = np.random.default_rng(3)
    one = random.random(USERS)
    other = one - 0.01 + random.normal(0, 0.01, USERS)
    resamples = Bootstrap(USERS, 42)
    found, less = (resamples.resampled({"ndcg@20": sums(values)}) for values in (one, other))
    low, high = intervals(found, less)["ndcg@20"]
    assert 0.008 < low < high < 0.012
    assert intervals(found)["ndcg@20"][0] < intervals(less)["ndcg@20"][1]
    assert intervals(found, {"other": less["ndcg@20"]}) == {}


def test_memory_and_number_of_resamples_are_limited(monkeypatch):
    values = {"m": sums(np.random.default_rng(4).random(USERS))}
    whole = Bootstrap(USERS, 42).resampled(values)["m"]
    assert len(whole) == bootstrap.RESAMPLES
    monkeypatch.setattr(bootstrap, "CELLS", 3 * USERS + 1)
    np.testing.assert_allclose(Bootstrap(USERS, 42).resampled(values)["m"], whole)
    monkeypatch.setattr(bootstrap, "DRAWS", 300 * USERS)
    assert len(Bootstrap(USERS, 42).resampled(values)["m"]) == 300
    monkeypatch.setattr(bootstrap, "DRAWS", 1)
    assert len(Bootstrap(USERS, 42).resampled(values)["m"]) == bootstrap.LEAST_RESAMPLES


def test_users_without_a_value_do_not_count():
    """A metric over some of the users, and one over none."""
    values = np.random.default_rng(5).random(USERS)
    some = np.arange(USERS) % 4 == 0
    metrics = Metrics(
        300, 9, {}, {"auc": np.where(some, values, np.nan)[100:], "none": np.full(700, np.nan)}, np.arange(100, USERS)
    )
    placed = metrics.sums(np.arange(USERS))
    assert placed["auc"][0].sum() == pytest.approx(values[100:][some[100:]].sum())
    assert placed["auc"][1].sum() == 175
    found = Bootstrap(USERS, 42).resampled(placed)
    low, high = intervals(found)["auc"]
    assert low < values[100:][some[100:]].mean() < high
    assert interval(found["none"]) is None
    assert "none" not in intervals(found)


def test_errors_of_ratings_are_resampled_with_their_pairs(monkeypatch):
    """Where every resample has each user as often, the metrics are those of all pairs."""

    class Same:
        def integers(self, users, size):
            return np.tile(np.arange(users), (size[0], 1))

    class Model:
        mean = 3.0

        def ratings(self, scores):
            return scores

    random = np.random.default_rng(6)
    rated = sparse.csr_matrix(random.integers(1, 6, (30, 8)) * (random.random((30, 8)) < 0.4), dtype=np.float32)
    errors = rating_errors.measure(
        random.random((30, 2), dtype=np.float32), random.random((8, 2), dtype=np.float32), Model(), rated
    )
    monkeypatch.setattr(np.random, "default_rng", lambda _: Same())
    found = Bootstrap(30, 42).resampled(errors.sums)
    for name, value in errors.values().items():
        assert found[name][0] == pytest.approx(value), name
