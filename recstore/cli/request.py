"""`recstore request ..`: ask the workers for a job, and wait for it."""

from contextlib import ExitStack
from datetime import datetime
from functools import partial

import typer

from recstore.api.progress import StageReporter
from recstore.api.request import Requesting
from recstore.api.rows import Request, RunStory
from recstore.background.watching import NoConnection, Replay
from recstore.cli.commands import Commands
from recstore.cli.context import state
from recstore.cli.jobs import READY
from recstore.cli.screen import say
from recstore.errors import WaitingInterrupted
from recstore.wording import duration


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Ask the workers for a job, or take that back.", no_args_is_help=True)
    app.add_typer(group, name="request")
    commands = Commands(group, Requesting)
    commands.add(
        "retrain",
        _answered,
        call=partial(_ask, job="retrain"),
        notes="With --wait, the exit code is that of recstore retrain.",
        example="recstore request retrain retail --wait",
    )
    commands.add("reindex", _answered, call=partial(_ask, job="reindex"), example="recstore request reindex retail")
    commands.add("lists", _answered, call=partial(_ask, job="lists"), example="recstore request lists retail")
    commands.add("cancel", _cancelled, example="recstore request cancel 12")


def _ask(part: Requesting, name: str, wait: bool, timeout: float | None, force: bool = False, *, job: str) -> Request:
    options = {"force": True} if force else {}
    request: Request = getattr(part, job)(
        name, timeout=None if wait else timeout, reporter=StageReporter(state.errors), **options
    )
    say(f"request {request.request}: {job} of {name}")
    if not wait:
        say(f"watch it: recstore status {name} --watch\ntake it back: recstore request cancel {request.request}")
        return request
    with Waiting() as shown:
        try:
            for seen in part.followed(request.request, timeout=timeout):
                if isinstance(seen, NoConnection):
                    shown.waits(str(seen), "no connection")
                    continue
                request, run, now = seen
                if run:
                    shown.works(run)
                else:
                    shown.waits(_words(request, now), request.state)
        except KeyboardInterrupt:
            raise WaitingInterrupted(request=request.request) from None
    return request


def _answered(request: Request, wait: bool) -> None:
    if wait:
        say(request.outcome or "")
    if request.state == "ready":
        raise typer.Exit(READY)


def _cancelled(request: Request) -> None:
    say(f"cancelled request {request.request}, {request.job} of {request.recommender}")


def _words(request: Request, now: datetime) -> str:
    words = f"request {request.request} waits for a worker"
    if request.not_before and request.not_before > now:
        words += f", and is due in {duration(request.not_before - now)}"
    elif request.sent_at:
        words += f", which was called {duration(now - request.sent_at)} ago"
    return words + (f". {request.outcome}" if request.outcome else "")


class Waiting(ExitStack):
    """The display while waiting, on standard error: at a terminal one line that changes, and the stages of the run."""

    def __init__(self) -> None:
        super().__init__()
        self.reporter = StageReporter(state.errors)
        self.replays: dict[int, Replay] = {}
        self.at: object = None

    def waits(self, words: str, about: str) -> None:
        """Show that no run has begun; except at a terminal, a line for each thing that is waited for."""
        if self.at != about:
            self.close()
            if state.errors.is_terminal:
                self.status = self.enter_context(state.errors.status(words))
            else:
                state.errors.print(words, markup=False)
        elif state.errors.is_terminal:
            self.status.update(words)
        self.at = about

    def works(self, run: RunStory) -> None:
        """Show the stages of the run."""
        if self.at != run.run:
            self.close()
            self.enter_context(self.reporter.showing())
        self.at = run.run
        self.replays.setdefault(run.run, Replay(self.reporter)).show(vars(run))
