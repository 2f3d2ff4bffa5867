import json
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_interactions import batch, build

from recstore.definition import Confidence, seconds
from recstore.errors import SourceInvalid
from recstore.model.confidence import ConfidenceModel, alpha_for, fit, restore
from recstore.model.interactions import NO_TIME

ROWS = [(1, 1, 4.0), (1, 2, 1.0), (2, 1, 2.0), (3, 1, 1.0), (3, 3, 8.0)]
USERS = np.array([0, 0, 1, 2, 2])
VALUES = np.array([4.0, 1.0, 2.0, 1.0, 8.0])
TOTALS = np.array([5.0, 5.0, 2.0, 9.0, 9.0])
CONSTANTS = {"eps": 0.5, "k1": 1.2, "b": 0.75, "activity_exponent": 0.75, "rarity_exponent": 0.25}
FUNCTIONS = ("linear", "log", "binary", "share", "bm25", "power")
USERS_OF_ITEM = np.array([3, 1, 3, 3, 1])
ITEMS_OF_USER = np.array([2.0, 2, 1, 2, 2])


@pytest.fixture
def interactions():
    return build(batch(ROWS))[0]


def unscaled(function):
    match function:
        case "linear":
            return VALUES
        case "log":
            return np.log(1 + VALUES / 0.5)
        case "binary":
            return np.ones(5)
        case "share":
            return VALUES / TOTALS
        case "bm25":
            idf = np.log(1 + (3 - USERS_OF_ITEM + 0.5) / (USERS_OF_ITEM + 0.5))
            return idf * VALUES * 2.2 / (1.2 * (0.25 + 0.75 * TOTALS / (16 / 3)) + VALUES)
        case "power":
            return USERS_OF_ITEM**-0.25 * VALUES * 2.2 / (1.2 + VALUES) * ITEMS_OF_USER**-0.75


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_matrix_holds_one_plus_alpha_w(interactions, function):
    confidence = Confidence(function=function, scale="none", **CONSTANTS)
    matrix = fit(interactions, confidence).matrix(interactions, 40)
    assert matrix.dtype == np.float32
    assert matrix.shape == (3, 3)
    assert matrix.has_canonical_format
    assert (matrix.data > 1).all()  # with bm25 also for item 1, which all users viewed
    expected = np.zeros((3, 3))
    expected[[0, 0, 1, 2, 2], [0, 1, 0, 0, 2]] = 1 + 40 * unscaled(function)
    np.testing.assert_allclose(matrix.toarray(), expected, rtol=1e-6)


