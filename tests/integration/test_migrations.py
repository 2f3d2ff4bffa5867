"""The schema from nothing, again, at once, down and up; and recommenders whose objects are of an older version."""

from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import schema_dump
from alembic.script import ScriptDirectory
from conftest import VERSION, Database, database_from, superuser
from recstore.migrations import frozen
from support_sql import column, repeating, rows, together, value

from recstore import errors, pipeline, registry
from recstore.definition import Hyperparameters, Source, Titles
from recstore.embedded import Server
from recstore.operations import readers, schema
from recstore.postgres.connection import Connection
from recstore.sql import objects, schema_revision

SMALL = Hyperparameters(factors=8, iterations=2)

TABLES = """
SELECT c.oid::regclass::text FROM pg_class c
WHERE c.relnamespace IN (to_regnamespace('recstore'), to_regnamespace('recstore_private')) ORDER BY 1
"""


def upgrade(database: Database, **settings: Any) -> list[str]:
    with database.connect() as connection:
        return schema.upgrade(connection, database.url, database.settings.model_copy(update=settings))


@pytest.mark.contract
def test_from_nothing_and_again(empty: Database) -> None:
    assert upgrade(empty) == [f"schema upgraded from nothing to {schema_revision.head()}"]
    connection = empty.connect()
    found = rows(connection, TABLES), rows(connection, "SELECT oid, xmin::text FROM pg_class ORDER BY oid")
    assert upgrade(empty) == []
    assert (rows(connection, TABLES), rows(connection, "SELECT oid, xmin::text FROM pg_class ORDER BY oid")) == found
    schema_revision.require_current(connection)
    schema.check(empty.url)


@pytest.fixture
def bare(server: Server) -> Iterator[Database]:
    """Without pgvector, which only the superuser may install."""
    with database_from(server, "template0") as database:
        yield database


@pytest.mark.contract
def test_five_at_once(bare: Database) -> None:
    """As a superuser, so that all five try to install pgvector, too."""
    url = bare.url_of("postgres")
    assert len(together(5, lambda: schema.upgrade(bare.connect("postgres"), url, bare.settings))) == 5
    connection = bare.connect("postgres")
    assert column(connection, "SELECT version_num FROM recstore_private.alembic_version") == [schema_revision.head()]
    assert column(connection, "SELECT extname FROM pg_extension WHERE extname = 'vector'") == ["vector"]
    schema.check(url)


def test_a_definition_goes_back_to_the_version_before(shop: Database) -> None:
    shop.create(hyperparameters=SMALL)
    assert shop.retrain().live
    connection = shop.connect()
    titles = Titles(table="titles", item="id", title="title").model_dump_json()
    for table in ("recommenders", "generations"):
        connection.execute(
            f"UPDATE recstore_private.{table} SET definition = jsonb_set(definition, '{{titles}}', %s)", [titles]
        )
    weighted = "UPDATE recstore_private.generations SET training = training {} WHERE generation = 1"
    connection.execute(weighted.format("""|| '{"item_weights": {"exponent": 0.1, "scale": 0.5}}'"""))
    with pytest.raises(errors.RecstoreError, match="popularity exponent"):
        schema.downgrade(shop.url, "0011")
    connection.execute(weighted.format("- 'item_weights'"))
    weighing = "UPDATE recstore_private.generations SET confidence = jsonb_set(confidence, '{{function}}', '\"{}\"')"
    connection.execute(weighing.format("power"))
    with pytest.raises(errors.RecstoreError, match="function power"):
        schema.downgrade(shop.url, "0011")
    connection.execute(weighing.format("bm25"))
    connection.execute(
        "UPDATE recstore_private.runs u SET refused = jsonb_build_object('definition', r.definition)"
        " FROM recstore_private.recommenders r"
    )
    schema.downgrade(shop.url, "0011")
    for section in ("confidence", "hyperparameters"):
        refused = value(connection, f"SELECT refused -> 'definition' -> '{section}' FROM recstore_private.runs LIMIT 1")
        assert refused == value(connection, f"SELECT definition -> '{section}' FROM recstore_private.recommenders")
    for table in ("recommenders", "generations"):
        definition = value(connection, f"SELECT max(definition::text)::jsonb FROM recstore_private.{table}")
        assert (
            not {"user_exponent", "view_exponent", "ridge", "popularity_exponent"}
            & definition["hyperparameters"].keys()
        )
        assert definition["confidence"].keys() == {"scale", "half_life", "eps", "k1", "b"}, "unset: bm25"
        assert definition["titles"].keys() == {"table", "item", "title"}
    assert upgrade(shop)
    assert registry.get(connection, "retail").definition.hyperparameters.ridge == SMALL.ridge


