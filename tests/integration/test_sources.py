"""Sources as applications have them, good and bad: what is read, what is refused, and that the live generation stays."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Any

import numpy as np
import pytest
from conftest import Command, Database, superuser
from support import look, until
from support_sql import column, make_clicks, read_source, rows, set_step, value

from recstore import pipeline
from recstore.definition import Source
from recstore.errors import (
    PermissionDenied,
    RecstoreError,
    SourceEmpty,
    SourceInvalid,
    SourceTimeout,
    TooManyNulls,
    UnsupportedIdType,
    UnsupportedValueType,
)
from recstore.model.interactions import FOREVER, NO_TIME, SourceReport
from recstore.operations.dry_run import rehearsing
from recstore.postgres.arrow import reading
from recstore.postgres.connection import Connection
from recstore.source import inspection
from recstore.types import IdType


def pull(shop: Database, source: Source, name: str = "read") -> tuple[dict[tuple[Any, Any], float], SourceReport]:
    """Creates a recommender over the source and reads it: (user, item) -> value, and the report."""
    shop.create(name, source=source)
    interactions, report = read_source(shop, name)
    users, items = interactions.users, interactions.items
    pairs = zip(interactions.user_index, interactions.item_index, interactions.values.tolist(), strict=True)
    return {(users.to_python(user), items.to_python(item)): value for user, item, value in pairs}, report


def test_a_table_and_its_query_are_the_same(shop: Database) -> None:
    expected = {
        (row["user_id"], row["product_id"]): float(row["view_count"])
        for row in rows(shop.connect(), "SELECT * FROM shop.views")
    }
    table, report = pull(shop, Source(table="shop.views", item="product_id", value="view_count"), "one")
    assert table == expected
    assert report.rows == report.pairs == len(expected)
    for number, query in enumerate(
        [
            "SELECT user_id, product_id AS item_id, view_count AS value FROM shop.views",
            "SELECT user_id, product_id AS item_id, view_count AS value FROM shop.views;\n ;",
            "WITH v AS (SELECT * FROM shop.views)"
            " SELECT view_count AS value, product_id AS item_id, user_id, 'more' FROM v -- all",
            "SELECT user_id, product_id AS item_id, sum(view_count) AS value FROM shop.views GROUP BY 1, 2",
            "SELECT user_id, product_id AS item_id, view_count * 1.0::float4 AS value FROM shop.views WHERE '50%' = '50%'",
        ]
    ):
        assert pull(shop, Source(query=query), f"query{number}")[0] == expected, query


def test_values_of_every_number_type_and_none(shop: Database, application: Connection) -> None:
    make_clicks(
        application,
        "u varchar(20), i text, small smallint, big bigint, exact numeric(10, 3), single real, double float8",
        "('Zoë', 'a', 1, 5000000000, 1.125, 0.5, 0.1)",
        "('Zoë', 'b', 2, 2, 12345.678, 1e30, 1e300)",
    )
    for name, expected in {
        "small": [1.0, 2.0],
        "big": [5e9, 2.0],
        "exact": [1.125, 12345.678],
        "single": [0.5, float(np.float32(1e30))],
        "double": [0.1, 1e300],
        None: [1.0, 1.0],
    }.items():
        pairs, _ = pull(shop, Source(table="shop.clicks", user="u", item="i", value=name), f"of_{name}".lower())
        assert pairs == {("Zoë", "a"): expected[0], ("Zoë", "b"): expected[1]}
    types = column(
        shop.connect(),
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'of_small.interactions'::regclass"
        " AND attname = 'user_id'",
    )
    assert types == ["text"]


@pytest.mark.contract
def test_domains_are_their_base_types(shop: Database, application: Connection) -> None:
    application.execute(
        "CREATE DOMAIN shop.customer AS bigint CHECK (value > 0); CREATE DOMAIN shop.article AS varchar(10);"
        " CREATE DOMAIN shop.amount AS numeric CHECK (value > 0)"
    )
    make_clicks(
        application,
        "user_id shop.customer, item_id shop.article, value shop.amount, PRIMARY KEY (user_id, item_id)",
        *[f"({user}, 'article {item}', 2)" for user in range(1, 30) for item in range(user % 5, 20, 3)],
    )
    recommender = shop.create(source=Source(table="shop.clicks", value="value"))
    assert (recommender.user_type, recommender.item_type) == (IdType.BIGINT, IdType.TEXT)
    assert shop.retrain().live
    connection = shop.connect()
    seen = column(connection, "SELECT item_id::text FROM shop.clicks WHERE user_id = 3")
    answer = column(connection, "SELECT item_id FROM retail.recommend(3, 100)")
    assert len(answer) == 20 - len(seen)
    assert not set(answer) & set(seen)


NEWEST = {
    "timestamptz": "2024-05-06T07:08:09.123456+00:00",
    "timestamp": "2024-05-06T07:08:09.123456+00:00",
    "date": "2024-05-06T00:00:00+00:00",
}


@pytest.mark.parametrize("kind", NEWEST)
def test_last_at_of_every_time_type(shop: Database, application: Connection, kind: str) -> None:
    with superuser(shop.server) as connection:
        connection.execute(f"ALTER DATABASE {shop.name} SET timezone = 'UTC'")
    make_clicks(
        application,
        f"user_id int, item_id int, value int, seen_at {kind}",
        "(1, 1, 5, '2024-05-06 07:08:09.123456')",
        "(1, 1, 7, '2023-01-01')",
        "(1, 1, 9, NULL)",
        "(2, 1, 3, '1999-12-31 23:59:59')",
    )
    source = Source(table="shop.clicks", value="value", last_at="seen_at", duplicates="last")
    pairs, report = pull(shop, source)
    assert pairs == {(1, 1): 5.0, (2, 1): 3.0}
    assert report.as_dict()["newest"] == NEWEST[kind]
    assert column(shop.connect(), "SELECT last_at FROM read.interactions WHERE value = 9") == [None]


def test_times_are_read_for_those_who_ask(shop: Database, application: Connection) -> None:
    make_clicks(
        application,
        "user_id int, item_id int, value int, at timestamptz",
        "(1, 1, 7, '1970-01-01 00:00:02Z')",
        "(1, 1, 4, '1970-01-01 00:00:01.5Z')",
        "(2, 1, 1, NULL)",
        "(2, 2, 1, '1969-12-31 23:59:59Z')",
    )
    _, report = pull(shop, Source(table="shop.clicks", value="value", last_at="at"))
    interactions, again = read_source(shop, "read", with_times=True)
    assert interactions.times is not None
    assert interactions.times.tolist() == [2_000_000, NO_TIME, -1_000_000]
    assert again == report
    assert read_source(shop, "read")[0].times is None
    pull(shop, Source(table="shop.clicks", value="value"), "timeless")
    assert read_source(shop, "timeless", with_times=True)[0].times is None


def test_nulls_nan_and_nonpositive_values_are_counted_and_left_out(shop: Database, application: Connection) -> None:
    make_clicks(
        application,
        "user_id int, item_id int, value float8",
        *(f"({n}, 1, 1)" for n in range(10, 20)),
        "(NULL, 1, 1), (1, NULL, 1)",
        *(f"(1, 1, {odd})" for odd in ("NULL", "'NaN'", "'Infinity'", "0", "-3", "'-Infinity'", "1e-300")),
    )
    pairs, report = pull(shop, Source(table="shop.clicks", value="value", max_nulls=0.5))
    assert pairs == {(n, 1): 1.0 for n in range(10, 20)} | {(1, 1): 1e-300}
    assert (report.rows, report.nulls, report.nonpositive, report.pairs) == (19, 6, 2, 11)


def test_row_level_security_of_the_source_is_respected(shop: Database, application: Connection) -> None:
    application.execute("ALTER TABLE shop.views ENABLE ROW LEVEL SECURITY")
    application.execute("CREATE POLICY even ON shop.views TO worker USING (user_id % 2 = 0)")
    source = Source(table="shop.views", item="product_id", value="view_count")
    pairs, _ = pull(shop, source, "retail")
    assert {user % 2 for user, _ in pairs} == {0}
    assert shop.retrain().live
    assert set(column(shop.connect(), "SELECT user_id % 2 FROM retail.user_vectors")) == {0}
    # each reads interactions with the rights of its own role: the table's owner sees all rows
    shop.connect().execute("GRANT USAGE ON SCHEMA retail TO application")
    shop.connect().execute("GRANT SELECT ON retail.interactions TO application")
    assert set(column(application, "SELECT user_id % 2 FROM retail.interactions")) == {0, 1}
    assert set(column(shop.connect(), "SELECT user_id % 2 FROM retail.interactions")) == {0}


def test_what_create_refuses_names_the_culprit(shop: Database, application: Connection) -> None:
    application.execute(
        "CREATE TABLE shop.odd (user_id bigint, item_id bigint, value int, amount money, flag boolean, code char(5),"
        " price numeric, at time, moment timestamptz)"
    )
    application.execute("GRANT SELECT ON shop.odd TO worker")
    application.execute("CREATE TABLE shop.secret (user_id bigint, item_id bigint)")
    application.execute("CREATE SCHEMA closed")
    application.execute("CREATE TABLE closed.views (user_id bigint, item_id bigint)")

    select, odd = "SELECT user_id, item_id, value FROM shop.odd", {"table": "shop.odd"}
    secret = 'GRANT SELECT ON shop.secret TO "worker";'
    closed = 'GRANT USAGE ON SCHEMA closed TO "worker";'
    cases: list[tuple[type[RecstoreError], str, dict[str, str]]] = [
        (SourceInvalid, "shop.nothing", {"table": "shop.nothing"}),
        (SourceInvalid, "nowhere.views", {"table": "nowhere.views"}),
        (SourceInvalid, "schema.table", {"table": "shop views"}),
        (SourceInvalid, "schema.table", {"table": "elsewhere.shop.views"}),
        (SourceInvalid, "its columns are amount, at, code", odd | {"user": "customer"}),
        *((SourceInvalid, "'nothing'", odd | {side: "nothing"}) for side in ("item", "value", "last_at")),
        (SourceInvalid, "time without time zone", odd | {"last_at": "at"}),
        (SourceInvalid, "'item_id'", odd | {"user": "item_id", "item": "item_id"}),
        (UnsupportedIdType, "for example price::bigint AS user_id", odd | {"user": "price"}),
        (UnsupportedIdType, "item id column 'code' has type character", odd | {"item": "code"}),
        (UnsupportedValueType, "for example amount::numeric AS value", odd | {"value": "amount"}),
        (UnsupportedValueType, "for example flag::int AS value", odd | {"value": "flag"}),
        (PermissionDenied, secret, {"table": "shop.secret"}),
        (PermissionDenied, f'{closed} GRANT SELECT ON closed.views TO "worker";', {"table": "closed.views"}),
        (PermissionDenied, secret, {"query": "SELECT *, 1 AS value FROM shop.secret"}),
        (PermissionDenied, closed, {"query": "SELECT 1 FROM closed.views"}),
        (SourceInvalid, "none named item_id", {"query": "SELECT 1 AS user_id, 2 AS item, 3 AS value"}),
        (SourceInvalid, "syntax error", {"query": select + " WHERE"}),
        (SourceInvalid, '"shop.nothing"', {"query": "SELECT * FROM shop.nothing"}),
        (UnsupportedIdType, "'user_id' has type numeric", {"query": select.replace("user_id", "price AS user_id")}),
        (
            UnsupportedValueType,
            "extract(epoch FROM value)",
            {"query": select.replace("value", "now() - moment AS value")},
        ),
        (SourceInvalid, "", {"query": ""}),
        (SourceInvalid, "", {"query": "-- nothing"}),
        (SourceInvalid, "", {"query": "UPDATE shop.odd SET value = 1 RETURNING *"}),
        (SourceInvalid, "", {"query": "WITH gone AS (DELETE FROM shop.odd RETURNING *) SELECT * FROM gone"}),
        (SourceInvalid, "", {"query": "SELECT user_id, item_id, value, value FROM shop.odd"}),
        (SourceInvalid, "parameter", {"query": select.replace("user_id", "$1::int AS user_id")}),
    ]
    for error, phrase, source in cases:
        with pytest.raises(error) as caught:
            shop.create("bad", source=Source(**source))
        assert phrase in str(caught.value), source
    assert column(shop.connect(), "SELECT name FROM recstore.recommenders") == []
    assert value(shop.connect(), "SELECT to_regnamespace('bad')") is None
    with rehearsing(shop.connect()) as recorder, pytest.raises(PermissionDenied, match="ON SCHEMA closed"):
        inspection.inspect(recorder.stand_in, Source(table="closed.views"))


ATTACKS = [
    "SELECT 1 AS user_id, 1 AS item_id, 1 AS value; DROP TABLE shop.bait",
    "SELECT 1 AS user_id, 1 AS item_id, 1 AS value) s; DROP TABLE shop.bait; SELECT * FROM (SELECT 1",
    "SELECT 1 AS user_id, 1 AS item_id, 1 AS value) s; DROP TABLE shop.bait; --",
    "SELECT 1 AS user_id, 1 AS item_id, 1 AS value) s LIMIT 0; COMMIT; DROP TABLE shop.bait; /*",
    "SELECT 1 AS user_id, 1 AS item_id, 1 AS value --) s; DROP TABLE shop.bait",
    "SELECT 1 AS user_id, 1 AS item_id, 1 AS value /*",
    "SELECT 1 AS user_id, 1 AS item_id, $x$; DROP TABLE shop.bait; $x$ AS value",
    "SELECT 1 AS user_id, 1 AS item_id, 1 AS value) s; COMMENT ON VIEW retail.interactions IS 'x'; SELECT (1",
    "{schema}.interactions",
    "%s",
    "SELECT 1 AS user_id, 1 AS item_id, 1 AS value FROM shop.bait WHERE shop.drop_it() = 1",
]


def test_no_source_breaks_out_of_its_parentheses(shop: Database) -> None:
    """shop.bait is recstore's own, so that nothing but the parser and READ ONLY protects it."""
    worker = shop.connect()
    application = shop.connect("application")
    application.execute("GRANT CREATE ON SCHEMA shop TO worker")
    worker.execute("CREATE TABLE shop.bait AS SELECT 1 AS user_id, 1 AS item_id, 1 AS value")
    worker.execute("CREATE FUNCTION shop.drop_it() RETURNS int LANGUAGE sql AS 'DROP TABLE shop.bait; SELECT 1'")
    number = count(1)
    for attack in ATTACKS:
        for source in ({"query": attack}, {"table": attack}, {"table": "shop.bait", "user": attack}):
            name = f"attack{next(number)}"
            with suppress(RecstoreError):
                shop.create(name, source=Source(**source))
                shop.retrain(name)
            assert rows(worker, "SELECT * FROM shop.bait") == [{"user_id": 1, "item_id": 1, "value": 1}], source


