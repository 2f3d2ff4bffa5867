"""Learning curves, the model that is measured, and the plain data that an evaluation ends in."""

import json

import numpy as np
import pytest
from test_interactions import batch, build

from recstore.definition import Confidence, Hyperparameters
from recstore.errors import DeviceUnavailable
from recstore.evaluation.curves import USERS, CurvePoint, LearningCurve, sample
from recstore.evaluation.fitted import fit, weigh
from recstore.evaluation.metrics import evaluate
from recstore.evaluation.results import Evaluation, Example, ModelResult
from recstore.evaluation.splits import Split, by_share, by_user
from recstore.model import confidence
from recstore.model.trainers import FoldIn, trainer

LOG3 = 1 / np.log2(3)


def hyperparameters(**settings):
    return Hyperparameters(**{"factors": 8, "regularization": 1.0, "alpha": 10.0, "iterations": 6} | settings)


class Fixed:
    """A trainer whose every user has the factor 1, so that item factors are the scores."""

    def solve_users(self, rows, fold_in, threads=0):  # noqa: ARG002
        return np.ones((rows.shape[0], 1), dtype=np.float32)


def small_split():
    """Everybody was trained on item 0, and item 1 is held out; users 1 and 2 also have item 2 in the test part."""
    interactions, _ = build(
        batch([(user, item, 1.0) for user in range(3) for item in range(4) if user > 0 or item < 2])
    )
    train, validation, test = (interactions.part(interactions.item_index == item) for item in (0, 1, 2))
    return Split(train, validation, test, "by hand")


RANKED = {1: [0.1, 9.0, 5.0, 4.0], 2: [0.1, 4.5, 5.0, 4.0], 3: [0.1, 1.0, 5.0, 4.0]}
"""Item factors by which the held-out item 1 has this place."""


def watched(places, split=None, iterations=20, **settings):
    """The curve of a training that puts the held-out item at `places`, in place."""
    curve = LearningCurve(split or small_split(), ks=(1, 2), **settings)
    curve.begin(Fixed(), small_split().train.matrix())
    y = np.zeros((4, 1), dtype=np.float32)
    for number, place in enumerate(places):
        y[:, 0] = RANKED[place]
        curve(number, FoldIn(y, np.ones(4, dtype=np.int64), {}))
    curve.finish(FoldIn(y, np.ones(4, dtype=np.int64), {}), iterations)
    return curve


def test_a_point_has_the_metrics_of_both_parts():
    curve = watched([3, 2, 1])
    assert [one.iteration for one in curve.points] == [1, 2, 3]
    assert [one.validation["ndcg@2"] for one in curve.points] == pytest.approx([0.0, LOG3, 1.0])
    assert [one.validation["recall@1"] for one in curve.points] == [0.0, 0.0, 1.0]
    assert [one.train["recall@2"] for one in curve.points] == [0.0, 0.0, 0.0]  # item 0 competes, and comes last
    assert curve.points[2].validation["mse"] == pytest.approx((0.9**2 + 8**2 + 5**2 + 4**2) / 4)
    assert curve.points[0].seconds <= curve.points[1].seconds <= curve.points[2].seconds


def test_training_items_compete_in_the_validation_where_that_is_asked_for():
    for include_seen, recall in ((False, [1.0, 1.0, 0.0]), (True, [1.0, 0.0, 0.0])):
        curve = LearningCurve(small_split(), ks=(2,), include_seen=include_seen)
        curve.begin(Fixed(), small_split().train.matrix())
        for number, place in enumerate((1, 2, 3)):
            y = np.array([[7.0], *([score] for score in RANKED[place][1:])], dtype=np.float32)  # item 0 is trained on
            curve(number, FoldIn(y, np.ones(4, dtype=np.int64), {}))
        assert [one.validation["recall@2"] for one in curve.points] == recall


def test_training_pairs_are_found_among_all_items():
    split = small_split()
    curve = watched([1, 2, 3], Split(split.validation, split.train, split.test, "the other way round"))
    assert [one.train["recall@1"] for one in curve.points] == [1.0, 0.0, 0.0]
    assert [one.train["recall@2"] for one in curve.points] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(("iterations", "points"), [(7, [3, 6, 7]), (6, [3, 6]), (2, [2])])
def test_every_nth_iteration_is_a_point_and_the_last(iterations, points):
    assert [one.iteration for one in watched([3] * iterations, every=3).points] == points


def test_a_training_that_starts_over_starts_the_curve_over():
    curve = watched([1, 2])
    for number, place in enumerate([3, 3, 1]):
        curve(number, FoldIn(np.array(RANKED[place], dtype=np.float32)[:, None], np.ones(4, dtype=np.int64), {}))
    assert [one.validation["recall@1"] for one in curve.points] == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("places", [[], [1]])
