"""Numbers and names as people read them: digits that mean something, what a metric is, which of two is better."""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from numbers import Integral, Real
from typing import Any, Literal

from recstore.evaluation.curves import LOWER_IS_BETTER

Better = Literal["higher", "lower"]

_NAMES = {
    "ndcg": "NDCG",
    "map": "MAP",
    "auc": "AUC",
    "mse": "MSE",
    "hit_rate": "hit rate",
    "mean_popularity": "mean popularity",
}

_DEFINITIONS = {
    "precision": "hits among the first k, divided by k",
    "recall": "hits among the first k, divided by the user's held-out items",
    "ndcg": "hits among the first k, each worth 1 / log2(place + 1), divided by what min(k, held-out items) hits at "
    "the first places are worth",
    "map": "precision at the place of each hit among the first k, summed, divided by min(k, held-out items)",
    "hit_rate": "share of users with at least one hit among the first k",
    "coverage": "share of all items that stand among the first k of at least one user",
    "mean_popularity": "users whom the first k have in the training part, on average; neither high nor low is better",
    "auc": "how often a held-out item stands above an item that the user never saw, a tie counting half",
    "mse": "mean squared difference of score and preference (1 for the user's items, else 0) over all items; low is better",
}

_TIMES = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def metric_name(metric: str) -> str:
    """`ndcg@20` as NDCG@20; a metric that is not known here keeps its name."""
    base, at, k = metric.partition("@")
    return _NAMES.get(base, base) + at + k


def definitions(metrics: Iterable[str]) -> list[tuple[str, str]]:
    """Names and one line each that says what the metric is, several k of one metric together; without those that are
    not known here."""
    names: dict[str, list[str]] = {}
    for metric in dict.fromkeys(metrics):
        names.setdefault(metric.partition("@")[0], []).append(metric_name(metric))
    return [(", ".join(same), _DEFINITIONS[base]) for base, same in names.items() if base in _DEFINITIONS]


def better(metric: str) -> Better | None:
    """Which way is better; None where neither is."""
    base = metric.partition("@")[0]
    if base == "mean_popularity":
        return None
    return "lower" if base in LOWER_IS_BETTER else "higher"


def finite(value: Any) -> float | None:
    """The value as a float; None for what is no finite number (and for a truth value)."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def score(value: float | None) -> str:
    """A metric or a score: four decimals below 1 as in published tables, three significant digits below 0.01, and no
    digits below the fourth that means something above."""
    value = finite(value)
    if value is None:
        return "–"
    size = abs(value)
    if size == 0:
        text = "0"
    elif size < 0.001:
        text = f"{value:.2e}"
    elif size < 0.01:
        text = f"{value:.5f}"
    elif size < 1:
        text = f"{value:.4f}"
    else:
        text = f"{value:,.{max(0, 3 - int(math.log10(size)))}f}"
    return text.replace("-", "−")


def change(value: float | None, reference: float | None) -> str | None:
    """The difference to a reference in percent, or as a multiple from tenfold on; None where there is no such thing."""
    value, reference = finite(value), finite(reference)
    if value is None or reference is None or reference <= 0 or value < 0:
        return None
    ratio = value / reference
    if ratio >= 10:
        return f"× {ratio:,.0f}"
    percent = 100 * (ratio - 1)
    text = f"{percent:+.1f}" if abs(percent) < 9.95 else f"{percent:+.0f}"
    return "±0 %" if float(text) == 0 else text.replace("-", "−") + " %"


def duration(seconds: float | None) -> str:
    """0.24 s, 12 s, 3 min 20 s, 2 h 5 min."""
    seconds = finite(seconds)
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.2g} s"
    rest = float(round(seconds))
    parts = []
    for size, unit in _TIMES:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count:.0f} {unit}")
    return " ".join(parts[:2])


def moment(text: str) -> str:
    """A time in ISO 8601 to the minute in UTC; what is none stays as it is."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if time.tzinfo else text


def setting(value: Any) -> str:
    """A hyperparameter's value: numbers without digits that say nothing, everything else as it is."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        return f"{float(value):.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(setting(part) for part in value)
    return str(value)


def settings(parameters: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Names and values in their order; a table within has its name before each of its own: `confidence.function`."""
    flat = []
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            flat += settings(value, f"{prefix}{name}.")
        else:
            flat.append((f"{prefix}{name}", setting(value)))
    return flat
