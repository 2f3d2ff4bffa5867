"""Generations: publish, list, roll back, prune."""

from typing import Annotated

import typer

from recstore import registry
from recstore.api.progress import StageReporter
from recstore.cli import completion
from recstore.cli.context import (
    DryRun,
    Json,
    Name,
    Yes,
    confirm,
    current,
    say,
    settings,
    show,
    show_rows,
    show_statements,
    state,
)
from recstore.embedded.configured import database_url
from recstore.operations import dry_run, jobs, recommenders
from recstore.publication.generations import pruned_words

READY = 4
"""Exit code of a training whose generation is complete but could not go live yet."""


def register(app: typer.Typer) -> None:
    app.command()(publish)
    app.command()(generations)
    app.command()(rollback)
    app.command()(prune)


def tell_outcome(outcome: jobs.Outcome, name: str) -> None:
    """How it ended, for people or programs; exit code READY where the generation is not live yet."""
    if state.json:
        show(vars(outcome))
    elif outcome.live:
        say(f"generation {outcome.generation} of {name} is live")
    else:
        say(f"generation {outcome.generation} of {name} is ready. When those have ended: recstore publish {name}")
    if not outcome.live:
        raise typer.Exit(READY)


def publish(
    name: Name,
    now: Annotated[bool, typer.Option("--now", help="Don't wait for anybody; says whom that disturbs.")] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for other sessions.", metavar="SECONDS", min=0)] = 0,
    dry: DryRun = False,
    json: Json = False,
) -> None:
    """Make a generation live that is ready but had to wait.

    Example: recstore publish retail
    """
    if dry:
        with current() as (opened, _, configured):
            show_statements(dry_run.publish(opened, configured, registry.get(opened, name), now=now))
        return
    given = settings()
    with StageReporter(state.errors).showing() as reporter:
        outcome = jobs.publish(database_url(given), given, name, now=now, wait=wait, reporter=reporter)
    tell_outcome(outcome, name)


def generations(
    name: Name,
    every: Annotated[bool, typer.Option("--all", help="Also those that are pruned.")] = False,
    json: Json = False,
) -> None:
    """List the generations: live, previous, ready, next.

    Example: recstore generations retail
    """
    with current() as (opened, _, _settings):
        rows = recommenders.generations(opened, name, pruned=every)
        columns = ["generation", "state", "run", "factors", "users", "items", "ready_at", "last_live_at", "reason"]
        show_rows(rows, columns)


def rollback(
    name: Name,
    to: Annotated[
        int | None,
        typer.Option(
            help="This generation instead of the newest before the live one.",
            metavar="GENERATION",
            autocompletion=completion.generations,
        ),
    ] = None,
    dry: DryRun = False,
    json: Json = False,
) -> None:
    """Make an earlier generation live again, at once. Undo it with --to.

    Example: recstore rollback retail
    """
    if dry:
        with current() as (opened, _, _settings):
            show_statements(dry_run.roll_back(opened, registry.get(opened, name), to))
        return
    given = settings()
    before, now = jobs.roll_back(database_url(given), name, to=to)
    if json:
        show({"was_live": before, "live": now})
    say(f"generation {now} of {name} is live (was {before}); undo with: recstore rollback {name} --to {before}")
    with current() as (opened, _, _settings):
        status = registry.overview_of(opened, name)
    if status["running_job"] == "retrain":
        say(f"but run {status['running']} is training now, and its generation goes live when it ends")
    if status["schedule"]:
        say(
            f"the schedule trains anew when the source has something new; to stop that: recstore alter {name} --schedule none"
        )


def prune(
    name: Name,
    keep: Annotated[
        int | None, typer.Option(help="Generations to keep, the live one included.", metavar="N", min=1)
    ] = None,
    dry: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove old generations and what dead runs left.

    Asks where fewer are to stay than the recommender keeps. Example: recstore prune retail --keep 1 --yes
    """
    with current() as (opened, url, given):
        recommender = registry.get(opened, name)
        if dry:
            show_statements(dry_run.prune(opened, given, recommender, keep))
            return
        kept = recommender.definition.publication.keep
        if keep is not None and keep < kept:
            back = "None can be rolled back to then." if keep == 1 else f"Only {keep - 1} can be rolled back to then."
            confirm(f"{name} keeps {kept} generations, not {keep}. {back} Remove the others?", yes)
    with StageReporter(state.errors).showing() as reporter:
        done = jobs.prune(url, given, name, keep=keep, reporter=reporter)
    if json:
        show(done)
        return
    for words in pruned_words(done):
        say(words)
