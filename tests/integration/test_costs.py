"""Costs of a training that must not grow with the data: counts of rows read and of statements, never seconds."""

from typing import Any

import psycopg
import pytest
from conftest import Database
from support_sql import wait_for_other_sessions


def rows_read(database: Database) -> int:
    """Return how many rows of the source were read by scans of the whole table, in sessions that have ended."""
    with database.connect() as connection:
        wait_for_other_sessions(connection)
        (row,) = connection.execute(
            "SELECT seq_tup_read AS n FROM pg_stat_user_tables WHERE relid = 'shop.views'::regclass"
        ).fetchall()
        return int(row["n"])


def test_a_training_reads_the_source_once_by_as_many_statements_as_before(
    shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements, execute = list[object](), psycopg.Cursor.execute

    def recorded(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        statements.append(query)
        return execute(self, query, *arguments, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", recorded)
    shop.create()
    for _ in range(3):  # from then on each removes a generation
        shop.retrain()
    found = []
    for copies in (0, 9):
        with shop.connect("application") as connection:
            connection.execute(
                "INSERT INTO shop.views SELECT v.user_id + 1000 * n, v.product_id, v.view_count"
                " FROM shop.views v, generate_series(1, %s) n",
                [copies],
            )
            connection.execute("ANALYZE shop.views")
            (row,) = connection.execute("SELECT count(*) AS n FROM shop.views").fetchall()
        before = rows_read(shop)
        statements.clear()
        assert shop.retrain().live
        found.append(len(statements))
        assert rows_read(shop) - before == row["n"]
    assert found[1] <= found[0] + 10
