"""Write numbers and names for people: digits that mean something, what a metric is, which of two values is better."""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from recstore.wording import duration

_NAMES = {
    "ndcg": "NDCG",
    "map": "MAP",
    "auc": "AUC",
    "mse": "MSE",
    "rmse": "RMSE",
    "mae": "MAE",
    "hit_rate": "hit rate",
    "mean_popularity": "mean popularity",
}


def metric_name(metric: str) -> str:
    """Return `ndcg@20` as NDCG@20; an unknown metric keeps its name."""
    base, at, k = metric.partition("@")
    return _NAMES.get(base, base) + at + k


def better(metric: str) -> Literal["higher", "lower"] | None:
    """Return which way is better; None if neither is."""
    base = metric.partition("@")[0]
    if base == "mean_popularity":
        return None
    return "lower" if base in ("mse", "rmse", "mae") else "higher"


def best_of(metric: str, values: Iterable[float]) -> float:
    """Return the greatest value, or the least of an error."""
    return min(values) if better(metric) == "lower" else max(values)


def score(value: float | None) -> str:
    """Return a metric or a score: four decimals below 1 as in published tables, at least four digits above."""
    if value is None:
        return "–"
    size = abs(value)
    text = f"{value:.3g}" if size < 0.01 else f"{value:,.{4 if size < 1 else max(0, 3 - int(math.log10(size)))}f}"
    return text.replace("-", "−")


def between(interval: tuple[float, float]) -> str:
    """Return the limits of an interval as text."""
    return " to ".join(map(score, interval))


def change(value: float | None, reference: float | None) -> str | None:
    """Return the difference to a reference in percent, or as a multiple from twofold; None without a positive one."""
    if value is None or not reference:
        return None
    ratio = value / reference
    if ratio >= 2:
        return f"× {ratio:,.0f}" if ratio >= 9.95 else f"× {ratio:.1f}"
    percent = 100 * (ratio - 1)
    text = f"{percent:+.1f}" if abs(percent) < 9.95 else f"{percent:+.0f}"
    return "±0 %" if float(text) == 0 else text.replace("-", "−") + " %"


def elapsed(seconds: float | None) -> str:
    """Return a duration; a dash for none."""
    return "–" if seconds is None else duration(seconds)


def moment(text: str) -> str:
    """Return an ISO 8601 time to the minute in UTC."""
    return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def setting(value: Any) -> str:
    """Return a hyperparameter's value as text, a number with four digits at most."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def settings(parameters: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return names and values in their order; those of a nested table as `confidence.function`."""
    flat = []
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            flat += settings(value, f"{prefix}{name}.")
        else:
            flat.append((f"{prefix}{name}", setting(value)))
    return flat
