"""Files out and in: `recstore export` and `recstore import`."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from recstore.api.files import Files
from recstore.api.manage import Managing
from recstore.api.rehearse import Rehearsal
from recstore.atomic import check_place
from recstore.cli.commands import Commands
from recstore.cli.context import replaced, state
from recstore.cli.jobs import ended
from recstore.cli.screen import say

if TYPE_CHECKING:
    from recstore.files.archive.exporting import Written
    from recstore.files.archive.importing import Plan
    from recstore.operations.jobs import Outcome


def register(app: typer.Typer) -> None:
    commands = Commands(app, Files, Rehearsal)
    commands.add(
        "export",
        _exported,
        ask=_replaced,
        notes="Nothing in it is pickled; docs/files.md lists its arrays.",
        example="recstore export retail retail.npz",
    )
    commands.add(
        "import_",
        _imported,
        ask=_installed,
        rehearsed=_planned,
        dry_run="Read and check the file, say what would happen, and change nothing.",
        notes="""\
With --create the file's settings, with their SQL, are shown first. Ids may have another type here, if every one of them
converts. Exit code 4: the generation is ready but waits for other sessions to end; 5: the file is far smaller than what is
live, or worse.""",
        example="recstore import retail retail.npz",
    )


def _replaced(file: Path) -> str | None:
    check_place(file)
    return replaced(file)


def _exported(done: "Written", no_users: bool) -> None:
    without = ", without its users" if no_users else ""
    say(f"generation {done.generation} of {done.recommender} is in {done.file}{without}")


def _installed(part: Files, name: str, file: Path, create: bool, yes: bool) -> str | None:
    """Show what --create takes from the file: SQL that recstore's role runs from then on."""
    plan = Rehearsal(part.settings).import_(name, file, create=True) if create and not yes else None
    if plan is None or not plan.creates:
        return None
    state.errors.print(f"The recommender {name} would be created with the settings of {file}:")
    for line in _settings(plan):
        state.errors.print(line)
    return "Recstore's role will run the SQL among these settings. Create the recommender?"


def _settings(plan: "Plan") -> list[str]:
    return [
        f"  {section}: " + ", ".join(f"{key} = {value}" for key, value in values.items())
        for section, values in plan.settings.items()
        if values
    ]


def _imported(outcome: "Outcome", part: Files, name: str, file: Path) -> None:
    schedule = Managing(part.settings).show(name).definition["schedule"]["cron"]
    try:
        ended(outcome, name, f", imported from {file},")
    finally:
        if schedule:
            say(
                f"its schedule ({schedule}) trains again when it is due; to keep the import: recstore alter {name}"
                " --schedule none"
            )


def _planned(plan: "Plan") -> None:
    say(
        f"{plan.file}: generation {plan.from_generation} of {plan.from_recommender!r}, exported {plan.exported_at}:"
        f" {plan.items:,} items, {plan.users:,} users, {plan.factors} factors"
    )
    for conversion in plan.conversions:
        say(f"it would convert {conversion}")
    if plan.creates:
        say(f"it would create the recommender {plan.recommender}, with these settings of the file:")
        for line in _settings(plan):
            say(line)
    if plan.fallen:
        say(f"it would be refused without --force: {plan.fallen}")
    then = "" if plan.live_generation is None else f", instead of generation {plan.live_generation}"
    say(f"it would be published as the next generation of {plan.recommender}{then}; nothing was changed")
