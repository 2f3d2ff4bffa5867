"""Published vectors rank as the factors do, and give them back, over many orders of magnitude."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from recstore.model.vectors import COLLAPSED, factors_from, item_vectors, user_vectors


@st.composite
def factors(draw, width=5):
    """Rows of one side: directions of small whole numbers, at lengths from 1e-9 to 1e3; one row is long."""
    rows = draw(st.integers(1, 8))
    directions = draw(arrays.arrays(np.float32, (rows, width), elements=st.integers(-4, 4)))
    scales = draw(arrays.arrays(np.float32, (rows, 1), elements=st.integers(-9, 3).map(lambda power: 10.0**power)))
    return np.vstack([directions * scales, np.ones((1, width), dtype=np.float32)])


@given(x=factors(), y=factors(), padding=st.integers(0, 3))
def test_ranking_and_round_trip(x, y, padding):
    users, items = user_vectors(x, 5 + padding), item_vectors(y, 5 + padding)
    for factors_, unit, length, published in (
        (x, users.preference, users.length, users.published),
        (y, items.embedding, items.length, items.published),
    ):
        back = factors_from(unit, length, 5)
        np.testing.assert_allclose(back[published], factors_[published], rtol=1e-6)
        assert not back[~published].any()
        exact = np.linalg.norm(factors_.astype(float), axis=1)
        np.testing.assert_array_equal(published, exact >= COLLAPSED * exact.max())
        np.testing.assert_allclose(np.linalg.norm(unit, axis=1), published, atol=1e-6)

    predicted = x.astype(float) @ y.T.astype(float)
    scores = users.preference.astype(float) @ items.preference.T.astype(float)
    of_published = np.ix_(users.published, items.published)
    size = users.length[:, None] * items.longest
    np.testing.assert_allclose((scores * size)[of_published], predicted[of_published], atol=1e-6 * size.max())
    for user in np.flatnonzero(users.published):
        found = predicted[user, np.flatnonzero(items.published)[np.argsort(-scores[user, items.published])]]
        assert (np.diff(found) <= 1e-6 * size[user]).all()


@given(y=factors())
def test_a_common_scale_of_all_items_changes_no_vector(y):
    once, scaled = item_vectors(y, 5), item_vectors(y * np.float32(2**-10), 5)
    np.testing.assert_array_equal(once.embedding, scaled.embedding)
    np.testing.assert_array_equal(once.preference, scaled.preference)
