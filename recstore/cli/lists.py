"""Lists of all users and items: recommend-all, similar-all, lists."""

from functools import partial
from typing import TYPE_CHECKING

import typer

from recstore.api.jobs import Listing
from recstore.api.rehearse import Rehearsal
from recstore.cli.commands import Commands
from recstore.cli.context import replaced
from recstore.cli.screen import say
from recstore.wording import counted

if TYPE_CHECKING:
    from recstore.lists import ListsPlan, Made


def register(app: typer.Typer) -> None:
    commands = Commands(app, Listing, Rehearsal)
    commands.add(
        "recommend_all",
        _written,
        ask=_replaced,
        rehearsed=partial(_planned, owner="user"),
        notes="A table is swapped in whole, with its grants and indexes, where an earlier one of the same command was.",
        example="recstore recommend-all retail --k 20 --into recommendations.csv",
    )
    commands.add(
        "similar_all",
        _written,
        ask=_replaced,
        rehearsed=partial(_planned, owner="item"),
        example="recstore similar-all retail --k 20 --into similar.parquet",
    )
    commands.add(
        "lists",
        _all_written,
        notes='Name them with recstore alter NAME --recommend-into schema.table --lists-schedule "0 4 * * *".',
        example="recstore lists retail",
    )


def _replaced(into: str) -> str | None:
    from recstore.lists import output

    if not output.is_file(into):
        return None
    return replaced(output.check_place(into))


def _written(made: "Made") -> None:
    lists, rows = counted(made.lists, "list"), counted(made.rows, "row")
    say(f"wrote {lists} of generation {made.generation}, {rows}, to {made.into}")


def _all_written(made: "list[Made]") -> None:
    for each in made:
        _written(each)


def _planned(plan: "ListsPlan", owner: str) -> None:
    say(
        f"-- would write lists of generation {plan.generation} for {counted(plan.owners, owner)}, from"
        f" {counted(plan.items, 'item')}, into {plan.into}"
    )
    for statement in plan.statements:
        say(f"{statement};")
