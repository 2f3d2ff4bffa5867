"""Files out and in: `recstore export` and `recstore import`."""

from pathlib import Path
from typing import Annotated

import typer

from recstore.api.progress import StageReporter
from recstore.atomic import check_place
from recstore.cli.context import Json, Name, Yes, confirm_replacing, current, say, settings, show, state
from recstore.cli.generations import READY
from recstore.embedded.configured import database_url
from recstore.files.archive.exporting import export as export_generation
from recstore.files.archive.importing import Plan, import_generation, look
from recstore.registry import overview_of


def register(app: typer.Typer) -> None:
    app.command("export")(export)
    app.command("import")(import_)


def export(
    name: Name,
    file: Annotated[Path, typer.Argument(help="The file to write, for instance retail.npz.", show_default=False)],
    generation: Annotated[
        int | None,
        typer.Option(help="This generation instead of the live one.", metavar="N", show_default=False),
    ] = None,
    no_users: Annotated[bool, typer.Option("--no-users", help="Leave out all that is about people.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Write a generation to one file that NumPy alone can read: ids, vectors, hyperparameters.

    Nothing in it is pickled; docs/files.md lists its arrays.
    Example: recstore export retail retail.npz
    """
    check_place(file)
    confirm_replacing(file, yes)
    given = settings()
    with StageReporter(state.errors).showing() as reporter:
        done = export_generation(
            database_url(given), name, file, generation=generation, users=not no_users, reporter=reporter
        )
    if json:
        show(vars(done))
    say(f"generation {done.generation} of {name} is in {file}" + (", without its users" if no_users else ""))


def import_(
    name: Name,
    file: Annotated[Path, typer.Argument(help="A file of recstore export.", show_default=False)],
    create: Annotated[
        bool, typer.Option("--create", help="Make the recommender as the file says, if it is not there.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Publish even what is far smaller than the live generation, or worse.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check the file, say what would happen, and change nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Publish a file of `recstore export` as the next generation; the live one serves until the flip.

    Ids may have another type here, if every one of them converts. Exit code 4: the generation is ready but waits for other
    sessions to end; 5: the file is far smaller than what is live, or worse.
    Example: recstore import retail retail.npz
    """
    given = settings()
    url = database_url(given)
    if dry_run:
        plan = look(url, name, file, create=create)
        if json:
            show(vars(plan))
        for sentence in _told(plan):
            say(sentence)
        return
    with StageReporter(state.errors).showing() as reporter:
        outcome = import_generation(url, given, name, file, create=create, force=force, reporter=reporter)
    if json:
        show(vars(outcome))
    elif outcome.live:
        say(f"generation {outcome.generation} of {name}, imported from {file}, is live")
    else:
        say(f"generation {outcome.generation} of {name} is ready. When those have ended: recstore publish {name}")
    with current() as (opened, _, _settings):
        schedule = overview_of(opened, name)["schedule"]
    if schedule:
        say(
            f"its schedule ({schedule}) trains anew when it is due; to keep the import: recstore alter {name} --schedule none"
        )
    if not outcome.live:
        raise typer.Exit(READY)


def _told(plan: Plan) -> list[str]:
    told = [
        f"{plan.file}: generation {plan.from_generation} of {plan.from_recommender!r}, exported {plan.exported_at}:"
        f" {plan.items:,} items, {plan.users:,} users, {plan.factors} factors"
    ]
    told += [f"it would convert {conversion}" for conversion in plan.conversions]
    if plan.creates:
        told.append(f"it would create the recommender {plan.recommender}")
    then = "" if plan.live_generation is None else f", instead of generation {plan.live_generation}"
    if plan.fallen:
        told.append(f"it would be refused without --force: {plan.fallen}")
    told.append(f"it would be published as the next generation of {plan.recommender}{then}; nothing was changed")
    return told
