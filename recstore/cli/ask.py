"""Answers at the command line: similar, recommend, popular; by the SQL that applications run."""

from typing import Annotated, Any

import typer

from recstore.api.arguments import Option
from recstore.api.ask import Answer, Asking
from recstore.cli.commands import Commands
from recstore.cli.screen import dicts, say, table


def register(app: typer.Typer) -> None:
    commands = Commands(app, Asking)
    for name, call, example in (
        ("similar", _similar, "recstore similar retail 1606"),
        ("recommend", _recommend, "recstore recommend retail 1"),
        ("popular", _popular, "recstore popular retail -k 5"),
    ):
        commands.add(name, _shown, call=call, data=lambda answer: answer.rows, example=example, negative_ids=True)


def _similar(part: Asking, name: str, item_id: str, k: int, min_users: int) -> Answer:
    return part.answer_similar(name, item_id, k=k, min_users=min_users)


def _recommend(part: Asking, name: str, user_id: str, k: int, seen: bool) -> Answer:
    return part.answer_recommend(name, user_id, k=k, seen=seen)


def _popular(part: Asking, name: str, k: int) -> Answer:
    return part.answer_popular(name, k=k)


def _shown(answer: Answer, sql: Annotated[bool, Option("Print the SQL, too.")] = False) -> None:
    if sql:
        say(answer.statement + "\n")
    rows: list[dict[str, Any]] = answer.rows
    table(rows, dicts(rows), answer.empty)