def test_odd_identifiers_work(shop: Database, application: Connection) -> None:
    application.execute('CREATE SCHEMA "My; shop"')
    application.execute('GRANT USAGE ON SCHEMA "My; shop" TO worker')
    application.execute(
        'CREATE TABLE "My; shop"."Views ""of"" %s.x" ("the user" int, "SELECT" text, "a ""value"")" int, "{schema}" date)'
    )
    application.execute('INSERT INTO "My; shop"."Views ""of"" %s.x" VALUES (1, \'x\', 3, now())')
    application.execute('GRANT SELECT ON "My; shop"."Views ""of"" %s.x" TO worker')
    source = Source(
        table='"My; shop"."Views ""of"" %s.x"', user="the user", item="SELECT", value='a "value")', last_at="{schema}"
    )
    pairs, report = pull(shop, source)
    assert pairs == {(1, "x"): 3.0}
    assert report.newest is not None


@pytest.mark.contract
def test_reading_cannot_write(shop: Database, stepping: Connection) -> None:
    shop.create(source=Source(table="shop.live", value="value"))
    assert read_source(shop, "retail")[1].rows == 9
    stepping.execute("CREATE SEQUENCE shop.numbers; GRANT ALL ON shop.numbers TO worker")
    for change in ("INSERT INTO shop.log VALUES ('x')", "PERFORM nextval('shop.numbers')", "CREATE TABLE shop.more ()"):
        set_step(stepping, f"{change};")
        with pytest.raises(SourceInvalid, match="read-only transaction"):
            read_source(shop, "retail")
    assert rows(stepping, "SELECT * FROM shop.log") == []
    assert value(stepping, "SELECT is_called FROM shop.numbers") is False


