"""The display of a run: a bar at a terminal, plain lines elsewhere; and a sentence for each finished stage."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

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


def sentence(details: dict[str, Any]) -> str:
    """Return what a stored stage did; `told` is the summary's name in runs of recstore 0.1."""
    summary = details.get("summary", details.get("told"))
    return str(summary) if summary is not None else ", ".join(f"{key} {value}" for key, value in details.items())
