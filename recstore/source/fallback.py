"""Inspect the SELECT of the step `query`, behind the view `_fallback`: items that the application itself lists for a user.

Like the source it is planned and not executed, except for one row.
"""

from recstore.definition import Definition
from recstore.errors import FallbackInvalid
from recstore.postgres.connection import Connection
from recstore.source.selects import check_collation, columns_of, stripped, type_name
from recstore.types import NUMBER_OIDS, IdType, type_of_oid

_WIDTHS = {IdType.SMALLINT: 2, IdType.INTEGER: 4, IdType.BIGINT: 8}


def inspect(connection: Connection, definition: Definition, user_type: IdType, item_type: IdType) -> str:
    """Return the SELECT of the view `_fallback`: user_id, NULL for all users, item_id, score; empty if the definition has no
    query. Raises FallbackInvalid, PermissionDenied."""
    if definition.fallback.query is None:
        return ""
    select = stripped(definition.fallback.query)
    columns = dict(columns_of(connection, select, FallbackInvalid, "the tables of the fallback"))
    if not {"item_id", "score"} <= columns.keys() <= {"user_id", "item_id", "score"}:
        raise FallbackInvalid(
            reason=f"the query yields the columns {', '.join(columns) or 'none'}, not item_id and score, and perhaps user_id",
            remedy="Name them in the query, for instance SELECT product_id AS item_id, weight AS score FROM shop.chosen",
        )
    if columns["score"] not in NUMBER_OIDS:
        raise FallbackInvalid(
            reason=f"the score has the type {type_name(connection, columns['score'])}, which is not numeric",
            remedy="Convert it in the query.",
        )
    outer = {"user_id": f"NULL::{user_type.value}"}
    for name, wanted in (("user_id", user_type), ("item_id", item_type)):
        if name not in columns:
            continue
        oid = columns[name]
        found = IdType(type_of_oid[oid]) if oid in type_of_oid else None
        if found is not wanted and not _fits(found, wanted, compared=name == "user_id"):
            raise FallbackInvalid(
                reason=f"its {name} has the type {type_name(connection, oid)}, but the source's is {wanted.value}",
                remedy=f"Select ids of the type {wanted.value}, with a cast if need be.",
            )
        assert found is not None
        if found is IdType.TEXT:
            check_collation(connection, select, name, name, FallbackInvalid)
        outer[name] = f"s.{name}::{found.value}"
    outer["score"] = "s.score::double precision"
    listed = ", ".join(f"{expression} AS {name}" for name, expression in outer.items())
    return f"SELECT {listed}\nFROM (\n{select}\n) s"


def _fits(found: IdType | None, wanted: IdType, *, compared: bool) -> bool:
    """Return True if a whole number of one type can be one of the other, or can be `compared` with it."""
    if found not in _WIDTHS or wanted not in _WIDTHS:
        return False
    return compared or _WIDTHS[found] <= _WIDTHS[wanted]
