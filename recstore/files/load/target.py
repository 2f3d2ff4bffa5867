"""Find the table that a file is loaded into, existing or new, and match its columns with the file's."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import psycopg
from psycopg import errors as pg
from psycopg import sql

from recstore.errors import InvalidInput, PermissionDenied, TableExists
from recstore.files.load.layout import FileColumn
from recstore.postgres.connection import Connection, one_line
from recstore.postgres.names import quoted, readable
from recstore.sql.queries import query

Mode = Literal["create", "append", "replace"]

MOST_COLUMNS = 1599
"""Columns a PostgreSQL table may have, less the line of the staging table."""

SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})

KINDS = {
    "v": "a view",
    "m": "a materialized view",
    "S": "a sequence",
    "i": "an index",
    "f": "a foreign table",
    "c": "a type",
}
LONGEST_NAME = 63


@dataclass(frozen=True)
class Target:
    """A table by schema and name; `columns` are those of an existing one."""

    schema: str
    name: str
    mode: Mode
    columns: tuple["TableColumn", ...] = ()
    keywords: frozenset[str] = frozenset()

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    def __str__(self) -> str:
        return f"{self.plain(self.schema)}.{self.plain(self.name)}"

    def plain(self, name: str) -> str:
        """Return the name as this server writes it, quoted if necessary."""
        return readable(name, self.keywords)


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
class Match:
    """A column of the file and the one it goes to. A `type` of None is detected."""

    position: int
    file_name: str
    name: str
    type: str | None
    textual: bool
    required: bool


def find_target(connection: Connection, table: str, mode: Mode) -> Target:
    """Return the table of that name. It must exist, unless `mode` is create.

    Raises InvalidInput, TableExists, PermissionDenied.
    """
    try:
        named = connection.execute(query("name_parts"), {"table": table}).fetchone()
        found = connection.execute(query("target"), {"table": table}).fetchone()
    except pg.InsufficientPrivilege as error:
        raise PermissionDenied(
            role=connection.info.user, reason=one_line(error), remedy="Have the schema's owner grant USAGE on it."
        ) from None
    except (psycopg.DataError, pg.SyntaxError, pg.FeatureNotSupported) as error:
        raise InvalidInput(
            f"--table is {table!r}, which names no table: {one_line(error)}. Write it as schema.table."
        ) from None
    assert named is not None
    words = frozenset(row["word"] for row in connection.execute(query("keywords")))
    if found is None:
        if mode != "create":
            raise InvalidInput(
                f"There is no table {table}, so nothing can be added to it or replaced: leave out --{mode}."
            )
        return replace(_new_target(connection, table, named["parts"], named["path"]), keywords=words)
    _refuse_reserved(connection, table, found["schema"])
    if found["kind"] not in "rp":
        what = KINDS.get(found["kind"], "no table")
        raise InvalidInput(f"{table} is {what}; files are loaded into tables.")
    if mode == "create":
        raise TableExists(table=table)
    for right, may in (("INSERT", found["may_insert"]), ("DELETE", found["may_delete"] or mode == "append")):
        if not may:
            raise PermissionDenied(
                role=connection.info.user,
                reason=f"it has no right to {right} on {table}",
                remedy=f"Have the owner run: GRANT {right} ON {table} TO {quoted(connection.info.user)};",
            )
    if found["row_security"]:
        raise InvalidInput(
            f"{table} has row-level security for the role {connection.info.user}, so a load could not see all of its"
            " rows. Load into another table, and INSERT from there."
        )
    if mode == "replace" and found["cascading"]:
        raise InvalidInput(
            f"Rows of {', '.join(found['cascading'])} follow those of {table} by ON DELETE CASCADE or SET: replacing would"
            " change them too. Nothing was changed; load into another table, or use --append."
        )
    if mode == "replace" and found["inheriting"]:
        raise InvalidInput(
            f"The rows of {', '.join(found['inheriting'])} are rows of {table} by inheritance: replacing would delete them too."
            " Nothing was changed; load into another table, or use --append."
        )
    rows = connection.execute(query("target_columns"), {"oid": found["oid"]}).fetchall()
    return Target(found["schema"], found["name"], mode, tuple(TableColumn(**row) for row in rows), words)


def _new_target(connection: Connection, table: str, parts: Sequence[str], path: Sequence[str]) -> Target:
    if len(parts) > 2 or not all(len(part.encode()) <= LONGEST_NAME for part in parts):
        raise InvalidInput(f"--table is {table!r}: write it as schema.table, each at most {LONGEST_NAME} bytes long.")
    if len(parts) == 1 and not path:
        raise InvalidInput(f"There is no schema to make {table} in: write it as schema.table.")
    schema = parts[0] if len(parts) == 2 else path[0]
    _refuse_reserved(connection, table, schema)
    found = connection.execute(query("may_create"), {"schema": schema}).fetchone()
    if found is None:
        raise InvalidInput(
            f"There is no schema {schema!r} to make {table} in. Make it first: CREATE SCHEMA {readable(schema)};"
        )
    if not found["may_create"]:
        raise PermissionDenied(
            role=connection.info.user,
            reason=f"it may not make a table in schema {schema}",
            remedy=f"Have the owner run: GRANT USAGE, CREATE ON SCHEMA {readable(schema)} TO {quoted(connection.info.user)};",
        )
    return Target(schema, parts[-1], "create")


def _refuse_reserved(connection: Connection, table: str, schema: str) -> None:
    if connection.execute(query("reserved_schema"), {"schema": schema}).fetchone():
        raise InvalidInput(
            f"{table} is in the schema {schema!r}, which belongs to recstore, a recommender or the server. Name a table in one of"
            " your own: --table schema.table"
        )


def match(
    connection: Connection,
    target: Target,
    columns: Sequence[FileColumn],
    named: bool,
    chosen: Sequence[str] | None,
    types: dict[str, str],
    primary_key: Sequence[str],
) -> list[Match]:
    """Match the columns of the file with the table's. Raises InvalidInput for missing, repeated or unknown names."""
    picked = _pick(columns, named, chosen)
    if target.mode == "create":
        return _new_columns(connection, picked, types, primary_key)
    if types or primary_key:
        option = "--type" if types else "--primary-key"
        raise InvalidInput(f"{option} is for a table that is made; {target} exists and keeps its own.")
    return _existing_columns(target, picked, named or chosen is not None)


