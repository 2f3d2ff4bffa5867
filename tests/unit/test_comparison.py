"""The comparison of two generations on what neither was trained on: a worse one is stopped, an equal one is not, and whoever
has seen the held-out pairs would be found out."""

from dataclasses import replace
from types import SimpleNamespace
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats

from recstore.definition import Definition, Hyperparameters, Source
from recstore.evaluation import gate
from recstore.evaluation.metrics import evaluate
from recstore.model import held_out
from recstore.model.confidence import weigh
from recstore.model.interactions import IdMap, Interactions
from recstore.model.trained import Stored, of
from recstore.model.trainers import trainer
from recstore.model.vectors import ItemWeights

KEY = UUID(int=3)
GIVEN = Hyperparameters(factors=8, iterations=8, regularization=10, alpha=60)
TOLERANCE = 0.05
DAY = 24 * 3600 * 10**6


class Trained:
    """A training on what is not held out, with `leak` on everything, and its generation as the database gives it back."""

    def __init__(self, interactions, settings=GIVEN, *, share=0.1, leak=False, held=None):
        self.interactions, self.held = interactions, held or held_out.choose(interactions, KEY, share)
        definition = Definition(source=Source(table="views"), hyperparameters=settings)
        weighted = weigh(interactions if leak else interactions.part(~self.held.pairs), definition)
        fold_in = trainer("als").train(weighted.matrix, settings, factors=settings.factors, device="cpu").fold_in
        self.stored = of(41, definition, interactions, self.held, weighted, fold_in)

    def judged(self, live=None):
        return gate.judge(self.interactions, self.held, KEY, self.stored, live, tolerance=TOLERANCE)


@pytest.fixture(scope="module")
def first(views):
    return Trained(views)


def test_against_popularity(first):
    verdict = first.judged()
    assert verdict.live is None
    assert verdict.unknown == "there is no live generation"
    assert verdict.popularity.other == "popularity"
    assert {name.partition("@")[2] for name in verdict.metrics} == {"20"}  # neither auc nor mse
    assert verdict.popularity.of_new == verdict.metrics["ndcg@20"] > 2 * verdict.popularity.of_other
    assert not verdict.popularity.worse(0)


def test_the_same_generation_again_is_equal(first):
    verdict = first.judged(first.stored)
    compared = verdict.live
    assert (verdict.unknown, verdict.worse) == (None, False)
    assert (compared.difference, compared.standard_error, compared.worse(0)) == (0, 0, False)
    assert compared.other == "generation 41"
    assert compared.of_new == first.judged().metrics["ndcg@20"]


def test_users_count_who_have_a_pair_to_be_folded_in_by_and_one_to_be_found(views):
    pairs = np.random.default_rng(1).random(len(views)) < 0.1
    pairs[views.user_index == 7] = True
    pairs[views.user_index == 8] = np.arange(np.count_nonzero(views.user_index == 8)) > 0  # all but one
    verdict = Trained(views, held=held_out.HeldOut(pairs, 2**64 - 1)).judged()
    found, known = (np.bincount(views.user_index[mask], minlength=900) for mask in (pairs, ~pairs))
    counted = (found > 0) & (known > 0)
    assert not counted[7]
    assert (verdict.users, verdict.pairs) == (counted.sum(), found[counted].sum())
    assert (found[counted] == 1).any()
    assert known[8] == 1


def test_without_a_held_out_pair_nothing_is_compared(first):
    nothing = held_out.HeldOut(np.zeros(len(first.interactions), dtype=bool), 0)
    verdict = gate.judge(first.interactions, nothing, KEY, first.stored, first.stored, tolerance=TOLERANCE)
    assert (verdict.metrics, verdict.users, verdict.pairs) == ({}, 0, 0)
    assert (verdict.popularity, verdict.live) == (None, None)
    assert verdict.unknown.startswith("no user has a pair")


def test_a_training_holds_out_pairs_of_items_with_enough_users_and_of_items_it_does_not_know():
    ids = [IdMap(pa.array(range(number))) for number in (2, 3)]
    index = np.arange(3, dtype=np.int32)
    interactions = Interactions(ids[1], ids[1], index, index, np.ones(3))
    bounds = {"min_users": 5, "users_below": 2**64 - 1, "pairs_below": held_out.PAIRS_BELOW}
    model = SimpleNamespace(items=ids[0], item_users=np.array([4, 5]), held_out=bounds)
    assert gate._held_out_of(model, interactions, KEY).tolist() == [False, True, True]
    bounds["pairs_below"] -= 1
    assert not gate._held_out_of(model, interactions, KEY).any()


