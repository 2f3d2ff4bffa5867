"""The display of a run or a search: a bar at a terminal, plain lines elsewhere; a sentence for each finished stage or trial."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from recstore.wording import duration

if TYPE_CHECKING:
    from recstore.evaluation.curves import CurvePoint
    from recstore.experiments.tuning.stages import Plan
    from recstore.experiments.tuning.trials import TrialResult

PLAIN_EVERY = 5.0
"""Seconds between progress lines where there is no terminal."""


class StageReporter:
    """A `runs.Reporter` that prints to a console."""

    def __init__(self, console: Console, *, remaining: bool = True) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("{task.description:<12}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            *[TimeRemainingColumn(compact=True)] * remaining,
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task: TaskID | None = None
        self.name: object = ""
        self.last = 0.0

    @contextmanager
    def showing(self) -> Iterator["StageReporter"]:
        with self.bar:
            yield self

    def stage(self, name: str, seconds: float, details: dict[str, Any]) -> None:
        self._close()
        self.console.print(f"{name:<12} {seconds:7.2f} s   {sentence(details)}")

    def progress(self, name: str, done: int, total: int, note: str = "") -> None:
        if self.console.is_terminal:
            self._draw(name, name, done, total, note)
        elif self.name != name:
            self.name, self.last = name, time.monotonic()
        elif time.monotonic() - self.last > PLAIN_EVERY:
            self.last = time.monotonic()
            self.console.print(f"{name:<12} {done} of {total}   {note}")

    def waits(self, words: str, about: object) -> None:
        """Show that no run has begun: at a terminal a bar without end, elsewhere a line for each thing that is waited for."""
        if self.console.is_terminal:
            self._draw(about, "waiting", 0, None, words)
        elif self.name != about:
            self.name = about
            self.console.print(words)

    def warn(self, sentence: str) -> None:
        self.console.print(f"Warning: {sentence}")

    def _draw(self, name: object, description: str, done: int, total: int | None, note: str) -> None:
        if self.task is None or self.name != name:
            self._close()
            self.task, self.name = self.bar.add_task(description, total=total, note=note), name
        self.bar.update(self.task, completed=done, total=total, note=note)

    def _close(self) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.task, self.name = None, ""


class TuneReporter(StageReporter):
    """A search on the screen: a line for each finished trial, and at a terminal a bar with the trial at work, the best so far
    and the time left. A `search.Watch` and a `runs.Reporter`."""

    def __init__(self, console: Console, metric: str = "ndcg@20") -> None:
        super().__init__(console, remaining=False)
        self.metric = metric
        self.plan: Plan | None = None
        self.trials: Sequence[TrialResult] = ()
        self.words = ""

    def begins(self, trial: "TrialResult", plan: "Plan", trials: "Sequence[TrialResult]") -> None:
        self.plan, self.trials = plan, trials
        trainer, factors = trial.parameters.get("trainer", ""), trial.parameters.get("factors") or ""
        self.words = f"trial {trial.number} ({trial.stage}): {trainer} {factors}".rstrip(": ")
        self._show(self.words)

    def point(self, _number: int, point: "CurvePoint") -> None:
        value = point.validation.get(self.metric)
        self._show(f"{self.words}, iteration {point.iteration}" + ("" if value is None else f": {value:.4f}"))

    def ends(self, trial: "TrialResult", plan: "Plan", trials: "Sequence[TrialResult]") -> None:
        from recstore.experiments.tuning.space import words
        from recstore.experiments.tuning.trials import best

        self.plan, self.trials = plan, trials
        self._close()
        top, value = best(trials), "       " if trial.value is None else f"{trial.value:.5f}"
        after = {"complete": "", "pruned": "; pruned", "failed": f"; failed: {trial.error}"}[trial.state]
        after += "; the best so far" if top is not None and top.number == trial.number else ""
        self.console.print(
            f"trial {trial.number:<4} {value}  {words(trial.parameters, trial.iterations)} ({trial.stage},"
            f" {duration(trial.seconds or 0)}){after}"
        )
        self._show("")

    def _show(self, words: str) -> None:
        from recstore.experiments.tuning.trials import best

        if self.plan is None:
            return
        top, left = best(self.trials), self.plan.left(self.trials)
        parts = [words, f"best {top.value:.5f}" if top and top.value is not None else ""]
        note = "; ".join(filter(None, [*parts, f"about {duration(left)} left" if left is not None else ""]))
        if self.console.is_terminal:
            self.progress("search", round(1000 * self.plan.share(self.trials)), 1000, note)
        elif time.monotonic() - self.last > 6 * PLAIN_EVERY:
            self.last = time.monotonic()
            self.console.print(f"search       {len(self.trials)} trials so far; {note}")


def sentence(details: dict[str, Any]) -> str:
    """Return what a stored stage did; `told` is the summary's name in runs of recstore 0.1."""
    summary = details.get("summary", details.get("told"))
    return str(summary) if summary is not None else ", ".join(f"{key} {value}" for key, value in details.items())
