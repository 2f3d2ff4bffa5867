"""Answers at the command line: similar, recommend, popular; exactly the SQL that applications run."""

from typing import Annotated

import typer

from recstore import registry
from recstore.cli.context import Json, Name, current, say, show_rows, state
from recstore.operations import questions
from recstore.postgres.connection import Connection

K = Annotated[int, typer.Option("--k", "-k", help="Rows wanted.", metavar="N")]
Sql = Annotated[bool, typer.Option("--sql", help="Print the SQL, too.")]


def register(app: typer.Typer) -> None:
    negative_ids = {"ignore_unknown_options": True}
    app.command(context_settings=negative_ids)(similar)
    app.command(context_settings=negative_ids)(recommend)
    app.command()(popular)


def similar(
    name: Name,
    item_id: Annotated[str, typer.Argument(help="The item's id.", show_default=False)],
    k: K = 10,
    min_users: Annotated[int, typer.Option(help="Least distinct users of a similar item.", metavar="N")] = 3,
    sql: Sql = False,
    json: Json = False,
) -> None:
    """The items most similar to one.

    Example: recstore similar retail 1606
    """
    with current() as (opened, _, _settings):
        recommender = registry.get(opened, name)
        item = recommender.item_type.parse(item_id, "item id")
        questions.require_live(opened, recommender, k)
        known = opened.execute(
            f"SELECT v.embedding IS NULL AS collapsed FROM {recommender.relation('item_vectors')} v WHERE v.item_id = %s",  # noqa: S608
            [item],
        ).fetchone()
        empty = f"{name} does not know the item {item_id}: it was not in the last training."
        if known and known["collapsed"]:
            empty = f"The item {item_id} has too few views to tell what is similar to it."
        elif known:
            one = "candidate" if recommender.definition.candidates.given else "item"
            empty = f"No {one} with at least {min_users} users is similar to {item_id}; try --min-users 1."
        _answer(opened, questions.similar(recommender, item, k, min_users), empty, sql)


def recommend(
    name: Name,
    user_id: Annotated[str, typer.Argument(help="The user's id.", show_default=False)],
    k: K = 10,
    seen: Annotated[bool, typer.Option("--seen", help="Also what the user has seen.")] = False,
    sql: Sql = False,
    json: Json = False,
) -> None:
    """What is recommended for a user; popular items for one nobody knows.

    Example: recstore recommend retail 1
    """
    with current() as (opened, _, _settings):
        recommender = registry.get(opened, name)
        user = recommender.user_type.parse(user_id, "user id")
        questions.require_live(opened, recommender, k)
        _answer(
            opened,
            questions.recommended(recommender, user, k, exclude_seen=not seen),
            "This user has seen every candidate, or there is none now."
            if recommender.definition.candidates.given
            else "This user has seen everything.",
            sql,
        )


def popular(name: Name, k: K = 10, sql: Sql = False, json: Json = False) -> None:
    """The most popular items, by distinct users.

    Example: recstore popular retail -k 5
    """
    with current() as (opened, _, _settings):
        recommender = registry.get(opened, name)
        questions.require_live(opened, recommender, k)
        empty = "No item is a candidate now." if recommender.definition.candidates.given else "There are no items."
        _answer(opened, questions.popular(recommender, k), empty, sql)


def _answer(opened: Connection, question: questions.Question, empty: str, sql: bool) -> None:
    if sql and not state.json:
        say(question.statement + "\n")
    show_rows(question.ask(opened), empty=empty)
