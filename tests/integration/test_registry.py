"""Recommenders made, changed, granted, dropped, dumped and restored; always as a plain role, in fresh sessions."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from conftest import Database, superuser
from psycopg import errors as pg
from support import until
from support_sql import WITH_PEOPLE, WITHOUT_PEOPLE, column, rows, together, value

from recstore import registry
from recstore.definition import Definition, Hyperparameters, Publication, Source, Storage
from recstore.errors import (
    DependentObjects,
    InvalidInput,
    InvalidName,
    PermissionDenied,
    RecommenderExists,
    RecommenderNotFound,
    RecstoreError,
    SchemaNameTaken,
    SourceInvalid,
    TooManyFactors,
)
from recstore.operations import readers
from recstore.postgres.connection import Connection

CATALOG = """
SELECT 'relation ' || c.oid::regclass || ' ' || c.relkind::text AS object FROM pg_class c
WHERE c.relnamespace <> 'pg_toast'::regnamespace
UNION ALL SELECT 'function ' || p.oid::regprocedure FROM pg_proc p
UNION ALL SELECT 'type ' || t.oid::regtype FROM pg_type t WHERE t.typnamespace <> 'pg_toast'::regnamespace
UNION ALL SELECT 'schema ' || n.nspname FROM pg_namespace n WHERE n.nspname !~ '^pg_(toast_)?temp'
UNION ALL SELECT 'recommender ' || r.name FROM recstore_private.recommenders r
UNION ALL SELECT 'generation ' || g.generation FROM recstore_private.generations g
UNION ALL SELECT 'pointer ' || p.recommender_id FROM recstore_private.pointers p
UNION ALL SELECT 'flip ' || f.flip FROM recstore_private.flips f
UNION ALL SELECT 'run ' || u.run FROM recstore_private.runs u
ORDER BY 1
"""

SMALL = Hyperparameters(factors=8, iterations=2)


def catalog(connection: Connection) -> list[str]:
    return column(connection, CATALOG)


def shop_source(**more: Any) -> Source:
    return Source(table="shop.views", item="product_id", value="view_count", **more)


@pytest.fixture
def worker(shop: Database) -> Connection:
    return shop.connect()


BAD_NAMES = [
    "", "Retail", "re-tail", "1st", "_retail", "a b", 'a"b', "a;b", "ñu", "a" * 49, "pg_mine", "recstore", "recstore2",
    "select", "user", "table", "retail\n",
]  # fmt: skip


def test_a_name_that_is_no_plain_identifier_is_refused(shop: Database, worker: Connection) -> None:
    for name in BAD_NAMES:
        with pytest.raises(InvalidName):
            shop.create(name)
    assert rows(worker, "SELECT * FROM recstore.recommenders") == []


def test_other_names_are_fine_also_those_of_columns_and_keywords(shop: Database, worker: Connection) -> None:
    for name in ("a", "a" * 48, "retail_2", "english", "value", "name", "generation", "item_id", "query"):
        recommender = shop.create(name, hyperparameters=SMALL, publication=Publication(search="hnsw"))
        assert value(worker, f"SELECT {name}.generation()") is None
        if name in ("generation", "item_id", "query"):
            assert shop.retrain(name).live
            assert len(rows(worker, f"SELECT * FROM {name}.recommend(1, 4)")) == 4
            assert len(rows(worker, f"SELECT * FROM {name}.similar_items(1, 4)")) == 4
            assert registry.drop(worker, shop.settings, recommender) == []


@pytest.mark.contract
def test_a_taken_name_is_refused_and_what_is_there_stays(shop: Database, worker: Connection) -> None:
    for taken in ("shop", "public"):
        with pytest.raises(SchemaNameTaken, match=taken):
            shop.create(taken)
    shop.create("retail")
    before = catalog(worker)
    with pytest.raises(RecommenderExists, match="retail"):
        shop.create("retail")
    assert catalog(worker) == before
    with pytest.raises(RecommenderNotFound, match="'none'"):
        registry.get(worker, "none")


@pytest.mark.contract
def test_creating_is_all_or_nothing(shop: Database, worker: Connection) -> None:
    before = catalog(worker)
    narrow = Storage(dimensions=32)
    wide = Storage(dimensions=1000, vector_type="vector")
    refused: list[tuple[type[RecstoreError], str, dict[str, object]]] = [
        (SourceInvalid, "shop.nothing", {"source": Source(table="shop.nothing")}),
        (TooManyFactors, "1985", {"hyperparameters": Hyperparameters(factors=1985)}),
        (InvalidInput, "32", {"hyperparameters": Hyperparameters(factors=33), "storage": narrow}),
        (InvalidInput, "halfvec", {"storage": wide}),
        (PermissionDenied, f'GRANT CREATE ON DATABASE "{shop.name}" TO "worker"', {}),
    ]
    with superuser(shop.server, shop.name) as owner:
        for error, words, definition in refused:
            if error is PermissionDenied:
                owner.execute(f"REVOKE CREATE ON DATABASE {shop.name} FROM worker")
            with pytest.raises(error, match=words):
                shop.create("retail", **definition)
    assert catalog(worker) == before


def test_of_two_creates_of_one_name_at_once_one_wins(shop: Database, worker: Connection) -> None:
    def create() -> str:
        try:
            shop.create("retail", hyperparameters=SMALL)
        except RecommenderExists:
            return "exists"
        return "made"

    assert sorted(together(4, create)) == ["exists"] * 3 + ["made"]
    assert len(rows(worker, "SELECT * FROM recstore.recommenders")) == 1
    assert shop.retrain().live


def test_an_application_s_schema_of_that_name_made_at_the_same_time_wins(shop: Database, worker: Connection) -> None:
    application = shop.connect("application")
    with ThreadPoolExecutor(1) as pool:
        with application.transaction():
            application.execute("CREATE SCHEMA retail")
            creating = pool.submit(shop.create, "retail")
            until(lambda: column(worker, "SELECT pid FROM pg_locks WHERE NOT granted"))
        with pytest.raises(SchemaNameTaken):
            creating.result()
    assert rows(worker, "SELECT * FROM recstore.recommenders") == []


@pytest.mark.contract
def test_an_altered_source_holds_at_once_and_hyperparameters_from_the_next_training(
    shop: Database, worker: Connection
) -> None:
    recommender = shop.create(hyperparameters=SMALL)
    shop.retrain()
    readers.grant_reader(worker, recommender, "application", people=True)
    functions = column(worker, "SELECT oid::int FROM pg_proc WHERE pronamespace = 'retail'::regnamespace ORDER BY 1")
    query = "SELECT user_id, product_id AS item_id, 1.5 AS value, now() AS last_at, 1 AS more FROM shop.views WHERE user_id < 50"
    definition = Definition(source=Source(query=query), hyperparameters=Hyperparameters(factors=9, iterations=2))
    altered = registry.alter(worker, shop.settings, recommender, definition)
    assert altered.definition == definition == registry.get(worker, "retail").definition
    # now with a fourth column and another type of value; the reader's grant is kept
    application = shop.connect("application")
    assert value(application, "SELECT max(user_id) FROM retail.interactions") == 49
    assert column(application, "SELECT DISTINCT value::text FROM retail.interactions") == ["1.5"]
    assert value(application, "SELECT count(last_at) FROM retail.interactions") > 0
    # seen items are the new source's
    assert len(rows(application, "SELECT * FROM retail.recommend(100, 1000)")) == 120
    assert value(worker, "SELECT count(*) FROM retail.user_vectors") == 240
    assert shop.retrain().live
    assert value(worker, "SELECT count(*) FROM retail.user_vectors") == 49
    assert value(worker, "SELECT factors FROM recstore.generations WHERE state = 'live'") == 9
    # and back to fewer columns
    registry.alter(worker, shop.settings, altered, Definition(source=shop_source(), hyperparameters=SMALL))
    assert value(application, "SELECT max(user_id) FROM retail.interactions") == 240
    columns = column(
        worker,
        "SELECT attname FROM pg_attribute WHERE attrelid = 'retail.interactions'::regclass AND attnum > 0 ORDER BY attnum",
    )
    assert columns == ["user_id", "item_id", "value"]
    assert shop.retrain().live
    assert functions == column(
        worker, "SELECT oid::int FROM pg_proc WHERE pronamespace = 'retail'::regnamespace ORDER BY 1"
    )


def test_what_alter_refuses_changes_nothing(shop: Database, worker: Connection) -> None:
    recommender = shop.create(hyperparameters=SMALL)
    application = shop.connect("application")
    readers.grant_reader(worker, recommender, "application", people=True)
    application.execute("CREATE VIEW shop.mine AS SELECT value FROM retail.interactions")
    before = rows(worker, "SELECT * FROM recstore_private.recommenders")
    text = value(worker, "SELECT pg_get_viewdef('retail.interactions'::regclass)")

    def refused(error: type[RecstoreError], match: str, source: Source, factors: int = 8) -> None:
        definition = Definition(source=source, hyperparameters=Hyperparameters(factors=factors))
        with pytest.raises(error, match=match):
            registry.alter(worker, shop.settings, recommender, definition)
        assert rows(worker, "SELECT * FROM recstore_private.recommenders") == before
        assert value(worker, "SELECT pg_get_viewdef('retail.interactions'::regclass)") == text

    refused(SourceInvalid, "shop.nothing", Source(table="shop.nothing"))
    refused(TooManyFactors, "1985", shop_source(), 1985)
    query = "SELECT user_id::{} AS user_id, product_id::{} AS item_id, 1 AS value FROM shop.views"
    refused(InvalidInput, "integer and integer, but 'retail' has bigint and", Source(query=query.format("int", "int")))
    refused(InvalidInput, "bigint and text", Source(query=query.format("bigint", "text")))
    other = "SELECT user_id, product_id AS item_id, 1.5 AS value FROM shop.views"
    refused(DependentObjects, r"view shop\.mine", Source(query=other))


def test_alter_makes_a_view_of_interactions_that_was_dropped_with_its_table(shop: Database, worker: Connection) -> None:
    recommender = shop.create(hyperparameters=SMALL)
    application = shop.connect("application")
    application.execute("CREATE TABLE shop.copy AS SELECT * FROM shop.views")
    application.execute("DROP TABLE shop.views CASCADE")
    assert value(worker, "SELECT to_regclass('retail.interactions')") is None
    application.execute("ALTER TABLE shop.copy RENAME TO views")
    application.execute("GRANT SELECT ON shop.views TO worker")
    registry.alter(worker, shop.settings, recommender, recommender.definition)
    assert value(worker, "SELECT count(*) FROM retail.interactions") > 0
    assert shop.retrain().live


@pytest.mark.contract
def test_dropping_leaves_nothing_behind(shop: Database, worker: Connection) -> None:
    other = shop.create("other", hyperparameters=SMALL)
    shop.retrain("other")
    before = catalog(worker)
    for seen in ("live", "published"):
        publication = Publication(search="hnsw", index_users=True)
        recommender = shop.create(source=shop_source(seen=seen), hyperparameters=SMALL, publication=publication)
        for _ in range(2):
            shop.retrain()
        assert len(catalog(worker)) > len(before) + 50
        assert registry.drop(worker, shop.settings, recommender) == []
        assert catalog(worker) == before
    assert value(worker, "SELECT count(*) FROM other.recommend(1, 5)") == 5
    assert registry.drop(worker, shop.settings, other) == []
    with pytest.raises(RecommenderNotFound):
        registry.get(worker, "other")


DEPENDENTS = {
    "view shop.best": "CREATE VIEW shop.best AS SELECT * FROM retail.item_vectors",
    "materialized view shop.kept": "CREATE MATERIALIZED VIEW shop.kept AS SELECT * FROM retail.popular_items(3)",
    "function shop.three()": "CREATE FUNCTION shop.three() RETURNS SETOF bigint LANGUAGE sql"
    " BEGIN ATOMIC SELECT item_id::bigint FROM retail.recommend(1, 3); END",
    "function shop.typed()": "CREATE FUNCTION shop.typed() RETURNS SETOF retail.recommendation LANGUAGE sql"
    " AS 'SELECT * FROM retail.recommend(1, 3)'",
    "default value for column generation of table shop.impressions": "CREATE TABLE shop.impressions"
    " (generation bigint DEFAULT retail.generation())",
    "constraint known on table shop.baskets": "CREATE TABLE shop.baskets (item integer,"
    " CONSTRAINT known CHECK (retail.predict(1, item) > 0))",
    "column shown of table shop.lists": "CREATE TABLE shop.lists (shown retail.similar_item[])",
    "policy own on table shop.products": "CREATE POLICY own ON shop.products USING (retail.generation() > 0)",
}


@pytest.mark.contract
def test_dropping_is_refused_while_the_application_depends_on_it(trained: Database) -> None:
    worker = trained.connect()
    recommender = registry.get(worker, "retail")
    readers.grant_reader(worker, recommender, "application", people=True)
    application = trained.connect("application")
    for statement in DEPENDENTS.values():
        application.execute(statement)
    application.execute("GRANT USAGE, CREATE ON SCHEMA shop TO worker")
    worker.execute("CREATE VIEW retail.ours AS SELECT 1")
    before = catalog(worker)
    with pytest.raises(DependentObjects) as caught:
        registry.drop(worker, trained.settings, recommender)
    named = [name.replace("column shown of ", "") for name in DEPENDENTS]
    for name in [*named, "view retail.ours"]:
        assert name in str(caught.value), name
    assert str(caught.value).count(",") == len(named) + 2  # the names, and no others
    assert catalog(worker) == before
    assert value(worker, "SELECT count(*) FROM retail.recommend(1, 5)") == 5

    found = registry.drop(worker, trained.settings, recommender, cascade=True)
    assert sorted(found) == sorted([*named, "view retail.ours"])
    assert value(worker, "SELECT to_regnamespace('retail')") is None
    assert column(application, "SELECT to_regclass('shop.best')") == [None]
    assert column(application, "SELECT generation FROM shop.impressions") == []


def allowed(connection: Connection, statement: str) -> bool:
    try:
        connection.execute(statement)
    except pg.InsufficientPrivilege:
        return False
    return True


NEVER = [
    "SELECT * FROM recstore_private.generations",
    "SELECT * FROM recstore_private.recommenders",
    "SELECT * FROM recstore.status",
    "SELECT * FROM recstore.recommenders",
    "DELETE FROM retail.item_vectors",
    "DELETE FROM retail._items",
    "UPDATE retail._generation SET users = 0",
]


@pytest.mark.contract
@pytest.mark.parametrize("seen", ["live", "published"])
def test_rights(shop: Database, worker: Connection, seen: str) -> None:
    recommender = shop.create(source=shop_source(seen=seen), hyperparameters=SMALL)
    shop.retrain()
    application = shop.connect("application")  # owns the source

    def may(statements: list[str]) -> set[bool]:
        return {allowed(application, statement) for statement in statements}

    assert may(WITHOUT_PEOPLE) == may(WITH_PEOPLE) == may(NEVER) == {False}
    readers.grant_reader(worker, recommender, "application")
    for _ in range(2):  # the second time on the next generation's tables
        assert may(WITHOUT_PEOPLE) == {True}
        assert may(WITH_PEOPLE) == may(NEVER) == {False}
        shop.retrain()
    statements = readers.grant_reader(worker, recommender, "application", people=True)
    assert all(statement.startswith(("GRANT ", "REVOKE ")) and statement.endswith(";") for statement in statements)
    for _ in range(3):
        assert may(WITHOUT_PEOPLE) == may(WITH_PEOPLE) == {True}
        assert may(NEVER) == {False}
        shop.retrain()
    with pytest.raises(InvalidInput, match="no role named 'missing'"):
        readers.grant_reader(worker, recommender, "missing")


@pytest.mark.contract
def test_rights_where_functions_are_not_public(shop: Database, worker: Connection) -> None:
    worker.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    recommender = shop.create(source=shop_source(), hyperparameters=SMALL)
    shop.retrain()
    readers.grant_reader(worker, recommender, "application", people=True)
    application = shop.connect("application")
    for statement in [*WITHOUT_PEOPLE, *WITH_PEOPLE]:
        assert allowed(application, statement), statement
    worker.execute("REVOKE ALL ON ALL TABLES IN SCHEMA retail FROM application")
    shop.retrain()
    for statement in [*WITHOUT_PEOPLE[:3], *WITH_PEOPLE]:
        assert not allowed(application, statement), statement


@pytest.mark.contract
def test_no_reader_sees_another_recommender_s_row(trained: Database) -> None:
    """A cheap function in WHERE would see every row that the view's own conditions had not yet dropped."""
    worker = trained.connect()
    trained.create("other", hyperparameters=SMALL)
    trained.retrain("other")
    readers.grant_reader(worker, registry.get(worker, "retail"), "application")
    application = trained.connect("application")
    application.execute(
        "CREATE FUNCTION shop.look(g bigint) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS"
        " $$ BEGIN RAISE NOTICE 'saw %', g; RETURN true; END $$"
    )
    application.execute("SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off")
    seen: list[str] = []
    application.add_notice_handler(lambda notice: seen.append(notice.message_primary or ""))
    application.execute("SELECT * FROM retail._generation g WHERE shop.look(g.generation)")
    assert seen == [f"saw {value(worker, 'SELECT retail.generation()')}"]


