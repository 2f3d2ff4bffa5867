"""Steps of a job that is no run: timed, told to a reporter, and kept for whoever wants to know afterwards."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recstore.runs import Reporter


class Steps:
    """Times steps, tells a reporter of each, and keeps both for whoever asks at the end."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.taken: list[dict[str, Any]] = []

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """One step; what it did goes into the dict, `told` being the sentence for people."""
        details: dict[str, Any] = {}
        start = time.perf_counter()
        yield details
        seconds = time.perf_counter() - start
        self.taken.append({"step": name, "seconds": round(seconds, 4)} | details)
        self.reporter.stage(name, seconds, details)


class Within:
    """A reporter of a run that is one step of something larger: shows how far it is, keeps what its stages took and what it
    warns of."""

    def __init__(self, reporter: Reporter, name: str) -> None:
        self.reporter, self.name = reporter, name
        self.seconds: dict[str, float] = {}
        self.warnings: list[str] = []

    def stage(self, name: str, seconds: float, details: dict[str, Any]) -> None:  # noqa: ARG002
        self.seconds[name] = round(seconds, 4)

    def progress(self, name: str, done: int, total: int, note: str = "") -> None:
        self.reporter.progress(self.name, done, total, f"{name} {note}".strip())

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)
