"""What another role, the application's own relations and inherited settings cannot do to recstore's sessions."""

from collections.abc import Iterator

import psycopg
import pytest
from conftest import VERSION, Command, Database, superuser
from support import look

from recstore.background import dispatch, health
from recstore.sql import queries

CREATE = "create retail --table shop.views --item product_id --value view_count --factors 8 --iterations 2 --yes"

COMMANDS = (
    "db upgrade",
    CREATE + " --titles shop.products:product_id:title",
    "alter retail --candidates-table shop.products --candidates-condition visible",
    "alter retail --exclude SELECT/**/user_id,product_id/**/item_id/**/FROM/**/shop.views",  # a line is split at spaces
    "retrain retail",
    "status",
    "runs",
    "generations retail",
    "recommend retail 1",
    "similar retail 1",
    "request retrain retail",
    "requests",
    "retrain retail --force",
    "rollback retail",
    "reindex retail",
    "prune retail --yes",
    "evaluate retail --sql",
    "recommend-all retail --into out.lists --k 3 --yes",
    "doctor retail",
    "db check",
    "drop retail --yes",
)

SHADOWS = (
    "pg_try_advisory_lock(integer, smallint)",
    "pg_try_advisory_lock(integer, integer)",
    "pg_advisory_unlock(integer, integer)",
    "current_setting(text, boolean)",
    "set_config(text, text, boolean)",
    "to_regclass(text)",
    "format_type(oid, integer)",
    "hashtextextended(text, bigint)",
    "pg_get_viewdef(oid)",
    "has_schema_privilege(oid, text)",
)
"""Functions that recstore's statements call, with exactly the types of PostgreSQL's or of psycopg's parameters."""

OPERATORS = (
    "= (oid, oid)",
    "= (text, text)",
    "= (name, text)",
    "= (bigint, bigint)",
    "<> (regproc, integer)",
)


def make_trap(database: Database) -> None:
    """Make a schema first on everyone's search_path, whose functions and operators record who calls them."""
    with superuser(database.server, database.name) as connection:
        connection.execute("CREATE SCHEMA trap; GRANT USAGE, CREATE ON SCHEMA trap TO application, worker")
        connection.execute(
            "CREATE TABLE trap.caught (name text, role text DEFAULT session_user); GRANT ALL ON trap.caught TO PUBLIC"
        )
        returns = "RETURNS boolean LANGUAGE plpgsql AS $$BEGIN INSERT INTO trap.caught VALUES (%r); RETURN NULL; END$$"
        for shadow in SHADOWS:
            connection.execute(f"CREATE FUNCTION trap.{shadow} " + returns % shadow)
        for number, operator in enumerate(OPERATORS):
            symbol, types = operator.split(" ", 1)
            connection.execute(f"CREATE FUNCTION trap.op{number}{types} " + returns % operator)
            left, right = types.strip("()").split(", ")
            connection.execute(
                f"CREATE OPERATOR trap.{symbol} (FUNCTION = trap.op{number}, LEFTARG = {left}, RIGHTARG = {right})"
            )
        connection.execute(f"ALTER DATABASE {database.name} SET search_path = trap, pg_catalog, public")
        connection.execute("CREATE SCHEMA out AUTHORIZATION worker")


def run_every_job(recstore: Command, database: Database) -> None:
    """Run each command, a dispatch and a look at the health; each must work."""
    for command in COMMANDS:
        answer = recstore(command)
        assert answer.code in (0, 1, 6), (command, answer.out, answer.err)
        if command.startswith("request "):
            sent = dispatch.dispatch(database.url, database.settings, lambda _job, _name: None)
            assert sent
            with health.asking(database.url, "test") as connection:
                health.check_database(connection)


def test_no_session_calls_what_another_role_put_on_the_search_path(recstore: Command, shop: Database) -> None:
    make_trap(shop)
    run_every_job(recstore, shop)
    assert look(shop, 'SELECT c.name COLLATE pg_catalog."C", c.role FROM trap.caught c') == []


SETTINGS = {
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "TimeZone": "<+0545>-05:45",
    "array_nulls": "off",
    "backslash_quote": "off",
    "bytea_output": "escape",
    "check_function_bodies": "off",
    "client_encoding": "LATIN1",
    "client_min_messages": "error",
    "default_statistics_target": "1",
    "default_transaction_deferrable": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "enable_hashjoin": "off",
    "enable_indexscan": "off",
    "enable_partition_pruning": "off",
    "enable_sort": "off",
    "extra_float_digits": "-15",
    "idle_in_transaction_session_timeout": "1000",
    "idle_session_timeout": "1000",
    "jit_above_cost": "0",
    "lock_timeout": "1",
    "plan_cache_mode": "force_generic_plan",
    "quote_all_identifiers": "on",
    "row_security": "off",
    "search_path": "",
    "standard_conforming_strings": "off",
    "statement_timeout": "50",
    "synchronous_commit": "off",
    "transform_null_equals": "on",
    "work_mem": "64",
}
"""The most hostile values that PostgreSQL accepts from a role or a database."""


