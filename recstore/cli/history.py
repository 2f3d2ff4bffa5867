"""The past: `recstore requests`, `recstore runs`, the story of one run, `recstore logs`; and `recstore health` for programs."""

from contextlib import nullcontext, suppress
from typing import Annotated, Any

import typer
from rich.text import Text

from recstore.api.arguments import Option
from recstore.api.progress import StageReporter
from recstore.api.rows import Request, Run, RunStory
from recstore.api.watch import Watching
from recstore.background.health import Health
from recstore.background.watching import at_work
from recstore.cli.commands import Commands
from recstore.cli.context import state
from recstore.cli.screen import STYLES, say, stamp, table, when, where
from recstore.wording import duration

GONE = "The process of this run ended without finishing it."
"""Error of an abandoned run whose row has none."""


def register(app: typer.Typer) -> None:
    commands = Commands(app, Watching)
    commands.add("requests", _requests, example="recstore requests retail --open")
    commands.add("runs", _runs, example="recstore runs retail --state failed")
    commands.add("logs", _tail, call=_story, example="recstore logs retail --follow")
    commands.add(
        "health",
        _healthy,
        notes="Exit code 0: healthy; 3: no connection; 1: anything else, with what to do about it.",
        example="recstore health",
    )


def _requests(rows: list[Request], name: str | None, open: bool) -> None:
    shown = [
        {
            "request": row.request,
            **of_whom(row, name),
            "job": row.job,
            "state": row.state,
            "asked": when(row.requested_at),
            "by": row.requested_by if row.origin == "sql" else row.origin,
            "run": row.run,
            "outcome": row.outcome,
        }
        for row in rows
    ]
    table(shown, "Nothing is asked for." if open else "Nothing was asked of the workers yet.")


def _runs(rows: list[Run], name: str | None, job: str | None, state: str | None) -> None:
    shown = [
        {"run": row.run, **of_whom(row, name), "job": row.job, "state": row.state, "started": when(row.started_at)}
        | {"took": duration(row.duration), "outcome": _outcome(row)}
        for row in rows
    ]
    table(shown, "There is no such run." if job or state else "There is no run yet.")


def of_whom(row: Any, name: str | None) -> dict[str, str]:
    """Return the cell of the recommender, unless only one is listed."""
    return {} if name else {"recommender": row.recommender}


def _outcome(run: Run) -> str:
    at = where(at_work(vars(run)), run.progress) if run.state == "running" else ""
    gone = GONE if run.state == "abandoned" else ""
    return str(run.error or run.outcome or at or gone)


def _story(part: Watching, run: int | str | None, follow: bool) -> RunStory | None:
    found = part.logs(run)
    if found is None or (state.json and not follow):
        return found
    reporter = None if state.json else StageReporter(state.output)
    if reporter:
        _head(found)
    with suppress(KeyboardInterrupt), reporter.showing() if reporter else nullcontext():
        return part.logs(found.run, follow=follow, reporter=reporter)
    return part.logs(found.run)


def _head(run: RunStory) -> None:
    """Print what is known from the beginning."""
    say(Text.assemble((f"run {run.run}", "bold"), f": {run.job} of {run.recommender}"))
    say(f"  started  {stamp(run.started_at)} on {run.host} (server process {run.pid})")
    versions = dict(run.versions or {})
    own = versions.pop("recstore", "")
    rest = ", ".join(f"{name} {version}" for name, version in versions.items())
    say(f"  with     recstore {own}" + (f" ({rest})" if rest else ""))
    for request in run.requests:
        say(f"  for      request {request['request']} by {request['requested_by']} ({request['origin']})")


def _tail(
    found: RunStory | None,
    run: int | str | None,
    trace: Annotated[bool, Option("Also the traceback of an error.")] = False,
) -> None:
    """Print how it ended, or that it is still running."""
    if found is None:
        say(f"There is no run yet. Start one with: recstore retrain {run or 'NAME'}")
        return
    stage, running = at_work(vars(found)), found.state == "running"
    if stage and not running:
        say(f"{stage:<12} not finished")
    text = Text.assemble((found.state, f"bold {STYLES.get(found.state, '')}"))
    text.append(f" {'for' if running else 'after'} {duration(found.duration)}")
    if running:
        text.append(f": {where(stage, found.progress) or 'between two stages'}")
    if found.device:
        text.append(f", trained on the {found.device.upper()}")
    if found.wal_bytes is not None:
        whose = (
            "" if int((found.versions or {}).get("postgresql", "18").split(".")[0]) >= 18 else " by the whole server"
        )
        text.append(f", {found.wal_bytes / 1e6:,.1f} MB of WAL written{whose}")
    say(text)
    if error := found.error or (GONE if found.state == "abandoned" else None):
        say(Text.assemble(("Error: ", "bold red"), error))
    elif found.outcome and found.outcome not in found.warnings:
        say(found.outcome)
    if running:
        say(f"Go on watching: recstore logs {found.run} --follow")
    elif found.trace and trace:
        say("\n" + found.trace.rstrip())
    elif found.trace:
        say(f"The traceback: recstore logs {found.run} --trace")


def _healthy(found: Health) -> None:
    say(
        f"healthy: the database is at revision {found.revision},{' the broker answers,' * found.broker} the last dispatch was"
        f" {found.last_dispatch_seconds:.0f} s ago"
    )
