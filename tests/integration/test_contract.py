"""What applications ask in SQL, against NumPy on the vectors that the same database shows."""

import gzip
from collections.abc import Iterator
from importlib import resources
from typing import Any

import implicit
import numpy as np
import psycopg
import pytest
from conftest import Database, drop_database, make_database
from psycopg import errors as pg
from support_sql import Factors, assert_ranking, column, read_factors, rows, transaction, unit, value

from recstore import confidence, migrate, pipeline, registry, sources
from recstore.database import Connection
from recstore.definition import Duplicates, Filters, Hyperparameters, Publication, Source, Storage
from recstore.embedded import Server
from recstore.types import IdType

NAMES = ("exact", "hnsw", "half")
"""Three recommenders over the same source: exact scans, HNSW on items and users, half precision."""

TOLERANCE = {"exact": 2e-5, "hnsw": 2e-5, "half": 4e-3}

SETTINGS = "SELECT name, setting FROM pg_settings WHERE name ~ '^(hnsw|ivfflat|enable_|search_path)' ORDER BY name"


@pytest.fixture(scope="module")
def answers(server: Server, shop_template: str) -> Iterator[Database]:
    """The small shop with the recommenders NAMES trained; nobody changes it but within a transaction that rolls back."""
    database = make_database(server, shop_template)
    small = Hyperparameters(factors=16, iterations=4, regularization=3)
    database.create("exact", hyperparameters=small)
    database.create("hnsw", hyperparameters=small, publication=Publication(search="hnsw", index_users=True))
    database.create("half", hyperparameters=small, storage=Storage(vector_type="halfvec"))
    for name in NAMES:
        assert database.retrain(name).live
    yield database
    drop_database(database)


@pytest.fixture
def connection(answers: Database) -> Iterator[Connection]:
    with answers.connect() as connection:
        yield connection


@pytest.fixture(scope="module")
def factors(answers: Database) -> dict[str, Factors]:
    with answers.connect() as connection:
        return {name: read_factors(connection, name) for name in NAMES}


@pytest.fixture(scope="module")
def seen(answers: Database) -> dict[int, list[int]]:
    """User -> items viewed."""
    with answers.connect() as connection:
        found = rows(connection, "SELECT user_id, array_agg(product_id) AS items FROM shop.views GROUP BY 1")
    return {row["user_id"]: row["items"] for row in found}


def functions(name: str) -> list[str]:
    """A call of every public function that answers a question."""
    return [
        f"SELECT {name}.generation()",
        f"SELECT * FROM {name}.popular_items(5)",
        f"SELECT * FROM {name}.similar_items(3, 5)",
        f"SELECT * FROM {name}.recommend(3, 5)",
        f"SELECT * FROM {name}.recommend(99999, 5)",
        f"SELECT * FROM {name}.similar_users(3, 5)",
        f"SELECT * FROM {name}.users_for_item(3, 5)",
        f"SELECT {name}.user_vector(3)",
        f"SELECT {name}.predict(3, 3)",
    ]


@pytest.mark.contract
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [1, 10, 1000])
def test_recommend_ranks_unseen_items_by_predicted_preference(
    connection: Connection, factors: dict[str, Factors], seen: dict[int, list[int]], name: str, k: int
) -> None:
    of = factors[name]
    for user in (1, 2, 17, 113, 240):
        answer = rows(connection, f"SELECT * FROM {name}.recommend(%s, %s)", user, k)
        assert {row["reason"] for row in answer} == {"trained"}
        scores = of.scores[of.user(user)]
        assert_ranking(answer, of.items, scores, k, excluded=seen[user], tolerance=TOLERANCE[name])


@pytest.mark.parametrize("name", NAMES)
def test_recommend_includes_seen_items_on_request(
    connection: Connection, factors: dict[str, Factors], seen: dict[int, list[int]], name: str
) -> None:
    of = factors[name]
    for user in (1, 57, 240):
        answer = rows(connection, f"SELECT * FROM {name}.recommend(%s, 30, exclude_seen => false)", user)
        assert_ranking(answer, of.items, of.scores[of.user(user)], 30, tolerance=TOLERANCE[name])
        assert set(seen[user]) & {row["item_id"] for row in answer}


@pytest.mark.contract
@pytest.mark.parametrize("name", NAMES)
def test_similar_items_rank_by_cosine_among_items_with_enough_users(
    connection: Connection, factors: dict[str, Factors], name: str
) -> None:
    of = factors[name]
    few = [item for item, users in zip(of.items, of.item_users, strict=True) if users < 3]
    fewer = [item for item, users in zip(of.items, of.item_users, strict=True) if users < 20]
    assert few
    assert len(fewer) > len(few)
    cosines = unit(of.y) @ unit(of.y).T
    for item in (1, 8, 60, 120):
        expected = cosines[of.item(item)]
        for arguments, without in (("10", few), ("1000", few), ("10, 1", []), ("10, min_users => 20", fewer)):
            k = int(arguments.split(",")[0])
            answer = rows(connection, f"SELECT * FROM {name}.similar_items(%s, {arguments})", item)
            assert_ranking(answer, of.items, expected, k, excluded=[item, *without], tolerance=TOLERANCE[name])


