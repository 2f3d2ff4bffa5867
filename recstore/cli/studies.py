"""`recstore studies`: what was searched for and found; and how a search is shown while it runs."""

import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn

from recstore.api.progress import PLAIN_EVERY, StageReporter
from recstore.background import watching as watched
from recstore.background.watching import clock
from recstore.cli import completion
from recstore.cli.context import Json, say, show, state
from recstore.cli.follow import watching
from recstore.cli.history import Newest, OfOne
from recstore.cli.screen import Column, print_table, when
from recstore.evaluation.curves import CurvePoint
from recstore.experiments.tuning.search import Watch
from recstore.experiments.tuning.space import words
from recstore.experiments.tuning.stages import Plan
from recstore.experiments.tuning.trials import TrialResult, best
from recstore.postgres.connection import Connection
from recstore.wording import duration


def register(app: typer.Typer) -> None:
    app.command()(studies)


class TuneReporter(StageReporter, Watch):
    """Shows a search: a line for each trial that ended, and at a terminal a bar with the trial at work, the best so far and
    the time left. A `search.Watch` and a `runs.Reporter`."""

    def __init__(self, metric: str) -> None:
        super().__init__(state.errors)
        self.bar = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[note]}"),
            console=state.errors,
            transient=True,
            disable=not state.errors.is_terminal,
        )
        self.metric = metric
        self.plan: Plan | None = None
        self.trials: Sequence[TrialResult] = ()
        self.words = ""

    def begins(self, trial: TrialResult, plan: Plan, trials: Sequence[TrialResult]) -> None:
        self.plan, self.trials = plan, trials
        factors = f" {trial.parameters['factors']}" if trial.parameters.get("factors") else ""
        trainer = trial.parameters.get("trainer", "")
        self.words = f"trial {trial.number} ({trial.stage}): {trainer}{factors}".rstrip(": ")
        self._show(self.words)

    def point(self, number: int, point: CurvePoint) -> None:  # noqa: ARG002
        values = ", ".join(f"{value:.4f}" for name, value in point.validation.items() if name == self.metric)
        self._show(f"{self.words}, iteration {point.iteration}" + (f": {values}" if values else ""))

    def ends(self, trial: TrialResult, plan: Plan, trials: Sequence[TrialResult]) -> None:
        top = best(trials)
        self.plan, self.trials = plan, trials
        self._close()
        value = "       " if trial.value is None else f"{trial.value:.5f}"
        told = words(trial.parameters, trial.iterations)
        after = {"complete": "", "pruned": "; pruned", "failed": f"; failed: {trial.error}"}[trial.state]
        best_so_far = "; the best so far" if top is not None and top.number == trial.number else ""
        self.console.print(
            f"trial {trial.number:<4} {value}  {told} ({trial.stage}, {duration(trial.seconds or 0)}){after}{best_so_far}",
            markup=False,
        )
        self._show("")

    def _show(self, words: str) -> None:
        if self.plan is None:
            return
        top, left = best(self.trials), self.plan.left(self.trials)
        note = words + (f"; best {top.value:.5f}" if top and top.value is not None else "")
        note += f"; about {duration(left)} left" if left is not None else ""
        if self.console.is_terminal:
            self.progress("search", round(1000 * self.plan.share(self.trials)), 1000, note.removeprefix("; "))
        elif time.monotonic() - self.last > 6 * PLAIN_EVERY:
            self.last = time.monotonic()
            self.console.print(
                f"search       {len(self.trials)} trials so far; {note.removeprefix('; ')}", markup=False
            )


def studies(
    name: OfOne = None,
    study: Annotated[
        int | None,
        typer.Argument(help="Its trials.", metavar="[STUDY]", show_default=False, autocompletion=completion.studies),
    ] = None,
    n: Newest = 20,
    json: Json = False,
) -> None:
    """List the searches for good hyperparameters, the newest last, with the best of each; or the trials of one.

    Example: recstore studies retail
    """
    with watching() as (opened, _):
        if study is not None:
            _trials(opened, name, study)
            return
        rows, now = watched.studies(opened, name, n=n), clock(opened)
    columns = [
        Column("study", lambda row: row["study"], "number"),
        *([] if name else [Column("recommender", lambda row: row["recommender"], "name")]),
        Column("state", lambda row: row["state"], "state"),
        Column("began", lambda row: when(row["created_at"], now)),
        Column("trials", lambda row: row["trials"], "number"),
        Column("took", lambda row: duration(row["seconds"])),
        Column("at work", lambda row: row["at_work"], "number"),
        Column("metric", lambda row: row["metric"]),
        Column("best", lambda row: "" if row["best_value"] is None else f"{row['best_value']:.4f}", "number"),
        Column("settings", lambda row: words(row["best_parameters"] or {}, row["best_iterations"])),
    ]
    print_table(rows, columns, "Nothing was searched for yet. Begin with: recstore tune " + (name or "NAME"))


def _trials(opened: Connection, name: str | None, study: int) -> None:
    known, rows = watched.study(opened, name, study)
    if state.json:
        show(known | {"trials": rows})
        return
    columns = [
        Column("trial", lambda row: row["number"], "number"),
        Column("stage", lambda row: row["stage"]),
        Column("state", lambda row: row["state"], "state"),
        Column("took", lambda row: "" if row["seconds"] is None else duration(row["seconds"])),
        Column(known["metric"], lambda row: "" if row["value"] is None else f"{row['value']:.5f}", "number"),
        Column("settings", lambda row: words(row["parameters"], row["iterations"]) + _failed(row)),
    ]
    print_table(rows, columns, "No trial was begun yet.")
    say("")
    say(f"split {known['split']}")
    if known["state"] == "running" and not known["at_work"]:
        say(f"nobody is at work on it; to go on: recstore tune {name} --study {study}")
    if known["outcome"]:
        say(known["outcome"])


def _failed(row: dict[str, Any]) -> str:
    return f"; {row['error']}" if row["error"] else ""
