"""From interactions to the confidence matrix: c_ui = 1 + alpha * w(r_ui) (Hu, Koren and Volinsky, ICDM 2008).

The step between filters and training. Pure: no database, no trainer.

The matrix (users x items, CSR, float32) stores c for each pair. Cells without a pair have confidence 1 and preference 0. A
disliked item has preference 0 with confidence c(|r|), stored as -c, which `implicit` takes so.
`implicit` takes a stored value as C_ui, adds (c - 1) to the Gram matrix and c to the right-hand side. So the value includes
the 1, and `implicit`'s own `alpha`, which would multiply the whole, must stay 1.0.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recstore.definition import Confidence, ConfidenceFunction, Definition, seconds
from recstore.errors import SourceInvalid
from recstore.model.arrays import Positions, Times, Values
from recstore.model.interactions import NO_TIME, Interactions
from recstore.model.ratings import Ratings

SMALLEST, LARGEST = 1e-30, 1e30
"""Bounds of w, well inside float32. A weight of 0 would make a view count as no view."""

EQUAL = 0.01
"""Largest share of values that may differ from the others and still count as all equal."""

BLOCK_PAIRS = 1 << 20
"""Pairs that are weighted at once."""

OLDEST = 60
"""Half-lives after which a value falls no further, to 1e-18 of itself; the age of a pair without a time."""


@dataclass(frozen=True, eq=False)
class ConfidenceModel:
    """The function w with its constants from the training data, so that a fold-in weights new views the same way.

    w is divided by `scale_factor`, the mean of the unscaled w over the training pairs (1 for scale = "none"). `mean_total` is
    the mean over users of the user's total (sum of values). `idf` is float64 (items,), the factor of each item that bm25 and
    power have.

    With a half-life, in seconds, a value r stands for r 2^(-age / half_life). The age is that of the pair's last interaction at
    `reference`, the newest time of the training in microseconds since 1970. A pair that is newer has the age 0.
    """

    function: ConfidenceFunction
    eps: float
    k1: float
    b: float
    scale_factor: float
    mean_total: float
    half_life: float | None = None
    reference: int | None = None
    activity_exponent: float | None = None
    rarity_exponent: float | None = None
    idf: NDArray[np.float64] | None = field(default=None, repr=False)

    def constants(self) -> dict[str, Any]:
        """Return the constants that are set, except `idf`, for JSON. `restore` is the inverse."""
        values = {constant.name: getattr(self, constant.name) for constant in fields(self) if constant.name != "idf"}
        return {name: value for name, value in values.items() if value is not None}

    def decayed(self, interactions: Interactions) -> Values:
        """Return the values of the pairs at the reference time; as they are without a half-life or without times."""
        if self.half_life is None or self.reference is None or interactions.times is None:
            return interactions.values
        times = interactions.times
        age = np.where(times < self.reference, float(self.reference) - times, 0.0)
        return interactions.values * np.exp2(-np.minimum(age / (1e6 * self.half_life), OLDEST))

    def weights(self, user_index: Positions, item_index: Positions, values: Values) -> Values:
        """Return w of each pair, float64, within [1e-30, 1e30]; of a dislike that of its absolute value.

        The rows must include all pairs of each user, since share and bm25 use the user's total. `user_index` may be any
        numbering; `item_index` is that of training."""
        weights = np.empty(len(values))
        for block, found in self._blocks(user_index, item_index, values):
            weights[block] = found
        return weights

    def matrix(self, interactions: Interactions, alpha: float) -> sparse.csr_matrix:
        """Return c = 1 + alpha * w as float32 CSR, users x items, with sorted indices, negative for dislikes. Every stored value
        is above 1, or below -1.

        The items must be those of training. A user without pairs has an empty row."""
        confidence = np.empty(len(interactions), dtype=np.float32)
        pairs = interactions.user_index, interactions.item_index, self.decayed(interactions)
        for block, weights in self._blocks(*pairs):
            with np.errstate(over="ignore"):
                above = (1 + alpha * weights).astype(np.float32)
            np.clip(above, np.nextafter(np.float32(1), np.float32(2)), np.finfo(np.float32).max, out=above)
            confidence[block] = np.copysign(above, interactions.values[block])
        return interactions.matrix(confidence)

    def _blocks(
        self, user_index: Positions, item_index: Positions, values: Values
    ) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Yield the weights of consecutive pairs, in blocks: all at once their terms would take 40 bytes per pair."""
        totals: Values | None = None
        if self.function in ("share", "bm25", "power"):
            summed = None if self.function == "power" else np.abs(values)
            totals = np.asarray(np.bincount(user_index, weights=summed), dtype=np.float64)
        for start in range(0, len(values), BLOCK_PAIRS):
            block = slice(start, start + BLOCK_PAIRS)
            of_user = None if totals is None else totals[user_index[block]]
            weights = np.clip(self._unscaled(of_user, item_index[block], np.abs(values[block])), SMALLEST, LARGEST)
            yield block, np.clip(weights / self.scale_factor, SMALLEST, LARGEST)

    def _unscaled(self, totals: Values | None, item_index: Positions, values: Values) -> Values:
        """Return the function of the values; `totals` are those of each pair's user, for power the number of items."""
        match self.function:
            case "binary":
                return np.ones(len(values))
            case "linear":
                return values
            case "log":
                with np.errstate(over="ignore"):
                    return np.asarray(np.log1p(values / self.eps))
            case "share":
                assert totals is not None
                return values / totals
            case "bm25":
                assert self.idf is not None
                assert totals is not None
                norm = 1 - self.b + self.b * totals / self.mean_total
                with np.errstate(over="ignore"):
                    return np.asarray(self.idf[item_index] * (self.k1 + 1) / (1 + self.k1 * norm / values))
            case "power":
                assert self.idf is not None
                assert totals is not None
                assert self.activity_exponent is not None
                with np.errstate(over="ignore"):
                    saturated = (self.k1 + 1) / (1 + self.k1 / values)
                    return np.asarray(self.idf[item_index] * saturated * totals**-self.activity_exponent)