def test_everything_is_read_in_one_snapshot(shop: Database, stepping: Connection) -> None:
    """A row is committed while the source is being read, by another session, at a known moment: the reader waits for an
    advisory lock in the middle. A function that is VOLATILE sees new rows unless the snapshot is the transaction's."""
    set_step(
        stepping,
        "IF id = 5 THEN PERFORM pg_advisory_xact_lock(5); END IF;"
        " SELECT count(*) INTO found FROM shop.log; IF found > 0 THEN RETURN 100; END IF;",
    )
    shop.create(source=Source(table="shop.live", value="value"))
    stepping.execute("SELECT pg_advisory_lock(5)")
    blocked = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_source, shop, "retail")
        until(lambda: column(stepping, blocked))
        stepping.execute("INSERT INTO shop.log VALUES ('new'); SELECT pg_advisory_unlock(5)")
        interactions, report = reading.result()
    assert report.rows == 9
    assert set(interactions.values) == {1.0}
    assert set(read_source(shop, "retail")[0].values) == {100.0}


def test_a_slow_source_is_stopped(shop: Database, stepping: Connection) -> None:
    shop.create(source=Source(table="shop.live", value="value"))
    assert shop.retrain().live
    before = value(shop.connect(), "SELECT retail.generation()")
    set_step(stepping, "PERFORM pg_sleep(1000);")
    settings = shop.settings.model_copy(update={"source_timeout": 0.2})
    with pytest.raises(SourceTimeout, match=r"0\.2 s"):
        pipeline.retrain(shop.url, settings, "retail")
    assert value(shop.connect(), "SELECT retail.generation()") == before
    assert value(shop.connect(), "SELECT count(*) FROM retail.popular_items(100)") == 9


