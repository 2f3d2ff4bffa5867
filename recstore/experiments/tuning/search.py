"""Search on a split: plan it, run its trials, and conclude it with one measurement of the test part. No database.

The number of iterations is no parameter: it is where the learning curve was best. A trial is pruned by the median stopping
rule (Golovin et al., "Google Vizier", KDD 2017). `work` does the same with its trials in Postgres.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median

import numpy as np
from numpy.typing import NDArray

from recstore.definition import RATINGS, Definition
from recstore.errors import DeviceUnavailable, InvalidInput, NothingFound, RecstoreError
from recstore.evaluation.curves import CurvePoint, LearningCurve, sample
from recstore.evaluation.fitted import weigh
from recstore.evaluation.rating_errors import R2
from recstore.evaluation.results import Evaluation
from recstore.evaluation.splits import Split
from recstore.experiments.experiment import Experiment
from recstore.experiments.measurement import Measurement, Titles, measure
from recstore.experiments.tuning.sampling import noise_of
from recstore.experiments.tuning.search_options import Options
from recstore.experiments.tuning.space import Choices, Parameters, applied, default_space, present
from recstore.experiments.tuning.stages import Plan
from recstore.experiments.tuning.trials import State, TrialResult, Trials, best
from recstore.model import confidence
from recstore.model import trainers as training
from recstore.model.trainers.ratings import REGULARIZATION

TEST_USERS = 10_000
"""Most users of the test part that the winner is measured on."""

PRESENT = "present settings"
"""Name of the measurement of the settings that the recommender has."""

PATIENCE = 2
"""Points in a row without a gain after which a trial ends."""

GAIN = 1.002
"""Least ratio of a point to the last gain that counts as a gain: a curve that only creeps has shown what it will reach."""

LEAST_CURVES = 4
"""Other trials that a median needs."""

FAR = 0.8
"""Part of the best value of the others below which a trial is pruned, however few they are: of the most expensive trials
there are few."""

LEAST_POINTS = 2
"""Points of a trial before which it is not pruned: a strong regularization starts slowly and may end well."""

OnPoint = Callable[[int, list[CurvePoint]], None]
"""Called with the number of a trial and its curve at each new point of that; an exception ends the trial."""


class Watch:
    """Follows a search; every method may be overridden."""

    def begins(self, trial: TrialResult, plan: Plan, trials: Trials) -> None:
        """Receive a trial that begins, and the others so far."""

    def point(self, number: int, point: CurvePoint) -> None:
        """Receive a new point of the learning curve of a trial."""

    def ends(self, trial: TrialResult, plan: Plan, trials: Trials) -> None:
        """Receive a trial that ended; `trials` includes it."""


class Stopped(Exception):
    """The trial is no longer wanted."""


class _Ended(Exception):
    """The trial needs no more iterations."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state: State = state


