"""Answers at the command line: similar, recommend, explain, popular; by the SQL that applications run."""

from typing import Annotated, Any

import typer

from recstore.api.arguments import Option
from recstore.api.ask import Answer, Asking
from recstore.cli.commands import Commands
from recstore.cli.screen import say, table


def register(app: typer.Typer) -> None:
    commands = Commands(app, Asking)
    for name, example in (
        ("similar", "recstore similar retail 1606"),
        ("recommend", "recstore recommend retail 1"),
        ("explain", "recstore explain retail 1 1606"),
        ("popular", "recstore popular retail -k 5"),
    ):
        commands.add(name, _shown, data=lambda answer: answer.rows, example=example, negative_ids=True)


def _shown(answer: Answer[Any], sql: Annotated[bool, Option("Print the SQL, too.")] = False) -> None:
    if sql:
        say(answer.statement + "\n")
    table(answer.rows, answer.empty)
