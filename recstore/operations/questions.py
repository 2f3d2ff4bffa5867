"""Questions to a recommender, with titles next to ids, as SQL text that is ready to paste into psql.

The command line and the demo execute the text they show.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from psycopg import errors as pg
from psycopg import sql

from recstore import registry
from recstore.errors import InvalidInput, NotTrained, RecstoreError
from recstore.postgres.connection import Connection, one_line, reading_application
from recstore.postgres.names import readable
from recstore.sql import objects
from recstore.sql.generation import MIN_USERS
from recstore.sql.objects import Known

MOST = 2**31 - 1
"""Largest number of rows: the largest integer."""

OUTPUTS = ("item_id", "score", "reason", "users", "views", "value", "contribution", "lists_a", "lists_b")
"""Columns of the answers; a column of titles with such a name is shown as title."""

PATIENCE = 60.0
"""Seconds that an answer may take."""


@dataclass(frozen=True)
class Question:
    """A statement without parameters, and the recommender it asks."""

    statement: str
    recommender: Known

    def ask(self, connection: Connection) -> list[dict[str, Any]]:
        """Return the rows. Raises RecstoreError if the titles cannot be read, an object is missing, or after PATIENCE."""
        try:
            with reading_application(connection, PATIENCE):
                return connection.execute(self.statement).fetchall()
        except pg.QueryCanceled:
            raise RecstoreError(
                f"No answer within {PATIENCE:g} s. Find out why: recstore doctor {self.recommender.name}"
            ) from None
        except (
            pg.UndefinedTable,
            pg.UndefinedColumn,
            pg.UndefinedFunction,
            pg.UndefinedObject,
            pg.InsufficientPrivilege,
        ) as error:
            if sentence := _remedy(connection, self.recommender, one_line(error)):
                raise RecstoreError(sentence) from error
            raise


def _remedy(connection: Connection, recommender: Known, reason: str) -> str | None:
    """Return what is wrong with the titles or the recommender's objects, and what to do; None for other errors."""
    name, titles = recommender.name, recommender.definition.titles
    if titles and any(part in reason for part in (titles.table.rpartition(".")[2].strip('"'), f"t.{titles.title}")):
        return (
            f"The titles in {titles.table} cannot be read: {reason}. Fix that, or do without them: recstore alter {name}"
            " --titles none"
        )
    with suppress(RecstoreError):  # this role does not see the registry
        registered = registry.get(connection, name)
        wrong = objects.missing(connection, registered) or objects.stale(connection, registered)
        if wrong:
            return f"{name!r} lacks the {', the '.join(wrong)} of this version. Run: recstore db upgrade"
    return None


@dataclass(frozen=True)
class Named:
    """A named argument of a function."""

    name: str
    value: Any


def require_live(connection: Connection, recommender: Known, k: int) -> None:
    """Raise InvalidInput for a k below 1 or above MOST, NotTrained if nothing is live yet."""
    if not 1 <= k <= MOST:
        limit = "at least 1" if k < 1 else f"at most {MOST}"
        raise InvalidInput(f"--k is {k}: it is the number of rows wanted and must be {limit}.")
    row = connection.execute(f"SELECT {recommender.relation('generation')}() AS g").fetchone()
    if row is None or row["g"] is None:
        raise NotTrained(name=recommender.name)


def similar(recommender: Known, item_id: Any, k: int, min_users: int = MIN_USERS) -> Question:
    arguments = [item_id, k] + ([min_users] if min_users != MIN_USERS else [])
    return _listed(recommender, "similar_items", arguments, ["score"])


def recommended(
    recommender: Known, user_id: Any, k: int, *, exclude_seen: bool = True, fresh: bool | None = None
) -> Question:
    arguments = [user_id, k] + ([] if exclude_seen else [False]) + ([] if fresh is None else [Named("fresh", fresh)])
    # scores of different steps do not compare
    return _listed(recommender, "recommend", arguments, ["score", "reason"], "r.ordinality")


def for_items(recommender: Known, ids: Sequence[Any], weights: Sequence[float] | None, k: int) -> Question:
    arguments = [ids] + ([] if weights is None else [Named("weights", weights)]) + [Named("k", k)]
    return _listed(recommender, "recommend_for_items", arguments, ["score", "reason"], "r.ordinality")


def ranked(recommender: Known, user_id: Any, ids: Sequence[Any]) -> Question:
    return _listed(recommender, "rank_items", [user_id, ids], ["score", "reason"], "r.ordinality")


def explained(recommender: Known, user_id: Any, item_id: Any, k: int) -> Question:
    return _listed(recommender, "explain", [user_id, item_id, k], ["value", "contribution"], "r.contribution DESC")


def popular(recommender: Known, k: int, window: str | None = None, half_life: str | None = None) -> Question:
    given = [Named(name, value) for name, value in (('"window"', window), ("half_life", half_life)) if value]
    order = "r.views DESC, r.users DESC" if half_life else "r.users DESC, r.views DESC"
    return _listed(recommender, "popular_items", [k, *given], ["users", "views"], order)


