"""What a SELECT yields that an application's owner gives, as the source or the candidates; and how a statement is planned.

Looked at, never run: prepared as the one statement it has to be, in a transaction that is read only.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import psycopg
from psycopg import errors as pg
from psycopg import sql

from recstore import sqlfile
from recstore.database import Connection, one_line
from recstore.errors import PermissionDenied, RecstoreError
from recstore.names import quoted, readable


class Invalid(Protocol):
    """The error that says what can not be read: SourceInvalid, CandidatesInvalid."""

    def __call__(self, *, reason: str, remedy: str) -> RecstoreError: ...


def stripped(query: str) -> str:
    """Without the semicolon at the end."""
    return re.sub(r"[\s;]+$", "", query)


def relation_of(connection: Connection, table: str, invalid: Invalid) -> tuple[sql.Identifier, set[str]]:
    """A table or view as it is written, and the names of its columns. Raises `invalid`, PermissionDenied."""
    try:
        with connection.transaction():
            row = connection.execute(
                "SELECT n.nspname, c.relname FROM pg_class c"
                " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)",
                [table],
            ).fetchone()
    except pg.InsufficientPrivilege as error:
        raise denied(connection, error, f"GRANT USAGE ON the schema of {table}", f"GRANT SELECT ON {table}") from None
    except psycopg.Error as error:
        raise invalid(reason=one_line(error), remedy="Write the table as schema.table.") from None
    if row is None:
        shown = table if table.isprintable() else repr(table)
        raise invalid(reason=f"there is no table {shown} that this role can see", remedy="Write it as schema.table.")
    relation = sql.Identifier(row["nspname"], row["relname"])
    columns = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
        [relation.as_string(connection)],
    )
    return relation, {found["attname"] for found in columns}


def columns_of(connection: Connection, select: str, invalid: Invalid, tables: str) -> list[tuple[str, int]]:
    """The name and type oid of each column. Prepared, so that the text is one statement and cannot break out of its
    parentheses. `tables` are those whose SELECT right may lack, by name or in words. Raises `invalid`, PermissionDenied."""
    try:
        with connection.transaction():
            connection.execute("SET TRANSACTION READ ONLY")
            cursor = connection.execute(f"SELECT * FROM (\n{select}\n) s LIMIT 0", prepare=True)  # noqa: S608
            return [(column.name, column.type_code) for column in cursor.description or ()]
    except pg.InsufficientPrivilege as error:
        raise denied(connection, error, f"GRANT SELECT ON {tables}") from None
    except psycopg.Error as error:
        if isinstance(error, psycopg.OperationalError) and connection.closed:
            raise
        reason = one_line(error)
        if isinstance(error, pg.SyntaxError):
            reason = syntax_error(connection, select) or reason
        raise invalid(reason=reason, remedy="Try the query in psql first.") from None


def syntax_error(connection: Connection, select: str) -> str | None:
    """The mistake as the server tells it of the text alone, without the parentheses that were put around it."""
    try:
        with connection.transaction():
            connection.execute("SET TRANSACTION READ ONLY")
            connection.execute(f"EXPLAIN {select}", prepare=True)
    except pg.SyntaxError as error:
        return one_line(error)
    except psycopg.Error:
        pass
    return None


def denied(connection: Connection, error: psycopg.Error, grant: str, *also: str) -> PermissionDenied:
    """With what the owner has to run: what the server's sentence asks for where that can be told, otherwise `grant`; and
    what will lack next."""
    role = connection.info.user
    run = " ".join(f"{each} TO {quoted(role)};" for each in (lacking(connection, error) or grant, *also))
    return PermissionDenied(role=role, reason=one_line(error), remedy=f"Have the owner run: {run}")


def lacking(connection: Connection, error: psycopg.Error) -> str | None:
    """GRANT of the schema or the relation that a server's "permission denied" tells of, without TO. It tells a relation
    without its schema, so None where several of that name can not be read."""
    found = re.search(
        r"permission denied for (schema|(?:materialized |foreign )?(?:table|view)) (.+)",
        error.diag.message_primary or "",
    )
    if found is None:
        return None
    if found[1] == "schema":
        return f"GRANT USAGE ON SCHEMA {readable(found[2], keywords(connection))}"
    rows = connection.execute(sqlfile.query("unreadable_relations"), {"name": found[2]}).fetchall()
    return f"GRANT SELECT ON {rows[0]['relation']}" if len(rows) == 1 else None


def keywords(connection: Connection) -> frozenset[str]:
    """Words that a name may not be unless it is quoted."""
    return frozenset(row["word"] for row in connection.execute(sqlfile.query("keywords")).fetchall())


def type_name(connection: Connection, oid: int) -> str:
    row = connection.execute("SELECT format_type(%s, NULL) AS name", [oid]).fetchone()
    return str(row["name"]) if row else str(oid)


@contextmanager
def prepared(
    connection: Connection, type: str, statement: sql.Composable
) -> Iterator[Callable[[object], sql.Composed]]:
    """What executes a statement whose $1 has that SQL type, given a value, as long as the block lasts; the caller's
    transaction. What is prepared outlives a rollback, so it is taken back also where the block fails."""
    name = sql.Identifier("recstore_prepared")
    connection.execute(sql.SQL("PREPARE {} ({}) AS ").format(name, sql.SQL(type)) + statement)
    try:
        with connection.transaction():
            yield lambda value: sql.SQL("EXECUTE {} ({})").format(name, sql.Literal(value))
    finally:
        if not connection.closed:
            connection.execute(sql.SQL("DEALLOCATE {}").format(name))


def by_index(connection: Connection, statement: sql.Composable) -> bool:
    """Whether the plan looks $1 up in an index, whatever it thinks that costs."""
    rows = connection.execute(sql.SQL("EXPLAIN ") + statement).fetchall()
    return any("Index Cond:" in line and "$1" in line for row in rows for line in row.values())


def planned(connection: Connection, statement: sql.Composable, *, prepare: bool | None = None) -> dict[str, Any]:
    """The plan's first node, with all others in it. With `prepare` it must be one statement."""
    explain = sql.SQL("EXPLAIN (VERBOSE, FORMAT JSON) ") + statement
    row = connection.execute(explain, prepare=prepare).fetchone()
    assert row is not None
    return row["QUERY PLAN"][0]["Plan"]  # type: ignore[no-any-return]