def _pick(columns: Sequence[FileColumn], named: bool, chosen: Sequence[str] | None) -> list[tuple[int, FileColumn]]:
    """Return columns of the file with their positions, chosen by the header's names or renamed ("-" leaves one out)."""
    if chosen is None:
        return list(enumerate(columns))
    have = [column.name for column in columns]
    if named and all(name in have for name in chosen):
        _once([name for name in have if name in chosen], "two columns of the file are named")
        return [(have.index(name), columns[have.index(name)]) for name in chosen]
    if len(chosen) != len(columns):
        names = f", its header's names are {', '.join(have)}" if named else ""
        raise InvalidInput(
            f"--columns has {len(chosen)} names, the file {len(columns)} columns{names}. Choose some of the header's names, or"
            " give a name for every column, - for one that is left out."
        )
    return [
        (n, FileColumn(new, old.type)) for n, (new, old) in enumerate(zip(chosen, columns, strict=True)) if new != "-"
    ]


def _new_columns(
    connection: Connection, picked: list[tuple[int, FileColumn]], types: dict[str, str], primary_key: Sequence[str]
) -> list[Match]:
    names = [simple_name(column.name, position) for position, column in picked]
    _once(names, "two columns of the file are named")
    if len(names) > MOST_COLUMNS:
        raise InvalidInput(
            f"The file has {len(names):,} columns; a table has at most {MOST_COLUMNS:,}. Choose with --columns."
        )
    for name in SYSTEM_COLUMNS.intersection(names):
        raise InvalidInput(f"PostgreSQL keeps the column name {name!r} for itself. Name the columns with --columns.")
    for option, wanted in (("--type", types), ("--primary-key", dict.fromkeys(primary_key, ""))):
        for name in wanted:
            if name not in names:
                raise InvalidInput(f"{option} names {name!r}; the columns are {', '.join(names)}.")
    matches = []
    for (position, column), name in zip(picked, names, strict=True):
        type, textual = types.get(name), True
        if type:
            type, textual = _known_type(connection, name, type)
        elif column.type:
            type, textual = column.type, column.type == "text"
        matches.append(Match(position, column.name, name, type, textual, name in primary_key))
    return matches


def _known_type(connection: Connection, column: str, text: str) -> tuple[str, bool]:
    """Return a type as PostgreSQL names it, and whether it is a kind of text. Raises InvalidInput.

    A type with a length or precision stays as it is written, for instance timestamp(3) with time zone.
    """
    try:
        row = connection.execute(query("known_type"), {"type": text}).fetchone()
    except psycopg.DatabaseError:
        row = None
    if not row or row["oid"] is None:
        raise InvalidInput(f"--type {column}={text}: PostgreSQL knows no type {text!r} here.")
    return text.strip() if "(" in text else str(row["type"]), bool(row["textual"])


def _existing_columns(target: Target, picked: list[tuple[int, FileColumn]], named: bool) -> list[Match]:
    have = {column.name: column for column in target.columns}
    own = [column for column in target.columns if not column.generated]
    if not named:
        if len(picked) != len(own):
            raise InvalidInput(
                f"The file has {len(picked)} columns without names, {target} has {len(own)} ({', '.join(have)}). Name them:"
                " --columns"
            )
        pairs = [(position, file.name, table) for (position, file), table in zip(picked, own, strict=True)]
    else:
        pairs = []
        for position, column in picked:
            name = column.name if column.name in have else simple_name(column.name, position)
            if name not in have or have[name].generated:
                why = "computes that column itself" if name in have else "has no such column"
                raise InvalidInput(
                    f"The file has a column {column.name!r}; {target} {why} (it has {', '.join(have)}). Choose or name the"
                    " file's columns with --columns."
                )
            pairs.append((position, column.name, have[name]))
    _once([table.name for _, _, table in pairs], "two columns of the file go to")
    filled = {table.name for _, _, table in pairs}
    for left in own:
        if left.required and not left.has_default and left.name not in filled:
            raise InvalidInput(f"{target} needs a value of {left.name} in every row, and the file has no such column.")
    return [
        Match(position, file_name, table.name, table.type, table.textual, table.required)
        for position, file_name, table in pairs
    ]


def _once(names: Sequence[str], what: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f"{what[0].upper()}{what[1:]} {name}. Name the columns with --columns.")


def simple_name(text: str, position: int) -> str:
    """Return a header's name in lower case, with underscores for everything but letters and digits."""
    name = re.sub(r"\W+", "_", text.strip().lower()).strip("_") or f"column_{position + 1}"
    name = name.encode()[:LONGEST_NAME].decode("utf-8", "ignore")
    return f"_{name}" if name[0].isdigit() else name
