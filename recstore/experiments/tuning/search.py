"""A whole search on a split, in this process and in memory: trial after trial, then the winner on the test part.

`work` does the same with its trials in Postgres; both share what is here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol, runtime_checkable

from recstore.config import Settings
from recstore.definition import MAX_FACTORS, Definition
from recstore.errors import InvalidInput, NothingFound
from recstore.evaluation.curves import CurvePoint
from recstore.evaluation.fitted import weigh
from recstore.evaluation.results import Evaluation
from recstore.evaluation.splits import SEED, Split
from recstore.experiments.measure import Measured, Wanted, described, measure
from recstore.experiments.steps import Steps
from recstore.experiments.tuning import space as spaces
from recstore.experiments.tuning import trial as trials_
from recstore.experiments.tuning.noise import noise_of
from recstore.experiments.tuning.space import (
    BOUNDS,
    EVERYTHING,
    Choices,
    Parameters,
    Space,
    applied,
    default_space,
    narrowed,
)
from recstore.experiments.tuning.stages import Plan
from recstore.experiments.tuning.trial import Course
from recstore.experiments.tuning.trials import SearchResult, TrialResult, best
from recstore.model import confidence
from recstore.model import trainers as training

TEST_USERS = 10_000
"""Measured on the test part, at most."""

PRESENT = "present settings"


@dataclass(frozen=True)
class Options:
    """What a search is asked for, ready for JSON. `trials` None: all of a grid, else TRIALS. `grid` has lists of values as
    texts; `space` narrows the default one, see `space.narrowed`."""

    TRIALS = 80
    SECONDS = 2700.0

    metric: str = "ndcg@20"
    trials: int | None = None
    seconds: float = SECONDS
    trainers: Sequence[str] = ()
    max_factors: int | None = None
    space: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Sequence[str]] = field(default_factory=dict)
    most_iterations: int = 30
    users: int = 4000
    seed: int = SEED

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; `Options(**..)` gives it back."""
        return asdict(self) | {"trainers": list(self.trainers)}

    @property
    def course(self) -> Course:
        """How each trial goes. Raises InvalidInput."""
        every = max(1, min(3, self.most_iterations // 3))
        return Course(self.metric, self.most_iterations, every, users=self.users, seed=self.seed)

    def check(self) -> None:
        """What is wrong whatever the data are, before they are read. Raises InvalidInput."""
        _ = self.course
        self._limits(Space(EVERYTHING, (1, MAX_FACTORS), BOUNDS))

    def _limits(self, space: Space) -> tuple[Space, list[Parameters]]:
        """The part of `space` that is searched, and the points of a grid. Raises InvalidInput."""
        given = dict(self.space)
        if self.trainers:
            given["trainer"] = list(self.trainers)
        if self.max_factors is not None:
            given["factors"] = {"low": min(space.factors[0], self.max_factors), "high": self.max_factors}
        space = narrowed(space, given)
        points = spaces.grid(self.grid) if self.grid else []
        if points and given:
            raise InvalidInput("A grid is the whole space: give either --grid or what narrows the search, not both.")
        return space, points

    def plan(self, split: Split, definition: Definition, most_factors: int | None = None) -> Plan:
        """What to try on this split. Raises InvalidInput."""
        space, points = self._limits(default_space(split.train))
        functions = space.bounds["confidence"]
        weighed = {definition.confidence.function, *(functions.values if isinstance(functions, Choices) else ())}
        return Plan(
            space,
            present_settings(split, definition, most_factors),
            self.trials or len(points) or self.TRIALS,
            self.seconds,
            self.seed,
            noise_of(split.train, definition.confidence, sorted(weighed)),
            tuple(points),
        )

    def scales(self, plan: Plan) -> dict[str, str]:
        """Parameter -> "log", "linear" or "categorical", of those that are tried."""
        scales = plan.space.scales()
        if not self.grid:
            return scales
        known = scales | {"regularization": "log", "alpha": "log"}
        numbers = {name: all(isinstance(point[name], int | float) for point in plan.points) for name in self.grid}
        return {name: known.get(name, "linear" if numbers[name] else "categorical") for name in self.grid}


def present_settings(split: Split, definition: Definition, most_factors: int | None) -> Parameters:
    """What the definition says, or where it does not, what a training takes then."""
    hyperparameters = definition.hyperparameters
    default = training.default_factors(len(split.train.items))
    alpha = confidence.alpha_for(split.train, hyperparameters.alpha)
    matrix = weigh(split.train, definition.confidence, alpha)[1]
    factors = hyperparameters.factors or min(default, most_factors or default)
    return spaces.present(definition, spaces.NAMES) | {
        "factors": factors,
        "alpha": alpha,
        "regularization": training.regularization_for(matrix, hyperparameters, factors),
    }


@runtime_checkable
class Watch(Protocol):
    """Who looks on."""

    def begins(
        self, number: int, stage: str, parameters: Parameters, plan: Plan, trials: Sequence[TrialResult]
    ) -> None:
        """A trial begins after these others."""

    def point(self, number: int, point: CurvePoint) -> None:
        """A point of its learning curve."""

    def ends(self, trial: TrialResult, plan: Plan, trials: Sequence[TrialResult]) -> None:
        """A trial ended; `trials` has it too."""


class Nobody:
    """A watch for nobody."""

    def begins(
        self, number: int, stage: str, parameters: Parameters, plan: Plan, trials: Sequence[TrialResult]
    ) -> None: ...

    def point(self, number: int, point: CurvePoint) -> None: ...

    def ends(self, trial: TrialResult, plan: Plan, trials: Sequence[TrialResult]) -> None: ...


def search(
    split: Split,
    definition: Definition,
    options: Options,
    settings: Settings,
    *,
    watch: Watch | None = None,
) -> SearchResult:
    """The trials, on a split with a validation part; the test part is not looked at. Raises NothingFound, InvalidInput,
    DeviceUnavailable."""
    plan, course, watch = options.plan(split, definition), options.course, watch or Nobody()
    found: list[TrialResult] = []
    while proposal := plan.next(found):
        number = len(found)
        watch.begins(number, proposal.stage, proposal.parameters, plan, found)
        done = trials_.run(
            number,
            proposal.stage,
            proposal.parameters,
            split,
            definition,
            course,
            [] if plan.points else found,
            device=settings.device,
            threads=settings.threads,
            on_point=lambda point, number=number: watch.point(number, point),  # type: ignore[misc]
        )
        found.append(done)
        watch.ends(done, plan, found)
    winner = winner_of(found)
    kind, scales = "grid" if plan.points else "optuna", options.scales(plan)
    return SearchResult(0, "", options.metric, split.how, kind, scales, found, winner.number, None)  # type: ignore[arg-type]


def winner_of(trials: Sequence[TrialResult]) -> TrialResult:
    """The best trial. Raises NothingFound."""
    winner = best(trials)
    if winner is None:
        errors = [trial.error for trial in trials if trial.error]
        raise NothingFound(trials=len(trials), reason=errors[0] if errors else "no trial was begun")
    return winner


def tuned(definition: Definition, winner: TrialResult) -> Definition:
    """The definition with the settings that won."""
    return applied(definition, winner.parameters, winner.iterations)


def conclude(
    split: Split,
    definition: Definition,
    winner: TrialResult,
    options: Options,
    settings: Settings,
    steps: Steps,
    *,
    name: str,
    most_factors: int | None = None,
) -> tuple[Evaluation, Measured]:
    """Refits the winner on all but the test part and measures that part, once: beside popularity, item-kNN, and what the
    definition says so far, where that is something else. The examples are the caller's to add."""
    better = tuned(definition, winner)
    ks = tuple(sorted({10, 20, options.course.k}))
    wanted = Wanted(ks, min(TEST_USERS, len(split.users())) or None, seed=options.seed)
    others = {} if winner.stage == "start" else {PRESENT: definition}
    taken_at = datetime.now(UTC).isoformat(timespec="seconds")
    measured = measure(
        split, better, wanted, steps, settings, name=f"{name}, tuned", most_factors=most_factors, others=others
    )
    evaluation = described(name, split, wanted, measured, [], taken_at)
    return replace(evaluation, curve=winner.curve), measured