@pytest.mark.contract
@pytest.mark.parametrize("name", NAMES)
def test_similar_users_rank_by_cosine(connection: Connection, factors: dict[str, Factors], name: str) -> None:
    of = factors[name]
    cosines = unit(of.x) @ unit(of.x).T
    for user in (1, 99, 240):
        for k in (1, 10, 1000):
            answer = rows(connection, f"SELECT * FROM {name}.similar_users(%s, %s)", user, k)
            assert_ranking(
                answer, of.users, cosines[of.user(user)], k, excluded=[user], key="user_id", tolerance=TOLERANCE[name]
            )


@pytest.mark.contract
@pytest.mark.parametrize("name", NAMES)
def test_an_audience_is_ranked_by_direction_with_the_predicted_preference_beside_it(
    connection: Connection, factors: dict[str, Factors], name: str
) -> None:
    of = factors[name]
    longest = np.linalg.norm(of.y, axis=1).max()
    for item in (1, 44, 120):
        scores = unit(of.x) @ of.y[of.item(item)] / longest
        for k in (1, 10, 1000):
            answer = rows(connection, f"SELECT * FROM {name}.users_for_item(%s, %s)", item, k)
            assert_ranking(answer, of.users, scores, k, key="user_id", tolerance=TOLERANCE[name])
            predicted = [of.scores[of.user(row["user_id"]), of.item(item)] for row in answer]
            margin = TOLERANCE[name] * np.abs(of.scores).max()
            assert np.allclose([row["preference"] for row in answer], predicted, rtol=0, atol=margin)


@pytest.mark.contract
@pytest.mark.parametrize("name", NAMES)
def test_predict_is_the_inner_product_of_the_factors(
    connection: Connection, factors: dict[str, Factors], name: str
) -> None:
    of = factors[name]
    found = value(
        connection,
        f"SELECT array_agg({name}.predict(u, i) ORDER BY u, i) FROM unnest(%s::int[]) u, unnest(%s::int[]) i",
        of.users[:9],
        of.items,
    )
    margin = TOLERANCE[name] * np.abs(of.scores).max()
    assert np.allclose(np.array(found).reshape(9, -1), of.scores[:9], rtol=0, atol=margin)
    for unknown in ("99999, 1", "1, 99999", "NULL, 1", "1, NULL"):
        assert value(connection, f"SELECT {name}.predict({unknown})") is None


@pytest.mark.contract
def test_popular_items_are_counted_in_the_source(connection: Connection) -> None:
    counted = rows(
        connection,
        "SELECT product_id AS item_id, count(*)::int AS users, sum(view_count)::float8 AS views FROM shop.views"
        " GROUP BY 1 ORDER BY users DESC, views DESC, item_id",
    )
    for k in (1, 10, 1000):
        assert rows(connection, "SELECT * FROM exact.popular_items(%s)", k) == counted[:k]
    assert len(rows(connection, "SELECT * FROM exact.popular_items()")) == 10


@pytest.mark.contract
@pytest.mark.parametrize("name", NAMES)
def test_user_vector_is_the_view_s_and_for_an_unknown_user_the_mean(
    connection: Connection, factors: dict[str, Factors], name: str
) -> None:
    of = factors[name]
    vector_type = "halfvec" if name == "half" else "vector"
    assert value(connection, f"SELECT pg_typeof({name}.user_vector(1))::text") == vector_type
    assert value(
        connection, f"SELECT bool_and({name}.user_vector(u.user_id) = u.preference) FROM {name}.user_vectors u"
    )
    for unknown in ("99999", "NULL"):
        found = value(connection, f"SELECT {name}.user_vector({unknown})::real[]")
        assert np.allclose(found, unit(of.x).mean(axis=0), rtol=0, atol=TOLERANCE[name])


@pytest.mark.parametrize("name", NAMES)
def test_the_views_lengths_give_the_factors_back_in_either_column(
    connection: Connection, factors: dict[str, Factors], name: str
) -> None:
    of = factors[name]
    longest = np.linalg.norm(of.y, axis=1).max()
    preferences = column(connection, f"SELECT preference::real[] FROM {name}.item_vectors ORDER BY item_id")
    assert np.allclose(np.array(preferences) * longest, of.y, rtol=0, atol=TOLERANCE[name] * longest)
    lengths = column(connection, f"SELECT length FROM {name}.item_vectors ORDER BY item_id")
    assert max(lengths) == value(connection, f"SELECT max_item_length FROM {name}._generation")