def fit(interactions: Interactions, confidence: Confidence) -> ConfidenceModel:
    """Return the function w with means and item frequencies of the training interactions. For a value r, w is:

    - linear: r, as in the paper; log: ln(1 + r / eps), the paper's other form; binary: 1
    - share: r / n_u
    - bm25: idf_i r (K1 + 1) / (K1 (1 - B + B n_u / mean n) + r), with Lucene's idf
      ln(1 + (N - n_i + 0.5) / (n_i + 0.5)), which is positive for every item
    - power: r (K1 + 1) / (K1 + r) m_u^-a n_i^-c, with the user's number of items m_u: the spectral trainer's normalization

    With a half-life, r is the value at the newest time of these interactions. Raises SourceInvalid if they have no times.

    n_u is the user's total: the sum of the values, not the number of items. It is the document length of BM25 with users as
    documents and r as term frequency, as in `implicit`'s bm25_weight. A user with many views has less weight per view.
    n_i is the number of users of item i, N the number of users.
    """
    users = len(interactions.users)
    function = function_for(interactions, confidence.function)
    powers = {name: getattr(confidence, name) for name in ("activity_exponent", "rarity_exponent")}
    model = ConfidenceModel(
        function=function,
        eps=confidence.eps,
        k1=confidence.k1,
        b=confidence.b,
        scale_factor=1.0,
        mean_total=1.0,
        half_life=seconds(confidence.half_life) if confidence.half_life else None,
        reference=_newest(interactions.times) if confidence.half_life else None,
        **(powers if function == "power" else {}),
        idf=_item_factors(function, confidence.rarity_exponent, interactions.item_users(), users),
    )
    values = model.decayed(interactions)
    model = replace(model, mean_total=float(np.abs(values).sum()) / users)
    if confidence.scale == "none":
        return model
    weights = model.weights(interactions.user_index, interactions.item_index, values)
    return replace(model, scale_factor=float(weights.mean()))


def function_for(interactions: Interactions, fixed: ConfidenceFunction | None) -> ConfidenceFunction:
    """Return `fixed`, or if it is None power where nearly all values are equal, else bm25: docs/decisions/0042-power.md."""
    if fixed is not None:
        return fixed
    return "power" if equal_values(interactions) else "bm25"


