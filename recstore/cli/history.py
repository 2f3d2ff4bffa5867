"""What has been: `recstore requests`, `recstore runs`, and the story of one run, `recstore logs`."""

from contextlib import suppress
from typing import Annotated, Any, Literal

import typer
from rich.text import Text

from recstore.api.progress import StageReporter
from recstore.background import watching as watched
from recstore.background.watching import NoConnection, Replay, at_work, clock
from recstore.cli import completion
from recstore.cli.context import Json, say, show, state
from recstore.cli.follow import followed, watching, where
from recstore.cli.screen import STYLES, Column, print_table, stamp, when
from recstore.wording import duration

GONE = "The process of this run ended without finishing it."
"""Of one that nobody has noticed yet, and whose row says no error."""

OfOne = Annotated[
    str | None,
    typer.Argument(help="Of this recommender only.", show_default=False, autocompletion=completion.recommenders),
]
Newest = Annotated[int, typer.Option("-n", help="The newest so many.", metavar="N", min=1)]


def register(app: typer.Typer) -> None:
    app.command()(requests)
    app.command()(runs)
    app.command()(logs)


def requests(
    name: OfOne = None,
    open_: Annotated[bool, typer.Option("--open", help="Only those that are not finished.")] = False,
    n: Newest = 20,
    json: Json = False,
) -> None:
    """List what was asked of the workers and what became of it, the newest last.

    Example: recstore requests retail --open
    """
    with watching() as (opened, _):
        rows, now = watched.asked(opened, name, n=n, open=open_), clock(opened)
    columns = [
        Column("request", lambda row: row["request"], "number"),
        *_of_whom(name),
        Column("job", lambda row: row["job"]),
        Column("state", lambda row: row["state"], "state"),
        Column("asked", lambda row: when(row["requested_at"], now)),
        Column("by", lambda row: row["requested_by"] if row["origin"] == "sql" else row["origin"], "name"),
        Column("run", lambda row: row["run"], "number"),
        Column("outcome", lambda row: row["outcome"]),
    ]
    print_table(rows, columns, "Nothing is asked for." if open_ else "Nothing was asked of the workers yet.")


def runs(
    name: OfOne = None,
    n: Newest = 20,
    job: Annotated[
        Literal["retrain", "reindex", "prune", "publish", "resize", "import", "lists"] | None,
        typer.Option(help="Only of this job.", show_default=False),
    ] = None,
    state_: Annotated[
        Literal["running", "succeeded", "ready", "skipped", "failed", "abandoned"] | None,
        typer.Option("--state", help="Only in this state.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """List the runs, the newest last: when, how long, and how each ended.

    Example: recstore runs retail --state failed
    """
    with watching() as (opened, _):
        rows, now = watched.runs(opened, name, n=n, job=job, state=state_), clock(opened)
    columns = [
        Column("run", lambda row: row["run"], "number"),
        *_of_whom(name),
        Column("job", lambda row: row["job"]),
        Column("state", lambda row: row["state"], "state"),
        Column("started", lambda row: when(row["started_at"], now)),
        Column("took", lambda row: duration(row["duration"])),
        Column("outcome", _outcome),
    ]
    print_table(rows, columns, "There is no such run." if job or state_ else "There is no run yet.")


def _of_whom(name: str | None) -> list[Column]:
    return [] if name else [Column("recommender", lambda row: row["recommender"], "name")]


def _outcome(run: dict[str, Any]) -> str:
    at = where(at_work(run), run["progress"]) if run["state"] == "running" else ""
    gone = GONE if run["state"] == "abandoned" else ""
    return str(run["error"] or run["outcome"] or at or gone)


def logs(
    run: Annotated[
        str | None,
        typer.Argument(
            help="Its number, or a recommender for its newest; otherwise the newest of all.",
            metavar="[RUN|NAME]",
            show_default=False,
            autocompletion=completion.either(completion.recommenders, completion.runs),
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends, or Ctrl-C.")] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Also the traceback of an error.")] = False,
    json: Json = False,
) -> None:
    """Tell the story of a run: who, where, with what, each stage, and how it ended.

    Example: recstore logs retail --follow
    """
    name = None if run is None or run.isdecimal() else run  # no recommender's name begins with a digit
    with watching() as (opened, _):
        number = int(run) if run and name is None else watched.newest_run(opened, name)
        if number is None:
            if json:
                show(None)
            say("There is no run yet. Start one with: recstore retrain " + (name or "NAME"))
            return
        found = watched.run(opened, number)
    reporter = StageReporter(state.output)
    replay = Replay(reporter)
    if not json:
        _head(found)
        replay.show(found)
    if follow and found["state"] == "running":
        with suppress(KeyboardInterrupt), reporter.showing():
            for seen in followed(number):
                if isinstance(seen, NoConnection):
                    reporter.warn(str(seen))
                    continue
                found = seen
                if not json:
                    replay.show(found)
    if json:
        show(found)
    else:
        _tail(found, trace)


def _head(run: dict[str, Any]) -> None:
    """What is known from the beginning."""
    state.output.print(Text.assemble((f"run {run['run']}", "bold"), f": {run['job']} of {run['recommender']}"))
    say(f"  started  {stamp(run['started_at'])} on {run['host']} (server process {run['pid']})")
    versions = dict(run["versions"] or {})
    own = versions.pop("recstore", "")
    rest = ", ".join(f"{name} {version}" for name, version in versions.items())
    say(f"  with     recstore {own}" + (f" ({rest})" if rest else ""))
    for request in run["requests"]:
        who = request["requested_by"]
        say(f"  for      request {request['request']} by {who} ({request['origin']})")


def _tail(run: dict[str, Any], trace: bool) -> None:
    """How it ended, or that it goes on."""
    stage, running = at_work(run), run["state"] == "running"
    if stage and not running:
        say(f"{stage:<12} not finished")
    text = Text.assemble((run["state"], f"bold {STYLES.get(run['state'], '')}"))
    text.append(f" {'for' if running else 'after'} {duration(run['duration'])}")
    if running:
        text.append(f": {where(stage, run['progress']) or 'between two stages'}")
    if run["device"]:
        text.append(f", trained on the {run['device'].upper()}")
    if run["wal_bytes"] is not None:
        whose = "" if int(run["versions"].get("postgresql", "18").split(".")[0]) >= 18 else " by the whole server"
        text.append(f", {run['wal_bytes'] / 1e6:,.1f} MB of WAL written{whose}")
    state.output.print(text)
    if error := run["error"] or (GONE if run["state"] == "abandoned" else None):
        state.output.print(Text.assemble(("Error: ", "bold red"), error))
    elif run["outcome"] and run["outcome"] not in run["warnings"]:
        say(run["outcome"])
    if running:
        say(f"Go on watching: recstore logs {run['run']} --follow")
    elif run["trace"] and trace:
        say("\n" + run["trace"].rstrip())
    elif run["trace"]:
        say(f"The traceback: recstore logs {run['run']} --trace")
