"""Inspect the candidates and the exclusions: the SELECTs behind the views `candidates`, of items that may be recommended now, and
`exclusions`, of those that recommend() leaves out for a user.

Like the source they are planned and not executed, except for one row. Knows the recommender's id types, not its generations.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import errors as pg
from psycopg import sql

from recstore.definition import Definition
from recstore.errors import CandidatesInvalid, ExclusionsInvalid, PermissionDenied
from recstore.postgres.connection import Connection, application_path, one_line, read_only, role_of
from recstore.source.plans import AS_FOR_ANY, by_index, plan_cost, prepared, probe
from recstore.source.selects import Invalid, columns_of, denied, id_type, relation_of, stripped, type_name
from recstore.sql import objects, queries
from recstore.sql.objects import Registered
from recstore.types import IdType

LOOKUP_COST = 50
"""Highest cost, in the planner's units, of looking one item up. An index scan does so for each of hundreds of rows."""

FIRST = 1000
"""Milliseconds to look for a first candidate. After that the SELECT counts as valid."""


@dataclass(frozen=True)
class Eligible:
    """Numbers of items, and of those that are candidates."""

    items: int
    eligible: int


def inspect(connection: Connection, definition: Definition, item_type: IdType) -> str:
    """Return the SELECT of the view `candidates`, whose one column is item_id; empty if the definition has no candidates.

    The column keeps its type if an index compares it with the items' type. Raises CandidatesInvalid, PermissionDenied.
    """
    candidates = definition.candidates
    if not candidates.given:
        return ""
    select = stripped(candidates.query) if candidates.query is not None else _table_select(connection, definition)
    columns = columns_of(connection, select, CandidatesInvalid, candidates.table or "the candidates' tables")
    if len(columns) != 1:
        names = ", ".join(name for name, _ in columns) or "none"
        raise CandidatesInvalid(
            reason=f"the query yields the columns {names}, not just the item's id",
            remedy="Select the id alone, for instance SELECT product_id FROM shop.products WHERE visible",
        )
    found = _id_type(connection, select, columns[0], item_type, "items", CandidatesInvalid)
    return f"SELECT c.item_id::{found.value} AS item_id\nFROM (\n{select}\n) c (item_id)"


def inspect_exclusions(connection: Connection, definition: Definition, user_type: IdType, item_type: IdType) -> str:
    """Return the SELECT of the view `exclusions`, with user_id and item_id; empty if the definition has no exclusions. Raises
    ExclusionsInvalid, PermissionDenied."""
    if definition.exclusions.query is None:
        return ""
    select = stripped(definition.exclusions.query)
    columns = columns_of(connection, select, ExclusionsInvalid, "the exclusions' tables")
    if sorted(name for name, _ in columns) != ["item_id", "user_id"]:
        raise ExclusionsInvalid(
            reason=f"the query yields the columns {', '.join(name for name, _ in columns) or 'none'}, not user_id and item_id",
            remedy="Name them, for instance SELECT customer_id AS user_id, product_id AS item_id FROM shop.hidden",
        )
    outputs = []
    for column in sorted(columns, reverse=True):
        wanted, side = (user_type, "users") if column[0] == "user_id" else (item_type, "items")
        kind = _id_type(connection, select, column, wanted, side, ExclusionsInvalid)
        outputs.append(f"e.{column[0]}::{kind.value} AS {column[0]}")
    return f"SELECT {', '.join(outputs)}\nFROM (\n{select}\n) e"


def _id_type(
    connection: Connection, select: str, column: tuple[str, int], wanted: IdType, side: str, invalid: Invalid
) -> IdType:
    """Return the type of a column of ids as the view has it. Raises `invalid` unless an index compares it with the `wanted`
    type."""
    found = id_type(connection, select, column, wanted, invalid)
    if found is None:
        raise invalid(
            reason=f"their ids have the type {type_name(connection, column[1])}, but the {side}' is {wanted.value}",
            remedy=f"Select ids of the type {wanted.value}, with a cast if need be.",
        )
    return found


def _table_select(connection: Connection, definition: Definition) -> str:
    candidates, source = definition.candidates, definition.source
    assert candidates.table is not None
    relation, have = relation_of(connection, candidates.table, CandidatesInvalid)
    column = candidates.column or (source.item if source.table is not None else "item_id")
    if column not in have:
        raise CandidatesInvalid(
            reason=f"{candidates.table} has no column {column!r}; its columns are {', '.join(sorted(have))}",
            remedy="Name the column of item ids with --candidates-column.",
        )
    select = sql.SQL("SELECT c.{} FROM {} c").format(sql.Identifier(column), relation).as_string(connection)
    return select if candidates.condition is None else f"{select} WHERE (\n{candidates.condition}\n)"