@pytest.mark.contract
def test_stored_users_are_what_implicit_solves_for_them(answers: Database, factors: dict[str, Factors]) -> None:
    of = factors["exact"]
    source = Source(table="shop.views", user="user_id", item="product_id", value="view_count")
    interactions, *_ = sources.read(
        answers.url,
        answers.settings,
        "exact",
        source,
        IdType.BIGINT,
        IdType.INTEGER,
        application_name="test",
        has_last_at=False,
    )
    definition = registry.get(answers.connect(), "exact").definition
    matrix = confidence.fit(interactions, definition.confidence).matrix(interactions, definition.hyperparameters.alpha)
    model = implicit.cpu.als.AlternatingLeastSquares(factors=16, regularization=3, alpha=1.0)
    model.item_factors = of.y[:, :16].astype(np.float32)
    solved = model.recalculate_user(np.arange(len(of.users)), matrix)
    assert np.allclose(solved, of.x[:, :16], rtol=0, atol=2e-5 * np.abs(of.x).max())
    assert not of.x[:, 16:].any()


def test_equal_scores_come_in_order_of_the_ids(connection: Connection) -> None:
    """Six items and six users are made equal, in an order of rows that is not the ids'."""
    generation = value(connection, "SELECT exact.generation()")
    with transaction(connection):
        connection.execute(
            f"UPDATE exact._items_{generation} SET (embedding, preference, users, views) ="
            f" (SELECT embedding, preference, 1000, 5000 FROM exact._items_{generation} WHERE item_id = 1)"
            " WHERE item_id IN (77, 5, 119, 33, 34, 90)"
        )
        connection.execute(
            f"UPDATE exact._users_{generation} SET preference ="
            f" (SELECT preference FROM exact._users_{generation} WHERE user_id = 1)"
            " WHERE user_id IN (200, 3, 90, 21, 150, 22)"
        )
        items, users = [5, 33, 34, 77, 90, 119], [3, 21, 22, 90, 150, 200]
        assert column(connection, "SELECT item_id FROM exact.similar_items(1, 4, 1)") == items[:4]
        assert column(connection, "SELECT item_id FROM exact.popular_items(5)") == items[:5]
        assert column(connection, "SELECT user_id FROM exact.similar_users(1, 5)") == users[:5]
        audience = column(connection, "SELECT user_id FROM exact.users_for_item(5, 240)")
        assert [user for user in audience if user in {1, *users}] == [1, *users]
        recommended = column(connection, "SELECT item_id FROM exact.recommend(1, 120, false)")
        assert [item for item in recommended if item in {1, *items}] == [1, *items]
        first = recommended.index(1)
        for k in range(first + 1, first + 8):  # also where the list ends among equals
            assert column(connection, "SELECT item_id FROM exact.recommend(1, %s, false)", k) == recommended[:k]


@pytest.mark.contract
@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_user_gets_popular_items_without_those_seen_since_the_training(
    answers: Database, connection: Connection, name: str
) -> None:
    popular = rows(connection, f"SELECT * FROM {name}.popular_items(1000)")
    users = value(connection, "SELECT count(DISTINCT user_id) FROM shop.views")
    expected = [(row["item_id"], row["users"] / users, "popular") for row in popular]
    for unknown in ("99999", "NULL"):
        answer = rows(connection, f"SELECT * FROM {name}.recommend({unknown}, 1000)")
        assert [tuple(row.values()) for row in answer] == expected
    application = answers.connect("application")
    with connection.transaction():
        connection.execute(f"GRANT USAGE ON SCHEMA {name} TO application")
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO application")
    with transaction(application):
        application.execute("INSERT INTO shop.views SELECT 99999, n, 1 FROM unnest(%s::int[]) n", [[expected[0][0], 3]])
        answer = rows(application, f"SELECT * FROM {name}.recommend(99999, 5)")
        without = [row for row in expected if row[0] not in (expected[0][0], 3)]
        assert [tuple(row.values()) for row in answer] == without[:5]
        answer = rows(application, f"SELECT * FROM {name}.recommend(99999, 5, false)")
        assert [tuple(row.values()) for row in answer] == expected[:5]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_trained_user_views_now_is_excluded_at_once(answers: Database, name: str) -> None:
    application = answers.connect("application")
    worker = answers.connect()
    worker.execute(f"GRANT USAGE ON SCHEMA {name} TO application")
    worker.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO application")
    before = column(application, f"SELECT item_id FROM {name}.recommend(7, 10)")
    with transaction(application):
        application.execute("INSERT INTO shop.views VALUES (7, %s, 1)", [before[0]])
        after = column(application, f"SELECT item_id FROM {name}.recommend(7, 10)")
    assert after[:9] == before[1:]
    assert before[0] not in after


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_item_or_user_has_nobody_near(connection: Connection, name: str) -> None:
    for call in ("similar_items", "similar_users", "users_for_item"):
        for unknown in ("99999", "NULL"):
            assert rows(connection, f"SELECT * FROM {name}.{call}({unknown}, 5)") == []


