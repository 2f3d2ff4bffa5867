"""A worker's log: a line for each record, whatever its text holds, and of a run one for each stage, warning and trial."""

import json
import logging
import re
from collections.abc import Sequence
from typing import Any

from recstore.api.progress import sentence
from recstore.experiments.tuning.search import Watch
from recstore.experiments.tuning.space import words
from recstore.experiments.tuning.stages import Plan
from recstore.experiments.tuning.trials import TrialResult

FORMAT = "%(asctime)s %(levelname)s %(message)s"
"""Form of a line."""

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line and paragraph separators, marks that change the direction of writing, lone surrogates."""


def printable(text: str) -> str:
    """Return text with each unprintable character as Python's escape."""
    return UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


class LineFormatter(logging.Formatter):
    """Formats a record as one line, and a traceback as indented lines: no text from elsewhere can look like a record."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.exc_text = None  # as another formatter wrote it
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return "\n".join(f"  {printable(line)}" for line in super().formatException(ei).split("\n"))


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        about = {"time": self.formatTime(record), "level": record.levelname, "message": record.getMessage()}
        if record.exc_info:
            about["error"] = self.formatException(record.exc_info)
        return json.dumps(about)


def log_lines(as_json: bool = False) -> None:
    """Let this process log to standard error, one line for each record."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else LineFormatter(FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


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