@contextmanager
def tried(connection: Connection, recommender: Registered, select: str) -> Iterator[str]:
    """Create a view of that SELECT for the block, in a transaction that is rolled back; yield its name. Raises psycopg's
    errors."""
    name = "_candidates_tried"
    with connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL lock_timeout = '2s'")
        with application_path(connection):
            connection.execute(f"CREATE VIEW {recommender.relation(name)} WITH (security_invoker) AS\n{select}")
        yield name


def ask_first(
    connection: Connection, recommender: Registered, select: str, invalid: Invalid = CandidatesInvalid
) -> None:
    """Read one item with the functions' search_path, which also applies in functions that the SELECT calls. Raises `invalid`,
    PermissionDenied."""
    try:
        with (
            tried(connection, recommender, select) as view,
            read_only(connection, search_path=AS_FOR_ANY["search_path"], statement_timeout=FIRST),
        ):
            connection.execute(f"SELECT c.item_id FROM {recommender.relation(view)} c LIMIT 1")  # noqa: S608
    except (pg.QueryCanceled, pg.LockNotAvailable):
        pass
    except pg.InsufficientPrivilege as error:
        raise denied(connection, error, "GRANT the rights on what the query calls") from None
    except psycopg.Error as error:
        if connection.closed:
            raise
        remedy = "Try the query in psql first."
        if isinstance(error, (pg.UndefinedTable, pg.UndefinedFunction, pg.UndefinedObject)):
            remedy = (
                "Asked with search_path = pg_catalog, pg_temp: write schema.name inside the functions that they call."
            )
        raise invalid(reason=one_line(error), remedy=remedy) from None


def check_readable(connection: Connection, recommender: Registered) -> None:
    """Raise PermissionDenied unless this role may read the candidates; read none."""
    role = role_of(connection)
    try:
        with read_only(connection, statement_timeout=FIRST):
            connection.execute(f"SELECT c.item_id FROM {recommender.relation('candidates')} c LIMIT 0")  # noqa: S608
    except pg.InsufficientPrivilege as error:
        grants = " ".join(objects.lacking_on(connection, recommender, "candidates", role))
        remedy = f"Have the owner run: {grants}" if grants else "Have the owner grant it what the candidates read."
        raise PermissionDenied(role=role, reason=one_line(error), remedy=remedy) from None


def looked_up_by_index(
    connection: Connection, recommender: Registered, view: str = "candidates", column: str = "item_id"
) -> bool:
    """Find out by EXPLAIN whether an index finds one candidate, since an index scan of vectors asks that for each of hundreds
    of items; or the exclusions of one user, in the column user_id. Raises psycopg's errors."""
    kind = recommender.item_type.value if column == "item_id" else recommender.user_type.parameter_sql
    with read_only(connection, **AS_FOR_ANY):
        relation, looked_up = sql.Identifier(recommender.name, view), sql.Identifier(column)
        one = sql.SQL("SELECT true FROM {} c WHERE c.{} = $1").format(relation, looked_up)
        with prepared(connection, kind, one) as execute:
            asked = execute(probe(kind))
            return plan_cost(connection, asked) <= LOOKUP_COST or by_index(connection, asked)


def readers_lacking(
    connection: Connection, recommender: Registered, view: str = "candidates", readers_of: str = "item_vectors"
) -> dict[str, list[str]]:
    """Return role -> GRANTs that are missing to read a view, for roles with access to another."""
    readers = queries.rows(connection, "readers_of", view=recommender.relation(readers_of))
    found = {row["role"]: objects.lacking_on(connection, recommender, view, row["role"]) for row in readers}
    return {role: statements for role, statements in found.items() if statements}


def eligible(connection: Connection, recommender: Registered, items: str, seconds: float) -> Eligible:
    """Count the rows of `items`, a quoted relation, and those that are candidates now. Raises psycopg's errors, after `seconds`
    CandidatesInvalid."""
    try:
        with read_only(connection, statement_timeout=int(1000 * seconds)):
            row = connection.execute(
                f"SELECT count(*) AS items, count(c.item_id) AS eligible FROM {items} v"  # noqa: S608
                f" LEFT JOIN (SELECT DISTINCT c.item_id FROM {recommender.relation('candidates')} c) c"
                " ON c.item_id = v.item_id"
            ).fetchone()
    except pg.QueryCanceled:
        reason = f"counting them took longer than the {seconds:g} s of RECSTORE_SOURCE_TIMEOUT"
        raise CandidatesInvalid(reason=reason, remedy="Simplify their query, or raise that setting.") from None
    assert row is not None
    return Eligible(**row)
