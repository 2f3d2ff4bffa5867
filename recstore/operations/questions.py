"""Questions as people ask them, with titles beside the ids: SQL text that is ready to paste into psql.

The command line and the demo run exactly the text they show.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import errors as pg
from psycopg import sql

from recstore.errors import InvalidInput, NotTrained, RecstoreError
from recstore.postgres.connection import Connection, one_line
from recstore.sql import objects
from recstore.sql.objects import Registered

MOST = 2**31 - 1
"""Rows of a list: the largest integer of the functions' k."""


@dataclass(frozen=True)
class Question:
    """A statement, ready to paste."""

    statement: str
    recommender: Registered

    def ask(self, connection: Connection) -> list[dict[str, Any]]:
        """The rows. Raises RecstoreError where the titles can not be read, or a view is gone."""
        try:
            return connection.execute(self.statement).fetchall()
        except (pg.UndefinedTable, pg.UndefinedColumn, pg.InsufficientPrivilege) as error:
            if told := _why_not(connection, self.recommender, one_line(error)):
                raise RecstoreError(told) from error
            raise


def _why_not(connection: Connection, recommender: Registered, reason: str) -> str | None:
    """What to do about it, if the question's own tables are not at fault."""
    name, titles = recommender.name, recommender.definition.titles
    if titles and any(part in reason for part in (titles.table.rpartition(".")[2].strip('"'), f"t.{titles.title}")):
        return (
            f"The titles in {titles.table} can not be read: {reason}. Mend that, or do without them: recstore alter {name}"
            " --titles none"
        )
    lacking = objects.missing(connection, recommender)
    return f"{name!r} lacks the {', the '.join(lacking)}. Run: recstore db upgrade" if lacking else None


def require_live(connection: Connection, recommender: Registered, k: int) -> None:
    """Raises InvalidInput for a k below 1 or above MOST, NotTrained where nothing is live yet."""
    if k < 1:
        raise InvalidInput(f"--k is {k}: it is the number of rows wanted and must be at least 1.")
    if k > MOST:
        raise InvalidInput(f"--k is {k}: it is the number of rows wanted and must be at most {MOST}.")
    row = connection.execute(f"SELECT {recommender.relation('generation')}() AS g").fetchone()
    if row is None or row["g"] is None:
        raise NotTrained(name=recommender.name)


def similar(recommender: Registered, item_id: Any, k: int, min_users: int = 3) -> Question:
    arguments = [item_id, k] + ([min_users] if min_users != 3 else [])
    return _listed(recommender, "similar_items", arguments, ["score"])


def recommended(recommender: Registered, user_id: Any, k: int, *, exclude_seen: bool = True) -> Question:
    arguments = [user_id, k] + ([] if exclude_seen else [False])
    return _listed(recommender, "recommend", arguments, ["score", "reason"])


def popular(recommender: Registered, k: int) -> Question:
    return _listed(recommender, "popular_items", [k], ["users", "views"])


def seen(recommender: Registered, user_id: Any, k: int) -> Question:
    """What a user viewed most."""
    columns, join = _titles(recommender, "i")
    return Question(
        f"SELECT i.item_id, {columns}i.value\nFROM {recommender.name}.interactions i\n{join}"
        f"WHERE i.user_id = {_literal(user_id)}\nORDER BY i.value DESC, i.item_id\nLIMIT {k};",
        recommender,
    )


def titles_of(connection: Connection, recommender: Registered, ids: Sequence[Any]) -> dict[Any, str]:
    """The titles of these items, as far as the recommender's lookup table has them."""
    titles = recommender.definition.titles
    if titles is None or not ids:
        return {}
    item, kind = _identifier(titles.item), recommender.item_type.value
    rows = connection.execute(
        f"SELECT t.{item}::{kind} AS item, t.{_identifier(titles.title)}::text AS title FROM {titles.table} t"  # noqa: S608
        f" WHERE t.{item} = ANY (%s::{kind}[])",
        [list(ids)],
    ).fetchall()
    return {row["item"]: row["title"] for row in rows if row["title"]}


def _listed(recommender: Registered, function: str, arguments: list[Any], outputs: list[str]) -> Question:
    columns, join = _titles(recommender, "r")
    order = "r.users DESC, r.views DESC" if function == "popular_items" else "r.score DESC"
    shown = ", ".join(f"r.{name}" for name in outputs)
    given = ", ".join(map(_literal, arguments))
    return Question(
        f"SELECT r.item_id, {columns}{shown}\nFROM {recommender.name}.{function}({given}) r\n"
        f"{join}ORDER BY {order}, r.item_id;",
        recommender,
    )


def _titles(recommender: Registered, alias: str) -> tuple[str, str]:
    """(column list, JOIN) of the recommender's lookup table, or two empty strings."""
    titles = recommender.definition.titles
    if titles is None:
        return "", ""
    table, item, title = titles.table, _identifier(titles.item), _identifier(titles.title)
    return f"t.{title}, ", f"LEFT JOIN {table} t ON t.{item} = {alias}.item_id\n"


def _identifier(name: str) -> str:
    return _plain(sql.Identifier(name).as_string(None))


def _plain(quoted: str) -> str:
    """Without quotes where SQL needs none, as a person would write it."""
    return re.sub(r'"([a-z_][a-z0-9_]*)"', r"\1", quoted)


def _literal(value: Any) -> str:
    if isinstance(value, bool | int):
        return str(value).lower()
    return sql.Literal(str(value)).as_string(None)
