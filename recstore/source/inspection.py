"""Turn a definition's source into a SELECT, and inspect it before it is read. Nothing here writes."""

import time
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from recstore.definition import Source
from recstore.errors import SeenPastPolicies, SourceInvalid, UnsupportedIdType, UnsupportedValueType
from recstore.postgres.connection import Connection, one_line, read_only, reading_application, role_of
from recstore.postgres.session import SEARCH_PATH
from recstore.source.plans import AS_FOR_ANY, by_index, plan_cost, planned, prepared
from recstore.source.selects import check_collation, columns_of, relation_of, stripped, type_name
from recstore.sql import objects, queries
from recstore.sql.objects import Registered
from recstore.types import NUMBER_OIDS, TIMESTAMP_OIDS, IdType, type_of_oid

SMALL_COST = 250
"""Cost, in the planner's units, up to which a scan of a small table is right."""

NUMBERS = {"boolean": "{}::int", "money": "{}::numeric", "interval": "extract(epoch FROM {})"}
"""Type of a value -> the number to take instead, where a cast to float8 is none."""


@dataclass(frozen=True)
class SourceShape:
    """Id types and SELECT of a source."""

    user_type: IdType
    item_type: IdType
    has_last_at: bool
    select: str
    """Body of the view `interactions`: user_id, item_id, value and, if known, last_at."""


@dataclass(frozen=True)
class Lookup:
    """How one user's rows are found, at the cost of every recommend()."""

    indexed: bool
    milliseconds: float | None
    """Median of a few users; None for a source that is empty or cannot be read."""

    problem: str | None = None
    """Reason why the source cannot be read."""


def inspect(connection: Connection, source: Source) -> SourceShape:
    """Return the source's id types and SELECT. Raises SourceInvalid, UnsupportedIdType, UnsupportedValueType,
    PermissionDenied."""
    select = stripped(source.query) if source.query is not None else _table_select(connection, source)
    tables = source.table or "the source's tables"
    columns = dict(columns_of(connection, select, SourceInvalid, tables))
    for name in ("user_id", "item_id", "value"):
        if name not in columns:
            raise SourceInvalid(
                reason=f"the query yields the columns {', '.join(columns) or 'none'}, but none named {name}",
                remedy="Name them in the query, for instance SELECT customer AS user_id, product AS item_id, views AS value",
            )
    types = []
    for side, name in (("user", "user_id"), ("item", "item_id")):
        oid = columns[name]
        column = {"user": source.user, "item": source.item}[side] if source.table is not None else name
        if oid not in type_of_oid:
            found = type_name(connection, oid)
            form = f"lower({column}::text)" if found.endswith("citext") else f"{column}::text"
            form = f"{column}::bigint" if found == "numeric" else form
            raise UnsupportedIdType(side=side, column=column, type=found, form=form)
        types.append(IdType(type_of_oid[oid]))
        if types[-1] is IdType.TEXT:
            check_collation(connection, select, name, column, SourceInvalid)
    if columns["value"] not in NUMBER_OIDS:
        column = source.value if source.table and source.value else "value"
        found = type_name(connection, columns["value"])
        form = NUMBERS.get(found, "{}::float8").format(column)
        raise UnsupportedValueType(column=column, type=found, form=form)
    has_last_at = "last_at" in columns
    if has_last_at and columns["last_at"] not in TIMESTAMP_OIDS:
        raise SourceInvalid(
            reason=f"the last_at column has the type {type_name(connection, columns['last_at'])}, not timestamp, timestamptz or"
            " date",
            remedy="Convert it in a query.",
        )
    # varchar becomes text and a domain its base type, so that every object has one type; their indexes still serve
    outer = [f"s.{side}_id::{kind.value} AS {side}_id" for side, kind in zip(("user", "item"), types, strict=True)]
    outer += ["s.value"] + ["s.last_at"] * has_last_at
    select = f"SELECT {', '.join(outer)}\nFROM (\n{select}\n) s"
    columns_of(connection, select, SourceInvalid, tables)  # refuses a duplicate column
    _check_counts(connection, select, source)
    return SourceShape(types[0], types[1], has_last_at, select)


def _check_counts(connection: Connection, select: str, source: Source) -> None:
    """Refuse a value that numbers the rows of a table, also through views, if the server knows which column it is. Raises
    SourceInvalid."""
    relation, column = _origin(connection, f"SELECT s.value FROM (\n{select}\n) s", "DEFAULT")  # noqa: S608
    while (row := queries.row(connection, "numbers_rows", relation=relation, column=column)) and row["behind"]:
        relation, column = _origin(connection, row["behind"], SEARCH_PATH)
    if row and row["found"]:
        raise SourceInvalid(
            reason=f"the column {row['name']!r}, given as the value, numbers the rows of {row['relation']}",
            remedy="Leave --value out, and each row counts 1."
            if source.table
            else "Select 1 AS value, and each row counts 1.",
        )


def _origin(connection: Connection, query: str, path: str) -> tuple[int, int]:
    """Return the relation and the number of its column that a query's column shows, 0 where it shows none. Parsed only, which
    needs no right to read the relation."""
    with read_only(connection, search_path=path):
        connection.pgconn.prepare(b"", query.encode(connection.info.encoding))
        found = connection.pgconn.describe_prepared(b"")
    return (found.ftable(0), found.ftablecol(0)) if found.nfields else (0, 0)


