"""What the tests of workers ask of the database."""

from typing import Any

from conftest import Database
from support import look, states, until


def live(database: Database) -> int:
    """The live generation, which answers completely."""
    rows = look(database, "SELECT retail.generation() AS g FROM retail.recommend(1, 10)")
    assert len(rows) == 10
    return int(rows[0]["g"])


def runs(database: Database) -> list[str]:
    """The states of the retrains that workers began."""
    rows = look(database, "SELECT state FROM recstore.runs WHERE job = 'retrain' ORDER BY run")
    return [row["state"] for row in rows][1:]


def one(database: Database, request: int) -> dict[str, Any]:
    return look(database, "SELECT * FROM recstore.requests WHERE request = %s", request)[0]


def nothing_left(database: Database, name: str = "retail") -> None:
    """Also of the listener, which is there as long as the worker is."""
    until(lambda: set(states(database, name).values()) <= {"live", "previous", "next"})
    assert look(database, "SELECT FROM pg_inherits WHERE inhdetachpending") == []
    assert (
        look(
            database, "SELECT FROM recstore.runs WHERE state IN ('running') OR (state = 'abandoned' AND error IS NULL)"
        )
        == []
    )
    locks = (
        "SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE locktype = 'advisory' AND d.datname = %s"
    )
    until(lambda: look(database, locks, database.name) == [])
    tables = look(
        database, "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r'", name
    )
    numbers = {int(row["relname"].rsplit("_", 1)[1]) for row in tables}
    assert numbers == set(states(database, name))
