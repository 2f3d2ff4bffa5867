"""Training on from the live generation's items: as good in fewer iterations, and only where it is fair and fits."""

from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest

from recstore.definition import Confidence, Definition, Hyperparameters, Source
from recstore.evaluation.curves import LearningCurve
from recstore.evaluation.fitted import fit as fit_model
from recstore.evaluation.splits import by_share
from recstore.model import held_out
from recstore.model.confidence import fit
from recstore.model.interactions import IdMap, Interactions
from recstore.model.trained import Stored
from recstore.model.warm_start import initial_items

KEY = UUID(int=3)
GIVEN = Hyperparameters(factors=12, iterations=15, alpha=5)
DEFINITION = Definition(source=Source(table="views"), hyperparameters=GIVEN)


@pytest.fixture(scope="module")
def views():
    """900 users of 9 clusters with 20 items each."""
    random = np.random.default_rng(5)
    rows = set()
    for user in range(900):
        own = (user % 9) * 20 + np.minimum(random.geometric(0.12, 14) - 1, 19)
        rows |= {(user, int(item)) for item in np.concatenate([own, random.integers(0, 180, 2)])}
    user, item = np.array(sorted(rows), dtype=np.int32).T
    return Interactions(IdMap(pa.array(range(900))), IdMap(pa.array(range(180))), user, item, np.ones(len(user)))


def generation(interactions, definition=DEFINITION, share=0.1):
    """A training on what is not held out, as the database would give it back."""
    held = held_out.choose(interactions, KEY, share)
    seen = interactions.part(~held.pairs)
    given = definition.hyperparameters
    fitted = fit_model(seen, definition.confidence, given, device="cpu")
    users = np.bincount(interactions.item_index, minlength=len(interactions.items))
    parts = fitted.factors.fold_in, fit(seen, Confidence()), given.alpha, "als", definition, held.stored(interactions)
    return Stored(41, interactions.items, users, *parts)


@pytest.mark.statistical
def test_it_reaches_in_five_iterations_what_a_cold_start_reaches_in_fifteen(views):
    """On the views of later, of which the generation before knew nine in ten."""
    split = by_share(views, 0.1, seed=1, validation=True)
    before = split.train.subset(np.random.default_rng(2).random(len(split.train)) < 0.9)
    nothing = held_out.choose(split.train, KEY, 0)
    start = initial_items(generation(before, share=0), DEFINITION, split.train.items, nothing, 12)
    curves = {}
    for name, initial in (("cold", None), ("warm", start)):
        curve = LearningCurve(split, on_train=False)
        fit_model(split.train, Confidence(), GIVEN, device="cpu", item_factors=initial, watch=curve)
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
    assert initial_items(live, **given | {"definition": altered(iterations=3, seed=1, warm_iterations=2)}) is not None
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