@pytest.mark.contract
def test_down_is_refused_while_there_are_recommenders(shop: Database) -> None:
    connection = shop.connect()
    first, second = (shop.create(name, hyperparameters=SMALL) for name in ("retail", "books"))
    before = rows(connection, TABLES)
    with pytest.raises(errors.RecstoreError, match="books, retail"):
        schema.downgrade(shop.url, "base")
    assert rows(connection, TABLES) == before
    schema_revision.require_current(connection)
    for recommender in (first, second):
        registry.drop(connection, shop.settings, recommender)
    # an application's own view is not taken along
    connection.execute("CREATE SCHEMA ours")
    connection.execute("CREATE VIEW ours.status AS SELECT * FROM recstore.status")
    with pytest.raises(errors.RecstoreError, match="other objects depend"):
        schema.downgrade(shop.url, "base")
    assert rows(connection, TABLES) == before
    connection.execute("DROP VIEW ours.status")

    schema.downgrade(shop.url, "base")
    assert value(connection, "SELECT to_regnamespace('recstore')") is None
    assert column(connection, TABLES) == ["recstore_private.alembic_version", "recstore_private.alembic_version_pkc"]
    with pytest.raises(errors.SchemaMissing):
        schema_revision.require_current(connection)
    assert upgrade(shop) == [f"schema upgraded from nothing to {schema_revision.head()}"]
    assert rows(connection, TABLES) == before
    shop.create(hyperparameters=SMALL)
    assert shop.retrain().live
    with pytest.raises(errors.InvalidInput, match="nonsense"):
        schema.downgrade(shop.url, "nonsense")


RUNS, GENERATIONS = "ALTER TABLE recstore_private.runs", "ALTER TABLE recstore_private.generations"
RECOMMENDERS, POINTERS = "ALTER TABLE recstore_private.recommenders", "ALTER TABLE recstore_private.pointers"
VIEW = "CREATE OR REPLACE VIEW recstore.dispatches AS SELECT d.host, d.dispatched_at,"
OF_VIEW = "FROM recstore_private.dispatches d"
DRIFT = {
    f"{RUNS} ADD COLUMN more integer": f"{RUNS} DROP COLUMN more",
    f"{GENERATIONS} DROP COLUMN barrier": f"{GENERATIONS} ADD COLUMN barrier text",
    f"{GENERATIONS} ALTER COLUMN max_item_length TYPE real": f"{GENERATIONS} ALTER COLUMN max_item_length TYPE float8",
    f"{RECOMMENDERS} ALTER created_at DROP NOT NULL": f"{RECOMMENDERS} ALTER created_at SET NOT NULL",
    f"{RECOMMENDERS} DROP CONSTRAINT uq_recommenders_name": f"{RECOMMENDERS} ADD CONSTRAINT uq_recommenders_name UNIQUE (name)",
    f"{POINTERS} DROP CONSTRAINT fk_pointers_generation_generations": f"{POINTERS} ADD CONSTRAINT"
    " fk_pointers_generation_generations FOREIGN KEY (generation) REFERENCES recstore_private.generations"
    " ON DELETE CASCADE",
    "DROP INDEX recstore_private.ix_runs_recommender_id": "CREATE INDEX ix_runs_recommender_id ON recstore_private.runs"
    " (recommender_id, run)",
    f"{RUNS} ALTER started_at DROP DEFAULT": f"{RUNS} ALTER started_at SET DEFAULT now()",
    "CREATE TABLE recstore_private.more (id integer)": "DROP TABLE recstore_private.more",
    f"{VIEW} now() - d.dispatched_at AS age {OF_VIEW}": f"{VIEW} clock_timestamp() - d.dispatched_at AS age {OF_VIEW}",
    "ALTER FUNCTION recstore.request_lists STABLE": "ALTER FUNCTION recstore.request_lists VOLATILE",
    "ALTER FUNCTION recstore.request_lists RENAME TO ask": "ALTER FUNCTION recstore.ask RENAME TO request_lists",
}
"""A change by hand -> what takes it back."""


