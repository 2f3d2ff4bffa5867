"""The comparison of two generations on what neither was trained on: a worse one is stopped, an equal one is not, and whoever
has seen the held-out pairs would be found out."""

from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest

from recstore.definition import Confidence, Definition, Hyperparameters, Source
from recstore.evaluation import gate
from recstore.model import confidence, held_out
from recstore.model.interactions import IdMap, Interactions
from recstore.model.trained import Stored
from recstore.model.trainers import trainer

KEY = UUID(int=3)
GIVEN = Hyperparameters(factors=8, iterations=8, regularization=10, alpha=60)
TOLERANCE = 0.05


@pytest.fixture(scope="module")
def views():
    """900 users of 9 clusters with 20 items each, 15 views of an own item to one of another."""
    random = np.random.default_rng(5)
    rows = set()
    for user in range(900):
        own = (user % 9) * 20 + np.minimum(random.geometric(0.12, 14) - 1, 19)
        rows |= {(user, int(item)) for item in np.concatenate([own, random.integers(0, 180, 2)])}
    user, item = np.array(sorted(rows), dtype=np.int32).T
    values = random.integers(1, 9, len(user)).astype(float)
    return Interactions(IdMap(pa.array(range(900))), IdMap(pa.array(range(180))), user, item, values)


class Trained:
    """A training that saw `seen` of the interactions, and its generation as the database would give it back."""

    def __init__(self, interactions, held, seen, settings=GIVEN):
        part = interactions.part(seen)
        self.interactions, self.held = interactions, held
        self.trainer = trainer(settings.trainer)
        self.model = confidence.fit(part, Confidence())
        self.matrix = self.model.matrix(interactions.part(~held.pairs), settings.alpha)
        trained_on = self.model.matrix(part, settings.alpha)
        self.fold_in = self.trainer.train(trained_on, settings, factors=settings.factors, device="cpu").fold_in
        self.settings = settings

    def stored(self):
        users = np.bincount(self.interactions.item_index, minlength=len(self.interactions.items))
        marks = self.held.stored(self.interactions)
        definition = Definition(source=Source(table="views"), hyperparameters=self.settings)
        parts = self.interactions.items, users, self.fold_in, self.model, self.settings.alpha, "als", definition, marks
        return Stored(41, *parts)

    def judged(self, live=None):
        return gate.judge(self.interactions, self.held, KEY, self.stored(), live)


def trained(views, settings=GIVEN, leak=False):
    held = held_out.choose(views, KEY, 0.1)
    return Trained(views, held, np.ones(len(views), dtype=bool) if leak else ~held.pairs, settings)


@pytest.fixture(scope="module")
def first(views):
    return trained(views)


def test_against_popularity(first):
    verdict = first.judged()
    assert verdict.live is None
    assert verdict.unknown == "there is no live generation"
    assert verdict.popularity.of_new == verdict.metrics["ndcg@20"] > 2 * verdict.popularity.of_other
    assert not verdict.popularity.worse(0)


def test_the_same_generation_again_is_equal(first):
    compared = first.judged(first.stored()).live
    assert (compared.difference, compared.standard_error) == (0, 0)
    assert compared.of_new == first.judged().metrics["ndcg@20"]


def test_equal_ones_pass(views, first):
    live = first.stored()
    verdicts = [trained(views, GIVEN.model_copy(update={"seed": seed})).judged(live).live for seed in range(5)]
    assert len({verdict.of_new for verdict in verdicts}) == 5
    assert not any(verdict.worse(TOLERANCE) for verdict in verdicts)


@pytest.mark.parametrize("worse", [{"factors": 1}, {"regularization": 3000.0}])
def test_a_worse_one_is_stopped(views, first, worse):
    live = first.stored()
    compared = trained(views, GIVEN.model_copy(update=worse)).judged(live).live
    assert compared.of_new < 0.8 * compared.of_other
    assert compared.worse(TOLERANCE)
    assert "against" in str(compared)


def test_who_has_seen_the_held_out_pairs_scores_visibly_higher(views):
    settings = GIVEN.model_copy(update={"factors": 60, "regularization": 1.0})  # enough to know single pairs by heart
    honest, leaking = trained(views, settings), trained(views, settings, leak=True)
    compared = leaking.judged(honest.stored()).live
    assert compared.difference > 3 * compared.standard_error
    # so a live generation that had seen them would hold up every honest one
    assert honest.judged(leaking.stored()).live.difference < 0


def test_only_pairs_that_the_live_generation_held_out_too_are_compared(first):
    new, live = first, first.stored()
    smaller = dict(live.held_out, users_below=live.held_out["users_below"] // 2)
    compared = new.judged(Stored(**vars(live) | {"held_out": smaller})).live
    assert 0.3 * new.judged(live).live.users < compared.users < 0.7 * new.judged(live).live.users
    rare = dict(live.held_out, min_users=int(np.median(live.item_users)))
    assert new.judged(Stored(**vars(live) | {"held_out": rare})).live.pairs < new.judged(live).live.pairs
    verdict = new.judged(Stored(**vars(live) | {"held_out": None}))
    assert (verdict.live, verdict.unknown) == (None, "generation 41 was trained on every pair")
    few = dict(live.held_out, users_below=1)
    assert "only 0 users" in new.judged(Stored(**vars(live) | {"held_out": few})).unknown


def test_items_that_come_and_go(views):
    """The live generation knows items 0 to 159 and some that are gone; the new one knows 20 to 179."""
    held = held_out.choose(views, KEY, 0.1)
    before = views.subset(views.item_index < 160)
    now = views.subset(views.item_index >= 20)
    live = Trained(before, held_out.choose(before, KEY, 0.1), ~held_out.choose(before, KEY, 0.1).pairs).stored()
    held = held_out.choose(now, KEY, 0.1)
    verdict = Trained(now, held, ~held.pairs).judged(live).live
    assert verdict.difference > 2 * verdict.standard_error  # a ninth of the users want what the live one does not know
    assert verdict.of_other > 0.5 * verdict.of_new
