"""Inspect the SELECT of the step `query`, behind the view `_fallback`: items that the application itself lists for a user.

Like the source it is planned and not executed, except for one row.
"""

from recstore.definition import Definition
from recstore.errors import FallbackInvalid
from recstore.postgres.connection import Connection
from recstore.source.selects import columns_of, id_type, stripped, type_name
from recstore.types import NUMBER_OIDS, NUMERIC_OID, IdType


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
        column = name, columns[name]
        found = id_type(connection, select, column, wanted, FallbackInvalid, fitting=name == "item_id")
        if found is None:
            raise FallbackInvalid(
                reason=f"its {name} has the type {type_name(connection, columns[name])}, but the source's is {wanted.value}",
                remedy=f"Select ids of the type {wanted.value}, with a cast if need be.",
            )
        outer[name] = f"s.{name}::{found.value}"
    outer["score"] = "s.score::double precision"
    if columns["score"] == NUMERIC_OID:  # a cast beyond double precision would be an error
        outer["score"] = (
            "CASE WHEN abs(s.score) < 1e-300 THEN 0 WHEN abs(s.score) < 1e300 THEN s.score::double precision END"
        )
    listed = ", ".join(f"{expression} AS {name}" for name, expression in outer.items())
    return f"SELECT {listed}\nFROM (\n{select}\n) s"