def test_the_function_unset_follows_the_values(interactions):
    equal = replace(interactions, values=np.full(5, 3.0))
    assert fit(interactions, Confidence()).function == "bm25"
    assert fit(equal, Confidence()).function == "power"
    assert fit(replace(equal, values=equal.values * [1, -1, 1, -1, 1]), Confidence()).function == "power", "dislikes"
    assert fit(equal, Confidence(function="log")).function == "log"
    many = build(batch([(user, user // 2, 1.0) for user in range(200)]))[0]
    for others, expected in ((2, "power"), (3, "bm25")):
        values = np.ones(200)
        values[:others] = 7
        assert fit(replace(many, values=values), Confidence()).function == expected


@pytest.mark.parametrize(
    ("items", "alpha"), [(1, 2.0), (16, 2.0), (100, 6.28), (400, 16.6), (700, 24.5), (6_000, 100.0)]
)
def test_alpha_unset_follows_the_density(items, alpha):
    """Each item is viewed by three users of its own, so the density is 1 / items."""
    interactions = build(batch([(user, user // 3, 1.0) for user in range(3 * items)]))[0]
    assert alpha_for(interactions, None) == alpha
    assert alpha_for(interactions, 60.0) == 60.0
    part = interactions.part(interactions.item_index < 100)
    assert alpha_for(part, None) == min(alpha, 6.28)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_scaled_weights_have_mean_one(interactions, function):
    model = fit(interactions, Confidence(function=function, **CONSTANTS))
    weights = model.weights(interactions.user_index, interactions.item_index, interactions.values)
    assert weights.mean() == pytest.approx(1)
    np.testing.assert_allclose(weights, unscaled(function) / unscaled(function).mean())
    assert model.scale_factor == pytest.approx(unscaled(function).mean())


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_stored_model_weighs_one_users_rows_the_same(interactions, function):
    model = fit(interactions, Confidence(function=function))
    constants = json.loads(json.dumps(model.constants()))
    again = ConfidenceModel(**constants, idf=None if model.idf is None else model.idf.copy())
    everyone = model.weights(interactions.user_index, interactions.item_index, interactions.values)
    last = interactions.user_index == 2
    alone = again.weights(np.zeros(2, np.int32), interactions.item_index[last], interactions.values[last])
    np.testing.assert_array_equal(alone, everyone[last])


@pytest.mark.parametrize("scale", ["mean", "none"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_extreme_values_stay_positive_and_finite(function, scale):
    rows = [(1, 1, 5e-324), (1, 2, 1e307), (2, 1, 1e-30), (2, 2, 1e307), (3, 1, 1.0)]
    interactions, _ = build(batch(rows))
    model = fit(interactions, Confidence(function=function, scale=scale, eps=1e-3))
    weights = model.weights(interactions.user_index, interactions.item_index, interactions.values).astype(np.float32)
    assert ((weights > 0) & np.isfinite(weights)).all()
    data = model.matrix(interactions, 1e20).data
    assert ((data > 1) & np.isfinite(data)).all()


@pytest.mark.parametrize(("user", "pairs"), [(1, [2, 0, 2]), (2, [2, 1, 0])])  # the last one has the last item alone
def test_a_user_without_pairs_is_an_empty_row(interactions, user, pairs):
    keep = interactions.user_index != user
    matrix = fit(interactions, Confidence()).matrix(interactions.part(keep), 1)
    assert matrix.shape == (3, 3)
    assert np.diff(matrix.indptr).tolist() == pairs


def test_the_least_confidence_is_the_next_number_above_one(interactions):
    matrix = fit(interactions, Confidence()).matrix(interactions, 1e-12)
    assert set(matrix.data) == {np.nextafter(np.float32(1), np.float32(2))}


DAY = 86_400_000_000


@settings(max_examples=30)
@given(
    ages=st.lists(st.one_of(st.none(), st.floats(-5, -0.01), st.floats(0.001, 400)), min_size=5, max_size=5).filter(
        lambda ages: any(age is not None and age >= 0 for age in ages)
    ),
    function=st.sampled_from(FUNCTIONS),
    half_life=st.sampled_from(["12 hours", "30 days", "90 weeks"]),
)
def test_values_halve_by_age(ages, function, half_life):
    """As if the source had given the decayed values; a time in the future is no reference, and counts as one at the reference."""
    now = int(time.time() * 1e6)
    times = np.array([NO_TIME if age is None else now - int(age * DAY) for age in ages])
    interactions = replace(build(batch(ROWS))[0], times=times)
    reference = max(at for at in times if at <= now)
    halvings = [60 if at == NO_TIME else (reference - at) / 1e6 / seconds(half_life) for at in times.tolist()]
    expected = VALUES * 2.0 ** -np.clip(halvings, 0, 60)
    model = fit(interactions, Confidence(function=function, half_life=half_life))
    assert model.reference == reference
    np.testing.assert_allclose(model.decayed(interactions), expected, rtol=1e-9)
    plain = fit(replace(interactions, values=expected), Confidence(function=function))
    pairs = interactions.user_index, interactions.item_index, expected
    np.testing.assert_allclose(model.weights(*pairs), plain.weights(*pairs), rtol=1e-9)
    again = restore(json.loads(json.dumps(model.constants())), interactions.item_users(), 3)
    np.testing.assert_array_equal(again.matrix(interactions, 4).data, model.matrix(interactions, 4).data)


def test_without_times_nothing_decays_and_no_half_life_can_be_trained(interactions):
    model = fit(replace(interactions, times=np.full(5, DAY)), Confidence(half_life="1 day"))
    np.testing.assert_array_equal(model.decayed(interactions), interactions.values)
    assert fit(interactions, Confidence()).constants().keys() == {
        "function",
        "eps",
        "k1",
        "b",
        "scale_factor",
        "mean_total",
    }
    for times in (None, np.full(5, NO_TIME), np.full(5, 2**62)):
        with pytest.raises(SourceInvalid, match="no row has a time up to now"):
            fit(replace(interactions, times=times), Confidence(half_life="1 day"))


@pytest.mark.parametrize(
    ("period", "expected"), [("7 days", 604_800), ("1.5 Hours", 5400), ("2weeks", 1_209_600), (" 90 minutes ", 5400)]
)
def test_periods(period, expected):
    assert seconds(period) == expected
    assert Confidence(half_life=period).half_life == period.strip()


@pytest.mark.parametrize(
    "period", ["", "7", "days", "-7 days", "0 days", "1 month", "7 days 3 hours", "1e3 days", "99999999999 weeks"]
)
def test_no_periods(period):
    with pytest.raises(ValueError, match="write a number and a unit"):
        Confidence(half_life=period)
