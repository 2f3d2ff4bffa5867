"""Find the table that a file is loaded into, existing or new, and refuse one that cannot take the file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import errors as pg

from recstore.errors import InvalidInput, PermissionDenied, TableExists
from recstore.postgres.connection import Connection, one_line, read_only, role_of
from recstore.postgres.names import quoted, readable
from recstore.source.selects import keywords
from recstore.sql import queries

Mode = Literal["create", "append", "replace"]

KINDS = {
    "v": "a view",
    "m": "a materialized view",
    "S": "a sequence",
    "i": "an index",
    "f": "a foreign table",
    "c": "a type",
}
LONGEST_NAME = 63
"""Bytes of the name of a table or column."""


@dataclass(frozen=True)
class TableColumn:
    """A column of an existing table. In a textual one an empty text is a value."""

    name: str
    type: str
    textual: bool
    required: bool
    generated: bool
    has_default: bool
    sequence: str | None
    """The sequence of a serial or identity column."""


@dataclass(frozen=True)
class Target:
    """A table by schema and name; `columns` are those of an existing one."""

    schema: str
    name: str
    mode: Mode
    keywords: frozenset[str]
    columns: tuple[TableColumn, ...] = ()

    def __str__(self) -> str:
        return f"{self.plain(self.schema)}.{self.plain(self.name)}"

    def plain(self, name: str) -> str:
        """Return the name as this server writes it, quoted if necessary."""
        return readable(name, self.keywords)


def find_target(connection: Connection, table: str, mode: Mode) -> Target:
    """Return the table of that name. It must exist, unless `mode` is create.

    Raises InvalidInput, TableExists, PermissionDenied.
    """
    role = role_of(connection)
    try:
        with read_only(connection, search_path="DEFAULT"):
            named = queries.one(connection, "name_parts", table=table)
        found = queries.row(connection, "target", oid=named["oid"])
    except pg.InsufficientPrivilege as error:
        raise PermissionDenied(
            role=role, reason=one_line(error), remedy="Have the schema's owner grant USAGE on it."
        ) from None
    except (psycopg.DataError, pg.SyntaxError, pg.FeatureNotSupported) as error:
        raise InvalidInput(
            f"--table is {table!r}, which names no table: {one_line(error)}. Write it as schema.table."
        ) from None
    words = keywords(connection)
    if found is None:
        if mode != "create":
            raise InvalidInput(
                f"There is no table {table}, so nothing can be added to it or replaced: leave out --{mode}."
            )
        schema, name = _new_name(connection, table, named["parts"], named["path"])
        return Target(schema, name, mode, words)
    _refuse_reserved(connection, table, found["schema"])
    if found["kind"] not in "rp":
        raise InvalidInput(f"{table} is {KINDS.get(found['kind'], 'no table')}; files are loaded into tables.")
    if mode == "create":
        raise TableExists(table=table)
    for right, may in (("INSERT", found["may_insert"]), ("DELETE", found["may_delete"] or mode == "append")):
        if not may:
            raise PermissionDenied(
                role=role,
                reason=f"it has no right to {right} on {table}",
                remedy=f"Have the owner run: GRANT {right} ON {table} TO {quoted(role)};",
            )
    if found["row_security"]:
        raise InvalidInput(
            f"{table} has row-level security for the role {role}, so a load could not see all of its rows. Load into another"
            " table, and INSERT from there."
        )
    if mode == "replace":
        for others, why, what in (
            (found["cascading"], f"follow those of {table} by ON DELETE CASCADE or SET", "change"),
            (found["inheriting"], f"are rows of {table} by inheritance", "delete"),
        ):
            if others:
                raise InvalidInput(
                    f"Rows of {', '.join(others)} {why}: replacing would {what} them too. Nothing was changed; load into"
                    " another table, or use --append."
                )
    columns = (TableColumn(**row) for row in queries.rows(connection, "target_columns", oid=found["oid"]))
    return Target(found["schema"], found["name"], mode, words, tuple(columns))


def _new_name(connection: Connection, table: str, parts: Sequence[str], path: Sequence[str]) -> tuple[str, str]:
    """Return schema and name of a table to be made, for which the schema must exist."""
    if len(parts) > 2 or not all(len(part.encode()) <= LONGEST_NAME for part in parts):
        raise InvalidInput(f"--table is {table!r}: write it as schema.table, each at most {LONGEST_NAME} bytes long.")
    if len(parts) == 1 and not path:
        raise InvalidInput(f"There is no schema to make {table} in: write it as schema.table.")
    schema = parts[0] if len(parts) == 2 else path[0]
    _refuse_reserved(connection, table, schema)
    found = queries.row(connection, "may_create", schema=schema)
    if found is None:
        raise InvalidInput(
            f"There is no schema {schema!r} to make {table} in. Make it first: CREATE SCHEMA {readable(schema)};"
        )
    if not found["may_create"]:
        raise PermissionDenied(
            role=role_of(connection),
            reason=f"it may not make a table in schema {schema}",
            remedy=f"Have the owner run: GRANT USAGE, CREATE ON SCHEMA {readable(schema)} TO {quoted(role_of(connection))};",
        )
    return schema, parts[-1]


def _refuse_reserved(connection: Connection, table: str, schema: str) -> None:
    if queries.row(connection, "reserved_schema", schema=schema):
        raise InvalidInput(
            f"{table} is in the schema {schema!r}, which belongs to recstore, a recommender or the server. Name a table in one of"
            " your own: --table schema.table"
        )