def index_statement(connection: Connection, schema: str, view: str, column: str) -> str | None:
    """The CREATE INDEX that lets the rows of one id be found in a view: on the column, or expression, that the plan compares
    with the id while it scans a table. None where it does so nowhere."""
    with connection.transaction(force_rollback=True):
        connection.execute("SET TRANSACTION READ ONLY")
        connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        keys = {"schema": schema, "view": view, "column": column}
        typed = connection.execute(sqlfile.query("column_type"), keys).fetchone()
        assert typed is not None
        found = sql.Identifier(schema, view), sql.Identifier(column)
        lookup = sql.SQL("SELECT true FROM {} i WHERE i.{} = $1").format(*found)
        with prepared(connection, typed["type"], lookup) as execute:
            plan = planned(connection, execute(None))
        for node in _nodes(plan):
            expression = compared(node.get("Filter", ""), node.get("Alias", ""))
            if expression is None or "Relation Name" not in node:
                continue
            cast = re.fullmatch(r"\((\w+|\"[^\"]+\")\)::text", expression)
            plain = (cast[1] if cast else expression).strip('"')
            keys = {"schema": node["Schema"], "name": node["Relation Name"], "column": plain}
            scanned = connection.execute(sqlfile.query("indexable"), keys).fetchone()
            assert scanned is not None
            if cast and scanned["type"] == "character varying":  # whose index serves text
                expression = cast[1]
            if not re.fullmatch(r"\w+|\"[^\"]+\"", expression):
                expression = f"({expression})"
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
    """What a filter compares with $1, as an index would have it: `((v.b > 1) AND ((v.a)::text = $1))` gives `(a)::text`."""
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
    """In the planner's units."""
    return float(planned(connection, statement)["Total Cost"])