def equal_values(interactions: Interactions) -> bool:
    """Return whether nearly all values are equal, signs left out, so that linear, log and binary are the same."""
    values = np.abs(interactions.values)
    common = np.median(values[:BLOCK_PAIRS]) if len(values) else 0.0
    return bool(np.count_nonzero(values != common) <= EQUAL * len(values))


def _newest(times: Times | None) -> int:
    """Return the newest time up to now: one in the future is a mistake, and would make all others old. Raises SourceInvalid."""
    known = np.empty(0) if times is None else times[(times != NO_TIME) & (times <= time.time() * 1e6)]
    if not len(known):
        raise SourceInvalid(
            reason="no row has a time up to now in last_at, which the half-life of the values needs",
            remedy="Fill in that column, or train without: --half-life none",
        )
    return int(known.max())


def alpha_for(interactions: Interactions, fixed: float | None) -> float:
    """Return `fixed`, or if it is None density^-0.7 / 4, within 2 and 100, to three digits.

    Density is the share of cells with a pair, counting users and items that have one. The exponent and the factor were
    fitted to the best alphas on seven data sets: docs/decisions/0018-defaults.md.
    """
    if fixed is not None:
        return fixed
    users, items = (
        np.count_nonzero(np.bincount(index)) for index in (interactions.user_index, interactions.item_index)
    )
    density = len(interactions) / (users * items)
    return float(f"{min(max(density**-0.7 / 4, 2.0), 100.0):.3g}")


Weighting = ConfidenceModel | Ratings
"""What makes the matrix for the trainer from interactions: confidences, or ratings about their mean."""


def restore(constants: dict[str, Any], item_users: NDArray[np.int64], users: int) -> Weighting:
    """Return the model from its constants, the number of users of each item, int64 (items,), and the number of all users."""
    if ratings := Ratings.restored(constants):
        return ratings
    idf = _item_factors(constants["function"], constants.get("rarity_exponent", 0.0), item_users, users)
    return ConfidenceModel(**constants, idf=idf)


def _item_factors(
    function: ConfidenceFunction, rarity_exponent: float, item_users: NDArray[np.int64], users: int
) -> NDArray[np.float64] | None:
    """Return the factor of each item in its weights, float64 (items,); None for a function without one."""
    if function == "bm25":
        return np.log1p((users - item_users + 0.5) / (item_users + 0.5))
    return np.maximum(item_users, 1.0) ** -rarity_exponent if function == "power" else None


@dataclass(frozen=True, eq=False)
class Weighted:
    """The confidences or the ratings of the pairs to train on, with the model that weights other pairs in the same way."""

    model: Weighting
    alpha: float
    matrix: sparse.csr_matrix  # (users, items)

    def of(self, interactions: Interactions) -> sparse.csr_matrix:
        """Return the matrix of other pairs of the same items, (users, items)."""
        return self.model.matrix(interactions, self.alpha)

    def details(self) -> dict[str, Any]:
        scale_factor = round(self.model.scale_factor, 6)
        return {"function": self.model.function, "alpha": self.alpha, "scale_factor": scale_factor}

    def __str__(self) -> str:
        if isinstance(self.model, Ratings):
            return f"ratings from {self.model.lowest:g} to {self.model.highest:g}, mean {self.model.mean:.4g}"
        return f"confidence from {self.model.function}"


def weigh(interactions: Interactions, definition: Definition) -> Weighted:
    """Return the confidences, or the ratings, of the pairs to train on."""
    if definition.source.explicit:
        return rate(interactions)
    model = fit(interactions, definition.confidence)
    alpha = alpha_for(interactions, definition.hyperparameters.alpha)
    return Weighted(model, alpha, model.matrix(interactions, alpha))


def rate(interactions: Interactions) -> Weighted:
    """Return the ratings of the pairs to train on, less their mean, in standard deviations."""
    model = Ratings.of(interactions.values)
    return Weighted(model, 1.0, model.matrix(interactions))
