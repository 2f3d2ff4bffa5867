"""Inspect a SELECT that an application's owner gives, as the source or the candidates.

It is not executed: it is prepared, which proves that it is one statement, in a transaction that is read only.
"""

import re
from typing import Protocol

import psycopg
from psycopg import errors as pg
from psycopg import sql

from recstore.errors import PermissionDenied, RecstoreError
from recstore.postgres.connection import Connection, find_relation, one_line, reading_application, role_of
from recstore.postgres.names import how_to_write, quoted, readable
from recstore.sql import queries
from recstore.types import IdType, type_of_oid

PLANNING = 10.0
"""Seconds that planning a SELECT of the application's may take, and waiting for its relations."""

LOCKED = 2000
"""Milliseconds to wait there for another session's lock."""


_NUMBERS = (IdType.SMALLINT, IdType.INTEGER, IdType.BIGINT)
"""From the narrowest on."""


class Invalid(Protocol):
    """Type of error to raise: SourceInvalid, CandidatesInvalid, ExclusionsInvalid, FallbackInvalid."""

    def __call__(self, *, reason: str, remedy: str) -> RecstoreError: ...


def stripped(query: str) -> str:
    """Return the query without its final semicolon."""
    return re.sub(r"[\s;]+$", "", query)


def relation_of(connection: Connection, table: str, invalid: Invalid) -> tuple[sql.Identifier, set[str]]:
    """Return a table or view as an identifier, and the names of its columns. Raises `invalid`, PermissionDenied."""
    try:
        row = queries.row(connection, "readable_table", table=find_relation(connection, table))
    except pg.InsufficientPrivilege as error:
        raise denied(connection, error, f"GRANT USAGE ON the schema of {table}", f"GRANT SELECT ON {table}") from None
    except psycopg.Error as error:
        raise invalid(reason=one_line(error), remedy="Write the table as schema.table.") from None
    if row is None:
        shown = table if table.isprintable() else repr(table)
        raise invalid(reason=f"there is no table {shown} that this role can see", remedy=how_to_write(table))
    return sql.Identifier(row["schema"], row["name"]), set(row["columns"])


def columns_of(connection: Connection, select: str, invalid: Invalid, tables: str) -> list[tuple[str, int]]:
    """Return the name and type oid of each column. Prepared, so that the text is one statement and cannot break out of its
    parentheses. `tables` names what a GRANT may be missing for. Raises `invalid`, PermissionDenied."""
    try:
        with reading_application(connection, PLANNING, lock_timeout=LOCKED):
            cursor = connection.execute(f"SELECT * FROM (\n{select}\n) s LIMIT 0", prepare=True)  # noqa: S608
            return [(column.name, column.type_code) for column in cursor.description or ()]
    except pg.InsufficientPrivilege as error:
        raise denied(connection, error, f"GRANT SELECT ON {tables}") from None
    except psycopg.Error as error:
        if connection.closed or isinstance(error, pg.LockNotAvailable):
            raise
        reason = one_line(error)
        if isinstance(error, pg.SyntaxError):
            reason = syntax_error(connection, select) or reason
        raise invalid(reason=reason, remedy="Try the query in psql first.") from None


def check_collation(connection: Connection, select: str, name: str, column: str, invalid: Invalid) -> None:
    """Refuse an id whose collation takes different texts for equal. `column` is what its owner calls the column `name`. Raises
    `invalid`."""
    one = f"SELECT s.{quoted(name)} FROM (\n{select}\n) s LIMIT 0"  # noqa: S608
    collation = f"pg_catalog.pg_collation_for(({one}))::pg_catalog.regcollation"
    found = f"c.oid OPERATOR(pg_catalog.=) {collation} AND NOT c.collisdeterministic"
    with reading_application(connection, PLANNING):
        row = connection.execute(f"SELECT c.collname FROM pg_catalog.pg_collation c WHERE {found}").fetchone()  # noqa: S608
    if row:
        written = readable(column, keywords(connection))
        raise invalid(
            reason=f"the column {column!r} has the collation {row['collname']!r}, which takes different texts for equal, and"
            " recstore compares ids byte by byte",
            remedy=f'Give one form of each id in a query, for example lower({written}) COLLATE "C" AS {name}, and pass that form'
            " to the functions.",
        )


def id_type(
    connection: Connection,
    select: str,
    column: tuple[str, int],
    wanted: IdType,
    invalid: Invalid,
    *,
    fitting: bool = False,
) -> IdType | None:
    """Return the type of a column of ids as a view has it: as in the source, varchar becomes text and a domain its base type, and
    their indexes still serve. None unless an index compares it with the `wanted` type, or, if `fitting`, each number is one of
    that type. Raises `invalid` for its collation."""
    name, oid = column
    found = IdType(type_of_oid[oid]) if oid in type_of_oid else None
    if found in _NUMBERS and wanted in _NUMBERS:
        return None if fitting and _NUMBERS.index(found) > _NUMBERS.index(wanted) else found
    if found is IdType.TEXT is wanted:
        check_collation(connection, select, name, name, invalid)
    return found if found is wanted else None


def syntax_error(connection: Connection, select: str) -> str | None:
    """Return the server's message for the text alone, without the parentheses around it."""
    try:
        with reading_application(connection, PLANNING):
            connection.execute(f"EXPLAIN {select}", prepare=True)
    except pg.SyntaxError as error:
        return one_line(error)
    except psycopg.Error:
        pass
    return None


def denied(connection: Connection, error: psycopg.Error, grant: str, *also: str) -> PermissionDenied:
    """Return the error with what the owner has to run: the missing GRANT if it is known, otherwise `grant`; then `also`."""
    role = role_of(connection)
    run = " ".join(f"{each} TO {quoted(role)};" for each in (missing_grant(connection, error) or grant, *also))
    return PermissionDenied(role=role, reason=one_line(error), remedy=f"Have the owner run: {run}")


def missing_grant(connection: Connection, error: psycopg.Error) -> str | None:
    """Return the GRANT, without TO, that an InsufficientPrivilege asks for: on what its message names, in any language, and this
    role may not read. None if several things have that name."""
    message = error.diag.message_primary or ""
    rows = [
        row
        for row in queries.rows(connection, "missing_grants", message=message)
        if re.search(rf"(?<!\w){re.escape(row['name'])}(?!\w)", message, re.ASCII)
    ]
    longest = max((len(row["name"]) for row in rows), default=0)
    grants = [row["grant"] for row in rows if len(row["name"]) == longest]
    return grants[0] if len(grants) == 1 else None


def keywords(connection: Connection) -> frozenset[str]:
    """Return the words that must be quoted to serve as names."""
    return frozenset(row["word"] for row in queries.rows(connection, "keywords"))


def type_name(connection: Connection, oid: int) -> str:
    row = connection.execute("SELECT format_type(%s, NULL) AS name", [oid]).fetchone()
    return str(row["name"]) if row else str(oid)
