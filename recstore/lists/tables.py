"""Write lists to a new table, which replaces the old one in the same transaction.

A reader sees either the old lists or the new ones, complete. Whatever ends the work earlier, the old table stays and nothing
else is left behind. The statements are at the end of the module.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from psycopg import errors as pg
from psycopg import sql

from recstore.errors import InvalidInput, ListTableRefused, PermissionDenied
from recstore.lists.shapes import Shape
from recstore.postgres.connection import Connection, connect, plain_errors, role_of, with_short_lock
from recstore.postgres.names import quoted
from recstore.publication import erasing, loading
from recstore.runs import Run, wal
from recstore.sql import objects, queries


@dataclass(frozen=True)
class ListTable:
    """A target of lists as it is before any work. Without `oid` it does not exist yet."""

    schema: str
    name: str
    oid: int | None = None
    key: str | None = None  # name of its primary key, if it was renamed
    indexes: list[dict[str, Any]] = field(default_factory=list)
    grants: list[dict[str, Any]] = field(default_factory=list)
    comments: dict[str, str] = field(default_factory=dict)  # on its columns

    def __str__(self) -> str:
        return f"{self.quoted_schema}.{quoted(self.name)}"

    @property
    def quoted_schema(self) -> str:
        return quoted(self.schema)


def look_at(connection: Connection, recommender: str, text: str, shape: Shape) -> ListTable:
    """Return the table that `text` (schema.table) names, with everything that a new one takes over from it.

    Raises InvalidInput, PermissionDenied, and ListTableRefused if lists of `recommender` cannot or must not replace it.
    """

    def refuse(reason: str, remedy: str, statement: str = "") -> ListTableRefused:
        remedy = f"{remedy} {statement}".rstrip()
        return ListTableRefused(table=str(table), reason=reason, remedy=remedy, statement=statement)

    schema, name = _parsed(connection, text)
    if queries.rows(connection, "reserved_schema", schema=schema):
        raise InvalidInput(f"The schema {schema!r} is reserved: name a table in another schema, as schema.table.")
    found = queries.rows(connection, "list_table", schema=schema, table=name)
    if not found:
        raise InvalidInput(
            f"There is no schema {schema!r} for the table {text}. Name a table as schema.table in a schema that exists, or"
            " a file that ends with .csv, .csv.gz or .parquet."
        )
    row, role = found[0], role_of(connection)
    oid = row["oid"]
    table = ListTable(schema, name, oid)
    if not row["may_create"]:
        grant = f"GRANT USAGE, CREATE ON SCHEMA {quoted(schema)} TO {quoted(role)};"
        reason, remedy = f"it cannot create a table in the schema {schema!r}", f"Ask the schema's owner to run: {grant}"
        raise PermissionDenied(role=role, reason=reason, remedy=remedy, statement=grant)
    if published := queries.rows(connection, "list_table_publications", schema=schema):
        names = ", ".join(quoted(each["publication"]) for each in published)
        raise refuse(
            f"the publication {names} replicates new tables of this schema, which stops subscribers that do not have them",
            "Name a table in a schema that is not published, or a file.",
        )
    if oid is None and not row["type"]:
        return table
    mark = objects.LISTS_MARK.format(command=shape.command, name=recommender)
    if row["kind"] != "r" or row["partition"] or not (row["comment"] or "").startswith(mark):
        reason = f"something of that name exists that is not {shape.command} of {recommender!r}"
        raise refuse(reason, "Name another table, or drop that one first.")
    if not row["owned"]:
        take = f"ALTER TABLE {table} OWNER TO {quoted(role)};"
        reason = f"its owner is {row['owner']!r}, not the role {role!r}"
        raise refuse(reason, "Write these lists as its owner, or run:", take)
    if row["row_security"]:
        off = f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;"
        raise refuse("it has row-level security, which a new one would not have", "Name another table, or run:", off)
    columns = queries.rows(connection, "list_table_columns", oid=oid)
    types = {each["name"]: each["type"] for each in columns}
    changed = [f"the column {quoted(name)} {kind}" for name, kind in types.items() if shape.columns.get(name) != kind]
    changed += [f"no column {quoted(name)}" for name in shape.columns if name not in types]
    changed += [each["what"] for each in queries.rows(connection, "list_table_storage", oid=oid)]
    if changed:
        remedy = "Name another table, or undo the change. Keep your own columns in a table next to it."
        raise refuse(f"it was given {', '.join(changed)}, which a new one would not have", remedy)
    if dependents := queries.rows(connection, "list_table_dependents", oid=oid):
        reason = f"dropping it would also drop {', '.join(each['object'] for each in dependents)}"
        raise refuse(reason, "Drop these first, or write the lists to another table and read them from there.")
    grants = objects.grants_on(connection, str(table)) + queries.rows(connection, "list_table_column_grants", oid=oid)
    comments = {each["name"]: each["comment"] for each in columns if each["comment"]}
    return ListTable(
        schema, name, oid, row["key"], queries.rows(connection, "list_table_indexes", oid=oid), grants, comments
    )


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


@dataclass
class NewTable:
    """A table that is filled, completed and swapped in for the old one, in one transaction of `connection`."""

    connection: Connection
    run: Run
    old: ListTable
    shape: Shape
    name: str
    read_in: str  # the snapshot

    def index(self, comment: str) -> str:
        """Build the primary key and the old table's other indexes; set statistics and comment."""
        self._execute([f"SET LOCAL maintenance_work_mem = '{self.run.settings.index_memory}MB'"])
        self._execute(described(self.name, self.old, self.shape, comment))
        return f"primary key ({', '.join(self.shape.key)}), statistics"

    def swap(self) -> str:
        """Replace the old table, with the grants and indexes that it has by now. Commits with the surrounding transaction.

        Raises ListTableRefused if the old table is no longer what it was, LockTimeout.
        """
        table = str(self.old)

        def change() -> None:
            if self.shape.owner == "user_id":
                recommender = self.run.recommender
                queries.run(self.connection, "lock_completions", recommender_id=recommender.id)
                erased = erasing.erased_since(self.connection, recommender, self.read_in)
                erasing.erase(self.connection, self.name, recommender, erased)
            (there,) = self.connection.execute("SELECT to_regclass(%s) IS NOT NULL AS yes", [table])
            if there["yes"]:
                self._execute([f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"])
            again = look_at(self.connection, self.run.name, table, self.shape)
            default = objects.grants_on(self.connection, self.name)
            self._execute(followed(self.name, self.old, again))
            self._execute(swapped(self.name, again, self.shape, default))

        # building an index takes time, so new ones are built before the lock
        now = look_at(self.connection, self.run.name, table, self.shape)
        self._execute(followed(self.name, self.old, now))
        self.old = now
        try:
            with_short_lock(self.connection, self.run.settings, f"Replacing {table}", table, change)
        except pg.DependentObjectsStillExist as error:
            reason = " and ".join((error.diag.message_detail or "other objects depend on it").splitlines())
            raise ListTableRefused(table=table, reason=reason, remedy="Drop these first.") from None
        return f"{table} is that of {self.run.generation}"

    def _execute(self, statements: Sequence[str]) -> None:
        for statement in statements:
            self.connection.execute(statement)


@contextmanager
def replacing(run: Run, old: ListTable, shape: Shape, comment: str, read_in: str) -> Iterator[loading.Write]:
    """Yield a function that copies rows into a new table, which replaces the old one at the end. Any error undoes it all."""
    with closing(connect(run.url, run.application_name)) as connection:
        with plain_errors(f"writing {old}", connection), connection.transaction():
            new = NewTable(connection, run, old, shape, f"{old.quoted_schema}.recstore_lists_{run.number}", read_in)
            connection.execute(created(new.name, shape))
            with loading.copying(connection, new.name, list(shape.columns), freeze=True) as write:
                yield write
            run.stage("index", new.index, comment)
            run.stage("swap", new.swap)
        if connection.info.server_version >= 180000:  # older servers cannot attribute WAL to a session
            run.wal_elsewhere += wal(connection) or 0


def planned(table: ListTable, shape: Shape, comment: str) -> list[str]:
    """Return the SQL of a whole job, with N for its number."""
    new = f"{table.quoted_schema}.recstore_lists_N"
    copy = f"COPY {new} ({', '.join(shape.columns)}) FROM STDIN (FORMAT binary, FREEZE)"
    return [created(new, shape), copy, *described(new, table, shape, comment), *swapped(new, table, shape)]


def created(new: str, shape: Shape) -> str:
    return f"CREATE TABLE {new} ({', '.join(f'{name} {kind} NOT NULL' for name, kind in shape.columns.items())})"


def described(new: str, table: ListTable, shape: Shape, comment: str) -> list[str]:
    """Return the SQL that completes the filled table."""
    return [
        f"ALTER TABLE {new} ADD CONSTRAINT {_temporary(new, f'{shape.owner}_pkey')} PRIMARY KEY ({', '.join(shape.key)})",
        *(_index(new, index) for index in table.indexes),
        f"ANALYZE {new}",
        f"COMMENT ON TABLE {new} IS {sql.Literal(comment).as_string(None)}",
    ]


def followed(new: str, before: ListTable, now: ListTable) -> list[str]:
    """Return the SQL that repeats, on the new table, the indexes created and dropped on the old one since."""
    was, are = ({index["oid"] for index in table.indexes} for table in (before, now))
    lost = [index for index in before.indexes if index["oid"] not in are]
    return [
        *(f"DROP INDEX {now.quoted_schema}.{_temporary(new, index['oid'])}" for index in lost),
        *(_index(new, index) for index in now.indexes if index["oid"] not in was),
    ]


def swapped(new: str, table: ListTable, shape: Shape, default: Sequence[dict[str, Any]] = ()) -> list[str]:
    """Return the SQL that replaces the old table, whose grants the new one gets instead of its `default` ones."""
    revoked = dict.fromkeys(row["grantee"] for row in default) if table.oid is not None else ()
    statements = [f"REVOKE ALL ON {new} FROM {grantee}" for grantee in revoked]
    statements += objects.granting(new, table.grants)
    for name, comment in table.comments.items():
        statements.append(f"COMMENT ON COLUMN {new}.{quoted(name)} IS {sql.Literal(comment).as_string(None)}")
    if table.oid is not None:
        statements.append(f"DROP TABLE {table}")
    statements.append(f"ALTER TABLE {new} RENAME TO {quoted(table.name)}")
    if table.key is not None:
        key = _temporary(new, f"{shape.owner}_pkey")
        statements.append(f"ALTER TABLE {table} RENAME CONSTRAINT {key} TO {quoted(table.key)}")
    for index in table.indexes:
        old = f"{table.quoted_schema}.{_temporary(new, index['oid'])}"
        statements.append(f"ALTER INDEX {old} RENAME TO {quoted(index['name'])}")
    return statements


def _index(new: str, index: dict[str, Any]) -> str:
    unique = "UNIQUE " if index["is_unique"] else ""
    return f"CREATE {unique}INDEX {_temporary(new, index['oid'])} ON {new} {index['how']}"


def _temporary(new: str, suffix: object) -> str:
    """Return the name that an index or the primary key of the new table has until the swap."""
    bare = new.split(".")[-1]
    return quoted(f"{bare}_{suffix}")