@dataclass(frozen=True, eq=False)
class Search:
    """A search on a split with a validation part, for better settings of `definition`. `most_factors`: the room there is."""

    split: Split
    definition: Definition
    options: Options
    most_factors: int | None = None

    def __post_init__(self) -> None:
        if self.options.metric == R2 and not self.definition.source.explicit:
            raise InvalidInput("r2 is a metric of ratings, and the feedback is implicit: choose another metric.")

    def users(self) -> NDArray[np.intp]:
        """Return the users that every trial is measured on, ascending. Raises InvalidInput where there is none."""
        users = sample(self.split.users(self.split.validation), self.options.users, self.options.seed)
        if not len(users):
            raise InvalidInput(
                "No user has both a training pair and a validation pair, so nothing can be chosen by these data."
            )
        return users

    @cached_property
    def plan(self) -> Plan:
        """Return the plan of the search. Raises InvalidInput."""
        options, train, own = self.options, self.split.train, self.definition.confidence
        explicit = self.definition.source.explicit
        space, points = options.limits(default_space(train, explicit=explicit))
        for trainer in (*space.trainers, *(point["trainer"] for point in points if "trainer" in point)):
            if explicit != (trainer == RATINGS):
                feedback = self.definition.source.feedback
                raise InvalidInput(f"The trainer {trainer} is not for {feedback} feedback: leave it out.")
        functions = space.bounds["confidence"]
        start = self._present()
        weighed = {start["confidence"], *(functions.values if isinstance(functions, Choices) else ())}
        trials = options.trials or len(points) or options.TRIALS
        noise = noise_of(train, own, [] if explicit else sorted(weighed))
        return Plan(space, start, trials, options.seconds, options.seed, noise, tuple(points), options.metric)

    def _present(self) -> Parameters:
        """Return the definition's settings, and where it leaves one open the value that a training takes."""
        train, hyperparameters = self.split.train, self.definition.hyperparameters
        if hyperparameters.explicit:
            factors = training.wanted_factors(hyperparameters, len(train.items), self.most_factors)
            regularization = hyperparameters.regularization
            default = {"regularization": REGULARIZATION if regularization is None else regularization}
            return present(self.definition) | {"factors": factors} | default
        alpha = confidence.alpha_for(train, hyperparameters.alpha)
        matrix = weigh(train, self.definition.confidence, hyperparameters).matrix
        factors = training.wanted_factors(hyperparameters, len(train.items), self.most_factors)
        regularization = training.regularization_for(matrix, hyperparameters, factors)
        function = confidence.function_for(train, self.definition.confidence.function)
        chosen = {"factors": factors, "confidence": function, "alpha": alpha, "regularization": regularization}
        return present(self.definition) | chosen

    def scales(self) -> dict[str, str]:
        """Return "log", "linear" or "categorical" for each parameter that varies."""
        scales = self.plan.space.scales()
        varied = self.plan.points[0] if self.plan.points else scales
        return {name: scales.get(name, "linear") for name in varied}

    def run(self, experiment: Experiment, trial: TrialResult, others: Trials, on_point: OnPoint) -> TrialResult:
        """Train with the parameters of `trial`, follow the validation part, stop when it gains nothing more, and return the
        finished trial. Does not look at the test part.

        Prunes it by the curves of the finished `others` with its trainer and its number of factors; in a grid never. A
        trial fails where the data or the parameters make a training impossible: factors diverge or collapse, or memory
        runs out. An unavailable device, or a setting that is wrong whatever the parameters, is raised.
        """
        options, kind = self.options, _kind(trial)
        alike = [] if self.plan.points else [other for other in others if other.finished and _kind(other) == kind]
        curves = [other.curve for other in alike if other.curve]

        def judge(_: CurvePoint) -> None:
            on_point(trial.number, curve.points)
            if hopeless(curve.points, curves, options.metric):
                raise _Ended("pruned")
            if flat(curve.points, options.metric):
                raise _Ended("complete")

        curve = LearningCurve(
            self.split,
            every=options.every,
            ks=(options.k,),
            users=self.users(),
            on_train=False,
            include_seen=self.options.include_seen,
            on_point=judge,
        )
        tried = applied(self.definition, trial.parameters, options.most_iterations)
        began = time.perf_counter()
        state: State = "complete"
        problem = None
        try:
            curve.follow(tried.confidence, tried.hyperparameters, **experiment.training)
        except _Ended as end:
            state = end.state
        except (DeviceUnavailable, InvalidInput):
            raise
        except MemoryError:
            state, problem = "failed", "There was not enough memory."
        except RecstoreError as error:
            state, problem = "failed", error.message
        seconds, points = round(time.perf_counter() - began, 3), list(map(_rounded, curve.points))
        ended = replace(trial, state=state, error=problem, seconds=seconds, curve=points)
        if state == "failed":
            return ended
        top = max(points, key=lambda point: point.validation[options.metric])  # the earliest of equals
        one_step = len(ended.curve) == 1 and top.iteration == options.most_iterations > options.every
        return replace(ended, value=top.validation[options.metric], iterations=None if one_step else top.iteration)

    def run_all(self, experiment: Experiment, watch: Watch | None = None) -> list[TrialResult]:
        """Run the trials in this process. Raises InvalidInput, DeviceUnavailable."""
        found: list[TrialResult] = []
        watch = watch or Watch()
        while begun := self.plan.next(found):
            watch.begins(begun, self.plan, found)
            found.append(self.run(experiment, begun, found, lambda number, curve: watch.point(number, curve[-1])))
            watch.ends(found[-1], self.plan, found)
        return found

    def conclude(
        self, experiment: Experiment, winner: TrialResult, name: str, titles: Titles | None = None
    ) -> Evaluation:
        """Refit the winner on all but the test part and measure that part, once: next to the baselines and, where they
        differ, the definition's own settings."""
        options = self.options
        evaluation = measure(
            experiment,
            self.split,
            tuned(self.definition, winner),
            Measurement(tuple(sorted({10, 20, options.k})), TEST_USERS, options.include_seen, seed=options.seed),
            name=name,
            model=f"{name}, tuned",
            others={} if winner.stage == "start" else {PRESENT: self.definition},
            titles=titles,
        )
        return replace(evaluation, curve=winner.curve)


def winner_of(trials: Trials) -> TrialResult:
    """Return the best trial. Raises NothingFound."""
    winner = best(trials)
    if winner is None:
        errors = [trial.error for trial in trials if trial.error]
        raise NothingFound(trials=len(trials), reason=errors[0] if errors else "no trial was begun")
    return winner


def tuned(definition: Definition, winner: TrialResult) -> Definition:
    """Return the definition with the settings that won."""
    return applied(definition, winner.parameters, winner.iterations)


def hopeless(curve: list[CurvePoint], others: Iterable[list[CurvePoint]], metric: str) -> bool:
    """Return whether the trial with this curve should end: its best value is below the median of the best values that the
    others had by the same iteration, or far below the best of them. A pruned trial counts with what it had reached."""
    if len(curve) < LEAST_POINTS:
        return False

    def reached(points: list[CurvePoint]) -> float:
        known = (point.validation[metric] for point in points if point.iteration <= curve[-1].iteration)
        return max(known, default=-1.0)

    rivals = [value for other in others if (value := reached(other)) >= 0]
    mine = reached(curve)
    return bool(rivals) and (mine < FAR * max(rivals) or (len(rivals) >= LEAST_CURVES and mine < median(rivals)))


def flat(curve: list[CurvePoint], metric: str) -> bool:
    """Return whether the last PATIENCE points were not better by GAIN than the last one that was."""
    reached, since = 0.0, 0
    for point in curve:
        value = point.validation[metric]
        since = 0 if value >= GAIN * reached else since + 1
        reached = value if since == 0 else reached
    return since >= PATIENCE


def _rounded(point: CurvePoint) -> CurvePoint:
    """Return the part of a point that is kept."""
    validation = {name: round(value, 6) for name, value in point.validation.items()}
    return CurvePoint(point.iteration, {}, validation, round(point.seconds, 3))


def _kind(trial: TrialResult) -> tuple[object, object]:
    return trial.parameters.get("trainer"), trial.parameters.get("factors")