def test_a_trainer_without_iterations_has_one_point(places):
    """Called once or never: the number of iterations is the one that it began with."""
    assert [one.iteration for one in watched(places, iterations=15).points] == [15]


def test_only_what_is_asked_for_is_measured():
    assert watched([1], on_train=False).points[0].train == {}
    whole = watched([1])
    names = {f"{name}@{k}" for name in ("precision", "recall", "ndcg", "map", "hit_rate", "coverage") for k in (1, 2)}
    assert set(whole.points[0].validation) == set(whole.points[0].train) == names | {"mse"}


def test_on_point_is_called_and_may_give_up():
    points = []

    def give_up(one):
        points.append(one)
        if len(points) == 2:
            raise KeyError("hopeless")

    with pytest.raises(KeyError, match="hopeless"):
        watched([3, 2, 1], on_point=give_up)
    assert [one.iteration for one in points] == [1, 2]


def test_a_curve_needs_a_validation_part():
    with pytest.raises(ValueError, match="validation"):
        LearningCurve(small_split().refit())


def test_a_sample_of_users():
    users = np.arange(10, 30)
    chosen = sample(users, 5, seed=1)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert set(chosen.tolist()) <= set(users.tolist())
    assert chosen.tolist() == sample(users, 5, seed=1).tolist() != sample(users, 5, seed=2).tolist()
    assert len(set(sample(users, 19, seed=1).tolist())) == 19
    assert sample(users, 20, seed=1).tolist() == users.tolist()


# The model


def test_each_point_is_what_a_training_with_so_many_iterations_gives(course):
    split = by_user(course, validation=True)
    curve = LearningCurve(split, every=2, ks=(5, 20))
    curve.follow(Confidence(), hyperparameters(iterations=5, popularity_exponent=0.2), device="cpu")
    assert [one.iteration for one in curve.points] == [2, 4, 5]
    train, validation = split.train.matrix(), split.validation.matrix()
    for one in curve.points:
        given = hyperparameters(iterations=one.iteration, popularity_exponent=0.2)
        alone = fit(split.train, Confidence(), given, device="cpu")
        held_out = evaluate(alone.scorer, train, validation, ks=(5, 20), users=split.users(split.validation))
        assert {name: held_out.values[name] for name in one.validation} == pytest.approx(one.validation, rel=1e-5)
        learned = evaluate(alone.scorer, train, train, ks=(5, 20), users=curve.users, exclude_train=False)
        for name in ("recall@5", "ndcg@20", "mse"):
            assert learned.values[name] == pytest.approx(one.train[name], rel=1e-5)
    assert curve.points[-1].train["ndcg@20"] > curve.points[-1].validation["ndcg@20"] > 0.3


def test_a_fitted_model_is_what_the_steps_of_a_retrain_give(course):
    settings = Hyperparameters(iterations=2)
    model = fit(course, Confidence(), settings, device="cpu")
    weights = confidence.fit(course, Confidence())
    matrix = weights.matrix(course, confidence.alpha_for(course, None))
    trained = trainer("als").train(matrix, settings, factors=118, device="cpu")
    np.testing.assert_array_equal(model.factors.item_factors, trained.item_factors)
    np.testing.assert_array_equal(model.user_factors, trainer("als").solve_users(matrix, trained.fold_in))
    assert (model.matrix != matrix).nnz == 0
    used = {"factors": 118, "alpha": confidence.alpha_for(course, None)}
    assert model.hyperparameters == settings.model_copy(update=used)
    assert model.name == model.scorer.name == "als"
    np.testing.assert_allclose(
        model.scorer.scores(np.array([3])), model.user_factors[[3]] @ model.factors.item_factors.T, rtol=1e-5, atol=1e-6
    )


def test_the_device_reaches_the_trainer(course):
    with pytest.raises(DeviceUnavailable):
        fit(course, Confidence(), hyperparameters(trainer="spectral"), device="gpu")


def test_factors_are_as_many_as_a_retrain_takes(course):
    def factors(**settings):
        model = fit(course, Confidence(), Hyperparameters(iterations=1, **settings), most_factors=64, device="cpu")
        return model.factors.item_factors.shape[1]

    assert factors() == 64
    assert factors(factors=70) == 70


@pytest.mark.parametrize("function", ["bm25", "share", "log"])
def test_a_part_is_weighed_as_if_the_other_users_were_not_known(course, function):
    keep = course.user_index % 3 != 0
    weighting = Confidence(function=function)
    matrix = weigh(course.part(keep), weighting, Hyperparameters(alpha=10)).matrix
    alone = course.subset(keep)
    expected = confidence.fit(alone, weighting).matrix(alone, 10.0)
    np.testing.assert_array_equal(matrix.data, expected.data)
    assert matrix.shape == (len(course.users), len(course.items))
    assert np.diff(matrix.indptr)[::3].tolist() == [0] * len(range(0, len(course.users), 3))