def test_the_revision_needed_is_alembic_s_head() -> None:
    """It is read from the names of the files, without Alembic."""
    script = ScriptDirectory.from_config(schema._config())
    assert schema_revision.head() == script.get_current_head()
    assert schema_revision.known() == sorted(revision.revision for revision in script.walk_revisions())


@pytest.mark.skipif(VERSION != schema_dump.VERSION, reason="other versions write a dump differently")
def test_the_migrations_make_the_golden_schema(shop: Database) -> None:
    assert schema_dump.dump(shop.url) == schema_dump.GOLDEN.read_text(), "Review the difference, then run: make schema"


def test_check_finds_what_was_changed_by_hand(shop: Database) -> None:
    connection = shop.connect()
    for change, undo in DRIFT.items():
        schema.check(shop.url)
        connection.execute(change)
        with pytest.raises(errors.RecstoreError, match="differs"):
            schema.check(shop.url)
        connection.execute(undo)
    schema.check(shop.url)


@pytest.mark.contract
def test_background_work_comes_and_goes_with_its_revision(trained: Database) -> None:
    """With a recommender in use: what it is and what is live stay, what was asked for is forgotten."""
    with trained.connect() as connection:
        connection.execute("SELECT recstore.request_retrain('retail')")
        answer = "SELECT array_agg(r.item_id) AS ids FROM retail.recommend(1, 10) r"
        before = value(connection, answer)
        connection.execute(
            "INSERT INTO recstore_private.studies"
            " (recommender_id, kind, metric, options, definition, split, snapshot, scales)"
            " SELECT r.id, 'grid', 'ndcg', '{}', r.definition, 'random', '{}', '{}' FROM recstore_private.recommenders r"
        )
    schema.downgrade(trained.url, "0004")
    with trained.connect() as connection:  # whose definitions forbid what they do not know
        for table in ("recommenders", "generations", "studies"):
            unknown = "definition ?| '{lists,candidates}'"
            query = f"SELECT {unknown} FROM recstore_private.{table} WHERE definition IS NOT NULL"
            assert column(connection, query) == [False], table
    schema.downgrade(trained.url, "0001")
    with trained.connect() as connection:
        assert value(connection, answer) == before
        assert value(connection, "SELECT definition ? 'schedule' FROM recstore_private.recommenders") is False
        assert value(connection, "SELECT count(*) FROM recstore.status") == 1
        assert value(connection, "SELECT to_regclass('recstore.requests')") is None
        with pytest.raises(errors.SchemaOutdated):
            schema_revision.require_current(connection)
    upgrade(trained)
    schema.check(trained.url)
    with trained.connect() as connection:
        assert value(connection, answer) == before
        assert value(connection, "SELECT count(*) FROM recstore.requests") == 0
    assert trained.retrain().live