def test_no_session_depends_on_what_a_role_or_a_database_sets(recstore: Command, shop: Database) -> None:
    with superuser(shop.server, shop.name) as connection:
        connection.execute("UPDATE shop.products SET title = 'Käse 🧀 \\ ' || title")
        connection.execute("CREATE SCHEMA out AUTHORIZATION worker")
        for owner in (f"DATABASE {shop.name}", f"ROLE worker IN DATABASE {shop.name}"):
            for name, value in SETTINGS.items():
                connection.execute(f"ALTER {owner} SET {name} = '{value}'")
    run_every_job(recstore, shop)


SPIES = """
    CREATE TABLE shop.written (by_whom text, role text DEFAULT session_user);
    GRANT ALL ON shop.written TO PUBLIC;
    CREATE FUNCTION shop.spy(by_whom text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
        BEGIN
            INSERT INTO shop.written VALUES (by_whom);
            RETURN true;
        EXCEPTION WHEN read_only_sql_transaction THEN
            RETURN true;
        END
    $$;
    CREATE FUNCTION shop.liar(by_whom text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
        BEGIN
            RETURN shop.spy(by_whom);
        END
    $$;
    CREATE VIEW shop.spied_views AS
        SELECT * FROM shop.views WHERE shop.liar('the source, planned') AND (user_id > 2 OR shop.spy('the source'));
    CREATE VIEW shop.spied_candidates AS
        SELECT product_id FROM shop.products
        WHERE shop.liar('the candidates, planned') AND (product_id > 2 OR shop.spy('the candidates'));
    CREATE VIEW shop.spied_titles AS SELECT product_id, title FROM shop.products WHERE shop.spy('the titles');
    GRANT SELECT ON ALL TABLES IN SCHEMA shop TO worker;
"""


def test_whatever_is_the_applications_is_read_in_read_only_transactions(recstore: Command, shop: Database) -> None:
    shop.connect("application").execute(SPIES)
    with superuser(shop.server, shop.name) as connection:
        connection.execute("CREATE SCHEMA out AUTHORIZATION worker")
    recstore("db upgrade")
    for command in COMMANDS:
        command = command.replace("shop.views", "shop.spied_views").replace("shop.products", "shop.spied_titles")
        command = command.replace(
            "-table shop.spied_titles --candidates-condition visible", "-table shop.spied_candidates"
        )
        answer = recstore(command)
        assert answer.code in (0, 1, 6), (command, answer.out, answer.err)
        assert look(shop, "SELECT by_whom, role, count(*) FROM shop.written GROUP BY 1, 2") == [], command


def test_a_table_that_is_swapped_in_is_read(recstore: Command, shop: Database) -> None:
    """A nightly job builds the table from scratch and renames it into place."""
    application = shop.connect("application")
    recstore(CREATE)
    recstore("alter retail --candidates-table shop.products --candidates-condition visible")
    assert recstore("retrain retail").code == 0
    for table, change in {
        "views": "user_id + 1000 AS user_id, product_id, view_count",
        "products": "product_id, title, visible",
    }.items():
        application.execute(f"CREATE TABLE shop.new AS SELECT {change} FROM shop.{table}")
        application.execute(f"ALTER TABLE shop.{table} RENAME TO {table}_old; ALTER TABLE shop.new RENAME TO {table}")
    application.execute("GRANT SELECT ON shop.views, shop.products TO worker")
    assert (
        "stale-views of retail: the view interactions reads shop.views_old instead of shop.views"
        in recstore("doctor retail").out
    )
    drift = "the view interactions reads shop.views_old instead of shop.views"
    assert f"drift         {drift}, and 1 more. Run: recstore doctor retail" in recstore("status").out
    assert recstore("status --json").json["recommenders"][0]["drift"][0] == drift
    recstore("db grant application")  # which watches, and sees no more than the views
    assert "drift" not in recstore("status", url=shop.url_of("application")).out
    with application.transaction():
        application.execute("LOCK TABLE shop.views")
        assert "drift" not in recstore("status").out
    answer = recstore("retrain retail --force")
    assert answer.code == 0, answer.err
    assert answer.err.count("after a rename or a swap of tables; it is created again") == 2
    assert look(shop, "SELECT min(user_id) AS least FROM retail.user_vectors") == [{"least": 1001}]
    assert "stale" not in recstore("doctor retail").out
    assert "drift" not in recstore("status").out


