"""The search without its trainings: bounds, the order of trials, pruning, the snapshot."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recstore.definition import Confidence, Definition, Hyperparameters, Source
from recstore.errors import InvalidInput
from recstore.evaluation import splits
from recstore.evaluation.curves import CurvePoint
from recstore.evaluation.fitted import weigh
from recstore.experiments.tuning import sampling, search, space, stages, studies, trials
from recstore.experiments.tuning.sampling import PART, Noise, noise_of
from recstore.experiments.tuning.search_options import Options
from recstore.experiments.tuning.space import BOUNDS, Choices, Parameters, Range, Space
from recstore.experiments.tuning.trials import TrialResult
from recstore.model import trainers
from recstore.model.interactions import IdMap, Interactions
from recstore.model.trainers import regularization_for

DEFINITION = Definition(source=Source(table="views"))
WHOLE = Space(("als", "spectral", "hybrid"), (8, 1024), BOUNDS)
FUNCTIONS = ("bm25", "power", "log", "linear", "binary", "share")
NOISE = Noise(100_000, 0.02, 10_000, 20.0, dict.fromkeys(FUNCTIONS, (100000.0, 150000.0)))


def interactions(values: float | None = None) -> Interactions:
    random = np.random.default_rng(1)
    pairs = np.unique(random.integers(0, 50, (400, 2)), axis=0).astype(np.int32)
    counts = random.integers(1, 9, len(pairs)).astype(np.float64) if values is None else np.full(len(pairs), values)
    ids = IdMap(pa.array(range(100, 150), pa.int64()))
    return Interactions(ids, ids, pairs[:, 0], pairs[:, 1], counts)


def plan(trials: int = 80, seconds: float = 1e9, within: Space = WHOLE, **more: Any) -> stages.Plan:
    start = space.present(DEFINITION) | {"factors": 128, "confidence": "bm25", "regularization": 100.0, "alpha": 60.0}
    return stages.Plan(within, start, trials, seconds, 42, NOISE, **more)


# bounds


def test_equal_values_leave_one_of_the_functions_that_they_make_the_same() -> None:
    assert space.default_space(interactions()).bounds["confidence"] == BOUNDS["confidence"]
    assert space.default_space(interactions(values=1)).bounds["confidence"] == Choices(("power", "bm25"))
    assert space.default_space(interactions()).factors == (8, 49)


def test_a_space_is_narrowed_by_values_lists_and_ranges() -> None:
    changes = {
        "trainer": "als",
        "factors": {"high": 256},
        "alpha": 40,
        "confidence": ["bm25", "log"],
        "regularization": {"low": 1, "high": 50},
        "item_exponent": {"low": 0.1, "high": 0.9},
        "popularity_exponent": 0,
    }
    made = space.narrowed(WHOLE, changes)
    assert made.trainers == ("als",)
    assert made.factors == (8, 256)
    assert made.of("als") == {
        "alpha": Choices((40,)),
        "confidence": Choices(("bm25", "log")),
        "activity_exponent": Range(0, 1),
        "popularity_exponent": Choices((0,)),
        "regularization": Range(1.0, 50.0, log=True),
        "rarity_exponent": Range(0, 0.6),
    }
    assert made.bounds["item_exponent"] == Range(0.1, 0.9, log=False)
    assert space.narrowed(WHOLE, {"k1": [10, 100]}).of("als")["k1"] == Choices((10, 100))
    assert space.narrowed(WHOLE, {"factors": 64}).factors == (64, 64)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"trainer": "nobody"}, "nobody"),
        ({"iterations": 5}, "learning curve"),
        ({"lambda": 5}, "lambda"),
        ({"alpha": {"low": 5, "high": 1}}, "alpha = "),
        ({"alpha": {"low": 0, "high": 1}}, "alpha = "),
        ({"alpha": {"least": 1}}, "alpha = "),
        ({"alpha": -1}, "alpha = -1"),
        ({"alpha": {"low": 1, "high": 1e9}}, "alpha = "),
        ({"confidence": ["tfidf"]}, "confidence = 'tfidf'"),
        ({"factors": 4000}, "1984"),
        ({"factors": {"low": 9, "high": 3}}, "factors = "),
    ],
)
def test_what_cannot_be_tuned_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        space.narrowed(WHOLE, changes)


def test_a_grid_is_the_product_of_its_lists_with_values_of_their_types() -> None:
    points = space.grid({"factors": ["64", "128"], "alpha": ["10", "40", "160"], "confidence": ["bm25"]})
    assert len(points) == 6
    assert points[1] == {"factors": 64, "alpha": 40.0, "confidence": "bm25"}
    assert space.grid({"alpha": ["10", "10.0"]}) == [{"alpha": 10.0}]
    for lists, says in (({"alpha": ["x"]}, "alpha = 'x'"), ({"iterations": ["5"]}, "learning curve")):
        with pytest.raises(InvalidInput, match=says):
            space.grid(lists)


def test_parameters_become_a_definition_and_are_read_back() -> None:
    parameters = {"trainer": "als", "factors": 32, "alpha": 5.0, "confidence": "log", "eps": 2.0}
    made = space.applied(DEFINITION, parameters, 7)
    assert made.confidence == Confidence(function="log", eps=2.0)
    assert made.hyperparameters == Hyperparameters(factors=32, alpha=5.0, iterations=7)
    assert space.present(made) == space.present(DEFINITION) | parameters
    assert space.words(parameters, 7) == "als, 32 factors, alpha 5, confidence log, eps 2, 7 iterations"


@pytest.mark.parametrize("metric", ["mse", "ndcg", "ndcg@0", "coverage@20", "ndcg@x"])
def test_a_metric_that_cannot_be_searched_by_is_refused(metric: str) -> None:
    with pytest.raises(InvalidInput, match="ndcg@20, recall@20"):
        Options(metric)


# the sampler


def test_a_suggestion_is_repeatable_within_bounds_and_learns() -> None:
    bounds = {"regularization": Range(0.01, 1000, log=True), "confidence": Choices(("bm25", "log"))}
    seen: list[tuple[Parameters, float | None]] = []
    for seed in range(40):
        asked = sampling.suggest(bounds, seen, seed)
        assert asked == sampling.suggest(bounds, seen, seed)
        assert all(bound.allows(asked[name]) for name, bound in bounds.items())
        good = -abs(math.log10(asked["regularization"]) - 1) - (asked["confidence"] == "log")
        seen.append((asked, good))
    latest = [parameters for parameters, _ in seen[-10:]]
    assert sum(0.5 < parameters["regularization"] < 200 for parameters in latest) >= 7
    assert sum(parameters["confidence"] == "bm25" for parameters in latest) >= 7


def test_a_trial_at_work_gives_the_next_another_suggestion() -> None:
    bounds = {"alpha": Range(0.1, 500, log=True)}
    seen: list[tuple[Parameters, float | None]] = [({"alpha": 10.0**n}, -abs(n - 1.0)) for n in (-1, 0, 1, 2)] * 3
    first = sampling.suggest(bounds, seen, 1)
    assert sampling.suggest(bounds, [*seen, (first, None)], 2) != first


# the regularization as a part of the noise


def test_the_noise_is_what_a_training_takes_for_its_default() -> None:
    train = interactions()
    noise = noise_of(train, Confidence(), FUNCTIONS)
    assert noise.pairs == len(train)
    for function in FUNCTIONS:
        for alpha in (0.5, 40.0):
            matrix = weigh(train, Confidence(function=function), Hyperparameters(alpha=alpha)).matrix
            edge = noise.edge({"factors": 50, "alpha": alpha, "confidence": function})
            default = regularization_for(matrix, Hyperparameters(alpha=alpha), 128)
            assert default <= 1.01 * trainers.NOISE * edge
            assert edge == pytest.approx(np.linalg.norm(matrix.data.astype(float)) * noise.spread, rel=1e-4)


def test_a_regularization_is_searched_as_a_part_of_the_noise_and_given_as_it_is() -> None:
    own = WHOLE.of("als")
    others = {
        "alpha": 5.0,
        "confidence": "bm25",
        "activity_exponent": 0.5,
        "rarity_exponent": 0.4,
        "popularity_exponent": 0.1,
    }
    parameters = {"factors": 75, "regularization": 30.0} | others
    there = NOISE.to(parameters, own)
    assert there == {"factors": 75, PART: 30 / NOISE.edge(parameters)} | others
    assert NOISE.back(there, own) == parameters
    assert {"factors", *NOISE.bounds(own)} == there.keys()
    many = NOISE.back(there | {"factors": 300}, own)
    assert many["regularization"] == 60.0, "the square root of the factors"
    assert NOISE.back(there | {"factors": 1200}, own) == NOISE.back(there | {"factors": 300}, own) | {"factors": 1200}
    assert NOISE.back(there | {PART: 1e9}, own)["regularization"] == 10_000, "never out of its bounds"
    fixed = space.narrowed(WHOLE, {"regularization": 7}).of("als")
    assert NOISE.bounds(fixed) == fixed
    assert NOISE.to(parameters, fixed) == parameters == NOISE.back(parameters, fixed)
    assert NOISE.bounds(WHOLE.of("spectral")) == WHOLE.of("spectral")


# the stages


def value_of(parameters: Parameters, *, pays: float = 0.1, peak: int = 1024) -> float:
    """Simulate a search's landscape: als is best at regularization 20 with 64 factors, alpha 5, spectral at other exponents;
    a hybrid is better than both, and more factors pay up to `peak`."""

    def of_als() -> float:
        wanted = 20 * trainers.few_factors(parameters["factors"], NOISE.ends) / trainers.few_factors(64, NOISE.ends)
        away = math.log10(parameters["regularization"] / wanted) ** 2 + math.log10(parameters["alpha"] / 5) ** 2
        return 0.1 * math.exp(-0.2 * away) * (1.0 if parameters["confidence"] == "binary" else 0.97)

    def of_spectral() -> float:
        away = (parameters["item_exponent"] - 0.3) ** 2 + math.log10(parameters["ridge"] / 0.1) ** 2
        return 0.095 * math.exp(-0.3 * away)

    doublings = math.log2(min(parameters["factors"], peak) / 64)
    more = 1 + pays * doublings if doublings > 0 else 1 + 0.2 * doublings
    match parameters["trainer"]:
        case "als":
            return more * of_als()
        case "spectral":
            return more * of_spectral()
        case _:
            mixed = 1.03 - 0.2 * (parameters["spectral_weight"] - 0.4) ** 2
            return more * mixed * (of_als() + of_spectral()) / 2


def played(
    plan: stages.Plan, found: list[TrialResult] | None = None, value: Callable[[Parameters], float] = value_of
) -> list[TrialResult]:
    """Play a search whose values are simulated, and whose seconds grow with the factors."""
    found = list(found or [])
    while begun := plan.next(found):
        found.append(ended(begun, value(begun.parameters)))
    return found


def ended(begun: TrialResult, value: float) -> TrialResult:
    seconds = (begun.parameters.get("factors", 64) / 64) ** 1.4
    return replace(begun, state="complete", value=value, iterations=9, seconds=seconds)


def top_of(found: list[TrialResult]) -> TrialResult:
    top = trials.best(found)
    assert top
    return top


def test_the_default_budget_comes_near_the_best_there_is() -> None:
    found = played(plan())
    assert len(found) == 80
    assert found[0].stage == "start"
    assert found[0].parameters["factors"] == 128
    top = top_of(found)
    assert (top.parameters["trainer"], top.parameters["factors"]) == ("hybrid", 1024)
    optimum = 1.4 * 1.03 * (0.1 + 0.095) / 2
    assert (top.value or 0) > 0.97 * optimum
    explored = [trial for trial in found if trial.stage == "explore"]
    assert {trial.parameters["factors"] for trial in explored} == {64}
    assert {trial.parameters["trainer"] for trial in explored} == {"als", "spectral", "hybrid"}


def test_factors_grow_or_shrink_only_as_long_as_that_pays() -> None:
    def of(**landscape: Any) -> list[TrialResult]:
        return played(plan(trials=40), value=lambda parameters: value_of(parameters, **landscape))

    # once at most, a regularization that is better with twice the factors looks as if these had paid
    assert top_of(of(peak=256)).parameters["factors"] in (256, 512)
    assert max(trial.parameters["factors"] for trial in of(pays=0.001)) <= 256
    assert top_of(of(pays=-0.1)).parameters["factors"] <= 64

    def flat(parameters: Parameters) -> float:
        return value_of(parameters | {"factors": 64}) * (1 if parameters["factors"] <= 32 else 0.9)

    assert top_of(played(plan(trials=40), value=flat)).parameters["factors"] <= 32


@pytest.mark.parametrize(("power", "strength"), [(1.0, 2.0), (-0.5, 0.5)])
def test_factors_that_do_not_pay_are_tried_with_another_regularization(power: float, strength: float) -> None:
    search = plan(trials=40, within=space.narrowed(WHOLE, {"trainer": "als"}))
    found: list[TrialResult] = []
    while begun := search.next(found):  # many factors need more or less than the rule says
        factors = begun.parameters["factors"]
        away = math.log(begun.parameters["regularization"] / (20 * (factors / 64) ** power))
        value = (1 + 0.1 * math.log2(factors / 64)) * math.exp(-0.8 * away**2)
        rising = curve(value / 2 if away > 0.3 else value, value)  # slowly where it is too strong
        found.append(replace(ended(begun, value), curve=rising))
    assert top_of(found).parameters["factors"] >= 512
    strengths = set()
    for factors in (128, 256, 512):
        grown = [
            t.parameters["regularization"] for t in found if (t.stage, t.parameters["factors"]) == ("grow", factors)
        ]
        assert len(grown) in (1, 2)
        strengths |= {round(one / grown[0], 1) for one in grown}
    assert strengths == {1.0, strength}


def test_growing_goes_on_from_the_start_where_that_is_better_with_as_many_factors() -> None:
    def good(parameters: Parameters) -> float:
        present = parameters["alpha"] == plan().start["alpha"] and parameters["factors"] >= 128
        return value_of(parameters) * (1.5 if present else 1)

    found = played(plan(trials=40, within=space.narrowed(WHOLE, {"trainer": "als"})), value=good)
    grown = {trial.parameters["factors"]: trial.parameters["alpha"] for trial in found if trial.stage == "grow"}
    assert grown[128] != grown[256] == found[0].parameters["alpha"]


def test_a_trainer_far_behind_is_not_grown() -> None:
    def behind(parameters: Parameters) -> float:
        return (0.5 if parameters["trainer"] == "spectral" else 1.0) * value_of(parameters)

    found = played(plan(trials=40), value=behind)
    grown = {trial.parameters["trainer"] for trial in found if trial.stage == "grow"}
    assert "spectral" not in grown
    assert "als" in grown


def test_the_budget_is_kept() -> None:
    assert len(played(plan(trials=7))) == 7
    assert 0.8 * 60 < trials.seconds_of(played(plan(seconds=60))) < 1.5 * 60
    assert len(played(plan(trials=1))) == 1


def test_the_same_trials_are_continued_in_the_same_way() -> None:
    whole = played(plan(trials=40))
    assert played(plan(trials=40), whole[:23]) == whole


def test_several_at_work_try_different_things() -> None:
    found: list[TrialResult] = []
    search = plan()
    for _ in range(16):  # four at a time
        begun: list[TrialResult] = []
        for _ in range(4):
            following = search.next([*found, *begun])
            assert following
            begun.append(following)
        found += [replace(t, state="complete", value=value_of(t.parameters), seconds=1.0) for t in begun]
    tried = [tuple(sorted(trial.parameters.items())) for trial in found]
    assert len(set(tried)) == len(tried)
    assert {"explore", "grow", "refine"} <= {trial.stage for trial in found}


def test_failed_trials_do_not_end_a_search() -> None:
    search, found = plan(trials=20), []
    while begun := search.next(found):
        found.append(replace(begun, state="failed", error="it diverged", seconds=1.0))
    assert len(found) == 20
    assert trials.best(found) is None


def test_present_settings_outside_the_space_are_not_tried() -> None:
    narrow = space.narrowed(WHOLE, {"trainer": "spectral"})
    assert {trial.parameters["trainer"] for trial in played(plan(trials=12, within=narrow))} == {"spectral"}
    fixed = space.narrowed(WHOLE, {"trainer": "als", "alpha": 7.0, "factors": {"high": 32}})
    found = played(plan(trials=20, within=fixed))
    assert {trial.parameters["alpha"] for trial in found} == {7.0}
    assert max(trial.parameters["factors"] for trial in found) == 32
    assert not any(trial.stage == "start" for trial in found)


def test_a_grid_tries_each_point_once() -> None:
    points = tuple(space.grid({"alpha": ["1", "2"], "regularization": ["5", "6"]}))
    found = played(plan(trials=4, points=points), value=lambda _: 0.5)
    assert [trial.parameters for trial in found] == list(points)


def test_the_time_left_is_estimated_from_the_latest_trials() -> None:
    search = plan(trials=10, seconds=100)
    assert search.left([]) is None
    als = {"trainer": "als", "factors": 64}
    found = [ended(TrialResult(n, "running", als), 0.1) for n in range(4)]
    assert search.left(found) == pytest.approx(6.0)
    assert search.share(found) == pytest.approx(0.4)
    assert plan(trials=10, seconds=5).left(found) == pytest.approx(1.0)


# pruning and the data


def curve(*values: float) -> list[CurvePoint]:
    return [CurvePoint(3 * (n + 1), {}, {"ndcg@20": value}, 0.0) for n, value in enumerate(values)]


OTHERS = [curve(0.1, 0.2, 0.3), curve(0.2, 0.1), curve(0.1, 0.3), curve(0.05, 0.15)]
ALIKE = [curve(0.1, 0.2)] * 3


@pytest.mark.parametrize(
    ("own", "others", "pruned"),
    [
        (curve(0.1, 0.12), OTHERS, True),
        (curve(0.1, 0.25), OTHERS, False),
        pytest.param(curve(0.01), OTHERS, False, id="the first point is no verdict"),
        pytest.param(curve(0.1, 0.19), ALIKE, False, id="too few to compare with"),
        (curve(0.1, 0.19), ALIKE * 2, True),
        pytest.param(curve(0.1, 0.12), ALIKE[:1], True, id="far below the only one"),
        (curve(0.1, 0.12), [], False),
        pytest.param(curve(0.25, 0.1), OTHERS, False, id="its best counts"),
    ],
)
def test_a_trial_below_the_median_of_the_others_is_pruned(own: Any, others: Any, pruned: bool) -> None:
    assert search.hopeless(own, others, "ndcg@20") is pruned


@pytest.mark.parametrize(
    ("own", "over"),
    [
        (curve(0.1), False),
        (curve(0.1, 0.2, 0.2), False),
        (curve(0.1, 0.2, 0.19, 0.2), True),
        pytest.param(curve(0.1, 0.2, 0.2001, 0.2002), True, id="creeping is no gain"),
        pytest.param(curve(0.1, 0.2, 0.19, 0.3), False, id="a gain counts from then on"),
        pytest.param(curve(0.0, 0.0, 0.0), False, id="nothing yet is not flat"),
    ],
)
def test_a_trial_ends_where_its_curve_gains_nothing_more(own: Any, over: bool) -> None:
    assert search.flat(own, "ndcg@20") is over


@pytest.mark.parametrize("validation", [True, False])
def test_a_snapshot_is_the_same_split(validation: bool) -> None:
    whole = interactions()
    split = splits.by_user(replace(whole, times=np.arange(len(whole))), 1, validation=validation)
    assert studies.unpack(studies.pack(split)).train.times is None
    again = studies.unpack(studies.pack(split, times=True))
    assert (again.how, again.notes) == (split.how, split.notes)
    assert again.train.digest() == split.train.digest()
    assert again.test.digest() == split.test.digest()
    assert (again.validation is None) == (not validation)
    if split.validation is not None and again.validation is not None:
        assert again.validation.digest() == split.validation.digest()
        assert again.refit().train.digest() == split.refit().train.digest()