def test_reading_ahead_of_an_error_is_cancelled(shop: Database) -> None:
    """The second batch takes an hour; it is read while the first one is used."""
    select = (
        "SELECT CASE WHEN n > 900 THEN pg_sleep(60)::text ELSE repeat('x', 100) END FROM generate_series(1, 1000) n"
    )
    running = "SELECT FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()"

    def use() -> None:
        with reading(shop.url, "test", "reading", batch_bytes=80_000) as transaction:
            batches = transaction.batches(select)
            assert len(next(batches)) < 900
            until(lambda: look(shop, running))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    until(lambda: not look(shop, running))


def test_the_live_generation_survives_every_failure_of_the_source(shop: Database, application: Connection) -> None:
    application.execute(
        "CREATE TABLE shop.clicks AS SELECT * FROM shop.views;"
        "CREATE VIEW shop.clicked AS SELECT user_id, product_id AS item_id, 12 / view_count AS value FROM shop.clicks;"
        "GRANT SELECT ON shop.clicks, shop.clicked TO worker"
    )
    shop.create(source=Source(table="shop.clicked", value="value", max_nulls=0.01))
    live = shop.retrain().generation
    connection = shop.connect()
    answer = rows(connection, "SELECT * FROM retail.recommend(1, 5)")

    def fails(error: type[RecstoreError], match: str, spoil: str, repair: str) -> None:
        application.execute(spoil)
        with pytest.raises(error, match=match) as caught:
            shop.retrain()
        application.execute(repair)
        assert value(connection, "SELECT retail.generation()") == live
        assert rows(connection, "SELECT * FROM retail.recommend(1, 5)") == answer
        last = rows(connection, "SELECT last_retrain_state, last_error FROM recstore.status")
        assert last == [{"last_retrain_state": "failed", "last_error": caught.value.message}]

    reset = "TRUNCATE shop.clicks; INSERT INTO shop.clicks SELECT * FROM shop.views"
    no_user = "UPDATE shop.clicks SET user_id = NULL WHERE user_id < 10"
    fails(SourceEmpty, "usable", "TRUNCATE shop.clicks", reset)
    fails(SourceInvalid, "division by zero", "UPDATE shop.clicks SET view_count = 0 WHERE user_id = 200", reset)
    fails(TooManyNulls, "1.0%", no_user, reset)
    grant = "GRANT SELECT ON shop.clicked TO worker"
    fails(PermissionDenied, "view clicked", "REVOKE SELECT ON shop.clicked FROM worker", grant)
    assert shop.retrain().generation > live


