"""Measure predicted ratings: RMSE and MAE on held-out ratings, and what counts as relevant where items are ranked. Pure."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from recstore.evaluation.definitions import PerUser
from recstore.model.arrays import Matrix
from recstore.model.ratings import Ratings

ALL = RMSE, MAE, R2 = "rmse", "mae", "r2"


def relevant(held_out: sparse.csr_matrix, mean: float | None = None) -> sparse.csr_matrix:
    """Return the pairs that a good list has: ratings of at least the mean of the training, without it all but dislikes."""
    pairs = held_out.tocoo()
    liked = pairs.data > 0 if mean is None else pairs.data >= mean
    return sparse.csr_matrix((pairs.data[liked], (pairs.row[liked], pairs.col[liked])), shape=held_out.shape)


@dataclass(frozen=True, eq=False)
class RatingErrors:
    """The errors of a model on held-out ratings (users x items), over all of them and per user, NaN for one without."""

    rmse: float
    mae: float
    r2: float
    of_user: PerUser
    """RMSE per user, (users,)."""
    sums: dict[str, tuple[PerUser, PerUser]]
    """Two values per user for each metric: the sum of the first over that of the second is rmse^2, mae, 1 - r2."""

    def values(self) -> dict[str, float | None]:
        """Return the errors by the names of the metrics."""
        return {RMSE: self.rmse, MAE: self.mae, R2: self.r2}


def measure(user_factors: Matrix, item_factors: Matrix, model: Ratings, rated: sparse.csr_matrix) -> RatingErrors:
    """Return the errors of the ratings that factors predict, which lie within the range of those in training:

    rmse = root of the mean of (r_ui - predicted)^2, mae = mean of |r_ui - predicted| (Herlocker et al., "Evaluating
    Collaborative Filtering Recommender Systems", TOIS 2004, section 4.1). r2 = 1 - rmse^2 / the mean of (r_ui - mean)^2, with
    the mean of the training: the share of the variance that is explained. It is the highest where rmse is the lowest.
    """
    user = np.repeat(np.arange(rated.shape[0]), np.diff(rated.indptr))
    predicted = np.empty(rated.nnz)
    for start in range(0, rated.nnz, 1 << 18):
        part = slice(start, start + (1 << 18))
        x, y = user_factors[user[part]], item_factors[rated.indices[part]]
        predicted[part] = model.ratings(np.einsum("nf,nf->n", x, y, dtype=np.float64))
    errors = rated.data - predicted
    each = errors**2, np.abs(errors), (rated.data - model.mean) ** 2, np.ones(rated.nnz)
    squares, absolutes, spreads, count = (np.bincount(user, v, rated.shape[0]).astype(np.float64) for v in each)
    of_user = np.sqrt(np.divide(squares, count, out=np.full(len(count), np.nan), where=count > 0))
    squared, absolute, spread = (float(values.mean()) for values in each[:3])
    sums = {RMSE: (squares, count), MAE: (absolutes, count), R2: (squares, spreads)}
    return RatingErrors(squared**0.5, absolute, 1 - squared / spread if spread else 0.0, of_user, sums)
