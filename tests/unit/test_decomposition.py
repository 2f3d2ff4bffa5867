import numpy as np
import pytest
from scipy import sparse

from recstore.model.trainers import decomposition
from recstore.model.trainers.decomposition import leading


def of_tastes(rows, columns, tastes=12):
    """Return a sparse matrix in which groups of rows and columns belong together, and noise."""
    rng = np.random.default_rng(1)
    together = rng.integers(tastes, size=(rows, 1)) == rng.integers(tastes, size=columns)
    kept = rng.random((rows, columns)) < np.where(together, 0.2, 0.01)
    return sparse.csr_matrix(kept * rng.random((rows, columns)), dtype=np.float32)


@pytest.mark.parametrize("shape", [(700, 600), (600, 700)])
def test_values_and_vectors_are_those_of_the_dense_decomposition(shape):
    matrix = of_tastes(*shape)
    assert min(shape) > max(decomposition.SMALL, 4 * 30)  # or they would be those of the dense one
    values, vectors = leading(matrix, 30)
    _, s, v = np.linalg.svd(matrix.toarray().astype(float))
    np.testing.assert_allclose(values[:12], s[:12], rtol=1e-5)  # the tastes
    np.testing.assert_allclose(values, s[:30], rtol=1e-2)  # and noise, whose values lie close together
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(30), atol=1e-4)
    np.testing.assert_allclose(np.abs((v[:12] * vectors[:, :12].T).sum(axis=1)), 1, atol=1e-4)


@pytest.mark.parametrize("shape", [(700, 600), (600, 700), (40, 90)])
def test_beyond_the_rank_values_are_zero_and_vectors_are_numbers(shape):
    rank = of_tastes(shape[0], 5, 2)
    matrix = sparse.csr_matrix(sparse.hstack([rank] * (shape[1] // 5)))
    values, vectors = leading(matrix, 30)
    np.testing.assert_allclose(values[:5], np.linalg.svd(matrix.toarray())[1][:5], rtol=1e-4)
    assert values[5:].max() < 1e-3 * values[0]
    assert np.isfinite(vectors).all()
