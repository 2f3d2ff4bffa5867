"""Answers at the command line: similar, recommend, explain, popular, compare; by the SQL that applications run."""

from typing import Annotated, Any

import typer

from recstore.api.arguments import Option
from recstore.api.ask import Answer, Asking
from recstore.api.rows import Comparison
from recstore.cli.commands import Commands
from recstore.cli.screen import picked, say, say_wrapped, table

SHOWN = 20
"""Items that a comparison prints."""


def register(app: typer.Typer) -> None:
    commands = Commands(app, Asking)
    for name, example in (
        ("similar", "recstore similar retail 1606"),
        ("recommend", "recstore recommend retail 1"),
        ("explain", "recstore explain retail 1 1606"),
        ("popular", "recstore popular retail -k 5"),
    ):
        notes = "For a basket: recstore recommend retail --items 6,9 --weights 1,-1\n" if name == "recommend" else ""
        commands.add(name, _shown, data=lambda answer: answer.rows, notes=notes, example=example, negative_ids=True)
    commands.add("compare", _compared, example="recstore compare retail 41 42")


def _shown(answer: Answer[Any], sql: Annotated[bool, Option("Print the SQL, too.")] = False) -> None:
    if sql:
        say(answer.statement + "\n")
    table(answer.rows, answer.empty)


def _compared(found: Comparison, a: int, b: int, k: int) -> None:
    if found.overlap is None:
        say("neither generation lists any item for these users")
        return
    quantiles = f"{found.overlap_p10:.2f}, {found.overlap_p50:.2f} and {found.overlap_p90:.2f}"
    say_wrapped(
        f"{found.users:,} users, lists of {k}: generations {a} and {b} have {found.overlap:.1%} of their items in common (a"
        f" tenth, half and nine tenths of the users: at most {quantiles}); {found.first_changed:,} users have another first item"
    )
    names = "item_id lists_a lists_b" + " title" * any(item.title is not None for item in found.items)
    table(picked(found.items[:SHOWN], names), "No item is in more or fewer lists.")
    if len(found.items) > SHOWN:
        say(f"and {len(found.items) - SHOWN:,} more items: --json prints all")
