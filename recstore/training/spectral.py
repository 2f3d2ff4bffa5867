"""The spectral embedding: the truncated SVD of the degree-normalized pattern of who viewed what.

R is the binary pattern of the confidence matrix, d_u and d_i are the pairs of a user and the users of an item, and
D_u^-1/2 R D_i^-1/2 ~ U S V^T. Then y_i = S^q V_i d_i^b and x_u = S^(p - q) V^T D_i^-1/2 R_u, so that for p = 0 and
b = 1/2 the scores are the ideal low-pass filter of Shen et al., "How Powerful is Graph Convolution for Recommendation?"
(CIKM 2021). b is the hyperparameter `item_exponent`, p is `singular_exponent`. q says how the singular values
are shared between the sides, which changes no score but the cosine of two items. A user is a weighted sum of items:
x_u = S^(p - 2 q) sum over the user's items of d_i^(-1/2 - b) y_i.

The SVD is scikit-learn's randomized one (Halko, Martinsson and Tropp, SIAM Review 2011).
"""

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

from recstore.definition import Hyperparameters
from recstore.errors import DeviceUnavailable
from recstore.training import (
    Device,
    Factors,
    FoldIn,
    Matrix,
    OnFactors,
    OnIteration,
    item_users,
    usable_factors,
    warnings_for_factors,
)

SMALLEST = 1e-5
"""A singular value below this part of the largest is rounding; its factor is zero everywhere."""


class Spectral:
    """The trainer named "spectral"; see `recstore.training.Trainer`.

    The values of the matrix do not matter, only where it has any. The constants of its fold-in are {"item_exponent": b,
    "scales": [..]}, a scale per factor: x_u = scales * sum over the user's items of d_i^(-1/2 - b) y_i, elementwise.
    """

    def train(
        self,
        matrix: sparse.csr_matrix,
        hyperparameters: Hyperparameters,
        *,
        factors: int,
        device: Device = "auto",
        threads: int = 0,
        item_factors: Matrix | None = None,  # noqa: ARG002
        on_iteration: OnIteration | None = None,  # noqa: ARG002
        on_factors: OnFactors | None = None,
        with_loss: bool = False,  # noqa: ARG002
    ) -> Factors:
        """See `Trainer.train`. There are no iterations and no warm start. Scores are scaled to the mean 1 over the pairs
        of `matrix`. The signs of the factors are fixed."""
        if device == "gpu":
            raise DeviceUnavailable(reason="the trainer 'spectral' computes on the CPU only")
        sentences = warnings_for_factors(factors, matrix.shape[1])
        fold_in = _decompose(matrix, hyperparameters, usable_factors(factors, matrix.shape[1]))
        user_factors = self.solve_users(matrix, fold_in, threads)
        if on_factors is not None:
            on_factors(0, fold_in)
        return Factors(user_factors, fold_in, "cpu", tuple(sentences))
