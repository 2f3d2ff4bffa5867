"""From interactions to the confidence matrix: c_ui = 1 + alpha * w(r_ui) (Hu, Koren and Volinsky, ICDM 2008).

The step between filters and training. Pure: no database, no trainer.

The matrix (users x items, CSR, float32) stores c itself for each pair and nothing for the others, whose confidence is 1
and whose preference is 0. That is what `implicit` expects: it takes a stored value as C_ui, adds (c - 1) to the Gram
matrix and c to the right-hand side, so the 1 has to be in the value, and its own `alpha`, which would multiply the
whole, has to stay 1.0.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recstore.definition import Confidence, ConfidenceFunction, Definition
from recstore.model.interactions import Index, Interactions, Values

SMALLEST, LARGEST = 1e-30, 1e30
"""Bounds of w, well inside float32: a weight of 0 would make a view count as none."""


@dataclass(frozen=True, eq=False)
class ConfidenceModel:
    """The function w with everything it took from the training data, so that a fold-in weighs new views the same way.

    `scale_factor` is the mean of the unscaled w over the training pairs (1 for scale = "none"), by which w is divided;
    `mean_total` is the mean over users of the user's total (sum of values); `idf` is float64 (items,), of bm25 only.
    """

    function: ConfidenceFunction
    eps: float
    k1: float
    b: float
    scale_factor: float
    mean_total: float
    idf: NDArray[np.float64] | None = field(default=None, repr=False)

    def constants(self) -> dict[str, Any]:
        """The constants apart from `idf`, ready for JSON; `ConfidenceModel(**constants, idf=idf)` gives it back."""
        return {constant.name: getattr(self, constant.name) for constant in fields(self) if constant.name != "idf"}

    def weights(self, user_index: Index, item_index: Index, values: Values) -> Values:
        """w of each pair, float64, within [1e-30, 1e30]. The rows must hold all pairs of each user that occurs, since
        share and bm25 use the user's total; `user_index` may be any numbering, `item_index` is the training's."""
        return np.clip(self._unscaled(user_index, item_index, values) / self.scale_factor, SMALLEST, LARGEST)

    def matrix(self, interactions: Interactions, alpha: float) -> sparse.csr_matrix:
        """c = 1 + alpha * w as float32 CSR, users x items, indices sorted; every stored value is greater than 1. The
        items must be the training's; a user of the map without pairs gives an empty row."""
        weights = self.weights(interactions.user_index, interactions.item_index, interactions.values)
        with np.errstate(over="ignore"):
            confidence = (1 + alpha * weights).astype(np.float32)
        np.clip(confidence, np.nextafter(np.float32(1), np.float32(2)), np.finfo(np.float32).max, out=confidence)
        shape = len(interactions.users), len(interactions.items)
        pairs_of_user = np.bincount(interactions.user_index, minlength=shape[0])
        pointers = np.concatenate(([0], np.cumsum(pairs_of_user)))
        return sparse.csr_matrix((confidence, interactions.item_index, pointers), shape=shape)

    def _unscaled(self, user_index: Index, item_index: Index, values: Values) -> Values:
        match self.function:
            case "binary":
                weights = np.ones(len(values))
            case "linear":
                weights = values
            case "log":
                with np.errstate(over="ignore"):
                    weights = np.log1p(values / self.eps)
            case "share":
                weights = values / np.bincount(user_index, weights=values)[user_index]
            case "bm25":
                assert self.idf is not None
                norm = 1 - self.b + self.b * np.bincount(user_index, weights=values) / self.mean_total
                with np.errstate(over="ignore"):
                    weights = self.idf[item_index] * (self.k1 + 1) / (1 + self.k1 * norm[user_index] / values)
        return np.clip(weights, SMALLEST, LARGEST)


def fit(interactions: Interactions, confidence: Confidence) -> ConfidenceModel:
    """Takes means and item frequencies from the training interactions. The functions w of a value r:

    - linear: r, as in the paper; log: ln(1 + r / eps), the paper's other form; binary: 1
    - share: r / n_u
    - bm25: idf_i r (K1 + 1) / (K1 (1 - B + B n_u / mean n) + r), with Lucene's idf
      ln(1 + (N - n_i + 0.5) / (n_i + 0.5)), which is positive for every item

    n_u is the user's total, the sum of the values and not the number of items: it is the document length of BM25 when
    the user is the document and r the term frequency (as in `implicit`'s bm25_weight), so someone who views everything
    many times weighs less per view. n_i is the number of users of item i, N the number of users.
    """
    users = len(interactions.users)
    users_of_item = np.bincount(interactions.item_index, minlength=len(interactions.items))
    idf = _idf(users_of_item, users) if confidence.function == "bm25" else None
    model = ConfidenceModel(
        function=confidence.function,
        eps=confidence.eps,
        k1=confidence.k1,
        b=confidence.b,
        scale_factor=1.0,
        mean_total=float(interactions.values.sum()) / users,
        idf=idf,
    )
    if confidence.scale == "none":
        return model
    weights = model.weights(interactions.user_index, interactions.item_index, interactions.values)
    return replace(model, scale_factor=float(weights.mean()))


def alpha_for(interactions: Interactions, given: float | None) -> float:
    """The alpha for these training pairs: `given`, or where that is unset density^-0.7 / 4, within 2 and 100, three digits.

    Density is the share of cells with a pair, of the users and items that have any: the rarer a view, the more it says. The
    exponent and the factor are fitted to the best alphas on seven data sets: docs/decisions/0018-defaults.md.
    """
    if given is not None:
        return given
    users, items = (
        np.count_nonzero(np.bincount(index)) for index in (interactions.user_index, interactions.item_index)
    )
    density = len(interactions) / (users * items)
    return float(f"{min(max(density**-0.7 / 4, 2.0), 100.0):.3g}")


def restore(constants: dict[str, Any], item_users: NDArray[np.int64], users: int) -> ConfidenceModel:
    """The model again from its constants and from the users that each item, (items,), and all items together had."""
    idf = _idf(item_users, users) if constants["function"] == "bm25" else None
    return ConfidenceModel(**constants, idf=idf)


def _idf(item_users: NDArray[np.int64], users: int) -> NDArray[np.float64]:
    return np.log1p((users - item_users + 0.5) / (item_users + 0.5))


@dataclass(frozen=True, eq=False)
class Weighted:
    """The confidences of the pairs to train on, and what weighs other pairs the same way."""

    model: ConfidenceModel
    alpha: float
    matrix: sparse.csr_matrix  # (users, items)

    def of(self, interactions: Interactions) -> sparse.csr_matrix:
        """Return the confidences of other pairs of the same items, (users, items)."""
        return self.model.matrix(interactions, self.alpha)

    def details(self) -> dict[str, Any]:
        scale_factor = round(self.model.scale_factor, 6)
        return {"function": self.model.function, "alpha": self.alpha, "scale_factor": scale_factor}

    def __str__(self) -> str:
        return f"confidence from {self.model.function}"


def weigh(interactions: Interactions, definition: Definition) -> Weighted:
    """Return the confidences of the pairs to train on."""
    model = fit(interactions, definition.confidence)
    alpha = alpha_for(interactions, definition.hyperparameters.alpha)
    return Weighted(model, alpha, model.matrix(interactions, alpha))
