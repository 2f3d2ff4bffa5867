"""What a generation must pass before it may go live, looked at in the tables themselves."""

from recstore.errors import PublicationFailed
from recstore.postgres.connection import Connection
from recstore.postgres.names import quoted
from recstore.publication import generations
from recstore.sql import queries
from recstore.sql.objects import Registered

TOLERANCE = {"vector": 1e-3, "halfvec": 2e-2}
"""How far a stored vector's length may be from 1; half precision rounds each of up to 1984 elements."""


def check_indexes(connection: Connection, recommender: Registered, generation: int, indexes: list[str]) -> None:
    """Raises PublicationFailed unless each of these indexes is there and valid."""
    lacking = connection.execute(
        queries.query("lacking_indexes"), {"quoted": recommender.schema, "names": indexes}
    ).fetchall()
    if lacking:
        names = ", ".join(row["name"] for row in lacking)
        raise PublicationFailed(generation=generation, reason=f"the index {names} is missing or not valid")


def check(
    connection: Connection,
    recommender: Registered,
    generation: int,
    *,
    users: int,
    items: int,
    collapsed: int,
    indexes: list[str],
) -> dict[str, int]:
    """Raises PublicationFailed unless rows, NULLs and lengths are what was computed and every index is there and valid;
    returns the counts. A NaN fails the comparison of lengths."""
    check_indexes(connection, recommender, generation, indexes)
    extension = quoted(recommender.vector_schema)
    norm = f"{extension}.{'vector_norm' if recommender.vector_type == 'vector' else 'l2_norm'}"
    tolerance = TOLERANCE[recommender.vector_type]
    unit = f"{norm}({{column}}) BETWEEN {1 - tolerance} AND {1 + tolerance}"
    row = connection.execute(
        f"""
        SELECT
            (SELECT count(*) FROM {generations.table(recommender, "items", generation)}) AS items,
            (SELECT count(*) FROM {generations.table(recommender, "users", generation)}) AS users,
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
                FROM {generations.table(recommender, "items", generation)} v
            ) i,
            (
                SELECT count(*) FILTER (WHERE NOT ({unit.format(column="v.preference")})) AS bad
                FROM {generations.table(recommender, "users", generation)} v
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
        raise PublicationFailed(generation=generation, reason=wrong)
    return found
