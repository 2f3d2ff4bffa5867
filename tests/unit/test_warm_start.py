"""Training on from the live generation's items: as good in fewer iterations, and only where it is fair and fits."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from test_comparison import KEY, Trained

from recstore.definition import Confidence, Definition, Hyperparameters, Source
from recstore.evaluation.curves import LearningCurve
from recstore.evaluation.fitted import weigh
from recstore.evaluation.splits import by_share
from recstore.model import held_out
from recstore.model.interactions import IdMap
from recstore.model.trainers import trainer
from recstore.model.warm_start import initial_items

GIVEN = Hyperparameters(factors=12, iterations=15, alpha=5)
DEFINITION = Definition(source=Source(table="views"), hyperparameters=GIVEN)


@pytest.fixture(scope="module")
def views(views):
    return replace(views, values=np.ones(len(views)))


def generation(interactions, share=0.1):
    return Trained(interactions, GIVEN, share=share).stored


@pytest.mark.statistical
def test_it_reaches_in_five_iterations_what_a_cold_start_reaches_in_fifteen(views):
    """On the views of later, of which the generation before knew nine in ten."""
    split = by_share(views, 0.1, seed=1, validation=True)
    before = split.train.subset(np.random.default_rng(2).random(len(split.train)) < 0.9)
    nothing = held_out.choose(split.train, KEY, 0)
    start = initial_items(generation(before, share=0), DEFINITION, split.train.items, nothing, 12)
    als, matrix = trainer("als"), weigh(split.train, Confidence(), GIVEN).matrix
    curves = {}
    for name, initial in (("cold", None), ("warm", start)):
        curve = LearningCurve(split, on_train=False)
        curve.begin(als, matrix)
        als.train(matrix, GIVEN, factors=12, device="cpu", item_factors=initial, on_factors=curve)
        curves[name] = [point.validation["ndcg@20"] for point in curve.points]
    reached = 0.99 * curves["cold"][-1]
    first = {name: next(n for n, value in enumerate(curve, 1) if value >= reached) for name, curve in curves.items()}
    assert first["warm"] <= GIVEN.warm_iterations
    assert first["warm"] < first["cold"]


def test_items_keep_their_factors_and_new_ones_begin_at_zero(views):
    live = generation(views.subset(views.item_index >= 20))
    start = initial_items(live, DEFINITION, views.items, held_out.choose(views, KEY, 0), 12)
    assert not start[:20].any()
    np.testing.assert_array_equal(start[20:], live.fold_in.item_factors)


def altered(**hyperparameters):
    return DEFINITION.model_copy(update={"hyperparameters": GIVEN.model_copy(update=hyperparameters)})


def test_where_it_does_not_fit_it_begins_cold(views):
    live, held = generation(views), held_out.choose(views, KEY, 0.1)
    given = {"definition": DEFINITION, "items": views.items, "held": held, "factors": 12}
    assert initial_items(live, **given) is not None
    assert (
        initial_items(
            live, **given | {"definition": altered(iterations=3, seed=1, warm_iterations=2, popularity_exponent=0.1)}
        )
        is not None
    )
    for different in (
        {"definition": altered(alpha=6)},
        {"definition": altered(warm_iterations=0)},
        {"definition": DEFINITION.model_copy(update={"confidence": Confidence(function="log")})},
        {"factors": 13},
        {"items": IdMap(pa.array(range(100, 300)))},
    ):
        assert initial_items(live, **given | different) is None
    assert initial_items(None, **given) is None


def test_it_does_not_begin_with_what_has_seen_the_held_out_pairs(views):
    held = held_out.choose(views, KEY, 0.1)
    given = DEFINITION, views.items, held, 12
    assert initial_items(generation(views, share=0), *given) is None
    assert initial_items(generation(views, share=0.05), *given) is None
    assert initial_items(generation(views, share=0.2), *given) is not None