def test_users_are_folded_in_by_every_pair_of_known_items_and_unknown_items_score_nothing(views):
    model, sample = Trained(views.subset(views.item_index < 160)).stored, np.array([0, 5, 899])
    model = replace(model, confidence=replace(model.confidence, half_life=DAY / 1e6, reference=9 * DAY))
    views = replace(views, times=np.random.default_rng(2).integers(0, 9 * DAY, len(views)))
    scores = gate._scorer("live", model, views, np.ones(len(views), dtype=bool), sample, 1).scores(np.arange(3))
    rows = views.part(views.item_index < 160)
    rows = Interactions(views.users, model.items, rows.user_index, rows.item_index, rows.values, rows.times)
    users = trainer("als").solve_users(model.confidence.matrix(rows, model.alpha)[sample], model.fold_in)
    np.testing.assert_allclose(scores[:, :160], users @ model.fold_in.item_factors.T, rtol=1e-4, atol=1e-5)
    assert not scores[:, 160:].any()


def test_the_standard_error_is_of_the_mean_of_the_paired_differences():
    theirs, ours = np.array([0.1, 0.5, 0.2, 0.8]), np.array([0.3, 0.4, 0.2, 1.0])
    each = [SimpleNamespace(per_user={"ndcg@20": values}) for values in (theirs, ours)]
    compared = gate._compare("popularity", SimpleNamespace(nnz=7), *each)
    assert (compared.users, compared.pairs) == (4, 7)
    assert (compared.of_other, compared.of_new) == (pytest.approx(0.4), pytest.approx(0.475))
    assert compared.difference == pytest.approx(0.075)
    assert compared.standard_error == pytest.approx(scipy.stats.sem(ours - theirs))


@pytest.mark.parametrize(
    ("difference", "standard_error", "worse"),
    [(-0.03, 0.001, True), (-0.02, 0.001, False), (-0.03, 0.02, False), (-0.05, 0.02, True), (0.1, 0.001, False)],
)
def test_a_difference_counts_from_the_tolerance_and_two_standard_errors_on(difference, standard_error, worse):
    compared = gate.Comparison("generation 41", 100, 200, 0.5, 0.5 + difference, difference, standard_error)
    assert compared.worse(TOLERANCE) == worse
    assert f", {2 * difference:+.0%} (" in str(compared)
    of_ratings = gate.Comparison(
        "generation 41", 100, 200, 0.5, 0.5 - difference, -difference, standard_error, gate.RMSE
    )
    assert of_ratings.worse(TOLERANCE) == worse  # a larger error is worse
    assert str(of_ratings).startswith("RMSE 0.")
    assert "against 0.0000 of popularity (standard" in str(gate.Comparison("popularity", 1, 2, 0, 0.5, 0.5, 0.1))


def test_equal_ones_pass(views, first):
    live = first.stored
    verdicts = [Trained(views, GIVEN.model_copy(update={"seed": seed})).judged(live).live for seed in range(5)]
    assert len({verdict.of_new for verdict in verdicts}) == 5
    assert not any(verdict.worse(TOLERANCE) for verdict in verdicts)


@pytest.mark.parametrize("worse", [{"factors": 1}, {"regularization": 3000.0}])
def test_a_worse_one_is_stopped(views, first, worse):
    live = first.stored
    verdict = Trained(views, GIVEN.model_copy(update=worse)).judged(live)
    assert verdict.live.of_new < 0.8 * verdict.live.of_other
    assert verdict.worse


def test_who_has_seen_the_held_out_pairs_scores_visibly_higher(views):
    settings = GIVEN.model_copy(update={"factors": 60, "regularization": 1.0})  # enough to know single pairs by heart
    honest, leaking = Trained(views, settings), Trained(views, settings, leak=True)
    compared = leaking.judged(honest.stored).live
    assert compared.difference > 3 * compared.standard_error
    # so a live generation that had seen them would hold up every honest one
    assert honest.judged(leaking.stored).live.difference < 0


def test_items_are_weighted_by_the_users_of_the_training_alone(first, monkeypatch):
    """Else each held-out pair would lift the item that it is to find."""
    model, seen = first.stored, []
    monkeypatch.setattr(gate, "evaluate", lambda scorer, *_, **__: seen.append(scorer) or evaluate(scorer, *_, **__))
    users = model.fold_in.item_users
    assert (users < model.item_users).any()
    weights = ItemWeights.of(users, 0.5)
    weighted = replace(model, weights=weights)
    verdict = gate.judge(first.interactions, first.held, KEY, weighted, None, tolerance=TOLERANCE)
    assert verdict.metrics != first.judged().metrics
    again = gate.judge(first.interactions, first.held, KEY, weighted, model, tolerance=TOLERANCE)
    assert again.live.difference == 0, "another exponent is no worse model"
    np.testing.assert_allclose(seen[0].item_factors, model.fold_in.item_factors * weights(users)[:, None], rtol=1e-6)


def test_only_pairs_that_the_live_generation_held_out_too_are_compared(first):
    new, live = first, first.stored
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
    before = views.subset(views.item_index < 160)
    now = views.subset(views.item_index >= 20)
    verdict = Trained(now).judged(Trained(before).stored).live
    assert verdict.difference > 2 * verdict.standard_error  # a ninth of the users want what the live one does not know
    assert verdict.of_other > 0.5 * verdict.of_new