def compared(recommender: Known, a: int, b: int, k: int, users: int) -> tuple[Question, Question]:
    """Ask how far the lists of two generations agree, and which items are in more or fewer of them."""
    summary = f"SELECT *\nFROM {recommender.name}.compare_generations({a}, {b}, {k}, {users});"
    return Question(summary, recommender), _listed(
        recommender, "compare_items", [a, b, k, users], ["lists_a", "lists_b"], "abs(r.lists_b - r.lists_a) DESC"
    )


def seen(recommender: Known, user_id: Any, k: int) -> Question:
    """Ask for the items that a user viewed most."""
    return Question(
        f"SELECT i.item_id{_title(recommender, 'i')}i.value\nFROM {recommender.name}.interactions i\n"
        f"WHERE i.user_id = {_literal(user_id)}\nORDER BY i.value DESC, i.item_id\nLIMIT {k};",
        recommender,
    )


def popularity(recommender: Known, item_id: Any) -> Question:
    """Ask for an item's title and popularity; no row for an item that was not in the training."""
    return Question(
        f"SELECT i.item_id{_title(recommender, 'i')}i.users, i.views\nFROM {recommender.name}.item_vectors i\n"
        f"WHERE i.item_id = {_literal(item_id)};",
        recommender,
    )


def pictures(recommender: Known, item_id: Any) -> Question | None:
    """Ask for an item's title and the URL of its picture in the table of titles; None where the definition names none."""
    titles = recommender.definition.titles
    if titles is None:
        return None
    picture = readable(titles.picture) + "::text" if titles.picture else "NULL::text"
    return Question(
        f"SELECT t.{readable(titles.title)}::text AS title, {'t.' * bool(titles.picture)}{picture} AS picture\nFROM"
        f" {titles.table} t\nWHERE t.{readable(titles.item)} = {_literal(item_id)}\nORDER BY 1\nLIMIT 1;",
        recommender,
    )


def searched(recommender: Known, words: Sequence[str], k: int) -> Question:
    """Ask for the items whose titles have all of these words, the most popular first. The definition names titles."""
    titles = recommender.definition.titles
    assert titles is not None
    patterns = ["%" + re.sub(r"([\\%_])", r"\\\1", word) + "%" for word in words]
    return Question(
        f"SELECT t.{readable(titles.item)} AS item_id, t.{readable(titles.title)}::text AS title, i.users, i.views\n"
        f"FROM {titles.table} t\nJOIN {recommender.name}.item_vectors i ON i.item_id = t.{readable(titles.item)}\n"
        f"WHERE t.{readable(titles.title)} ILIKE ALL ({_literal(patterns)}::text[])\n"
        f"ORDER BY i.users DESC, i.item_id\nLIMIT {k};",
        recommender,
    )


def some_users(recommender: Known, k: int) -> Question:
    """Ask for a few trained users, the same each time."""
    return Question(
        f"SELECT u.user_id\nFROM {recommender.name}.user_vectors u\nORDER BY u.user_id\nLIMIT {k};", recommender
    )


def titles_of(connection: Connection, recommender: Known, ids: Sequence[Any]) -> dict[Any, str]:
    """Return the titles of these items that the recommender's table of titles has."""
    titles = recommender.definition.titles
    if titles is None or not ids:
        return {}
    item, kind = readable(titles.item), recommender.item_type.value
    wanted = sql.Literal([str(one) for one in ids]).as_string(connection)
    with reading_application(connection, PATIENCE):
        rows = connection.execute(
            f"SELECT t.{item}::{kind} AS item, pg_catalog.min(t.{readable(titles.title)}::text) AS title FROM {titles.table} t"  # noqa: S608
            f" WHERE t.{item} = ANY ({wanted}::{kind}[]) GROUP BY 1"
        ).fetchall()
    return {row["item"]: row["title"] for row in rows if row["title"]}


def _listed(
    recommender: Known, function: str, arguments: list[Any], outputs: list[str], order: str = "r.score DESC"
) -> Question:
    shown = ", ".join(f"r.{name}" for name in outputs)
    values = ", ".join(map(_literal, arguments))
    numbered = " WITH ORDINALITY" if order == "r.ordinality" else ""
    return Question(
        f"SELECT r.item_id{_title(recommender, 'r')}{shown}\nFROM {recommender.name}.{function}({values}){numbered} r\n"
        f"ORDER BY {order}{'' if numbered else ', r.item_id'};",
        recommender,
    )


def _title(recommender: Known, alias: str) -> str:
    """Return the column of titles between commas, or a comma. Of several rows of an item, one counts."""
    titles = recommender.definition.titles
    if titles is None:
        return ", "
    title = readable(titles.title)
    one = f"SELECT t.{title} FROM {titles.table} t WHERE t.{readable(titles.item)} = {alias}.item_id ORDER BY 1 LIMIT 1"  # noqa: S608
    return f",\n    ({one}) AS {'title' if titles.title in OUTPUTS else title},\n    "


def _literal(value: Any) -> str:
    if isinstance(value, Named):
        return f"{value.name} => {_literal(value.value)}"
    if isinstance(value, bool | int):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return sql.Literal([str(one) for one in value]).as_string(None).strip()
    return sql.Literal(str(value)).as_string(None)
