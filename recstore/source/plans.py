"""Plans of prepared statements, and the index that a lookup is missing. Nothing here writes."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from psycopg import sql

from recstore.postgres.connection import Connection, read_only
from recstore.postgres.names import readable
from recstore.source.selects import keywords
from recstore.sql import queries

AS_FOR_ANY = {"search_path": "pg_catalog, pg_temp", "plan_cache_mode": "force_generic_plan"}
"""Settings by which a statement is planned as in the functions, for any value of $1."""

NAME = r'\w+|"(?:[^"]|"")+"'
"""Pattern of a name in a plan."""


def probe(type: str) -> object:
    """Return an id of an SQL type: with NULL a plan leaves out every partition of a table that is partitioned by ids."""
    return {"text": "", "uuid": str(UUID(int=0))}.get(type, 0)


@contextmanager
def prepared(
    connection: Connection, type: str, statement: sql.Composable
) -> Iterator[Callable[[object], sql.Composed]]:
    """Prepare a statement whose $1 has that SQL type; yield a function that returns its EXECUTE for a value. A prepared
    statement survives a rollback, so it is deallocated if the block fails, too."""
    name = sql.Identifier("recstore_prepared")
    connection.execute(sql.SQL("PREPARE {} ({}) AS ").format(name, sql.SQL(type)) + statement)
    try:
        with connection.transaction():
            yield lambda value: sql.SQL("EXECUTE {} ({})").format(name, sql.Literal(value))
    finally:
        if not connection.closed:
            connection.execute(sql.SQL("DEALLOCATE {}").format(name))


def by_index(connection: Connection, statement: sql.Composable) -> bool:
    """Return True if the plan looks $1 up in an index, at whatever cost."""
    rows = connection.execute(sql.SQL("EXPLAIN ") + statement).fetchall()
    return any("Index Cond:" in line and "$1" in line for row in rows for line in row.values())


def planned(connection: Connection, statement: sql.Composable, *, prepare: bool | None = None) -> dict[str, Any]:
    """Return the root node of the plan. With `prepare` it must be one statement."""
    explain = sql.SQL("EXPLAIN (VERBOSE, FORMAT JSON) ") + statement
    row = connection.execute(explain, prepare=prepare).fetchone()
    assert row is not None
    return row["QUERY PLAN"][0]["Plan"]  # type: ignore[no-any-return]


def index_statement(connection: Connection, schema: str, view: str, column: str) -> str | None:
    """Return the CREATE INDEX that finds the rows of one id in a view: on what the plan compares with the id while it scans a
    table. None if it compares it nowhere, or does not say with what."""
    with read_only(connection, plan_cache_mode="force_generic_plan"):
        typed = queries.one(connection, "column_type", schema=schema, view=view, column=column)
        found = sql.Identifier(schema, view), sql.Identifier(column)
        lookup = sql.SQL("SELECT true FROM {} i WHERE i.{} = $1").format(*found)
        with prepared(connection, typed["type"], lookup) as execute:
            plan = planned(connection, execute(probe(typed["type"])))
        for node in _nodes(plan):
            expression = compared(node.get("Filter", ""), node.get("Alias", ""))
            if expression is None or "Relation Name" not in node:
                continue
            cast = re.fullmatch(rf"\(({NAME})\)::text", expression)
            plain = cast[1] if cast else expression
            plain = plain[1:-1].replace('""', '"') if plain.startswith('"') else plain
            table = node["Relation Name"]
            scanned = queries.one(connection, "indexable", schema=node["Schema"], name=table, column=plain)
            if cast and scanned["type"] in ("character varying", "text"):  # whose index serves text
                expression = cast[1]
            other = typed["collation"] not in (None, scanned["collation"] or '"default"')
            if (
                other and not cast and scanned["type"] is None
            ):  # a plan does not say in which collation it calls a function
                return None
            if not re.fullmatch(NAME, expression):
                expression = f"({expression})"
            if other:
                expression += f" COLLATE {typed['collation']}"
            words = keywords(connection)
            concurrently = "" if scanned["partitioned"] else "CONCURRENTLY "
            relation = ".".join(readable(scanned[part], words) for part in ("schema", "name"))
            return f"CREATE INDEX {concurrently}ON {relation} ({expression});"
    return None


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def compared(condition: str, alias: str) -> str | None:
    """Return what a filter compares with $1: `(a)::text` for `((v.b > 1) AND ((v.a)::text = $1))`."""
    opened: list[int] = []
    quote = ""
    for at, letter in enumerate(condition):
        if quote or letter in "'\"":
            quote = "" if letter == quote else quote or letter
        elif letter == "(":
            opened.append(at)
        elif letter == ")" and opened:
            opened.pop()
        elif opened and condition.startswith(" = $1)", at):
            expression = condition[opened[-1] + 1 : at]
            return re.sub(rf'(?<![\w"]){re.escape(alias)}\.|"{re.escape(alias)}"\.', "", expression)
    return None


def plan_cost(connection: Connection, statement: sql.Composable) -> float:
    """Return the cost in the planner's units."""
    return float(planned(connection, statement)["Total Cost"])
