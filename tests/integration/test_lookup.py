"""How one user's rows are found, which every recommend() pays: what check_lookup makes of it."""

import psycopg
import pytest
from conftest import Database
from support_sql import make_clicks, set_step, value

from recstore.definition import Source
from recstore.postgres.connection import Connection
from recstore.source import inspection


@pytest.fixture
def history(application: Connection) -> str:
    """A table of 60 thousand rows without any index, and one of items with its key."""
    application.execute("CREATE TABLE shop.catalogue (id bigint PRIMARY KEY)")
    application.execute("INSERT INTO shop.catalogue SELECT generate_series(1, 20000)")
    application.execute("ANALYZE shop.catalogue")
    application.execute("GRANT SELECT ON shop.catalogue TO worker")
    application.execute(
        "CREATE TABLE shop.history AS SELECT n % 3000 AS user_id, n / 3 % 997 AS item_id, 1 AS value, now() AS at"
        " FROM generate_series(1, 60000) n"
    )
    application.execute("ANALYZE shop.history")
    application.execute("GRANT SELECT ON shop.history TO worker")
    return "shop.history"


PLAIN = "SELECT user_id, item_id, value FROM shop.history"
TEXT = "SELECT user_id::text AS user_id, item_id, value FROM shop.history"
JOINED = "SELECT h.user_id, c.id AS item_id, h.value FROM shop.history h JOIN shop.catalogue c ON c.id = h.item_id"
NUMBERED = (
    "SELECT user_id, item_id, value FROM (SELECT *, row_number() OVER ({} at) AS n FROM shop.history) h WHERE n {}"
)
LOOKUPS: list[tuple[bool, str | None, str]] = [
    (False, None, PLAIN),
    (True, "(user_id)", PLAIN),
    (True, "(user_id, item_id)", PLAIN),
    (False, "(item_id, user_id)", PLAIN),
    (False, "(user_id)", TEXT),
    (True, "((user_id::text))", TEXT),
    (True, "(user_id)", "SELECT user_id, item_id, count(*) AS value FROM shop.history GROUP BY 1, 2"),
    (False, "(user_id)", NUMBERED.format("ORDER BY", "> 0")),
    (True, "(user_id)", NUMBERED.format("PARTITION BY user_id ORDER BY", "< 100")),
    (False, "(user_id)", "WITH h AS MATERIALIZED (SELECT * FROM shop.history) SELECT user_id, item_id, value FROM h"),
    (False, None, JOINED),
    (True, "(user_id)", JOINED),
]
"""Whether a user's rows are found by an index, the table's index, the query."""


@pytest.mark.contract
def test_check_lookup_reports_whether_an_index_is_used(shop: Database, application: Connection, history: str) -> None:
    connection = shop.connect()
    for number, (indexed, index, query) in enumerate(LOOKUPS):
        with application.transaction():
            application.execute("DROP INDEX IF EXISTS shop.by")
            if index:
                application.execute(f"CREATE INDEX by ON {history} {index}")
        application.execute(f"ANALYZE {history}")
        shop.create(f"case{number}", source=Source(query=query))
        found = inspection.check_lookup(connection, f"case{number}")
        assert found.indexed is indexed, (index, query)
        assert found.milliseconds is not None


def test_check_lookup_of_nothing_and_of_little_is_content(shop: Database, application: Connection) -> None:
    make_clicks(application, "user_id int, item_id int", "(1, 1)")
    shop.create(source=Source(table="shop.clicks"))
    assert inspection.check_lookup(shop.connect(), "retail").indexed
    application.execute("TRUNCATE shop.clicks")
    found = inspection.check_lookup(shop.connect(), "retail")
    assert found == inspection.Lookup(indexed=True, milliseconds=None)


def test_check_lookup_gives_up_on_a_source_that_takes_too_long(shop: Database, stepping: Connection) -> None:
    set_step(stepping, "PERFORM pg_sleep(1000);")
    shop.create(source=Source(table="shop.live", value="value"))
    found = inspection.check_lookup(shop.connect(), "retail", seconds=0.2)
    assert not found.indexed
    connection = shop.connect()
    set_step(stepping, "IF current_query() LIKE 'EXECUTE%' THEN PERFORM pg_sleep(1000); END IF;")
    assert not inspection.check_lookup(connection, "retail", seconds=0.2).indexed  # users are found
    set_step(stepping, "")
    assert inspection.check_lookup(connection, "retail").problem is None
    assert value(connection, "SHOW statement_timeout") == "0"
    with pytest.raises(psycopg.Error):
        connection.execute("SELECT 1/0")
