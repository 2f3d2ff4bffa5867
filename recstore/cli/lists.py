"""Lists of all users and items: recommend-all, similar-all, lists."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer

from recstore import lists as batch
from recstore.api.progress import StageReporter
from recstore.cli.context import DryRun, Json, Name, Yes, confirm_replacing, say, settings, show, state
from recstore.config import Settings
from recstore.embedded.configured import database_url
from recstore.lists import Made, Plan, output
from recstore.wording import counted

Into = Annotated[
    str,
    typer.Option(
        help="A table, as schema.table, or a file that ends with .csv, .csv.gz or .parquet.",
        metavar="TABLE|FILE",
        show_default=False,
    ),
]
K = Annotated[int, typer.Option("--k", "-k", help="Length of each list.", metavar="N", min=1)]
Threads = Annotated[int | None, typer.Option(help="Threads of the products; 0: all cores.", metavar="N")]


def register(app: typer.Typer) -> None:
    app.command("recommend-all")(recommend_all)
    app.command("similar-all")(similar_all)
    app.command()(lists)


def recommend_all(
    name: Name,
    into: Into,
    k: K = 20,
    users: Annotated[
        str | None,
        typer.Option(
            help="A SELECT whose first column names the users, known or not; otherwise all of the live generation.",
            metavar="SQL",
            show_default=False,
        ),
    ] = None,
    threads: Threads = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Write every user's recommendations to a table or a file: what recommend() returns, by exact scan.

    A table is swapped in whole, with its grants and indexes, where an earlier one of the same command was.
    Example: recstore recommend-all retail --k 20 --into recommendations.csv
    """
    given = settings(threads=threads)
    url = database_url(given)
    if dry_run:
        _plan(batch.plan(url, name, into, k=k, users=users), "user")
        return
    _make(into, yes, partial(batch.recommend_all, url, given, name, into, k=k, users=users))


def similar_all(
    name: Name,
    into: Into,
    k: K = 20,
    min_users: Annotated[
        int, typer.Option(help="List only items with so many distinct users.", metavar="N", min=1)
    ] = batch.MIN_USERS,
    threads: Threads = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Write every item's similar items to a table or a file: what similar_items() returns, by exact scan.

    Example: recstore similar-all retail --k 20 --into similar.parquet
    """
    given = settings(threads=threads)
    url = database_url(given)
    if dry_run:
        _plan(batch.plan(url, name, into, similar=True, k=k, min_users=min_users), "item")
        return
    _make(into, yes, partial(batch.similar_all, url, given, name, into, k=k, min_users=min_users))


def lists(name: Name, threads: Threads = None, json: Json = False) -> None:
    """Write the tables of lists that the recommender's definition names, as the workers do when they are due.

    Name them with recstore alter NAME --recommend-into schema.table --lists-schedule "0 4 * * *". Example: recstore lists retail
    """
    given: Settings = settings(threads=threads)
    with StageReporter(state.errors).showing() as reporter:
        made = batch.write_defined(database_url(given), given, name, reporter=reporter)
    if json:
        show([vars(each) for each in made])
    for each in made:
        say(_told(each))


def _make(into: str, yes: bool, make: Callable[..., Made]) -> None:
    if output.is_file(into):
        confirm_replacing(output.check_place(into), yes)
    with StageReporter(state.errors).showing() as reporter:
        made = make(reporter=reporter)
    if state.json:
        show(vars(made))
    say(_told(made))


def _told(made: Made) -> str:
    return f"wrote {counted(made.lists, 'list')} of generation {made.generation}, {counted(made.rows, 'row')}, to {made.into}"


def _plan(plan: Plan, owner: str) -> None:
    if state.json:
        show(vars(plan))
        return
    say(
        f"-- would write lists of generation {plan.generation} for {counted(plan.owners, owner)}, from"
        f" {counted(plan.items, 'item')}, into {plan.into}"
    )
    for statement in plan.statements:
        say(f"{statement};")