@pytest.mark.parametrize(
    "swap",
    {
        "columns": "ALTER TABLE shop.views ADD new bigint; UPDATE shop.views SET new = user_id + 1000;"
        " ALTER TABLE shop.views RENAME user_id TO former; ALTER TABLE shop.views RENAME new TO user_id",
        "views": "CREATE VIEW shop.next AS SELECT user_id + 1000 AS user_id, product_id, view_count FROM shop.views;"
        " ALTER TABLE shop.views RENAME TO former; ALTER VIEW shop.next RENAME TO views; GRANT SELECT ON shop.views TO worker",
    }.items(),
    ids=lambda swap: swap[0],
)
def test_a_view_follows_no_rename(swap: tuple[str, str], recstore: Command, shop: Database) -> None:
    recstore(CREATE)
    recstore("retrain retail")
    shop.connect("application").execute(swap[1])
    assert "the view interactions reads" in recstore("doctor retail").out
    assert recstore("retrain retail --force").code == 0
    assert look(shop, "SELECT min(user_id) AS least FROM retail.user_vectors") == [{"least": 1001}]


def test_default_privileges_give_nobody_rights_on_recstores_objects(recstore: Command, shop: Database) -> None:
    with shop.connect("postgres") as connection:  # as a new database
        connection.execute("DROP SCHEMA recstore, recstore_private CASCADE")
    for kinds, roles in (("TABLES SCHEMAS", "PUBLIC, application"), ("SEQUENCES FUNCTIONS", "application")):
        for kind in kinds.split():
            shop.connect().execute(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {kind} TO {roles}")  # type: ignore[arg-type]
    recstore("db upgrade").expect(0)
    recstore(CREATE + " --seen published")
    recstore("retrain retail")
    shop.connect().execute("DROP VIEW retail.interactions")
    assert recstore("alter retail --factors 80 --resize").code == 0  # other parents
    assert recstore("retrain retail").code == 0  # which creates the view again
    shop.connect().execute("DROP FUNCTION retail.seen, retail._seen_published")
    recstore("db upgrade").expect(0)
    connection, ours = shop.connect(), ["retail", "recstore", "recstore_private"]
    assert queries.rows(connection, "revokes", schemas=ours) == []
    recstore("db grant application").expect(0)
    shop.connect().execute("GRANT EXECUTE ON FUNCTION retail._seen_published TO application")  # by an earlier version
    recstore("db upgrade").expect(0)
    (watchers,) = [f for f in recstore("doctor --json").json["findings"] if f["check"] == "watchers"]
    assert "to watch recommenders or ask for jobs: application (" in watchers["found"]
    seen = "SELECT has_function_privilege('application', p.oid, 'EXECUTE') AS may FROM pg_proc p WHERE proname ~ '_seen_pub'"
    assert look(shop, seen) == [{"may": False}]
    assert queries.rows(connection, "revokes", schemas=ours)  # what was granted stays


OWNERS = """
    SELECT relowner::regrole::text AS role FROM pg_class WHERE relnamespace::regnamespace::text IN ('retail', 'made')
    UNION SELECT proowner::regrole::text FROM pg_proc WHERE pronamespace = 'retail'::regnamespace
"""


@pytest.fixture
def boss(shop: Database) -> Iterator[str]:
    """The URL of a member of recstore's role, which may read more of the source."""
    with superuser(shop.server, shop.name) as connection:
        connection.execute(
            "CREATE ROLE boss LOGIN; GRANT worker TO boss; ALTER TABLE shop.views ENABLE ROW LEVEL SECURITY;"
            " CREATE POLICY few ON shop.views TO worker USING (user_id <= 200); CREATE SCHEMA made AUTHORIZATION worker;"
            " CREATE POLICY all_rows ON shop.views TO boss USING (true)"
        )
    yield shop.url_of("boss")
    with superuser(shop.server, shop.name) as connection:
        connection.execute("DROP OWNED BY boss; DROP ROLE boss")


def test_a_member_of_recstore_s_role_works_as_that_role(recstore: Command, shop: Database, boss: str) -> None:
    """What it makes is the owner's, and it sees of the source what the owner sees."""
    recstore(CREATE + " --seen published", url=boss).expect(0)
    recstore("retrain retail", url=boss).expect(0)
    assert look(shop, "SELECT max(user_id) AS last FROM retail.user_vectors") == [{"last": 200}]
    query = "SELECT user_id, product_id AS item_id, view_count::float8 AS value FROM shop.views"
    recstore("alter retail --query", query, url=boss).expect(0)
    recstore("grant retail application", url=boss).expect(0)
    shop.connect().execute("DROP FUNCTION retail._seen_published, retail.predict; DROP VIEW retail.interactions")
    recstore("db upgrade", url=boss).expect(0)
    recstore("similar-all retail --into made.lists", url=boss).expect(0)
    recstore("doctor retail", url=boss)
    if VERSION >= 16:
        shop.connect("postgres").execute("GRANT worker TO boss WITH INHERIT TRUE, SET FALSE")
        recstore("retrain retail", url=boss).expect(1, 'GRANT "worker" TO "boss" WITH SET TRUE;')
    assert look(shop, OWNERS) == [{"role": "worker"}]
    assert len(shop.connect("application").execute("SELECT FROM retail.similar_items(1, 5)").fetchall()) == 5
    recstore("retrain retail").expect(0)


def test_no_superuser_runs_the_applications_functions(recstore: Command, shop: Database) -> None:
    recstore(CREATE)
    url = shop.url_of("postgres")
    for command in "retrain retail", "recommend retail 1", "alter retail --factors 9", "db upgrade", "evaluate retail":
        recstore(command, url=url).expect(1, "postgres is a superuser", "Connect as worker")
    shop.connect("application").execute("ALTER TABLE shop.views RENAME COLUMN view_count TO n")
    for role, seen in (("postgres", 0), ("worker", 1)):  # who sees more of the sessions, and may look at that
        found = recstore("doctor --json", url=shop.url_of(role)).json["findings"]
        assert len([f for f in found if f["check"] == "stale-views"]) == seen
        assert [f["found"] for f in found if f["check"] == "owner"] == [
            f"recstore works here as worker; this connection is {role}'s, a superuser"
            if role == "postgres"
            else "recstore's schemas belong to worker, whose rights this role has"
        ]


def test_a_dropped_schema_can_be_dropped_and_made_again(recstore: Command, shop: Database) -> None:
    recstore(CREATE)
    recstore("retrain retail")
    recstore(CREATE.replace(" retail ", " zoo "))
    for change, remedy in (
        ("ALTER SCHEMA retail RENAME TO away", "ALTER SCHEMA away RENAME TO retail;"),
        ("DROP SCHEMA retail CASCADE", "recstore drop retail"),
    ):
        shop.connect().execute(change)  # type: ignore[arg-type]
        shop.connect().execute("UPDATE recstore_private.recommenders SET objects_version = 1 WHERE name = 'zoo'")
        recstore("retrain retail").expect(1, remedy)
        recstore("db upgrade").expect(1, remedy)
        assert look(shop, "SELECT objects_version > 1 AS done FROM recstore.recommenders WHERE name = 'zoo'") == [
            {"done": True}
        ]
        found = recstore("doctor retail --json").json["findings"]
        assert [f["remedies"] for f in found if f["check"] == "objects"] == [[remedy]]
        if remedy.startswith("ALTER"):
            recstore("drop retail --yes").expect(1, remedy)
            shop.connect().execute(remedy)  # type: ignore[arg-type]
            recstore("retrain retail --force").expect(0)
    assert recstore("drop retail --yes").code == 0
    recstore(CREATE)
    assert recstore("retrain retail").code == 0


@pytest.mark.usefixtures("shop")
def test_a_name_of_a_role_is_refused(recstore: Command) -> None:
    assert "a role has this name" in recstore(CREATE.replace(" retail ", " application ")).err


def test_titles_in_a_column_that_an_answer_has(recstore: Command, shop: Database) -> None:
    shop.connect("application").execute("ALTER TABLE shop.products RENAME title TO score")
    recstore(CREATE + " --titles shop.products:product_id:score")
    recstore("retrain retail")
    answer = recstore("recommend retail 1 --k 2 --json")
    assert all(row["title"].startswith("product ") and row["score"] < 2 for row in answer.json), answer.out


def test_several_titles_of_an_item_in_a_table_with_a_percent_sign(recstore: Command, shop: Database) -> None:
    shop.connect("application").execute(
        """CREATE TABLE shop."50% titles" AS SELECT product_id, kind || title AS title FROM shop.products,"""
        """ unnest('{old ,"new "}'::text[]) kind; GRANT SELECT ON shop."50% titles" TO worker"""
    )
    recstore(CREATE + " --titles", 'shop."50% titles":product_id:title')
    recstore("retrain retail")
    for command in "recommend retail 1 --k 5", "similar retail 1 --k 5", "popular retail --k 5":
        answer = recstore(f"{command} --json").json
        assert len({row["item_id"] for row in answer}) == len(answer) == 5, command
        assert all(row["title"].startswith("new product") for row in answer), command
    evaluated = recstore("evaluate retail --json").json
    assert evaluated["examples"][0]["heading"].startswith("Similar to new product")


def test_pgvector_in_another_schema_is_noticed_and_followed(recstore: Command, shop: Database) -> None:
    recstore(CREATE)
    recstore("retrain retail")
    with superuser(shop.server, shop.name) as connection:
        connection.execute("CREATE SCHEMA extensions; GRANT USAGE ON SCHEMA extensions TO PUBLIC")
        connection.execute("ALTER EXTENSION vector SET SCHEMA extensions")
    assert "ERROR: objects of retail: made for pgvector's former schema" in recstore("doctor retail").out
    assert "drift         the view item_vectors was made for pgvector's former schema" in recstore("status").out
    assert recstore("db check").code != 0
    assert "recstore db upgrade" in recstore("recommend retail 1").err
    assert recstore("retrain retail").code == 0
    assert recstore("recommend retail 1").code == 0
    assert recstore("db check").code == 0


def test_row_security_that_an_event_trigger_enables_empties_no_list(recstore: Command, shop: Database) -> None:
    trigger = """
        CREATE FUNCTION public.auto_rls() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
            DECLARE c record;
            BEGIN
                FOR c IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE object_type IN ('table', 'partitioned table') LOOP
                    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', c.object_identity);
                END LOOP;
            END
        $$;
        CREATE EVENT TRIGGER auto_rls ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION public.auto_rls();
    """
    with superuser(shop.server, shop.name) as connection:
        connection.execute(trigger)
        recstore(CREATE)
        recstore("retrain retail")
        recstore("grant retail application --people")
        asked = "SELECT count(*) FROM retail.recommend(1), retail.similar_items(1) s WHERE s.item_id > 0"
        with shop.connect("application") as application:
            assert application.execute(asked).fetchone() == {"count": 100}
            connection.execute("ALTER TABLE retail._items ENABLE ROW LEVEL SECURITY")
            connection.execute("ALTER TABLE retail._items_1 ENABLE ROW LEVEL SECURITY")
            assert application.execute(asked).fetchone() == {"count": 0}
            assert recstore("doctor retail").out.count("row-level security is on for retail._items") == 2
            assert "drift         row-level security is on for retail._items, and 1 more" in recstore("status").out
            recstore("reindex retail")
            assert application.execute(asked).fetchone() == {"count": 100}


def test_published_seen_items_are_read_by_a_function_of_one_user(recstore: Command, shop: Database) -> None:
    recstore(CREATE + " --seen published")
    recstore("retrain retail")
    recstore("grant retail application --people")
    of_user_1 = {row["product_id"] for row in look(shop, "SELECT product_id FROM shop.views WHERE user_id = 1")}
    reader = shop.connect("application")
    assert {row["seen"] for row in reader.execute("SELECT retail.seen(1)")} == of_user_1
    assert not of_user_1 & {row["item_id"] for row in reader.execute("SELECT * FROM retail.recommend(1, 50)")}
    assert not of_user_1 & {row["item_id"] for row in reader.execute("SELECT * FROM retail.recommend(1, 50, NULL)")}
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("SELECT FROM retail._seen_1")
    with superuser(shop.server, shop.name) as connection:
        connection.execute("DROP ROLE IF EXISTS window_shopper")
        connection.execute("CREATE ROLE window_shopper LOGIN")
    try:
        recstore("grant retail window_shopper")
        with shop.connect("window_shopper") as other, pytest.raises(psycopg.errors.InsufficientPrivilege):
            other.execute("SELECT retail._seen_published(1)")
    finally:
        with superuser(shop.server, shop.name) as connection:
            connection.execute("DROP OWNED BY window_shopper; DROP ROLE window_shopper")


def test_a_setting_outside_a_transaction_is_warned_of(trained: Database) -> None:
    heard: list[str] = []
    reader = trained.connect()
    reader.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
    reader.execute("SELECT retail.use_search_settings()")
    assert heard == ["use_search_settings() has no effect outside a transaction block"]
    reader.execute("DO $$ BEGIN PERFORM retail.use_search_settings(); PERFORM FROM retail.item_vectors; END $$")
    with reader.transaction():
        reader.execute("SELECT retail.use_search_settings()")
    reader.execute("BEGIN; SELECT retail.use_search_settings(); COMMIT")
    assert len(heard) == 1