@pytest.mark.contract
@pytest.mark.parametrize("k", ["0", "-1", "NULL"])
@pytest.mark.parametrize(
    "call", ["recommend(1, ", "similar_items(1, ", "similar_users(1, ", "users_for_item(1, ", "popular_items("]
)
def test_a_k_below_one_is_refused_in_a_sentence(connection: Connection, call: str, k: str) -> None:
    with pytest.raises(pg.InvalidParameterValue) as caught:
        connection.execute(f"SELECT * FROM hnsw.{call}{k})")
    assert caught.value.diag.message_primary == f"k is the number of rows wanted and must be at least 1, not {k}"


@pytest.mark.contract
def test_before_the_first_training_there_is_nothing_and_no_error_but_for_user_vector(shop: Database) -> None:
    shop.create("young")
    connection = shop.connect()
    for call in (
        "popular_items(5)",
        "similar_items(3, 5)",
        "recommend(3, 5)",
        "similar_users(3, 5)",
        "users_for_item(3, 5)",
        "item_vectors",
        "user_vectors",
    ):
        assert rows(connection, f"SELECT * FROM young.{call}") == []
    assert value(connection, "SELECT young.generation()") is None
    assert value(connection, "SELECT young.predict(1, 1)") is None
    assert value(connection, "SELECT count(*) FROM young.interactions") > 0
    connection.execute("SELECT young.use_search_settings()")
    with pytest.raises(pg.ObjectNotInPrerequisiteState) as caught:
        connection.execute("SELECT young.user_vector(1)")
    assert caught.value.diag.message_primary == "young has no live generation yet"
    assert caught.value.diag.message_hint == "Run: recstore retrain young"


@pytest.mark.contract
@pytest.mark.parametrize("name", NAMES)
def test_no_function_changes_the_session_s_settings(answers: Database, name: str) -> None:
    """In sessions of a plain role that have not loaded pgvector's library: its settings do not exist yet."""
    worker = answers.connect()
    worker.execute(f"GRANT USAGE ON SCHEMA {name} TO application")
    worker.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO application")
    worker.execute("SELECT '[1]'::vector")
    expected = rows(worker, SETTINGS)
    assert any(row["name"] == "hnsw.ef_search" for row in expected)
    for call in functions(name):
        with answers.connect("application") as fresh:
            assert not column(fresh, "SELECT name FROM pg_settings WHERE name ~ '^hnsw'")
            fresh.execute(call)
            fresh.execute("SELECT '[1]'::vector")
            assert rows(fresh, SETTINGS) == expected
        with answers.connect("application") as own, own.transaction():
            own.execute("SET TRANSACTION READ ONLY")
            own.execute("SET LOCAL hnsw.ef_search = 7")
            own.execute("SET hnsw.iterative_scan = strict_order")
            own.execute("SET LOCAL hnsw.max_scan_tuples = 77")
            own.execute("SET LOCAL enable_seqscan = off")
            own.execute("SET enable_sort = off")
            own.execute("SELECT '[1]'::vector")
            before = rows(own, SETTINGS)
            own.execute(call)
            assert rows(own, SETTINGS) == before


def test_settings_come_back_after_a_call_that_fails(answers: Database) -> None:
    own = answers.connect()
    own.execute("SELECT '[1]'::vector")
    before = rows(own, SETTINGS)
    with pytest.raises(psycopg.Error):
        own.execute("SELECT i.item_id / 0 FROM hnsw.recommend(1, 5) i")
    assert rows(own, SETTINGS) == before


@pytest.mark.contract
def test_search_settings_last_for_the_transaction(answers: Database) -> None:
    own = answers.connect()
    own.execute("SELECT '[1]'::vector")
    before = rows(own, SETTINGS)
    with own.transaction():
        own.execute("SELECT hnsw.use_search_settings()")
        chosen = value(own, "SELECT greatest(recommend_ef, similar_ef, users_ef) FROM hnsw._generation")
        assert value(own, "SHOW hnsw.ef_search") == str(max(40, chosen))
        assert value(own, "SHOW hnsw.iterative_scan") == "relaxed_order"
    assert rows(own, SETTINGS) == before