@pytest.mark.parametrize("kind", NEWEST)
def test_infinity_and_far_years_are_the_newest(shop: Database, application: Connection, kind: str) -> None:
    """Value 1 is right for each user: of the last row in time, which is not the last one read."""
    last = {1: "infinity", 2: "290000-01-01", 3: "294276-12-31", 4: "2020-01-01", 5: "2020-01-01", 6: "4000-01-01 BC"}
    older = {1: "290000-01-01", 2: "12000-01-01", 3: "2020-01-01", 4: "-infinity", 5: None, 6: "-infinity"}
    make_clicks(
        application,
        f"user_id int, item_id int, value int, seen_at {kind}",
        *(f"({user}, 1, 1, '{at}')" for user, at in last.items()),
        *(f"({user}, 1, 9, {(at and repr(at)) or 'NULL'})" for user, at in older.items()),
    )
    source = Source(table="shop.clicks", value="value", last_at="seen_at", duplicates="last")
    pairs, report = pull(shop, source)
    assert set(pairs.values()) == {1.0}
    assert report.as_dict()["newest"].startswith("2020-01-01T00:00:00")
    timed, _ = read_source(shop, "read", with_times=True)
    assert timed.times is not None
    assert timed.times[0] == FOREVER
    assert (timed.times[1:] != NO_TIME).all()


