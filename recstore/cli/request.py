"""`recstore request ..`: ask the workers for a job, and wait for it."""

from datetime import datetime
from functools import partial

import typer

from recstore.api.progress import StageReporter
from recstore.api.request import Requesting
from recstore.api.rows import Request
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
    commands.add("refresh", _answered, call=partial(_ask, job="refresh"), example="recstore request refresh retail")
    commands.add("reindex", _answered, call=partial(_ask, job="reindex"), example="recstore request reindex retail")
    commands.add("lists", _answered, call=partial(_ask, job="lists"), example="recstore request lists retail")
    commands.add("cancel", _cancelled, example="recstore request cancel 12")


def _ask(part: Requesting, name: str, wait: bool, timeout: float | None, force: bool = False, *, job: str) -> Request:
    options = {"force": True} if force else {}
    reporter, replays = StageReporter(state.errors), dict[int, Replay]()
    request: Request = getattr(part, job)(name, timeout=None if wait else timeout, reporter=reporter, **options)
    say(f"request {request.request}: {job} of {name}")
    if not wait:
        say(f"watch it: recstore status {name} --watch\ntake it back: recstore request cancel {request.request}")
        return request
    try:
        with reporter.showing():
            for seen in part.followed(request.request, timeout=timeout):
                if isinstance(seen, NoConnection):
                    reporter.waits(str(seen), "no connection")
                    continue
                request, run, now = seen
                if run:
                    replays.setdefault(run.run, Replay(reporter)).show(vars(run))
                else:
                    reporter.waits(_words(request, now), request.state)
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