def test_a_blocked_migration_gives_up_soon_and_names_the_session(
    shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LOCK_TIMEOUT", 300)
    schema.downgrade(shop.url, "0001")
    with shop.connect() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT FROM recstore.status")
        with pytest.raises(errors.MigrationBlocked, match=f"process {reader.info.backend_pid} "):
            upgrade(shop)
        assert schema_revision.current(shop.connect()) == "0001"
        reader.execute("COMMIT")
    upgrade(shop)
    schema.check(shop.url)


@pytest.mark.contract
def test_the_database_s_revision_must_be_the_code_s(
    empty: Database, shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(errors.SchemaMissing, match="recstore db upgrade"):
        schema_revision.require_current(empty.connect())
    with pytest.raises(errors.SchemaMissing):
        schema.check(empty.url)
    assert column(empty.connect(), TABLES) == []
    with pytest.raises(errors.SchemaMissing):
        pipeline.retrain(empty.url, empty.settings, "retail")
    with pytest.raises(errors.SchemaMissing):
        empty.create()

    connection, head = shop.connect(), schema_revision.head()
    shop.create(hyperparameters=SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(schema_revision, "known", lambda: [head, "9998"])
        with pytest.raises(errors.SchemaOutdated, match=f"{head}.*9998"):
            schema_revision.require_current(connection)
    connection.execute("UPDATE recstore_private.alembic_version SET version_num = '9999'")
    for attempt in (
        lambda: schema_revision.require_current(connection),
        lambda: schema.upgrade(connection, shop.url, shop.settings),
        lambda: schema.check(shop.url),
        lambda: pipeline.retrain(shop.url, shop.settings, "retail"),
    ):
        with pytest.raises(errors.SchemaTooNew, match="9999"):
            attempt()
    connection.execute(f"UPDATE recstore_private.alembic_version SET version_num = '{schema_revision.head()}'")
    connection.execute("UPDATE recstore_private.recommenders SET objects_version = 99")
    with pytest.raises(errors.SchemaTooNew, match="objects 99 of 'retail'"):
        upgrade(shop)


@pytest.mark.contract
def test_pgvector_missing_or_too_old(bare: Database) -> None:
    with superuser(bare.server, bare.name) as owner:
        owner.execute(f"REVOKE CREATE ON DATABASE {bare.name} FROM worker")
    with pytest.raises(errors.ExtensionMissing, match="CREATE EXTENSION vector"):
        upgrade(bare)
    with superuser(bare.server, bare.name) as owner:
        owner.execute("CREATE EXTENSION vector")
        owner.execute("SET allow_system_table_mods = on")
        owner.execute("UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
    with pytest.raises(errors.ExtensionTooOld, match=r"0\.7\.4"):
        upgrade(bare)
    assert column(bare.connect(), TABLES) == []
    with superuser(bare.server, bare.name) as owner:
        owner.execute("SET allow_system_table_mods = on")
        owner.execute("UPDATE pg_extension SET extversion = '0.10.0' WHERE extname = 'vector'")
    with pytest.raises(errors.PermissionDenied, match=f"database {bare.name}"):
        upgrade(bare)  # no right to create a schema


def test_released_sql_never_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(str(resources.files(frozen.__package__))) / "sql"
    listed = frozen.released_checksums()
    assert {path.name for path in folder.glob("*.sql")} == set(listed)
    for name in listed:
        # before the first release: cd migrations/sql && sha256sum *.sql > checksums.txt
        assert frozen.checksum((folder / name).read_text()) == listed[name], name
    monkeypatch.setattr(frozen, "released_checksums", lambda: {"0001_up.sql": "another"})
    with pytest.raises(RuntimeError, match=r"0001_up\.sql"):
        frozen.read_sql("0001_up.sql")


def make_older(connection: Connection, name: str, *statements: str) -> None:
    """As if an older recstore had installed the object."""
    for statement in statements:
        connection.execute(statement)
    connection.execute(
        "UPDATE recstore_private.recommenders SET objects_version = 0,"
        " object_digests = object_digests || jsonb_build_object(%s::text, 'older')",
        [name],
    )


def identities(connection: Connection) -> dict[str, tuple[int, str]]:
    """Object -> oid and the transaction that last wrote it, of everything in the schema."""
    found = rows(
        connection,
        """
        SELECT 'function ' || p.proname AS name, p.oid::int, p.xmin::text FROM pg_proc p
        WHERE p.pronamespace = 'retail'::regnamespace
        UNION ALL
        SELECT 'view ' || c.relname, r.oid::int, c.xmin || ' ' || r.xmin FROM pg_class c
        JOIN pg_rewrite r ON r.ev_class = c.oid
        WHERE c.relnamespace = 'retail'::regnamespace
        UNION ALL
        SELECT 'type ' || t.typname, t.oid::int, t.xmin::text FROM pg_type t
        JOIN pg_class c ON c.oid = t.typrelid WHERE t.typnamespace = 'retail'::regnamespace AND c.relkind = 'c'
        """,
    )
    return {row["name"]: (row["oid"], row["xmin"]) for row in found}


def executors(connection: Connection, function: str) -> list[str]:
    return column(
        connection,
        "SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END FROM pg_proc p,"
        " aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a"
        " WHERE p.pronamespace = 'retail'::regnamespace AND p.proname = %s AND a.grantee <> p.proowner ORDER BY 1",
        function,
    )


OLDER_BODY = """
CREATE OR REPLACE FUNCTION retail.users_for_item(item_id bigint, k bigint DEFAULT 10)
RETURNS SETOF retail.audience_member LANGUAGE sql STABLE
AS 'SELECT user_id, 0::float8, 0::float8 FROM retail.user_vectors LIMIT k'
"""
OLDER_SIGNATURE = (
    "DROP FUNCTION retail.similar_items",
    "CREATE FUNCTION retail.similar_items(item_id integer, k integer DEFAULT 10) RETURNS SETOF retail.similar_item"
    " LANGUAGE sql STABLE AS 'SELECT item_id, 0::float8 FROM retail.item_vectors LIMIT k'",
    "REVOKE ALL ON FUNCTION retail.similar_items FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION retail.similar_items TO application",
)
OLDER_RESULT = (
    "DROP FUNCTION retail.predict",
    "CREATE FUNCTION retail.predict(user_id bigint, item_id integer) RETURNS numeric LANGUAGE sql STABLE AS 'SELECT 0.0'",
)
OLDER_PARAMETERS = (
    "DROP FUNCTION retail.similar_users",
    "CREATE FUNCTION retail.similar_users(who bigint, k integer DEFAULT 10) RETURNS SETOF retail.similar_user"
    " LANGUAGE sql STABLE AS 'SELECT who, 0::float8'",
)
OLDER_VIEW = (
    "DROP VIEW retail.user_vectors",
    "CREATE VIEW retail.user_vectors AS SELECT user_id, length AS size FROM retail._users",
    "GRANT SELECT ON retail.user_vectors TO application WITH GRANT OPTION",
)


@pytest.mark.contract
def test_nothing_is_touched_when_nothing_changed(trained: Database) -> None:
    connection = trained.connect()
    before = identities(connection)
    assert {name.split()[0] for name in before} == {"function", "view", "type"}
    assert upgrade(trained) == []
    connection.execute("UPDATE recstore_private.recommenders SET objects_version = 0")
    assert upgrade(trained) == []
    assert identities(connection) == before
    assert column(connection, "SELECT objects_version FROM recstore.recommenders") == [objects.OBJECTS_VERSION]


@pytest.mark.contract
def test_an_upgrade_replaces_exactly_what_is_older(trained: Database) -> None:
    connection = trained.connect()
    readers.grant_reader(connection, registry.get(connection, "retail"), "application", people=True)
    reader = trained.connect("application")
    questions = [
        "SELECT * FROM retail.users_for_item(1, 5)",
        "SELECT * FROM retail.similar_items(1, 5, 2)",
        "SELECT retail.predict(1, 1)",
        "SELECT * FROM retail.similar_users(user_id => 1)",
        "SELECT * FROM retail.user_vectors ORDER BY user_id",
    ]
    expected = [rows(reader, question) for question in questions]
    definitions = "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'retail'::regnamespace ORDER BY 1"
    texts = rows(connection, definitions)
    connection.execute("REVOKE ALL ON FUNCTION retail.users_for_item FROM PUBLIC")
    connection.execute("GRANT EXECUTE ON FUNCTION retail.users_for_item TO application")
    make_older(connection, "function users_for_item", OLDER_BODY)
    make_older(connection, "function similar_items", *OLDER_SIGNATURE)
    make_older(connection, "function predict", *OLDER_RESULT)
    make_older(connection, "function similar_users", *OLDER_PARAMETERS)
    make_older(connection, "view user_vectors", *OLDER_VIEW)
    make_older(connection, "view item_vectors", "SELECT 1")
    before = identities(connection)

    (done,) = upgrade(trained)
    functions = ("users_for_item", "similar_items", "similar_users", "predict")
    replaced = {"view item_vectors", "view user_vectors", *(f"function {name}" for name in functions)}
    assert done.startswith("retail: replaced ")
    assert set(done.removeprefix("retail: replaced ").split(", ")) == replaced
    after = identities(connection)
    assert {name for name in after if after[name] != before.get(name)} - replaced == set()
    assert after["function users_for_item"][0] == before["function users_for_item"][0]
    assert [rows(reader, question) for question in questions] == expected
    assert rows(connection, definitions) == texts
    assert executors(connection, "users_for_item") == executors(connection, "similar_items") == ["application"]
    assert executors(connection, "predict") == executors(connection, "similar_users") == ["PUBLIC"]
    reader.execute("GRANT SELECT ON retail.user_vectors TO worker")  # the grant option is kept too
    assert upgrade(trained) == []
    assert trained.retrain().live


@pytest.mark.contract
@pytest.mark.parametrize(
    ("name", "older", "depending"),
    [
        (
            "function similar_items",
            OLDER_SIGNATURE,
            "CREATE VIEW shop.ours AS SELECT * FROM retail.similar_items(1, 3)",
        ),
        (
            "function predict",
            OLDER_RESULT,
            "CREATE FUNCTION shop.ours() RETURNS numeric LANGUAGE sql BEGIN ATOMIC SELECT retail.predict(1, 1); END",
        ),
        ("function predict", OLDER_RESULT, "CREATE TABLE shop.ours (p numeric DEFAULT retail.predict(1, 1))"),
        ("view user_vectors", OLDER_VIEW, "CREATE VIEW shop.ours AS SELECT size FROM retail.user_vectors"),
    ],
)
def test_an_upgrade_that_would_break_the_application_changes_nothing(
    trained: Database, name: str, older: tuple[str, ...], depending: str
) -> None:
    connection = trained.connect()
    readers.grant_reader(connection, registry.get(connection, "retail"), "application", people=True)
    make_older(connection, "function users_for_item", OLDER_BODY)
    make_older(connection, name, *older)
    trained.connect("application").execute(depending)
    before, row = identities(connection), rows(connection, "SELECT * FROM recstore_private.recommenders")
    with pytest.raises(errors.DependentObjects, match=r"shop\.ours"):
        upgrade(trained)
    assert identities(connection) == before
    assert rows(connection, "SELECT * FROM recstore_private.recommenders") == row


def test_an_upgrade_of_one_recommender_that_fails_stops_no_other(trained: Database) -> None:
    trained.create("zoo")
    trained.create("other")
    connection = trained.connect()
    connection.execute("CREATE SCHEMA kept")
    for name in ("other", "retail"):
        for statement in OLDER_RESULT:
            connection.execute(statement.replace("retail", name))
        connection.execute(f"CREATE TABLE kept.{name} (p numeric DEFAULT {name}.predict(1, 1))")
    connection.execute("UPDATE recstore_private.recommenders SET object_digests = '{}', objects_version = 1")
    with pytest.raises(
        errors.UpgradeIncomplete, match=r"but not other, retail\..* kept\.other .* kept\.retail "
    ) as raised:
        upgrade(trained)
    assert [sentence.partition(":")[0] for sentence in raised.value.done] == ["zoo"]
    versions = {row["name"]: row["objects_version"] for row in rows(connection, "SELECT * FROM recstore.recommenders")}
    assert versions == {"zoo": objects.OBJECTS_VERSION, "other": 1, "retail": 1}


def test_an_upgrade_makes_what_is_missing(trained: Database) -> None:
    connection = trained.connect()
    question = "SELECT * FROM retail.similar_items(1, 5)"
    expected = rows(connection, question)
    connection.execute("DROP FUNCTION retail.similar_items")
    connection.execute("DROP VIEW retail.item_vectors")
    assert upgrade(trained) == ["retail: replaced view item_vectors, function similar_items"]
    assert rows(connection, question) == expected


@pytest.mark.contract
def test_readers_see_no_error_while_objects_are_upgraded(trained: Database) -> None:
    """Four readers ask in a loop, prepared and not, while functions and views are made older and upgraded again."""
    questions = [
        "SELECT count(*) AS n FROM retail.recommend(1, 5)",
        "SELECT count(*) AS n FROM (SELECT * FROM retail.item_vectors LIMIT 5) v",
        "SELECT count(*) AS n FROM retail.similar_items(1, 5)",
        "SELECT count(*) AS n FROM (SELECT user_id FROM retail.user_vectors LIMIT 5) v",
    ]

    def reader(number: int) -> Callable[[], None]:
        connection = trained.connect()
        connection.prepare_threshold = 0 if number % 2 else None

        def read() -> None:
            assert rows(connection, questions[number]) == [{"n": 5}]

        return read

    names = [
        *(f"function {name}" for name in ("recommend", "similar_items", "_nearest_items", "_live")),
        *(f"view {name}" for name in ("_generation", "item_vectors", "user_vectors")),
    ]
    with trained.connect() as connection, repeating(*map(reader, range(4))):
        for _ in range(15):
            for name in names:
                make_older(connection, name)
            (done,) = schema.upgrade(connection, trained.url, trained.settings)
            assert len(done.split(", ")) == len(names)


def test_upgrades_of_objects_at_once(trained: Database) -> None:
    connection = trained.connect()
    for name in objects.render(registry.get(connection, "retail"), ""):
        if name.startswith(("function", "view")) and name != "view interactions":
            make_older(connection, name)
    assert sorted(map(len, together(4, lambda: upgrade(trained)))) == [0, 0, 0, 1]
    assert trained.retrain().live


@pytest.mark.contract
@pytest.mark.parametrize("view", ["item_vectors", "user_vectors"])
def test_a_session_that_holds_a_view_is_named(trained: Database, view: str) -> None:
    connection = trained.connect()
    make_older(connection, f"view {view}")
    make_older(connection, "function recommend")
    before = identities(connection)
    holder = trained.connect()
    with holder.transaction():
        holder.execute(f"SELECT * FROM retail.{view} LIMIT 1")
        with pytest.raises(errors.LockTimeout) as caught:
            upgrade(trained, lock_timeout=0.01, lock_attempts=2)
        for words in (f"pids {holder.info.backend_pid})", "2 attempts", view):
            assert words in str(caught.value)
        assert identities(connection) == before
    assert len(upgrade(trained)) == 1


def test_the_source_s_text_is_not_the_upgrade_s_business(shop: Database) -> None:
    query = "SELECT user_id, product_id AS item_id, 1 AS value, '{schema} {source}' AS more FROM shop.views"
    shop.create(source=Source(query=query), hyperparameters=SMALL)
    connection = shop.connect()
    connection.execute("UPDATE recstore_private.recommenders SET object_digests = '{}', objects_version = 0")
    before = identities(connection)["view interactions"]
    (done,) = upgrade(shop)
    assert "interactions" not in done
    assert identities(connection)["view interactions"] == before
