"""Jobs of a recommender and its generations: retrain, refresh, reindex, publish, rollback, release, prune, cancel."""

from typing import Any

import typer

from recstore.api.jobs import Jobs
from recstore.api.manage import Managing
from recstore.api.rehearse import Rehearsal
from recstore.api.rows import Generation, Pruned, Released, RolledBack, RunStory
from recstore.api.watch import Watching
from recstore.cli.commands import Commands
from recstore.cli.screen import picked, say, table
from recstore.operations.jobs import Outcome
from recstore.publication.generations import pruned_words
from recstore.wording import counted

READY = 4
"""Exit code of a training whose generation is complete but could not go live yet."""


def register(app: typer.Typer) -> None:
    commands = Commands(app, Jobs, Rehearsal)
    commands.add(
        "retrain",
        ended,
        notes="""\
Exit code 4: the generation is ready but waits for other sessions to end; 5: the gate or the source guard refused it.""",
        example="recstore retrain retail",
    )
    commands.add("refresh", _refreshed, example="recstore refresh retail")
    commands.add("reindex", _reindexed, example="recstore reindex retail")
    commands.add("publish", ended, example="recstore publish retail")
    commands.add(
        "generations",
        _generations,
        notes="Generations are numbered across the database: the second one of a recommender may be number 14.",
        example="recstore generations retail",
    )
    commands.add("rollback", _rolled_back, example="recstore rollback retail")
    commands.add("release", _released, example="recstore release retail")
    commands.add("cancel", _cancelled, example="recstore cancel 42")
    commands.add(
        "prune",
        _pruned,
        ask=_fewer,
        data=lambda done: {key: value for key, value in vars(done).items() if value or key == "pruned"},
        notes="Asks before it keeps fewer than the recommender does.",
        example="recstore prune retail --keep 1 --yes",
    )


def ended(outcome: Outcome, name: str, how: str = "") -> None:
    """Print how a job ended; exit code READY where the generation is not live yet."""
    if outcome.live:
        say(f"generation {outcome.generation} of {name}{how} is live")
        return
    if outcome.withheld:
        say(f"generation {outcome.generation} of {name} is complete and withheld")
        say(f"make it live: recstore publish {name} {outcome.generation}\nremove it: recstore prune {name} --withheld")
        return
    if outcome.held:
        say(f"generation {outcome.generation} of {name} is ready. To make it live: recstore publish {name}")
        raise typer.Exit(READY)
    say(f"generation {outcome.generation} of {name} is ready. When those have ended: recstore publish {name}")
    raise typer.Exit(READY)


def _refreshed(done: Any, name: str) -> None:
    say(
        f"generation {done.generation} of {name} is refreshed: {counted(done.users, 'user')}, {counted(done.items, 'item')}"
    )


def _reindexed(outcome: Outcome, name: str) -> None:
    say(f"generation {outcome.generation} of {name} is reindexed and calibrated; recstore show {name} prints how")


def _generations(rows: list[Generation]) -> None:
    table(picked(rows, "generation state run factors users items ready_at last_live_at reason"))


def _rolled_back(done: RolledBack, part: Jobs, name: str) -> None:
    say(
        f"generation {done.live} of {name} is live (was {done.was_live}); undo with: recstore rollback {name} --to"
        f" {done.was_live}"
    )
    (found,) = Watching(part.settings).status(name).recommenders
    if not found.held_since:
        return
    say(f"no other generation goes live by itself until: recstore release {name}")
    if found.running_job == "retrain":
        say(f"run {found.running} is training now; its generation waits for that")
    if found.ready_generation is not None:
        say(f"generation {found.ready_generation} is ready and waits for that")
    for request in found.open_requests:
        if request.job == "retrain" and request.state != "running":
            say(
                f"request {request.request} ({request.requested_by}, {request.origin}) will train; its generation waits too"
            )
    if found.schedule:
        say("the schedule goes on training when the source has something new; its generations wait too")


def _released(done: Released, name: str) -> None:
    say(f"generations of {name} go live again" if done.was_held else f"publications of {name} were not held")
    if done.ready is not None:
        say(f"generation {done.ready} is ready: the next dispatch makes it live, or recstore publish {name}")


def _cancelled(run: RunStory) -> None:
    if run.state == "running":
        say(f"run {run.run}, {run.job} of {run.recommender}, ends at its next step: recstore logs {run.run} --follow")
    else:
        say(f"run {run.run}, {run.job} of {run.recommender}, has ended: {run.state}")


def _fewer(part: Jobs, name: str, keep: int | None) -> str | None:
    kept = Managing(part.settings).show(name).definition["publication"]["keep"]
    if keep is None or keep >= kept:
        return None
    back = "None can be rolled back to then." if keep == 1 else f"Only {keep - 1} can be rolled back to then."
    return f"{name} keeps {kept} generations, not {keep}. {back} Remove the others?"


def _pruned(done: Pruned) -> None:
    found: dict[str, Any] = vars(done)
    for words in pruned_words(found):
        say(words)
