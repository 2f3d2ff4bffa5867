"""`recstore status`: what is live, what runs, what waits, what comes next, and whether due work is dispatched."""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from recstore.api.arguments import Option
from recstore.api.rows import Request, Status, Watched
from recstore.api.watch import Watching
from recstore.background.watching import NoConnection, progress_of
from recstore.cli.commands import Commands
from recstore.cli.context import state
from recstore.cli.screen import STYLES, ago, one_line, planned, say, share_of, show, stamp, warn, where
from recstore.wording import age, duration

SHOWN_REQUESTS = 4
"""Requests that are shown of one recommender; more are counted."""

BAR = 24
"""Width of a progress bar in characters."""

FAILED = ("failed", "abandoned")
"""States of a run that published nothing."""

Line = tuple[str, Text | ProgressBar]


def register(app: typer.Typer) -> None:
    Commands(app, Watching).add("status", _shown, call=_look, example="recstore status --watch")


def _look(
    part: Watching,
    name: str | None,
    watch: Annotated[bool, Option("Look again and again, until Ctrl-C.", flags="--watch -w")] = False,
    interval: Annotated[float, Option("Seconds between two looks.", "SECONDS", min=0.1)] = 2,
) -> Status:
    if not watch:
        return part.status(name)
    with suppress(KeyboardInterrupt):
        _watch(part.statuses(name, interval=interval), interval)
    raise typer.Exit


def _shown(seen: Status) -> None:
    say(Group(screen(seen), _dispatcher(seen)))


def _watch(looks: Iterator[Status | NoConnection], interval: float) -> None:
    if state.json or not state.output.is_terminal:
        for seen in looks:
            if isinstance(seen, NoConnection):
                warn(seen)
            elif state.json:
                show(seen)
            else:
                say(stamp(seen.now))
                say(Group(screen(seen), _dispatcher(seen), ""))
        return
    with Live(console=state.output, auto_refresh=False, vertical_overflow="ellipsis") as live:
        last: RenderableType = ""
        for seen in looks:
            if isinstance(seen, NoConnection):
                head = _wrapped(Text(f"{seen} This is how it was.", "bold red"))
            else:
                last = Group(_dispatcher(seen), "", screen(seen))
                head = Text(f"{time.strftime('%H:%M:%S')}, every {interval:g} s until Ctrl-C", "dim")
            live.update(Group(head, last), refresh=True)


def screen(seen: Status) -> RenderableType:
    """Return a block per recommender, each with an empty line after it."""
    if not seen.recommenders:
        return "There is no recommender yet. Make one with: recstore create NAME --table ..\n"
    parts: list[RenderableType] = []
    for row in seen.recommenders:
        parts += [Text(row.recommender, "bold"), _block(_lines(row, seen.now)), ""]
    return Group(*parts)


def _dispatcher(seen: Status) -> RenderableType:
    if seen.warning:
        return _wrapped(Text.assemble(("Warning: ", "yellow"), seen.warning))
    newest = seen.dispatches[0]
    return Text(f"The last look for due work was {age(newest.age)} ago, by {newest.host}.", "dim")


def _block(lines: Iterable[Line]) -> RenderableType:
    if not state.output.is_terminal:  # only a terminal has a width to wrap at, and room for a bar
        texts = [(label, shown) for label, shown in lines if isinstance(shown, Text)]
        return Text("\n").join(Text.assemble(f"  {label:<12}  ", text) for label, text in texts)
    block = Table.grid(padding=(0, 2, 0, 0))
    block.add_column(width=14, no_wrap=True)
    block.add_column(overflow="fold")
    for label, shown in lines:
        block.add_row(f"  {label}", shown)
    return block


def _wrapped(text: Text) -> RenderableType:
    if not state.output.is_terminal:
        return text
    grid = Table.grid()
    grid.add_row(text)
    return grid


