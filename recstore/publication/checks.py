"""Check a generation's tables before it may go live."""

from recstore.errors import PublicationFailed
from recstore.postgres.connection import Connection
from recstore.postgres.names import quoted
from recstore.runs import Summary
from recstore.sql import queries
from recstore.sql.generation import Generation

TOLERANCE = {"vector": 1e-3, "halfvec": 2e-2}
"""Largest difference of a stored vector's length from 1; half precision rounds each of up to 1984 elements."""


def check_indexes(connection: Connection, generation: Generation, indexes: list[str]) -> None:
    """Raise PublicationFailed unless each of these indexes exists and is valid."""
    missing = queries.rows(connection, "lacking_indexes", quoted=generation.recommender.schema, names=indexes)
    if missing:
        names = ", ".join(row["name"] for row in missing)
        raise PublicationFailed(generation=generation.number, reason=f"the index {names} is missing or not valid")


def check(
    connection: Connection, generation: Generation, *, users: int, items: int, collapsed: int, indexes: list[str]
) -> Summary:
    """Check rows, NULLs, lengths and indexes against what was computed; NaN fails the comparison of lengths.

    Raises PublicationFailed.
    """
    check_indexes(connection, generation, indexes)
    recommender = generation.recommender
    extension = quoted(recommender.vector_schema)
    norm = f"{extension}.{'vector_norm' if recommender.vector_type == 'vector' else 'l2_norm'}"
    tolerance = TOLERANCE[recommender.vector_type]
    unit = f"{norm}({{column}}) BETWEEN {1 - tolerance} AND {1 + tolerance}"
    row = connection.execute(
        f"""
        SELECT
            (SELECT count(*) FROM {generation.items}) AS items,
            (SELECT count(*) FROM {generation.users}) AS users,
            i.collapsed, i.bad + u.bad AS bad
        FROM
            (
                SELECT
                    count(*) FILTER (WHERE v.embedding IS NULL) AS collapsed,
                    count(*) FILTER (
                        WHERE (v.embedding IS NULL) <> (v.preference IS NULL)
                            OR NOT ({unit.format(column="v.embedding")})
                            OR NOT ({norm}(v.preference) <= {1 + tolerance})
                    ) AS bad
                FROM {generation.items} v
            ) i,
            (
                SELECT count(*) FILTER (WHERE NOT ({unit.format(column="v.preference")})) AS bad
                FROM {generation.users} v
            ) u
        """  # noqa: S608
    ).fetchone()
    assert row is not None
    expected = {"items": items, "users": users, "collapsed": collapsed, "bad": 0}
    found = {name: row[name] for name in expected}
    if found != expected:
        wrong = ", ".join(
            f"{name} {found[name]} instead of {expected[name]}" for name in expected if found[name] != expected[name]
        )
        raise PublicationFailed(generation=generation.number, reason=wrong)
    return Summary("row counts, lengths, no NaN" + (f", {collapsed} collapsed" if collapsed else ""), found)
