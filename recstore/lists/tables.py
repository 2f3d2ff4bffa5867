"""Lists into a table: filled beside the one that is read, which it replaces in the same transaction.

So a reader sees the old lists or the new ones, whole; and whatever ends the work before, the old table stays and nothing else
is left behind.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from psycopg import errors as pg
from psycopg import sql

from recstore.config import Settings
from recstore.errors import InvalidInput, ListTableRefused, PermissionDenied
from recstore.lists.shapes import Shape
from recstore.postgres.connection import Connection, connect, plain_errors, with_short_lock
from recstore.postgres.names import quoted
from recstore.publication import loading
from recstore.runs import wal
from recstore.sql import objects, queries
from recstore.sql.objects import Registered

MARK = "Made by recstore: {command} of {name},"
"""How the comment begins of a table that may be replaced by the same lists anew."""


@dataclass(frozen=True)
class ListTable:
    """Where lists go, looked at before any work."""

    schema: str
    name: str
    oid: int | None = None
    key: str | None = None
    """The name that its primary key was given."""
    indexes: list[dict[str, Any]] = field(default_factory=list)
    grants: list[dict[str, Any]] = field(default_factory=list)
    comments: dict[str, str] = field(default_factory=dict)
    """Of its columns."""

    def __str__(self) -> str:
        return f"{self.quoted_schema}.{quoted(self.name)}"

    @property
    def quoted_schema(self) -> str:
        return quoted(self.schema)


def look_at(connection: Connection, recommender: str, text: str, shape: Shape) -> ListTable:
    """The table that `text` (schema.table) names for lists of recommender `recommender`, with what is there to be kept of it.
    Raises InvalidInput, ListTableRefused, PermissionDenied."""
    schema, name = _parsed(connection, text)
    if connection.execute(queries.query("reserved_schema"), {"schema": schema}).fetchone():
        raise InvalidInput(f"The schema {schema!r} is not for tables of lists: name one of your own, as schema.table.")
    row = connection.execute(queries.query("list_table"), {"schema": schema, "table": name}).fetchone()
    if row is None:
        raise InvalidInput(
            f"There is no schema {schema!r} for the table {text}. Name a table as schema.table in a schema that exists, or"
            " a file that ends with .csv, .csv.gz or .parquet."
        )
    table = ListTable(schema, name, row["oid"])
    role = connection.info.user
    if not row["may_create"]:
        remedy = f"Have the schema's owner run: GRANT USAGE, CREATE ON SCHEMA {quoted(schema)} TO {quoted(role)};"
        raise PermissionDenied(role=role, reason=f"it can not make a table in the schema {schema!r}", remedy=remedy)
    found = connection.execute(queries.query("list_table_publications"), {"schema": schema}).fetchall()
    if found:
        names = ", ".join(quoted(each["publication"]) for each in found)
        reason = (
            f"the publication {names} carries every new table of its schema to subscribers, who stop where they lack it"
        )
        remedy = "Name a table in a schema that is not published, or a file."
        raise ListTableRefused(table=str(table), reason=reason, remedy=remedy)
    if row["oid"] is None and not row["type"]:
        return table
    mark = MARK.format(command=shape.command, name=recommender)
    if row["kind"] != "r" or row["partition"] or not (row["comment"] or "").startswith(mark):
        reason = f"something of that name exists that is not {shape.command} of {recommender!r}"
        raise ListTableRefused(table=str(table), reason=reason, remedy="Name another table, or drop that one first.")
    if not row["owned"]:
        remedy = f"Have that one make these lists, or run: ALTER TABLE {table} OWNER TO {quoted(role)};"
        reason = f"the role {role!r} does not own it, but {row['owner']!r}"
        raise ListTableRefused(table=str(table), reason=reason, remedy=remedy)
    if row["row_security"]:
        remedy = (
            f"Name another table, or run: ALTER TABLE {table} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;"
        )
        raise ListTableRefused(
            table=str(table), reason="it has row-level security, which a new one would not have", remedy=remedy
        )
    keys = {"oid": row["oid"]}
    columns = connection.execute(queries.query("list_table_columns"), keys).fetchall()
    _check_unchanged(connection, table, shape, {each["name"]: each["type"] for each in columns})
    found = connection.execute(queries.query("list_table_dependents"), keys).fetchall()
    if found:
        reason = f"it would take along {', '.join(each['object'] for each in found)}"
        remedy = "Drop these first, or write the lists to another table and read them from there."
        raise ListTableRefused(table=str(table), reason=reason, remedy=remedy)
    indexes = connection.execute(queries.query("list_table_indexes"), keys).fetchall()
    grants = objects.grants_on(connection, str(table))
    grants += connection.execute(queries.query("list_table_column_grants"), keys).fetchall()
    comments = {each["name"]: each["comment"] for each in columns if each["comment"]}
    return ListTable(schema, name, row["oid"], row["key"], indexes, grants, comments)


def _check_unchanged(connection: Connection, table: ListTable, shape: Shape, columns: dict[str, str]) -> None:
    """Raises ListTableRefused where a new table would silently be another than this one was made to be."""
    changed = [f"the column {quoted(name)} {kind}" for name, kind in columns.items() if shape.columns.get(name) != kind]
    changed += [f"no column {quoted(name)}" for name in shape.columns if name not in columns]
    rows = connection.execute(queries.query("list_table_storage"), {"oid": table.oid}).fetchall()
    changed += [row["what"] for row in rows]
    if changed:
        reason = f"it was given {', '.join(changed)}, which a new one would not have"
        remedy = "Name another table, or undo that; what is your own belongs in a table beside it."
        raise ListTableRefused(table=str(table), reason=reason, remedy=remedy)


def _parsed(connection: Connection, text: str) -> tuple[str, str]:
    try:
        row = connection.execute("SELECT parse_ident(%s) AS parts", [text]).fetchone()
        parts = row["parts"] if row else []
    except pg.DataError:
        parts = []
    if len(parts) != 2 or any(len(part.encode()) > 63 for part in parts):
        raise InvalidInput(
            f"{text!r} is neither a table nor a file: write a table as schema.table, a file with the ending .csv, .csv.gz or"
            " .parquet."
        )
    return parts[0], parts[1]


class TableWriter:
    """Takes lists, then `swap`s them in. Made by `filling`."""

    def __init__(self, connection: Connection, table: ListTable, shape: Shape, beside: str) -> None:
        self.connection, self.table, self.shape = connection, table, shape
        self.wal_bytes = 0
        self.beside = f"{table.quoted_schema}.{quoted(beside)}"

    def create(self) -> None:
        self.connection.execute(created(self.beside, self.shape))

    @contextmanager
    def copying(self) -> Iterator[loading.Write]:
        """Within it, lists are written."""
        with loading.copying(self.connection, self.beside, self.shape.names, freeze=True) as write:
            yield write

    def index(self, comment: str, memory: int) -> None:
        """The primary key, the other indexes that the old table had, statistics, the comment."""
        self.connection.execute(f"SET LOCAL maintenance_work_mem = '{memory}MB'")
        for statement in described(self.beside, self.table, self.shape, comment):
            self.connection.execute(statement)

    def swap(self, settings: Settings, recommender: Registered) -> None:
        """In place of the old table, with the grants and the indexes that it has by now, if that is still what it was.
        Commits with the transaction around. Raises ListTableRefused, LockTimeout."""

        def change() -> None:
            there = self.connection.execute("SELECT to_regclass(%s) IS NOT NULL AS yes", [str(self.table)]).fetchone()
            if there and there["yes"]:
                self.connection.execute(f"LOCK TABLE {self.table} IN ACCESS EXCLUSIVE MODE")
            again = look_at(self.connection, recommender.name, str(self.table), self.shape)
            given = objects.grants_on(self.connection, self.beside)
            for statement in (
                *followed(self.beside, self.table, again),
                *swapped(self.beside, again, self.shape, given),
            ):
                self.connection.execute(statement)

        # an index takes its time, so what came meanwhile is built before the lock
        now = look_at(self.connection, recommender.name, str(self.table), self.shape)
        for statement in followed(self.beside, self.table, now):
            self.connection.execute(statement)
        self.table = now
        try:
            with_short_lock(self.connection, settings, f"Replacing {self.table}", str(self.table), change)
        except pg.DependentObjectsStillExist as error:
            reason = " and ".join((error.diag.message_detail or "something depends on it").splitlines())
            raise ListTableRefused(table=str(self.table), reason=reason, remedy="Drop these first.") from None


@contextmanager
def filling(url: str, application_name: str, table: ListTable, shape: Shape, beside: str) -> Iterator[TableWriter]:
    """A context around one transaction: committed at its end, undone by any error."""
    connection = connect(url, application_name)
    try:
        with plain_errors(f"writing {table}", connection), connection.transaction():
            writer = TableWriter(connection, table, shape, beside)
            writer.create()
            yield writer
        if connection.info.server_version >= 180000:  # before that a run's WAL is that of the whole server
            writer.wal_bytes = wal(connection) or 0
    finally:
        connection.close()


def created(beside: str, shape: Shape) -> str:
    columns = ", ".join(f"{name} {kind} NOT NULL" for name, kind in shape.columns.items())
    return f"CREATE TABLE {beside} ({columns})"


def described(beside: str, table: ListTable, shape: Shape, comment: str) -> list[str]:
    """What makes a table of its rows."""
    statements = [f"ALTER TABLE {beside} ADD CONSTRAINT {_key(beside, shape)} PRIMARY KEY ({', '.join(shape.key)})"]
    statements += [_index(beside, index) for index in table.indexes]
    statements.append(f"ANALYZE {beside}")
    statements.append(f"COMMENT ON TABLE {beside} IS {sql.Literal(comment).as_string(None)}")
    return statements


def followed(beside: str, before: ListTable, now: ListTable) -> list[str]:
    """What gives the new table the indexes that the old one got since, and takes those that it lost."""
    was, are = ({index["oid"] for index in table.indexes} for table in (before, now))
    lost = [index for index in before.indexes if index["oid"] not in are]
    return [
        *(f"DROP INDEX {now.quoted_schema}.{_temporary(beside, index)}" for index in lost),
        *(_index(beside, index) for index in now.indexes if index["oid"] not in was),
    ]


def swapped(beside: str, table: ListTable, shape: Shape, given: Sequence[dict[str, Any]] = ()) -> list[str]:
    """What puts it in the place of the old one, whose grants it has then instead of those `given` by default."""
    revoked = dict.fromkeys(row["grantee"] for row in given) if table.oid is not None else ()
    statements = [f"REVOKE ALL ON {beside} FROM {grantee}" for grantee in revoked]
    statements += objects.granting(beside, table.grants)
    statements += [
        f"COMMENT ON COLUMN {beside}.{quoted(name)} IS {sql.Literal(comment).as_string(None)}"
        for name, comment in table.comments.items()
    ]
    if table.oid is not None:
        statements.append(f"DROP TABLE {table}")
    statements.append(f"ALTER TABLE {beside} RENAME TO {quoted(table.name)}")
    if table.key is not None:
        statements.append(f"ALTER TABLE {table} RENAME CONSTRAINT {_key(beside, shape)} TO {quoted(table.key)}")
    for index in table.indexes:
        old = f"{table.quoted_schema}.{_temporary(beside, index)}"
        statements.append(f"ALTER INDEX {old} RENAME TO {quoted(index['name'])}")
    return statements


def _index(beside: str, index: dict[str, Any]) -> str:
    """What builds it on the new table."""
    unique = "UNIQUE " if index["is_unique"] else ""
    return f"CREATE {unique}INDEX {_temporary(beside, index)} ON {beside} {index['how']}"


def _temporary(beside: str, index: dict[str, Any]) -> str:
    """The name of an index until the swap."""
    return quoted(f"{_bare(beside)}_{index['oid']}")


def _key(beside: str, shape: Shape) -> str:
    """The name of the primary key, until the swap where the old one was given a name of its own."""
    return quoted(f"{_bare(beside)}_{shape.owner}_pkey")


def _bare(beside: str) -> str:
    return beside.split(".")[-1].strip('"')