def _table_select(connection: Connection, source: Source) -> str:
    assert source.table is not None
    if source.user == source.item:
        raise SourceInvalid(
            reason=f"the column {source.user!r} cannot be both the user's id and the item's",
            remedy="Name two columns with --user and --item.",
        )
    relation, have = relation_of(connection, source.table, SourceInvalid)
    wanted = {"user_id": source.user, "item_id": source.item, "value": source.value, "last_at": source.last_at}
    for column in wanted.values():
        if column is not None and column not in have:
            raise SourceInvalid(
                reason=f"{source.table} has no column {column!r}; its columns are {', '.join(sorted(have))}",
                remedy="Name the columns with --user, --item, --value and --last-at.",
            )
    outputs: list[sql.Composable] = [
        sql.SQL("s.{} AS {}").format(sql.Identifier(column), sql.Identifier(name))
        for name, column in wanted.items()
        if column is not None
    ]
    if source.value is None:
        outputs.insert(2, sql.SQL("1 AS value"))
    return sql.SQL("SELECT {} FROM {} s").format(sql.SQL(", ").join(outputs), relation).as_string(connection)


def check_lookup(connection: Connection, schema: str, seconds: float = 5.0) -> Lookup:
    """Find out by EXPLAIN whether one user's rows are found without reading the rest; time a few users."""
    view = sql.Identifier(schema, "interactions")
    whole = sql.SQL("SELECT array_agg(i.item_id) FROM {} i").format(view)
    lookup = whole + sql.SQL(" WHERE i.user_id = $1")
    # not planned for one user: with a tenth of all rows, it would rightly read the table
    with read_only(connection, statement_timeout=int(seconds * 1000), **AS_FOR_ANY):
        try:
            sample = connection.execute(
                sql.SQL(
                    "SELECT i.user_id, pg_typeof(i.user_id)::text AS type FROM {} i WHERE i.user_id IS NOT NULL LIMIT 5"
                ).format(view)
            ).fetchall()
            if not sample:
                return Lookup(indexed=True, milliseconds=None)
            with prepared(connection, sample[0]["type"], lookup) as execute:
                asked = [execute(user["user_id"]) for user in sample]
                indexed = plan_cost(connection, asked[0]) < max(SMALL_COST, plan_cost(connection, whole) / 10)
                indexed = indexed or by_index(connection, asked[0])  # not analyzed yet
                times = []
                for statement in asked:
                    start = time.perf_counter()
                    connection.execute(statement)
                    times.append(1000 * (time.perf_counter() - start))
        except pg.QueryCanceled:
            return Lookup(indexed=False, milliseconds=1000 * seconds)
        except psycopg.DatabaseError as error:
            if connection.closed:
                raise
            return Lookup(indexed=False, milliseconds=None, problem=one_line(error))
    return Lookup(indexed=indexed, milliseconds=sorted(times)[len(times) // 2])


def has_last_at(connection: Connection, schema: str) -> bool:
    """Return True if the source has times, in last_at."""
    view = sql.Identifier(schema, "interactions").as_string(connection)
    found = connection.execute(
        "SELECT FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'last_at' AND NOT attisdropped", [view]
    ).fetchone()
    return found is not None


def expected_rows(connection: Connection, schema: str) -> int:
    """Return how many rows the planner expects of the source; 0 where it cannot be planned. For progress bars only."""
    view = sql.Identifier(schema, "interactions")
    try:
        with reading_application(connection, 1.0):
            return int(planned(connection, sql.SQL("SELECT * FROM {}").format(view))["Plan Rows"])
    except psycopg.DatabaseError:  # reading will say what is wrong
        return 0


def row_security(connection: Connection, schema: str, view: str, role: str) -> list[dict[str, Any]]:
    """Return the relations of which row-level security may hide rows from `role`, or from the owner of a view in between, when
    it reads a view of the recommender."""
    rows = queries.rows(connection, "relations_read", schema=schema, view=view, role=role)
    return [row for row in rows if row["row_security"] and not row["sees_all"]]


def seen_past_policies(connection: Connection, recommender: Registered, of: str | None = None) -> dict[str, str]:
    """Return role -> relations, for roles that may ask for any user's published seen items although row-level security of the
    source hides rows from them: all such roles, or the role `of` and those that inherit its rights."""
    schema = recommender.name
    readers = queries.rows(connection, "readers_of_seen", schema=schema, function=objects.SEEN, inheriting=of)
    found = {
        row["role"]: [one["object"] for one in row_security(connection, schema, "interactions", row["role"])]
        for row in readers
    }
    return {role: ", ".join(dict.fromkeys(hiding)) for role, hiding in found.items() if hiding}


def check_policies(connection: Connection, recommender: Registered, of: str | None = None) -> None:
    """Raise SeenPastPolicies unless `seen_past_policies` finds none."""
    if found := seen_past_policies(connection, recommender, of):
        raise SeenPastPolicies(
            name=recommender.name, roles=", ".join(found), relations=", ".join(dict.fromkeys(found.values()))
        )


def limited(connection: Connection, schema: str) -> list[str]:
    """Return the relations of the source of which row-level security may hide rows from this role."""
    return [row["object"] for row in row_security(connection, schema, "interactions", role_of(connection))]