def test_text_ids_too_long_for_an_index_are_named_before_a_training(shop: Database, application: Connection) -> None:
    """Addresses as ids, which do not compress. The longest that fit are published, and odd ones too."""
    tail = "".join(hashlib.md5(bytes([n])).hexdigest() for n in range(100))
    ids = ["", " ", "\t\n", "\u200b", "é", "0", *(f"{n}{tail}"[: 1299 + n % 2] for n in range(10, 30))]
    make_clicks(application, "user_id text, item_id text")
    fill = (
        "INSERT INTO shop.clicks SELECT u, (%s::text[])[1 + n %% %s] FROM (SELECT u, u * 7 + i * i AS n"
        " FROM generate_series(1, 100) u, generate_series(1, 8) i)"
    )
    application.execute(fill, [ids, len(ids)])
    shop.create(source=Source(table="shop.clicks", seen="published"))
    assert shop.retrain().live
    live = set(column(shop.connect(), "SELECT item_id FROM retail.item_vectors"))
    assert live == set(ids)

    def refused(*words: str) -> None:
        with pytest.raises(SourceInvalid) as caught:
            shop.retrain()
        assert [one for one in words if one not in caught.value.message] == []

    stays = "The live generation of 'retail' stays."
    application.execute("UPDATE shop.clicks SET user_id = 'é' || %s WHERE user_id = '7'", [tail[:1299]])
    refused("1 user id is longer than 1,300 bytes", "has 1,301 bytes", "md5(user_id) AS user_id", stays)
    shop.alter(source=Source(table="shop.clicks"))
    application.execute("UPDATE shop.clicks SET item_id = left('http://a/' || %s, 2600) WHERE item_id = ''", [tail])
    assert shop.retrain().live
    application.execute("UPDATE shop.clicks SET item_id = %s || item_id WHERE length(item_id) = 1300", [tail[:1301]])
    refused("10 item ids are longer than 2,600 bytes", "has 2,601 bytes and begins with '93b885", "md5(item_id)", stays)
    shop.create("second", source=Source(table="shop.clicks"))
    with pytest.raises(SourceInvalid) as caught:
        shop.retrain("second")
    assert "live generation" not in caught.value.message


