"""Search on a split, in this process and in memory; and conclude a search with one measurement of the test part.

`work` does the same with its trials in Postgres.
"""

from dataclasses import replace

from recstore.config import Settings
from recstore.definition import Definition
from recstore.errors import NothingFound
from recstore.evaluation.curves import CurvePoint
from recstore.evaluation.splits import Split
from recstore.experiments.experiment import Experiment
from recstore.experiments.measure import Measured, Wanted, measure
from recstore.experiments.tuning import trial as trial_
from recstore.experiments.tuning.options import Options
from recstore.experiments.tuning.space import applied
from recstore.experiments.tuning.stages import Plan
from recstore.experiments.tuning.trials import TrialResult, Trials, best

TEST_USERS = 10_000
"""Most users of the test part that the winner is measured on."""

PRESENT = "present settings"
"""Name of the measurement of the settings that the recommender has."""


class Watch:
    """Follows a search; every method may be overridden."""

    def begins(self, trial: TrialResult, plan: Plan, trials: Trials) -> None:
        """Receive a trial that begins, and the others so far."""

    def point(self, number: int, point: CurvePoint) -> None:
        """Receive a new point of the learning curve of a trial."""

    def ends(self, trial: TrialResult, plan: Plan, trials: Trials) -> None:
        """Receive a trial that ended; `trials` includes it."""


def search(
    split: Split, definition: Definition, options: Options, settings: Settings, *, watch: Watch | None = None
) -> list[TrialResult]:
    """Run the trials on a split with a validation part; the test part is not looked at. Raises InvalidInput,
    DeviceUnavailable."""
    options.check()
    plan, experiment, watch = options.plan(split, definition), Experiment(settings), watch or Watch()
    found: list[TrialResult] = []
    while begun := plan.next(found):
        watch.begins(begun, plan, found)
        others, number = [] if plan.points else found, begun.number
        ended = trial_.run(
            experiment,
            split,
            definition,
            options,
            begun,
            others,
            lambda point, n=number: watch.point(n, point),  # type: ignore[misc]
        )
        found.append(ended)
        watch.ends(ended, plan, found)
    return found


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


def conclude(
    experiment: Experiment, split: Split, definition: Definition, winner: TrialResult, options: Options, *, name: str
) -> Measured:
    """Refit the winner on all but the test part and measure that part, once: next to popularity, item-kNN and, where they
    differ, the definition's own settings."""
    measured = measure(
        experiment,
        split,
        tuned(definition, winner),
        Wanted(tuple(sorted({10, 20, options.k})), TEST_USERS, seed=options.seed),
        name=name,
        model=f"{name}, tuned",
        others={} if winner.stage == "start" else {PRESENT: definition},
    )
    return replace(measured, evaluation=replace(measured.evaluation, curve=winner.curve))