@pytest.mark.contract
def test_a_reader_who_may_not_read_the_source_gets_nothing_out_of_it(trained: Database) -> None:
    worker = trained.connect()
    recommender = registry.get(worker, "retail")
    with superuser(trained.server) as owner:
        owner.execute('CREATE ROLE "Odd \'reader" LOGIN')
    readers.grant_reader(worker, recommender, "Odd 'reader", people=True)
    reader = trained.connect("Odd%20'reader")
    assert not allowed(reader, "SELECT * FROM retail.interactions")
    assert not allowed(reader, "SELECT * FROM retail.recommend(1, 3)")
    assert allowed(reader, "SELECT * FROM retail.recommend(1, 3, false)")
    assert allowed(reader, "SELECT * FROM retail.similar_users(1, 3)")
    reader.close()
    with superuser(trained.server, trained.name) as owner:
        owner.execute('DROP OWNED BY "Odd \'reader"')
        owner.execute('DROP ROLE "Odd \'reader"')


def test_the_search_path_of_the_session_makes_no_difference(shop: Database, worker: Connection) -> None:
    """Not even with functions and operators of the same name before pg_catalog's."""
    recommender = shop.create(hyperparameters=SMALL, publication=Publication(search="hnsw", index_users=True))
    shop.retrain()
    readers.grant_reader(worker, recommender, "application", people=True)
    application = shop.connect("application")
    expected = [rows(application, question) for question in WITH_PEOPLE]
    application.execute("CREATE SCHEMA trap")
    application.execute("CREATE FUNCTION trap.format(text, text) RETURNS text LANGUAGE sql AS 'SELECT 1 / 0 || $1'")
    application.execute("CREATE FUNCTION trap.unnest(anyarray) RETURNS int LANGUAGE sql AS 'SELECT 1 / 0'")
    application.execute("CREATE TABLE trap.interactions AS SELECT 1 AS user_id, 1 AS item_id")
    for path in ("trap, pg_catalog, public", "''"):
        application.execute(f"SET search_path = {path}")
        assert [rows(application, question) for question in WITH_PEOPLE] == expected


def test_the_session_of_psycopg_may_prepare_every_question(shop: Database, worker: Connection) -> None:
    recommender = shop.create(hyperparameters=SMALL.model_copy(update={"warm_iterations": 0}))
    shop.retrain()
    worker.prepare_threshold = 0
    answers = [rows(worker, question) for question in WITH_PEOPLE]
    shop.retrain()
    assert [rows(worker, question) for question in WITH_PEOPLE] == answers  # the same seed and the same source
    registry.drop(worker, shop.settings, recommender)
    with pytest.raises(psycopg.Error):
        rows(worker, WITH_PEOPLE[0])