def test_a_source_without_rows_names_the_row_level_security(recstore: Command, shop: Database) -> None:
    shop.create()
    application = shop.connect("application")
    application.execute("ALTER TABLE shop.views ENABLE ROW LEVEL SECURITY")
    limited = "Row-level security is on for shop.views, and worker sees only what the policies show."
    answer = recstore("retrain retail").expect(1, "0 read", limited, "recstore doctor retail")
    assert "live generation" not in answer.err
    assert "live generation" not in recstore("evaluate retail").expect(1, limited).err
    application.execute("CREATE POLICY everything ON shop.views TO worker USING (true); DELETE FROM shop.views")
    assert "Row-level" not in recstore("retrain retail").expect(1, "0 read").err


def test_returns_are_warned_of_and_netted_on_request(recstore: Command, shop: Database) -> None:
    application = shop.connect("application")
    make_clicks(application, "user_id int, item_id int, qty int")
    application.execute(
        "INSERT INTO shop.clicks SELECT u, i, 5 FROM generate_series(1, 60) u, generate_series(1, 12) i WHERE (u * i) % 5 < 3;"
        "INSERT INTO shop.clicks SELECT user_id, 1, -5 FROM shop.clicks WHERE item_id = 1"
    )
    recstore("create retail --table shop.clicks --value qty --factors 4 --iterations 2").expect(0)
    warning = (
        "36 pairs of a user and an item have negative rows next to positive ones, and only the positive ones count."
    )
    recstore("retrain retail").expect(0, warning, "recstore alter retail --negative net", "36 zero or negative dropped")
    items = "SELECT item_id FROM retail.item_vectors ORDER BY 1"
    assert column(shop.connect(), items) == [*range(1, 13)]
    recstore("alter retail --negative net").expect(0)
    assert "negative rows" not in recstore("retrain retail").expect(0, "36 zero or negative dropped").err
    assert column(shop.connect(), items) == [*range(2, 13)]


CASE_INSENSITIVE = """
    CREATE COLLATION public.ci (provider = libc, locale = 'C');
    UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'ci';
    CREATE TYPE public.citext;
    CREATE FUNCTION public.citextin(cstring) RETURNS citext LANGUAGE internal IMMUTABLE STRICT AS 'textin';
    CREATE FUNCTION public.citextout(citext) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
    CREATE TYPE public.citext (INPUT = citextin, OUTPUT = citextout, LIKE = text, COLLATABLE = true);
"""
"""What a server with ICU and citext has: the embedded one cannot create either, but its catalogs can say so."""


