"""One trial: a training on the training part, watched on the validation part, ended when it gains nothing more. Pure.

The number of iterations is no parameter: it is where the learning curve was best.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recstore.definition import Definition
from recstore.errors import DeviceUnavailable, InvalidInput, RecstoreError
from recstore.evaluation.curves import CurvePoint, LearningCurve, Patience, best, sample
from recstore.evaluation.fitted import fit
from recstore.evaluation.splits import Split
from recstore.experiments.tuning import pruning
from recstore.experiments.tuning.space import Parameters, applied
from recstore.experiments.tuning.trials import TrialResult
from recstore.model.trainers import Device

METRICS = ("ndcg", "recall", "precision", "map", "hit_rate")
"""What can be searched for, each with its k."""

OnPoint = Callable[[CurvePoint], None]
"""Told of each point of a trial's curve; what it raises ends the trial."""


@dataclass(frozen=True)
class Course:
    """How every trial of a search is trained and measured: on `users` users of the validation part at most, the same in
    every trial, after every `every`-th iteration, until `patience` points were no better, or `most_iterations`."""

    metric: str = "ndcg@20"
    most_iterations: int = 30
    every: int = 3
    patience: int = 2
    users: int = 4000
    seed: int = 42

    def __post_init__(self) -> None:
        name, _, k = self.metric.partition("@")
        if name not in METRICS or not k.isdecimal() or int(k) < 1:
            known = ", ".join(f"{metric}@20" for metric in METRICS)
            raise InvalidInput(f"{self.metric!r} is nothing to search by; choose one of {known}, or another k.")

    @property
    def k(self) -> int:
        return int(self.metric.partition("@")[2])

    def measured(self, split: Split) -> NDArray[np.intp]:
        """The users that every trial is measured on, ascending. Raises InvalidInput where there is none."""
        users = sample(split.users(split.validation), self.users, self.seed)
        if not len(users):
            raise InvalidInput(
                "No user has both a training pair and a validation pair, so nothing can be chosen by these data."
            )
        return users


GAIN = 1.002
"""A point is better from this ratio on: a curve that only creeps has said what it has to say."""


class _Enough(Patience):
    """Over when `points` points in a row were not better by GAIN than the last that was."""

    def over(self, curve: Sequence[CurvePoint]) -> bool:
        reached, since = 0.0, 0
        for point in curve:
            value = point.validation[self.metric]
            since = 0 if value >= GAIN * reached else since + 1
            reached = value if since == 0 else reached
        return since >= self.points


class Stopped(Exception):
    """Raised by who is told of a trial's points: the trial is not wanted any more."""


class _Pruned(Exception):
    """The trial is not worth its remaining iterations."""


def run(
    number: int,
    stage: str,
    parameters: Parameters,
    split: Split,
    definition: Definition,
    course: Course,
    others: Sequence[TrialResult] = (),
    *,
    most_factors: int | None = None,
    device: Device = "auto",
    threads: int = 0,
    on_point: OnPoint | None = None,
) -> TrialResult:
    """Trains `definition` with these parameters and says how good it became. The test part is not looked at.

    `most_factors` holds where neither the parameters nor the definition say how many. The trial is pruned by the curves of
    those among `others` that have its trainer and its number of factors; without `others` never. What the data or the
    parameters make impossible (factors that diverge or collapse, too little memory) is a failed trial; a device that can not
    be had, or a setting that is wrong whatever the parameters, is raised.
    """
    curves = [other.curve for other in others if other.curve and _alike(other.parameters, parameters)]
    began = time.perf_counter()

    def watch_point(point: CurvePoint) -> None:
        if on_point is not None:
            on_point(point)
        if pruning.hopeless(curve.points, curves, course.metric):
            raise _Pruned

    curve = LearningCurve(
        split,
        every=course.every,
        ks=(course.k,),
        users=course.measured(split),
        on_train=False,
        patience=_Enough(course.metric, course.patience),
        on_point=watch_point,
        threads=threads,
    )
    tried = applied(definition, parameters, course.most_iterations)
    state, error = "complete", None
    try:
        fit(
            split.train,
            tried.confidence,
            tried.hyperparameters,
            most_factors=most_factors,
            device=device,
            threads=threads,
            watch=curve,
            users=curve.users[:1],
        )
    except _Pruned:
        state = "pruned"
    except (DeviceUnavailable, InvalidInput):
        raise
    except MemoryError:
        state, error = "failed", "There was not enough memory."
    except RecstoreError as raised:
        state, error = "failed", raised.message
    seconds = round(time.perf_counter() - began, 3)
    points = [_told(point) for point in curve.points]
    if state == "failed" or not points:
        return TrialResult(number, "failed", parameters, None, None, points, seconds, stage, error)
    top = best(points, course.metric)
    one_step = len(points) == 1 and points[0].iteration == course.most_iterations > course.every
    return TrialResult(
        number,
        "pruned" if state == "pruned" else "complete",
        parameters,
        top.validation[course.metric],
        None if one_step else top.iteration,
        points,
        seconds,
        stage,
    )


def _alike(one: Parameters, other: Parameters) -> bool:
    return all(one.get(name) == other.get(name) for name in ("trainer", "factors"))


def _told(point: CurvePoint) -> CurvePoint:
    """What is kept of a point."""
    return CurvePoint(
        point.iteration,
        {},
        {name: round(value, 6) for name, value in point.validation.items()},
        round(point.seconds, 3),
    )
