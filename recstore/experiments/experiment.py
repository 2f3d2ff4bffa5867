"""One experiment as the code that runs it sees it: its settings, its reporter, the steps taken so far.

The counterpart of `runs.Run` for jobs that publish nothing: no lock, no row, no generation.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from recstore.config import Settings
from recstore.runs import Reporter, Silent


@dataclass(eq=False)
class Experiment:
    """The settings and the reporter of an evaluation, a benchmark or a search, and the steps taken so far."""

    settings: Settings
    reporter: Reporter = field(default_factory=Silent)
    most_factors: int | None = None
    """Most factors where a definition leaves their number open; None: no limit."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    began: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Time a step, keep it and report it; the caller puts its details into the dict, a sentence under `told`."""
        details: dict[str, Any] = {}
        start = time.perf_counter()
        yield details
        seconds = time.perf_counter() - start
        self.steps.append({"step": name, "seconds": round(seconds, 4)} | details)
        self.reporter.stage(name, seconds, details)

    def progress(self, name: str) -> Callable[[int, int], None]:
        """Return a callback that reports how far a step is."""
        return lambda done, total: self.reporter.progress(name, done, total)

    @property
    def training(self) -> dict[str, Any]:
        """The options of `fitted.fit` and `LearningCurve.follow`."""
        return {"most_factors": self.most_factors, "device": self.settings.device, "threads": self.settings.threads}