def test_ids_that_are_equal_and_not_the_same_are_refused(recstore: Command, shop: Database) -> None:
    with superuser(shop.server, shop.name) as connection:
        connection.execute(CASE_INSENSITIVE)
    make_clicks(
        shop.connect("application"), 'user_id text COLLATE ci, "Item" text, mail citext', "('A', 'x')", "('a', 'y')"
    )
    source = "create retail --table shop.clicks --item Item"
    words = (
        "'user_id' has the collation 'ci'",
        'lower(user_id) COLLATE "C" AS user_id',
        "pass that form to the functions",
    )
    recstore(source).expect(2, *words)
    recstore(f"{source} --user mail").expect(2, "has type public.citext", "lower(mail::text) AS user_id")
    select = 'SELECT lower(user_id) COLLATE "C" AS user_id, "Item" AS item_id, 1 AS value FROM shop.clicks'
    recstore("create retail --factors 1 --query", select).expect(0)
    assert read_source(shop, "retail")[1].users == 1
    recstore("alter retail --candidates", "SELECT user_id FROM shop.clicks").expect(
        2, "'user_id' has the collation 'ci'"
    )
    assert "collation" not in recstore("doctor retail").out
    with superuser(shop.server, shop.name) as connection:
        connection.execute("UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'C'")
        try:
            found = recstore("doctor retail").out
        finally:
            connection.execute("UPDATE pg_collation SET collisdeterministic = true WHERE collname = 'C'")
    assert "ERROR: collations of retail: user_id of the view interactions has the collation C" in " ".join(
        found.split()
    )


def test_numbers_that_double_precision_does_not_have(shop: Database, application: Connection) -> None:
    make_clicks(
        application,
        "user_id int, item_id int, value numeric, twice numeric GENERATED ALWAYS AS (value * 2) STORED",
        *(
            f"({n}, 1, {value})"
            for n, value in enumerate(("'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "1e300", "1e-300", 2))
        ),
    )
    source = Source(table="shop.clicks", value="value", max_nulls=0.5)
    pairs, report = pull(shop, source)
    assert pairs == {(4, 1): 1e300, (5, 1): 1e-300, (6, 1): 2.0}
    assert (report.nulls, report.nonpositive) == (3, 1)
    assert pull(shop, source.model_copy(update={"value": "twice"}), "doubled")[0][6, 1] == 4.0
    for beyond in ("1e400", "1e-400"):
        application.execute(f"UPDATE shop.clicks SET value = {beyond} WHERE user_id = 6")
        with pytest.raises(SourceInvalid, match="is out of range for type double precision") as caught:
            read_source(shop, "read")
        assert len(caught.value.message) < 400


def test_a_source_that_changes_its_types_is_refused(recstore: Command, shop: Database) -> None:
    recstore("create retail --table shop.views --item product_id --value view_count --factors 4").expect(0)
    recstore("retrain retail").expect(0)
    application = shop.connect("application")
    change = "ALTER TABLE shop.views RENAME TO views_{}; CREATE TABLE shop.views AS SELECT {}, product_id, {} FROM shop.views_0;"
    grant = "GRANT SELECT ON shop.views TO worker"
    for number, (user, views, *words) in enumerate(
        [
            ("'u' || user_id AS user_id", "view_count", "text", "bigint"),
            ("user_id", "view_count::money", "money"),
            ("user_id AS customer_id", "view_count", "no column 'user_id'"),
            ("user_id::int", "view_count::int8 AS view_count", "integer", "bigint"),
        ]
    ):
        application.execute(change.format(number, user, views) + grant)
        recstore("retrain retail").expect(2, *words)
    application.execute(
        "DROP TABLE shop.views; CREATE VIEW shop.views AS SELECT * FROM shop.views_0 WHERE false;" + grant
    )
    recstore("retrain retail").expect(1, "0 read")
    recstore("doctor retail").expect(1, "the source has no rows")


def test_a_key_in_place_of_an_id_is_warned_of(recstore: Command, shop: Database) -> None:
    application = shop.connect("application")
    make_clicks(application, "nr int GENERATED ALWAYS AS IDENTITY, user_id int, item_id int")
    application.execute(
        "INSERT INTO shop.clicks (user_id, item_id) SELECT u % 20, u % 9 FROM generate_series(1, 150) u"
    )
    recstore("create retail --table shop.clicks --item nr --factors 4 --iterations 2").expect(0)
    recstore("retrain retail").expect(
        0, "Each of the 150 items has a single user", "source's item id is the key of its rows"
    )
    recstore("alter retail --item item_id").expect(0)
    assert "single" not in recstore("retrain retail --force").expect(0).err