@pytest.mark.contract
def test_a_canary_is_seen_in_its_own_recommender_only(server: Server, shop_template: str) -> None:
    database = make_database(server, shop_template)
    try:
        database.create("one", hyperparameters=Hyperparameters(factors=8, iterations=2))
        database.create("two", hyperparameters=Hyperparameters(factors=8, iterations=2))
        worker = database.connect()
        first, second = (database.retrain("one").generation for _ in range(2))
        other = database.retrain("two").generation
        empty = value(worker, "SELECT max(generation) FROM recstore.generations WHERE recommender = 'one'")
        assert empty not in (first, second)

        def look(connection: Connection, name: str) -> list[Any]:
            statements = [
                *functions(name),
                f"SELECT * FROM {name}.item_vectors ORDER BY item_id",
                f"SELECT * FROM {name}.user_vectors ORDER BY user_id",
            ]
            return [rows(connection, statement) for statement in statements]

        database_rollback(database, worker, "one", first)
        old_one, two = look(worker, "one"), look(worker, "two")
        database_rollback(database, worker, "one", second)
        new_one = look(worker, "one")
        assert old_one != new_one

        canary = database.connect()
        canary.execute(f"SET recstore.generation = {first}")
        assert look(canary, "one") == old_one
        assert look(canary, "two") == two
        assert look(worker, "one") == new_one
        # what is no complete generation of this recommender: the live one
        for nonsense in (str(other), str(empty), "", "x", "99999999999999999999", "-1"):
            canary.execute("SELECT set_config('recstore.generation', %s, false)", [nonsense])
            assert value(canary, "SELECT one.generation()") == second
            assert value(canary, "SELECT two.generation()") == other
            assert value(canary, "SELECT count(*) FROM one.item_vectors") > 0
        with canary.transaction():
            canary.execute(f"SET LOCAL recstore.generation = {first}")
            assert look(canary, "one") == old_one
        assert value(canary, "SELECT one.generation()") == second
    finally:
        drop_database(database)


def database_rollback(database: Database, connection: Connection, name: str, generation: int) -> None:
    if value(connection, f"SELECT {name}.generation()") != generation:
        pipeline.roll_back(database.url, database.settings, name, to=generation)


@pytest.mark.contract
def test_every_object_is_commented_and_every_function_safe(connection: Connection) -> None:
    uncommented = column(
        connection,
        """
        SELECT p.oid::regprocedure::text FROM pg_proc p
        WHERE p.pronamespace = 'exact'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL
        UNION ALL
        SELECT c.oid::regclass::text FROM pg_class c
        WHERE c.relnamespace = 'exact'::regnamespace AND c.relkind IN ('v', 'p')
            AND obj_description(c.oid, 'pg_class') IS NULL
        UNION ALL
        SELECT t.oid::regtype::text FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid
        WHERE t.typnamespace = 'exact'::regnamespace AND c.relkind = 'c' AND obj_description(t.oid, 'pg_type') IS NULL
        """,
    )
    assert uncommented == []
    columns = column(
        connection,
        "SELECT a.attrelid::regclass || '.' || a.attname FROM pg_attribute a"
        " WHERE a.attrelid IN ('exact.item_vectors'::regclass, 'exact.user_vectors'::regclass) AND a.attnum > 0"
        " AND a.attname NOT IN ('item_id', 'user_id') AND col_description(a.attrelid, a.attnum) IS NULL",
    )
    assert columns == []
    unsafe = column(
        connection,
        """
        SELECT p.oid::regprocedure::text FROM pg_proc p
        WHERE p.pronamespace = 'exact'::regnamespace AND NOT (
            p.provolatile = CASE p.proname WHEN 'use_search_settings' THEN 'v' ELSE 's' END
            AND p.proparallel = 'u' AND NOT p.prosecdef AND p.proconfig = ARRAY['search_path=pg_catalog, pg_temp'])
        """,
    )
    assert unsafe == []
    assert value(connection, "SELECT count(*) FROM pg_proc WHERE pronamespace = 'exact'::regnamespace") >= 12


def test_functions_may_be_asked_by_name_and_with_defaults(connection: Connection) -> None:
    assert len(rows(connection, "SELECT * FROM exact.recommend(user_id => 1)")) == 10
    assert len(rows(connection, "SELECT * FROM exact.recommend(1, exclude_seen => true, k => 3)")) == 3
    assert len(rows(connection, "SELECT * FROM exact.similar_items(item_id => 1, k => 4, min_users => 1)")) == 4
    assert len(rows(connection, "SELECT * FROM exact.users_for_item(item_id => 1)")) == 10
    assert len(rows(connection, "SELECT * FROM exact.similar_users(user_id => 1)")) == 10
    lateral = rows(
        connection,
        "SELECT u.user_id, r.* FROM generate_series(1, 240) u(user_id), LATERAL exact.recommend(u.user_id, 3) r",
    )
    assert len(lateral) == 720


@pytest.mark.contract
def test_nothing_is_out_of_line(connection: Connection) -> None:
    toast = column(
        connection,
        "SELECT pg_relation_size(c.reltoastrelid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = ANY (%s) AND c.relkind = 'r' AND c.reltoastrelid <> 0",
        list(NAMES),
    )
    assert not any(toast)


