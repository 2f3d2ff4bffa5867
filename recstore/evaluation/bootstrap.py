"""Confidence intervals of metrics: the percentile bootstrap over users, paired between models (Efron and Tibshirani, "An
Introduction to the Bootstrap", 1993, chapter 13; for metrics of ranked lists: Sakai, "Evaluating Evaluation Metrics based on
the Bootstrap", SIGIR 2006).

Every resample draws as many users as there are, with replacement, and every model is measured on the same resamples.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from recstore.evaluation.rating_errors import R2, RMSE

RESAMPLES, LEAST_RESAMPLES, DRAWS = 1000, 200, 100_000_000
"""Resamples; fewer, down to the least, where these draws of users would be exceeded."""

LEVEL = 95
"""Per cent of the resamples that an interval contains."""

CELLS = 1 << 22
"""Weights to hold at once."""

Values = NDArray[np.float64]
Sums = tuple[Values, Values]
"""Two values per user (users,): a metric is the sum of the first over the sum of the second."""

Interval = tuple[float, float]


class Bootstrap:
    """Resamples of `users` users. The same arguments give the same resamples."""

    def __init__(self, users: int, seed: int) -> None:
        self._users, self._seed = users, seed

    def resampled(self, metrics: Mapping[str, Sums]) -> dict[str, Values]:
        """Return each metric on each resample, (resamples,), NaN where it is not defined."""
        columns = np.stack([each for sums in metrics.values() for each in sums], axis=1)
        users, random = self._users, np.random.default_rng(self._seed)
        resamples = max(LEAST_RESAMPLES, min(RESAMPLES, DRAWS // users))
        found = np.empty((resamples, columns.shape[1]))
        with threadpool_limits(1, "blas"):
            for start in range(0, resamples, step := max(1, CELLS // users)):
                rows = min(step, resamples - start)
                drawn = random.integers(users, size=(rows, users)) + users * np.arange(rows)[:, None]
                weights = np.bincount(drawn.ravel(), minlength=rows * users).reshape(rows, users)
                found[start : start + rows] = weights.astype(np.float64) @ columns
        with np.errstate(invalid="ignore"):
            means = found[:, ::2] / found[:, 1::2]
        return {name: _finished(name, mean) for name, mean in zip(metrics, means.T, strict=True)}


def interval(values: Values) -> Interval | None:
    """Return the limits of the interval; None where the metric is not defined in any resample."""
    if np.isnan(values).all():
        return None
    low, high = np.nanpercentile(values, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return round(float(low), 6), round(float(high), 6)


def intervals(resampled: Mapping[str, Values], less: Mapping[str, Values] | None = None) -> dict[str, Interval]:
    """Return the intervals of a model's metrics, or those of the difference to the metrics of another model."""
    values = resampled if less is None else {name: resampled[name] - less[name] for name in resampled if name in less}
    return {name: found for name, each in values.items() if (found := interval(each)) is not None}


def _finished(name: str, mean: Values) -> Values:
    if name == RMSE:
        return np.sqrt(mean)
    return 1 - mean if name == R2 else mean
