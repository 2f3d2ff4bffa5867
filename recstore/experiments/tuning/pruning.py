"""Whether a trial is worth its remaining iterations, from its learning curve and those of the trials before it. Pure.

The median stopping rule (Golovin et al., "Google Vizier", KDD 2017): a trial whose best value so far is below the median
of the best values that the others had by the same iteration ends there. One that is far below the best of them ends there, too,
however few they are: of the most expensive trials there are few.
"""

from collections.abc import Iterable
from statistics import median

from recstore.evaluation.curves import CurvePoint

LEAST_CURVES = 4
"""For a median."""

FAR = 0.8
"""Below this part of the best."""

LEAST_POINTS = 2
"""Of a trial, before which it is not pruned: a strong regularization starts slowly and may end well."""


def best_by(curve: Iterable[CurvePoint], iteration: int, metric: str) -> float | None:
    """The best value of a curve up to an iteration; None where it was not measured by then."""
    return max((point.validation[metric] for point in curve if point.iteration <= iteration), default=None)


def hopeless(curve: list[CurvePoint], others: Iterable[list[CurvePoint]], metric: str) -> bool:
    """Whether the trial with this curve should end now; `others` are the curves of comparable trials, which trained as
    many factors. A pruned trial's curve says what it had reached before, and counts with that."""
    if len(curve) < LEAST_POINTS:
        return False
    now = curve[-1].iteration
    reached = [best for other in others if (best := best_by(other, now, metric)) is not None]
    mine = best_by(curve, now, metric)
    if mine is None or not reached:
        return False
    return mine < FAR * max(reached) or (len(reached) >= LEAST_CURVES and mine < median(reached))
