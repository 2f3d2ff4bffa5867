"""What a worker's log says of a run: a line per stage and warning."""

import logging
from typing import Any

from recstore.progress import sentence


class LogReporter:
    """A `runs.Reporter` for a log."""

    def __init__(self, log: logging.Logger, job: str, name: str) -> None:
        self.log, self.what = log, f"{job} {name}"

    def stage(self, name: str, seconds: float, details: dict[str, Any]) -> None:
        self.log.info("%s: %s %.2f s  %s", self.what, name, seconds, sentence(name, details))

    def progress(self, name: str, done: int, total: int, note: str = "") -> None: ...

    def warn(self, sentence: str) -> None:
        self.log.warning("%s: %s", self.what, sentence)
