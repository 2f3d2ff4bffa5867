"""Reports of a run and of a search as lines of a worker's log: one for each stage, warning and trial."""

import logging
from collections.abc import Sequence
from typing import Any

from recstore.api.progress import sentence
from recstore.experiments.tuning.search import Watch
from recstore.experiments.tuning.space import words
from recstore.experiments.tuning.stages import Plan
from recstore.experiments.tuning.trials import TrialResult


class LogReporter:
    """Implements `runs.Reporter` with a log."""

    def __init__(self, log: logging.Logger, job: str, name: str) -> None:
        self.log, self.what = log, f"{job} {name}"

    def stage(self, name: str, seconds: float, details: dict[str, Any]) -> None:
        self.log.info("%s: %s %.2f s  %s", self.what, name, seconds, sentence(details))

    def progress(self, name: str, done: int, total: int, note: str = "") -> None: ...

    def warn(self, sentence: str) -> None:
        self.log.warning("%s: %s", self.what, sentence)


class LogWatch(Watch):
    """Implements the watch of a tuning with a log: a line when a trial begins, and one when it ends."""

    def __init__(self, log: logging.Logger, what: str) -> None:
        self.log, self.what = log, what

    def begins(self, trial: TrialResult, plan: Plan, trials: Sequence[TrialResult]) -> None:  # noqa: ARG002
        self.log.info("%s: trial %s (%s): %s", self.what, trial.number, trial.stage, words(trial.parameters))

    def ends(self, trial: TrialResult, plan: Plan, trials: Sequence[TrialResult]) -> None:  # noqa: ARG002
        value = "" if trial.value is None else f" {trial.value:.5f}"
        self.log.info("%s: trial %s %s%s after %.1f s", self.what, trial.number, trial.state, value, trial.seconds or 0)
