"""What a SELECT yields that an application's owner gives, as the source or the candidates; and how a statement is planned.

Looked at, never run: prepared as the one statement it has to be, in a transaction that is read only.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import psycopg
from psycopg import errors as pg
from psycopg import sql

from recstore.database import Connection, one_line
from recstore.errors import PermissionDenied, RecstoreError


class Invalid(Protocol):
    """The error that says what can not be read: SourceInvalid, CandidatesInvalid."""

    def __call__(self, *, reason: str, remedy: str) -> RecstoreError: ...


def stripped(query: str) -> str:
    """Without the semicolon at the end."""
    return re.sub(r"[\s;]+$", "", query)


def relation_of(connection: Connection, table: str, invalid: Invalid) -> tuple[sql.Identifier, set[str]]:
    """A table or view as it is written, and the names of its columns. Raises `invalid`, PermissionDenied."""
    try:
        row = connection.execute(
            "SELECT n.nspname, c.relname FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)",
            [table],
        ).fetchone()
    except pg.InsufficientPrivilege as error:
        raise denied(connection, error, f"GRANT USAGE ON SCHEMA and SELECT ON {table}") from None
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
    parentheses. `tables` says whose SELECT right may lack. Raises `invalid`, PermissionDenied."""
    try:
        with connection.transaction():
            connection.execute("SET TRANSACTION READ ONLY")
            cursor = connection.execute(f"SELECT * FROM (\n{select}\n) s LIMIT 0", prepare=True)  # noqa: S608
            return [(column.name, column.type_code) for column in cursor.description or ()]
    except pg.InsufficientPrivilege as error:
        raise denied(connection, error, f"GRANT SELECT on {tables}") from None
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


def denied(connection: Connection, error: psycopg.Error, grant: str) -> PermissionDenied:
    role = connection.info.user
    quoted = sql.Identifier(role).as_string(connection)
    return PermissionDenied(role=role, reason=one_line(error), remedy=f"Have the owner run: {grant} TO {quoted};")


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


def plan_cost(connection: Connection, statement: sql.Composable) -> float:
    """In the planner's units."""
    row = connection.execute(sql.SQL("EXPLAIN (FORMAT JSON) ") + statement).fetchone()
    return float(row["QUERY PLAN"][0]["Plan"]["Total Cost"]) if row else 0.0
