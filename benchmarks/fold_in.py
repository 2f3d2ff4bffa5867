"""Measure what it costs to fold in a user by SQL, and how exact it is, on the demo's data: real items, and the first rows of real
users as those of users who came after the training.

For each size, interleaved: the fold-in as it is, the same stopped after three steps of conjugate gradients, Cholesky
decomposition over arrays in PL/pgSQL, and recommend() for a trained user and for one who is folded in. Errors are relative to
the solution in double precision by NumPy; times are also given as multiples of recommend() for a trained user.

    python benchmarks/fold_in.py
"""

import statistics
import time
from typing import Any

import numpy as np
import published
from measured import Measured
from numpy.typing import NDArray

from recstore import demo, pipeline
from recstore.definition import Definition, Hyperparameters, Source
from recstore.operations import recommenders
from recstore.postgres.connection import Connection

SIZES = ((64, 50), (128, 500), (256, 50), (256, 500))
"""Factors, and the user's items."""

USERS, ROUNDS = 30, 5

CHOLESKY = """
CREATE FUNCTION retail._cholesky(z vector[], a double precision[], b vector) RETURNS vector
LANGUAGE plpgsql STABLE AS $$
-- By Woodbury's identity, as many equations as items: t = b - S (I + S^T S)^-1 S^T b, with s = sqrt(a) z.
DECLARE
    n CONSTANT integer := cardinality(a);
    l double precision[] := (
        SELECT array_agg(-(p.z <#> q.z) * sqrt(p.a * q.a) + (p.i = q.i)::integer ORDER BY p.i, q.i)
        FROM unnest($1, $2) WITH ORDINALITY p (z, a, i) CROSS JOIN unnest($1, $2) WITH ORDINALITY q (z, a, i));
    y double precision[] := (
        SELECT array_agg(-(p.z <#> b) * sqrt(p.a) ORDER BY p.i) FROM unnest($1, $2) WITH ORDINALITY p (z, a, i));
    total double precision;
BEGIN
    FOR i IN 1..n LOOP
        FOR j IN 1..i LOOP
            total := l[(i - 1) * n + j];
            FOR k IN 1..j - 1 LOOP
                total := total - l[(i - 1) * n + k] * l[(j - 1) * n + k];
            END LOOP;
            l[(i - 1) * n + j] := CASE WHEN i = j THEN sqrt(total) ELSE total / l[(j - 1) * n + j] END;
        END LOOP;
        total := y[i];
        FOR k IN 1..i - 1 LOOP
            total := total - l[(i - 1) * n + k] * y[k];
        END LOOP;
        y[i] := total / l[(i - 1) * n + i];
    END LOOP;
    FOR i IN REVERSE n..1 LOOP
        FOR k IN i + 1..n LOOP
            y[i] := y[i] - l[(k - 1) * n + i] * y[k];
        END LOOP;
        y[i] := y[i] / l[(i - 1) * n + i];
    END LOOP;
    RETURN b - (SELECT sum(p.z * array_fill((sqrt(p.a) * p.y)::real, ARRAY[vector_dims(b)])::vector)
        FROM unnest($1, $2, y) p (z, a, y));
END
$$
"""


def main() -> None:
    part = Measured("fold_in", users=USERS, rounds=ROUNDS)
    with published.database() as (connection, settings, url):
        demo.load_shop(connection)
        source = Source(table="shop.views", item="product_id", value="view_count")
        for factors in sorted({factors for factors, _ in SIZES}):
            definition = Definition(source=source, hyperparameters=Hyperparameters(factors=factors))
            recommenders.create(connection, settings, "retail", definition)
            assert pipeline.retrain(url, settings, "retail").live
            solve = connection.execute("SELECT pg_get_functiondef(to_regproc('retail._solve')) AS it").fetchone()
            assert solve
            connection.execute(solve["it"].replace("_solve", "_three").replace("2 * cardinality(a)", "3"))
            connection.execute(CHOLESKY)
            for _, items in (size for size in SIZES if size[0] == factors):
                measure(part, connection, factors, items)
            connection.execute("DROP FUNCTION retail._three, retail._cholesky")
            connection.execute("DELETE FROM shop.views WHERE user_id > 1000000")
            recommenders.registry.drop(connection, settings, recommenders.registry.get(connection, "retail"))
    part.write()


def measure(part: Measured, connection: Connection, factors: int, items: int) -> None:
    """Add rows of figures for users with this many items."""
    users = newcomers(connection, items)
    solvers = {"fold-in": "_solve", "three steps": "_three"} | ({"Cholesky": "_cholesky"} if items <= 50 else {})
    times: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}
    for user in users:
        exact = solution(connection, user)
        z = "FROM retail._generation g CROSS JOIN LATERAL retail._weighted(g, retail._pairs_of(%(user)s)) k"
        for _ in range(ROUNDS):
            for name, solver in solvers.items():
                row = timed(
                    connection,
                    f"SELECT retail.{solver}(array_agg(k.whitened), array_agg(k.weight), sum(k.whitened * array_fill("
                    f"(1 + k.weight)::real, ARRAY[vector_dims(k.whitened)])::vector))::real[] AS t {z}",
                    {"user": user},
                    times.setdefault(name, []),
                )
                errors.setdefault(name, []).append(distance(np.array(row["t"]), exact))
            for name, asked in (("recommend, trained", user - 1_000_000), ("recommend, folded in", user)):
                ask = "SELECT array_agg(r.item_id) FROM retail.recommend(%(user)s) r"
                timed(connection, ask, {"user": asked}, times.setdefault(name, []))
    median = {name: statistics.median(each) for name, each in times.items()}
    for name, each in median.items():
        error = max(errors[name]) if name in errors else None
        times_trained = each / median["recommend, trained"]
        part.row("ways", factors=factors, items=items, way=name, ms=each, times_trained=times_trained, error=error)


def newcomers(connection: Connection, items: int) -> list[int]:
    """Insert users with the first rows of those who have most; return their ids."""
    connection.execute("DELETE FROM shop.views WHERE user_id > 1000000")
    rows = connection.execute(
        "INSERT INTO shop.views SELECT 1000000 + u.user_id, v.product_id, v.view_count"
        " FROM (SELECT user_id FROM shop.views GROUP BY user_id ORDER BY count(*) DESC LIMIT %s) u"
        " CROSS JOIN LATERAL (SELECT * FROM shop.views v WHERE v.user_id = u.user_id ORDER BY product_id LIMIT %s) v"
        " RETURNING user_id",
        [USERS, items],
    ).fetchall()
    connection.execute("ANALYZE shop.views")
    return sorted({row["user_id"] for row in rows})


def solution(connection: Connection, user: int) -> NDArray[np.float64]:
    """Solve (I + sum a z z^T) t = sum (1 + a) z in double precision."""
    rows = connection.execute(
        "SELECT k.whitened::real[] AS z, k.weight FROM retail._generation g"
        " CROSS JOIN LATERAL retail._weighted(g, retail._pairs_of(%s)) k",
        [user],
    ).fetchall()
    z = np.array([row["z"] for row in rows], dtype=np.float64)
    a = np.array([row["weight"] for row in rows])
    return np.linalg.solve(np.eye(z.shape[1]) + z.T @ (z * a[:, None]), z.T @ (1 + a))


def timed(connection: Connection, statement: str, parameters: dict[str, Any], times: list[float]) -> dict[str, Any]:
    began = time.perf_counter()
    row = connection.execute(statement, parameters).fetchone()
    times.append(1000 * (time.perf_counter() - began))
    assert row
    return row


def distance(found: NDArray[np.float64], exact: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


if __name__ == "__main__":
    main()