def _lines(row: Watched, now: datetime) -> Iterator[Line]:
    name = row.recommender
    if row.live_generation is None or row.live_since is None:
        yield "live", Text(f"nothing yet. Run: recstore retrain {name}", "yellow")
    else:
        size = f"{row.users:,} users, {row.items:,} items"
        yield "live", Text(f"generation {row.live_generation} for {age(now - row.live_since)}: {size}")
    if row.drift:
        more = f", and {len(row.drift) - 1} more" if row.drift[1:] else ""
        yield "drift", Text(one_line(f"{row.drift[0]}{more}. Run: recstore doctor {name}"), "yellow")
    if row.running is not None:
        at = where(row.running_stage, row.running_progress)
        words = f" for {duration(now - (row.running_since or now))} (run {row.running})" + (f": {at}" if at else "")
        yield "now", Text.assemble((row.running_job or "", STYLES["running"]), words)
        if (share := share_of(progress_of(row.running_stage, row.running_progress))) is not None:
            yield "", ProgressBar(total=1, completed=share, width=BAR)
    if row.ended_state in FAILED:  # the run at work has not repaired it yet
        yield "before", _ended(row.ended_state or "", row.ended_at, row.ended_retrain, now)
        if row.ended_error:
            yield "error", Text(one_line(row.ended_error), "red")
    if row.last_retrain is not None and row.last_retrain != row.running:
        outcome, ended = row.last_retrain_state or "", row.last_retrain_finished_at or row.last_retrain_at
        if outcome == "ready" and row.ready_generation is None:  # it is no longer waiting
            outcome = "succeeded"
        text = _ended(outcome, ended, row.last_retrain, now)
        if outcome in FAILED and row.last_success_at:
            text.append(f"; the last success was {ago(row.last_success_at, now)}")
        yield "last retrain", text
        if row.last_error:
            yield "error", Text(one_line(row.last_error), "red")
    if row.held_since is not None:
        words = f"since {row.held_by} rolled back, {ago(row.held_since, now)}. To end that: recstore release {name}"
        yield "held", Text(words, "yellow")
    if row.ready_generation is not None and row.held_since is not None:
        yield "ready", Text(f"generation {row.ready_generation}. To make it live: recstore publish {name}", "yellow")
    elif row.ready_generation is not None:
        sentence = f"generation {row.ready_generation} {row.waits_for or 'waits to go live'}. When that has ended:"
        yield "ready", Text(f"{sentence} recstore publish {name}", "yellow")
    if row.withheld_generation is not None:
        number = row.withheld_generation
        how = f"To make it live: recstore publish {name} {number}. To remove it: recstore prune {name} --withheld"
        yield "withheld", Text(f"generation {number}. {how}")
    asked = [request for request in row.open_requests if request.state != "running"]
    for request in asked[:SHOWN_REQUESTS]:
        yield "asked for", Text(_asked(request, now))
    if len(asked) > SHOWN_REQUESTS:
        yield "", Text(f"and {len(asked) - SHOWN_REQUESTS} more: recstore requests {name} --open")
    times = planned(row.schedule, row.timezone, row.next_retrain) if row.schedule else ""
    yield "schedule", Text(times) if times else Text("none", "dim")
    if row.refresh_schedule:
        yield "refresh", Text(planned(row.refresh_schedule, row.timezone, row.next_refresh, now))
    if row.lists_schedule:
        yield "lists", Text(planned(row.lists_schedule, row.timezone, row.next_lists, now))


def _ended(outcome: str, ended: datetime | None, run: int | None, now: datetime) -> Text:
    """Return how a training ended and when."""
    words = f" {ago(ended, now)}" if ended else ""
    return Text.assemble((outcome, STYLES.get(outcome, "")), f"{words} (run {run})")


def _asked(request: Request, now: datetime) -> str:
    words = f"{request.job} by {request.requested_by} ({request.origin}) {ago(request.requested_at, now)}"
    if request.sent_at:
        words += f", a worker was called {ago(request.sent_at, now)}"
    words += f": request {request.request}"
    if request.attempts and request.outcome:
        words += f", tried {request.attempts} times. {request.outcome}"
    if request.not_before and request.not_before > now:
        words += f" Again in {duration(request.not_before - now)}."
    return words