def test_long_text_ids_stay_in_the_row_beside_wide_vectors(shop: Database) -> None:
    """A row above 2 kB makes PostgreSQL move what it may out of line; an exact scan would fetch each id from there."""
    query = (
        "SELECT 'a customer with quite a long identifier ' || user_id AS user_id,"
        " 'an article with quite a long identifier ' || product_id AS item_id, view_count AS value FROM shop.views"
    )
    shop.create("wide", source=Source(query=query), storage=Storage(dimensions=640))
    assert shop.retrain("wide").live
    connection = shop.connect()
    tables = rows(
        connection,
        "SELECT c.relname, pg_relation_size(nullif(c.reltoastrelid, 0)) AS size FROM pg_class c"
        " WHERE c.relnamespace = 'wide'::regnamespace AND c.relkind = 'r'",
    )
    assert len(tables) == 4
    assert not any(row["size"] for row in tables), tables
    assert len(rows(connection, "SELECT * FROM wide.recommend('a customer with quite a long identifier 5', 7)")) == 7


def test_k_rows_come_for_a_user_who_has_seen_a_thousand_items(shop: Database) -> None:
    application = shop.connect("application")
    application.execute("CREATE TABLE shop.many (user_id int, item_id int, value int, PRIMARY KEY (user_id, item_id))")
    random = np.random.default_rng(3)
    pairs = {(user, int(item)) for user in range(2, 200) for item in random.integers(1, 2001, 60)}
    pairs |= {(1, int(item)) for item in random.permutation(2000)[:1000] + 1}
    application.execute(
        "INSERT INTO shop.many SELECT u, i, 1 FROM unnest(%s::int[], %s::int[]) AS t(u, i)",
        list(map(list, zip(*sorted(pairs), strict=True))),
    )
    application.execute("GRANT SELECT ON shop.many TO worker")
    shop.create(
        source=Source(table="shop.many", value="value"),
        hyperparameters=Hyperparameters(factors=8, iterations=3, regularization=1),
        publication=Publication(search="hnsw", ann_recall=0.8),
    )
    assert shop.retrain().live
    connection = shop.connect()
    assert value(connection, "SELECT recommend_ef IS NOT NULL AND similar_ef IS NOT NULL FROM retail._generation")
    of = read_factors(connection)
    mine = [item for user, item in pairs if user == 1]
    for k in (10, 100, 700):
        answer = rows(connection, "SELECT * FROM retail.recommend(1, %s)", k)
        assert len(answer) == k
        assert not set(mine) & {row["item_id"] for row in answer}
    # more than the index can give: the exact scan answers
    answer = rows(connection, "SELECT * FROM retail.recommend(1, 1500)")
    assert len(answer) == len(of.items) - len(mine)
    assert_ranking(answer, of.items, of.scores[of.user(1)], 1500, excluded=mine)
    popular = sorted(of.item_users)[-3]
    answer = rows(connection, "SELECT * FROM retail.similar_items(1, 50, %s)", int(popular))
    few = [item for item, users in zip(of.items, of.item_users, strict=True) if users < popular]
    cosines = unit(of.y) @ unit(of.y)[of.item(1)]
    assert_ranking(answer, of.items, cosines, 50, excluded=[1, *few])


def test_collapsed_items_keep_their_popularity_and_are_unknown_otherwise(shop: Database) -> None:
    """Item 500 is viewed by users 501 to 503 alone, who view nothing else: strong regularization shrinks all of them."""
    application = shop.connect("application")
    application.execute("INSERT INTO shop.views SELECT u, 500, 1 FROM generate_series(501, 503) u")
    shop.create(hyperparameters=Hyperparameters(factors=8, iterations=25, regularization=300))
    outcome = shop.retrain()
    assert outcome.live
    assert any("1 items have factors that shrank to nothing" in warning for warning in outcome.warnings)
    connection = shop.connect()
    assert rows(connection, "SELECT * FROM retail.item_vectors WHERE embedding IS NULL OR preference IS NULL") == [
        {
            "item_id": 500,
            "embedding": None,
            "preference": None,
            "length": pytest.approx(0, abs=1e-6),
            "users": 3,
            "views": 3.0,
        }
    ]
    assert value(connection, "SELECT collapsed_items FROM recstore.generations WHERE state = 'live'") == 1
    assert 500 in column(connection, "SELECT item_id FROM retail.popular_items(1000)")
    assert rows(connection, "SELECT * FROM retail.similar_items(500, 5)") == []
    assert rows(connection, "SELECT * FROM retail.users_for_item(500, 5)") == []
    assert value(connection, "SELECT retail.predict(1, 500)") is None
    assert 500 not in column(connection, "SELECT item_id FROM retail.recommend(1, 1000, false)")
    assert len(column(connection, "SELECT item_id FROM retail.recommend(1, 1000, false)")) == 120
    assert 500 not in column(connection, "SELECT item_id FROM retail.similar_items(1, 1000, 1)")
    # her users collapse with it: they are strangers
    assert {row["reason"] for row in rows(connection, "SELECT * FROM retail.recommend(501, 5)")} == {"popular"}
    assert 500 not in column(connection, "SELECT item_id FROM retail.recommend(501, 1000)")
    assert value(connection, "SELECT retail.user_vector(501) = retail.user_vector(99999)")
    assert rows(connection, "SELECT * FROM retail.similar_users(501, 5)") == []
    assert 501 not in column(connection, "SELECT user_id FROM retail.users_for_item(1, 1000)")


