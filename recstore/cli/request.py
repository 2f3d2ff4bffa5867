"""`recstore request ..`: ask the workers for a job, and wait for it if you like."""

import time
from contextlib import ExitStack
from datetime import datetime
from typing import Annotated, Any

import typer

from recstore import requests
from recstore.api.progress import StageReporter
from recstore.background import watching as watched
from recstore.background.watching import OPEN, NoConnection, Replay, clock
from recstore.cli import completion
from recstore.cli.context import Force, Json, Name, say, show, state
from recstore.cli.follow import polled, watching
from recstore.cli.generations import READY
from recstore.errors import InvalidInput, RequestFailed, StillOpen, WaitingInterrupted
from recstore.postgres.connection import Connection
from recstore.wording import duration

group = typer.Typer(help="Ask the workers for a job, or take that back.", no_args_is_help=True)

Wait = Annotated[bool, typer.Option("--wait", help="Wait until it is done, and show how far it is.")]
Timeout = Annotated[
    float | None, typer.Option(help="With --wait: wait so long at most.", metavar="SECONDS", min=0, show_default=False)
]


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="request")


@group.command()
def retrain(name: Name, wait: Wait = False, timeout: Timeout = None, force: Force = False, json: Json = False) -> None:
    """Ask a worker to retrain a recommender. With --wait, the exit code tells how it went, as that of recstore retrain.

    Example: recstore request retrain retail --wait
    """
    _ask(name, "retrain", wait, timeout, json, force=force)


@group.command()
def reindex(name: Name, wait: Wait = False, timeout: Timeout = None, json: Json = False) -> None:
    """Ask a worker to rebuild the indexes of the live generation and to calibrate it again.

    Example: recstore request reindex retail
    """
    _ask(name, "reindex", wait, timeout, json)


@group.command()
def lists(name: Name, wait: Wait = False, timeout: Timeout = None, json: Json = False) -> None:
    """Ask a worker to write the tables of lists that the recommender's definition names.

    Example: recstore request lists retail
    """
    _ask(name, "lists", wait, timeout, json)


@group.command()
def cancel(
    number: Annotated[
        int, typer.Argument(help="The request's number.", show_default=False, autocompletion=completion.open_requests)
    ],
    json: Json = False,
) -> None:
    """Take a request back that no run has begun yet.

    Example: recstore request cancel 12
    """
    with watching() as (opened, _):
        row = requests.cancel(opened, number)
        if json:
            show(row)
        say(f"cancelled request {number}, {row['job']} of {row['recommender']}")


def _ask(name: str, job: requests.Job, wait: bool, timeout: float | None, json: bool, *, force: bool = False) -> None:
    if timeout is not None and not wait:
        raise InvalidInput("--timeout says how long to wait: it goes with --wait.")
    with watching() as (opened, settings):
        number = requests.ask(opened, name, job, force=force)
        warning = watched.nobody_dispatches(opened, settings)
        row = requests.get(opened, number)
    if warning:
        state.errors.print(f"Warning: {warning}", markup=False)
    if json and not wait:
        show(row)
    say(f"request {number}: {job} of {name}")
    if not wait:
        say(f"watch it: recstore status {name} --watch\ntake it back: recstore request cancel {number}")
        return
    row = _wait(number, timeout)
    if row["state"] in ("failed", "cancelled"):
        raise RequestFailed(request=number, state=row["state"], outcome=row["outcome"])
    if json:
        show(row)
    say(row["outcome"])
    if row["state"] == "ready":
        raise typer.Exit(READY)


def _wait(number: int, timeout: float | None) -> dict[str, Any]:
    """The request's row when it is finished, shown on the way there. Raises StillOpen, WaitingInterrupted."""

    def look(opened: Connection) -> tuple[dict[str, Any], dict[str, Any] | None, datetime]:
        row = requests.get(opened, number)
        return row, None if row["run"] is None else watched.run(opened, row["run"]), clock(opened)

    began = time.monotonic()
    shown = Waiting()
    row: dict[str, Any] = {"state": "waiting"}
    try:
        for seen in polled(look):
            if isinstance(seen, NoConnection):
                shown.waits(str(seen), "no connection")
            else:
                row, run, now = seen
                if run:
                    shown.works(run)
                if row["state"] not in OPEN:
                    break
                if not run:
                    shown.waits(_words(row, now), row["state"])
            if timeout is not None and time.monotonic() - began > timeout:
                raise StillOpen(request=number, state=row["state"], seconds=timeout)
    except KeyboardInterrupt:
        raise WaitingInterrupted(request=number) from None
    finally:
        shown.close()
    return row


def _words(row: dict[str, Any], now: datetime) -> str:
    words = f"request {row['request']} waits for a worker"
    if row["not_before"] and row["not_before"] > now:
        words += f", and is due in {duration(row['not_before'] - now)}"
    elif row["sent_at"]:
        words += f", which was called {duration(now - row['sent_at'])} ago"
    return words + (f". {row['outcome']}" if row["outcome"] else "")


class Waiting:
    """What is shown meanwhile, on standard error: at a terminal one line that changes, and the stages of the run."""

    def __init__(self) -> None:
        self.shown = ExitStack()
        self.reporter = StageReporter(state.errors)
        self.replays: dict[int, Replay] = {}
        self.at: object = None

    def waits(self, words: str, about: str) -> None:
        """For somebody to begin. `about`: elsewhere than at a terminal a line for each thing that is waited for."""
        if self.at != about:
            self.close()
            if state.errors.is_terminal:
                self.status = self.shown.enter_context(state.errors.status(words))
            else:
                state.errors.print(words, markup=False)
        elif state.errors.is_terminal:
            self.status.update(words)
        self.at = about

    def works(self, run: dict[str, Any]) -> None:
        """A run has begun it."""
        number = run["run"]
        if self.at != number:
            self.close()
            self.shown.enter_context(self.reporter.showing())
            self.replays.setdefault(number, Replay(self.reporter))
        self.at = number
        self.replays[number].show(run)

    def close(self) -> None:
        self.shown.close()
