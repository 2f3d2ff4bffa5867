"""Run one trial: train on the training part, follow the validation part, stop when it gains nothing more. Pure.

The number of iterations is no parameter: it is where the learning curve was best. A trial is pruned by the median stopping
rule (Golovin et al., "Google Vizier", KDD 2017).
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import median

from recstore.definition import Definition
from recstore.errors import DeviceUnavailable, InvalidInput, RecstoreError
from recstore.evaluation.curves import CurvePoint, LearningCurve, Patience, best
from recstore.evaluation.splits import Split
from recstore.experiments.experiment import Experiment
from recstore.experiments.tuning.options import Options
from recstore.experiments.tuning.space import applied
from recstore.experiments.tuning.trials import TrialResult, Trials

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

OnPoint = Callable[[CurvePoint], None]
"""Called with each point of a trial's curve; an exception ends the trial."""


class Stopped(Exception):
    """The trial is no longer wanted."""


class _Pruned(Exception):
    """The trial is not worth its remaining iterations."""


class _Enough(Patience):
    """Over when `points` points in a row were not better by GAIN than the last that was."""

    def over(self, curve: Sequence[CurvePoint]) -> bool:
        reached, since = 0.0, 0
        for point in curve:
            value = point.validation[self.metric]
            since = 0 if value >= GAIN * reached else since + 1
            reached = value if since == 0 else reached
        return since >= self.points


def run(
    experiment: Experiment,
    split: Split,
    definition: Definition,
    options: Options,
    trial: TrialResult,
    others: Trials,
    on_point: OnPoint,
) -> TrialResult:
    """Train `definition` with the parameters of `trial` and return the finished trial. Does not look at the test part.

    Prunes it by the curves of `others` with its trainer and its number of factors; without `others` never. A trial fails
    where the data or the parameters make a training impossible: factors diverge or collapse, or memory runs out. An
    unavailable device, or a setting that is wrong whatever the parameters, is raised.
    """
    kind = [trial.parameters.get(name) for name in ("trainer", "factors")]
    alike = [t for t in others if [t.parameters.get(name) for name in ("trainer", "factors")] == kind]
    curves = [other.curve for other in alike if other.curve]

    def judge(point: CurvePoint) -> None:
        on_point(point)
        if hopeless(curve.points, curves, options.metric):
            raise _Pruned

    curve = LearningCurve(
        split,
        every=options.every,
        ks=(options.k,),
        users=options.measured(split),
        on_train=False,
        patience=_Enough(options.metric, PATIENCE),
        on_point=judge,
        threads=experiment.settings.threads,
    )
    tried = applied(definition, trial.parameters, options.most_iterations)
    began = time.perf_counter()
    ended = replace(trial, state="complete")
    try:
        experiment.fit(split.train, tried, watch=curve, users=curve.users[:1])
    except _Pruned:
        ended = replace(trial, state="pruned")
    except (DeviceUnavailable, InvalidInput):
        raise
    except MemoryError:
        ended = replace(trial, state="failed", error="There was not enough memory.")
    except RecstoreError as error:
        ended = replace(trial, state="failed", error=error.message)
    ended = replace(ended, seconds=round(time.perf_counter() - began, 3), curve=list(map(_rounded, curve.points)))
    if ended.state == "failed" or not ended.curve:
        return replace(ended, state="failed")
    top = best(ended.curve, options.metric)
    one_step = len(ended.curve) == 1 and top.iteration == options.most_iterations > options.every
    return replace(ended, value=top.validation[options.metric], iterations=None if one_step else top.iteration)


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


def _rounded(point: CurvePoint) -> CurvePoint:
    """Return the part of a point that is kept."""
    validation = {name: round(value, 6) for name, value in point.validation.items()}
    return CurvePoint(point.iteration, {}, validation, round(point.seconds, 3))