@pytest.mark.contract
def test_seen_items_may_be_published_with_the_generation(shop: Database) -> None:
    """Also those that the filters dropped; rows that the source gains later count from the next training on."""
    source = Source(table="shop.views", user="user_id", item="product_id", value="view_count", seen="published")
    shop.create(source=source, filters=Filters(min_users_per_item=3, min_items_per_user=2))
    assert shop.retrain().live
    connection = shop.connect()
    of = read_factors(connection)
    dropped = value(
        connection,
        "SELECT product_id FROM shop.views GROUP BY 1 HAVING count(*) < 3 ORDER BY 1 LIMIT 1",
    )
    user = value(connection, "SELECT min(user_id) FROM shop.views WHERE product_id = %s", dropped)
    application = shop.connect("application")
    application.execute("DELETE FROM shop.views WHERE user_id = %s", [user])
    generation = value(connection, "SELECT retail.generation()")
    mine = column(connection, f"SELECT item_id FROM retail._seen_{generation} WHERE user_id = %s", user)
    assert dropped in mine
    answer = rows(connection, "SELECT * FROM retail.recommend(%s, 1000)", user)
    assert_ranking(answer, of.items, of.scores[of.user(user)], 1000, excluded=mine)
    # a user whom only the published table knows, as one whom the filters dropped
    connection.execute(f"INSERT INTO retail._seen_{generation} VALUES (4000, %s)", [of.items[0]])
    popular = column(connection, "SELECT item_id FROM retail.recommend(4000, 1000)")
    assert len(popular) == len(of.items) - 1
    assert of.items[0] not in popular


def test_duplicates_in_the_source_are_one_interaction(shop: Database) -> None:
    shop.create(hyperparameters=Hyperparameters(factors=8, iterations=2))
    assert shop.retrain().live
    query = (
        "SELECT v.user_id, v.product_id AS item_id, d.part * v.view_count AS value, now() + d.part * interval '1 h'"
        " AS last_at FROM shop.views v, (VALUES (0.25), (0.75)) d(part)"
    )
    connection = shop.connect()
    ways: dict[Duplicates, float] = {"sum": 1, "max": 0.75, "mean": 0.5, "last": 0.75}
    for how, factor in ways.items():
        name = f"by_{how}"
        shop.create(
            name, source=Source(query=query, duplicates=how), hyperparameters=Hyperparameters(factors=8, iterations=2)
        )
        assert shop.retrain(name).live
        once = rows(connection, "SELECT item_id, users, views * %s AS views FROM retail.popular_items(1000)", factor)
        assert rows(connection, f"SELECT item_id, users, views FROM {name}.popular_items(1000)") == once
        answer = column(connection, f"SELECT item_id FROM {name}.recommend(60, 200)")
        seen = column(connection, "SELECT product_id FROM shop.views WHERE user_id = 60")
        assert len(answer) == len(set(answer)) == 120 - len(seen)


# Real data: the demo's Online Retail, default definition


@pytest.fixture(scope="module")
def retail(server: Server, empty_template: str) -> Iterator[Database]:
    database = make_database(server, empty_template)
    with database.connect() as worker:
        migrate.upgrade(worker, database.url, database.settings)
    application = database.connect("application")
    application.execute("CREATE SCHEMA shop")
    application.execute(
        "CREATE TABLE shop.products (product_id integer PRIMARY KEY, stock_code text, title text, visible boolean DEFAULT true)"
    )
    application.execute(
        "CREATE TABLE shop.views (user_id bigint, product_id integer, view_count integer,"
        " PRIMARY KEY (user_id, product_id))"
    )
    for table, file in (("products (product_id, stock_code, title)", "resources"), ("views", "views")):
        packed = resources.files("recstore.demo").joinpath(f"data/online_retail_2010.{file}.csv.gz").read_bytes()
        with application.cursor().copy(f"COPY shop.{table} FROM STDIN (FORMAT csv, HEADER)") as copy:
            copy.write(gzip.decompress(packed))
    application.execute("UPDATE shop.products SET visible = product_id % 3 > 0")
    application.execute("GRANT USAGE ON SCHEMA shop TO worker")
    application.execute("GRANT SELECT ON ALL TABLES IN SCHEMA shop TO worker")
    application.execute("ANALYZE shop.views, shop.products")
    database.create(hyperparameters=Hyperparameters(), publication=Publication(search="hnsw"))
    assert database.retrain().live
    yield database
    drop_database(database)


