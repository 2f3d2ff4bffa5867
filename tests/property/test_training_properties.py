"""Exact user solves fulfil the normal equations, whatever the rows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from recstore.model.trainers import FoldIn, trainer


@given(
    users=st.integers(1, 6),
    items=st.integers(2, 12),
    factors=st.integers(1, 19),
    density=st.floats(0, 1),
    regularization=st.sampled_from([0.01, 1.0, 100.0]),
    seed=st.integers(0, 2**31),
)
def test_exact_users_fulfil_the_normal_equations(users, items, factors, density, regularization, seed):
    rng = np.random.default_rng(seed)
    viewed = rng.random((users, items)) < density
    confidence = np.where(viewed, 1 + 60 * rng.random((users, items)), 0).astype(np.float32)
    y = rng.normal(size=(items, factors)).astype(np.float32)
    solved = trainer("als").solve_users(
        sparse.csr_matrix(confidence), FoldIn(y, viewed.sum(axis=0), {"regularization": regularization})
    )
    assert solved.dtype == np.float32
    for row, p, x in zip(confidence.astype(float), viewed, solved, strict=True):
        c = np.where(p, row, 1.0)
        residual = y.T.astype(float) @ (c * (p - y.astype(float) @ x)) - regularization * x
        scale = np.abs(y.T.astype(float) @ (c * p)).max(initial=1)
        condition = np.linalg.norm(y.T.astype(float) @ (c[:, None] * y), 2)
        assert np.abs(residual).max() <= 1e-5 * (scale + condition * np.abs(x).max())