@pytest.mark.parametrize("name", ["als", "spectral", "hybrid"])
def test_users_and_items_without_a_pair_in_the_part_get_zeros(course, name):
    keep = (course.user_index % 3 != 0) & (course.item_index % 4 != 0)
    model = fit(course.part(keep), Confidence(), hyperparameters(trainer=name), device="cpu")
    assert not model.user_factors[::3].any()
    assert not model.factors.item_factors[::4].any()
    assert np.isfinite(model.scorer.scores(np.arange(6))).all()


@pytest.mark.parametrize(("name", "points"), [("spectral", [6]), ("hybrid", [4, 6])])
def test_the_curve_of_other_trainers(course, name, points):
    split = by_user(course, validation=True)
    curve = LearningCurve(split, every=4)
    curve.follow(Confidence(), hyperparameters(trainer=name), device="cpu")
    assert [one.iteration for one in curve.points] == points
    model = fit(split.train, Confidence(), hyperparameters(trainer=name), device="cpu")
    assert model.hyperparameters == hyperparameters(trainer=name)
    train, validation = split.train.matrix(), split.validation.matrix()
    held_out = evaluate(model.scorer, train, validation, users=curve.users).values
    for metric in ("recall@10", "ndcg@20", "mse"):
        assert held_out[metric] == pytest.approx(curve.points[-1].validation[metric], rel=1e-4)


def test_a_curve_is_of_a_seeded_sample_of_the_users_with_both_parts():
    rng = np.random.default_rng(0)
    rows = [(user, int(item), 1.0) for user in range(USERS + 500) for item in rng.choice(30, 4, replace=False)]
    split = by_user(build(batch(rows))[0], 1, validation=True)
    curve = LearningCurve(split)
    assert len(curve.users) == USERS
    assert set(curve.users.tolist()) <= set(split.users(split.validation).tolist())
    assert curve.users.tolist() == LearningCurve(split).users.tolist() != LearningCurve(split, seed=1).users.tolist()


def test_a_model_that_has_seen_the_test_part_gives_itself_away(course):
    split = by_user(course)
    train, test = split.train.matrix(), split.test.matrix()
    honest, leaked = (
        evaluate(fit(seen, Confidence(), hyperparameters(factors=32), device="cpu").scorer, train, test, ks=(10,))
        for seen in (split.train, course)
    )
    assert leaked.values["recall@10"] > 0.95
    assert leaked.values["recall@10"] > 1.4 * honest.values["recall@10"]


@pytest.mark.parametrize("way", [by_user, by_share])
def test_where_there_is_nothing_to_learn_nothing_is_found(way):
    """Every user viewed 20 random ones of 100 items: a model that finds more than chance has seen what was held out."""
    rng = np.random.default_rng(3)
    rows = [(user, int(item), 1.0) for user in range(400) for item in rng.choice(100, 20, replace=False)]
    split = way(build(batch(rows))[0], validation=True)
    curve = LearningCurve(split)
    curve.follow(Confidence(), hyperparameters(factors=32), device="cpu")
    model = fit(split.train, Confidence(), hyperparameters(factors=32), device="cpu")
    chance = 10 / (100 - len(split.train) / 400)
    found = evaluate(model.scorer, split.train.matrix(), split.test.matrix(), ks=(10,)).values["recall@10"]
    assert abs(found - chance) < 4 * np.sqrt(chance / len(split.test))
    assert abs(curve.points[-1].validation["recall@10"] - chance) < 4 * np.sqrt(chance / len(split.validation))
    assert curve.points[-1].train["recall@10"] > 0.5


# Plain data


def test_an_evaluation_goes_through_json():
    evaluation = Evaluation(
        *("retail", "by time", 42, 10, 20, 80, 20, 9),
        results=[
            ModelResult("als", {"recall@20": 0.25, "mse": None}, 1.5, {"factors": 8}, {"recall@20": (0.2, 0.3)}),
            ModelResult("popularity", {"recall@20": 0.1}, 0.5, {}, {}, {"recall@20": (0.1, 0.2)}),
        ],
        taken_at="2024-05-06T07:08:09+00:00",
        curve=[CurvePoint(3, {"recall@20": 0.5}, {"recall@20": 0.25}, 0.125)],
        examples=[Example("MUG", [("CUP", 0.9), ("POT", 0.8)])],
        warnings=["Few users."],
    )
    stored = json.loads(json.dumps(evaluation.as_dict()))
    assert Evaluation.from_dict(stored) == evaluation
    for result in stored["results"]:  # as stored by a version without intervals
        del result["intervals"], result["differences"]
    assert Evaluation.from_dict(stored).results[0].intervals == {}