@pytest.fixture(scope="module")
def retail_factors(retail: Database) -> Factors:
    with retail.connect() as connection:
        return read_factors(connection)


SAMPLE = 150


def ann_recall(answers: list[list[Any]], exact: list[list[Any]]) -> float:
    found = sum(len(set(mine) & set(best)) for mine, best in zip(answers, exact, strict=True))
    return found / sum(map(len, exact))


def test_hnsw_reaches_the_ann_recall_on_real_data(retail: Database, retail_factors: Factors) -> None:
    of, connection = retail_factors, retail.connect()
    chosen = rows(connection, "SELECT recommend_ef, similar_ef FROM retail._generation")[0]
    assert chosen["recommend_ef"]
    assert chosen["similar_ef"]
    random = np.random.default_rng(1)
    viewed: dict[int, list[int]] = {}
    for row in rows(connection, "SELECT user_id, array_agg(product_id) AS items FROM shop.views GROUP BY 1"):
        viewed[row["user_id"]] = row["items"]
    answers, exact = [], []
    for user in random.choice(of.users, SAMPLE, replace=False).tolist():
        answers.append(column(connection, "SELECT item_id FROM retail.recommend(%s)", user))
        scores = of.y @ of.x[of.user(user)]
        scores[np.searchsorted(of.items, viewed[user])] = -np.inf
        exact.append([of.items[i] for i in np.argsort(-scores, kind="stable")[:10]])
        assert not set(viewed[user]) & set(answers[-1])
        assert len(answers[-1]) == 10
    assert ann_recall(answers, exact) >= 0.99
    answers, exact, directions = [], [], unit(of.y)
    for item in random.choice(of.items, SAMPLE, replace=False).tolist():
        answers.append(column(connection, "SELECT item_id FROM retail.similar_items(%s, 10, 1)", item))
        scores = directions @ directions[of.item(item)]
        scores[of.item(item)] = -np.inf
        exact.append([of.items[i] for i in np.argsort(-scores, kind="stable")[:10]])
    assert ann_recall(answers, exact) >= 0.99


DIRECT = """
SELECT r.product_id
FROM shop.products r JOIN retail.item_vectors v ON v.item_id = r.product_id
WHERE r.visible AND r.title LIKE %s
ORDER BY v.preference <#> (SELECT retail.user_vector(%s)) LIMIT 10
"""


def test_a_query_of_one_s_own_agrees_with_numpy_and_the_function(retail: Database, retail_factors: Factors) -> None:
    of = retail_factors
    random = np.random.default_rng(2)
    users = random.choice(of.users, SAMPLE, replace=False).tolist()
    for pattern in ("%", "%RED%", "%CHRISTMAS%"):
        connection = retail.connect()
        allowed = column(connection, "SELECT product_id FROM shop.products WHERE visible AND title LIKE %s", pattern)
        hidden = ~np.isin(of.items, allowed)
        answers, exact = [], []
        for user in users:
            with connection.transaction():
                connection.execute("SELECT retail.use_search_settings()")
                answers.append(column(connection, DIRECT, pattern, user))
            scores = of.y @ of.x[of.user(user)]
            scores[hidden] = -np.inf
            exact.append([of.items[i] for i in np.argsort(-scores, kind="stable")[:10]])
            assert len(answers[-1]) == 10
        assert ann_recall(answers, exact) >= 0.99, pattern
    without, function = [], []
    connection = retail.connect()
    for user in users:
        with connection.transaction():
            connection.execute("SELECT retail.use_search_settings()")
            without.append(
                column(
                    connection,
                    "SELECT item_id FROM retail.item_vectors ORDER BY preference <#>"
                    " (SELECT retail.user_vector(%s)) LIMIT 10",
                    user,
                )
            )
        function.append(column(connection, "SELECT item_id FROM retail.recommend(%s, 10, false)", user))
    assert ann_recall(without, function) >= 0.98


def test_many_factors_are_stored_in_half_precision(shop: Database) -> None:
    shop.create("big", hyperparameters=Hyperparameters(factors=1024, iterations=2, regularization=1))
    outcome = shop.retrain("big")
    assert outcome.live
    connection = shop.connect()
    of = read_factors(connection, "big")
    assert of.y.shape == (120, 1024)
    assert value(connection, "SELECT pg_typeof(preference)::text FROM big.item_vectors LIMIT 1") == "halfvec"
    mine = column(connection, "SELECT product_id FROM shop.views WHERE user_id = 9")
    answer = rows(connection, "SELECT * FROM big.recommend(9, 20)")
    assert_ranking(answer, of.items, of.scores[of.user(9)], 20, excluded=mine, tolerance=5e-3)
