"""What applications ask in SQL, against NumPy on the vectors that the same database shows."""

from collections.abc import Iterator
from typing import Any

import implicit
import numpy as np
import psycopg
import pytest
from conftest import Database, database_from
from psycopg import errors as pg
from support_sql import Factors, assert_ranking, column, read_factors, read_source, rows, transaction, unit, value

from recstore import registry
from recstore.definition import Hyperparameters, Publication, Storage
from recstore.embedded import Server
from recstore.model import confidence
from recstore.operations import jobs, readers
from recstore.postgres.connection import Connection

pytestmark = pytest.mark.usefixtures("calibrated")

NAMES = ("exact", "hnsw", "half")
"""Three recommenders over the same source: exact scans, HNSW on items and users, half precision."""

TOLERANCE = {"exact": 2e-5, "hnsw": 2e-5, "half": 4e-3}

SETTINGS = "SELECT name, setting FROM pg_settings WHERE name ~ '^(hnsw|ivfflat|enable_|search_path)' ORDER BY name"


@pytest.fixture(scope="module")
def answers(server: Server, shop_template: str) -> Iterator[Database]:
    """The small shop with the recommenders NAMES trained; tests change it only in a transaction that is rolled back."""
    small = Hyperparameters(factors=16, iterations=4, regularization=3, alpha=60)
    hnsw, half = Publication(search="hnsw", index_users=True), Storage(vector_type="halfvec")
    with database_from(server, shop_template) as database, database.connect() as connection:
        for name, more in zip(NAMES, ({}, {"publication": hnsw}, {"storage": half}), strict=True):
            database.create(name, hyperparameters=small, **more)
            assert database.retrain(name).live
            readers.grant_reader(connection, registry.get(connection, name), "application", people=True)
        yield database


@pytest.fixture
def connection(answers: Database) -> Iterator[Connection]:
    with answers.connect() as connection:
        yield connection


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def of(answers: Database, name: str) -> Factors:
    with answers.connect() as connection:
        return read_factors(connection, name)


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
@pytest.mark.parametrize("k", [1, 10, 1000])
def test_recommend_ranks_by_predicted_preference(connection: Connection, of: Factors, name: str, k: int) -> None:
    for user in (1, 2, 17, 113, 240):
        answer = rows(connection, f"SELECT * FROM {name}.recommend(%s, %s)", user, k)
        assert {row["reason"] for row in answer} == {"trained"}
        scores = of.scores[of.user(user)]
        seen = column(connection, "SELECT product_id FROM shop.views WHERE user_id = %s", user)
        assert_ranking(answer, of.items, scores, k, excluded=seen, tolerance=TOLERANCE[name])
        answer = rows(connection, f"SELECT * FROM {name}.recommend(%s, %s, exclude_seen => false)", user, k)
        assert_ranking(answer, of.items, scores, k, tolerance=TOLERANCE[name])
        assert k == 1 or set(seen) & {row["item_id"] for row in answer}


@pytest.mark.contract
def test_similar_items_rank_by_cosine_among_items_with_enough_users(
    connection: Connection, of: Factors, name: str
) -> None:
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
def test_similar_users_rank_by_cosine(connection: Connection, of: Factors, name: str) -> None:
    cosines = unit(of.x) @ unit(of.x).T
    for user in (1, 99, 240):
        for k in (1, 10, 1000):
            answer = rows(connection, f"SELECT * FROM {name}.similar_users(%s, %s)", user, k)
            assert_ranking(
                answer, of.users, cosines[of.user(user)], k, excluded=[user], key="user_id", tolerance=TOLERANCE[name]
            )


@pytest.mark.contract
def test_an_audience_is_ranked_by_direction_and_has_predicted_preferences(
    connection: Connection, of: Factors, name: str
) -> None:
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
def test_predict_is_the_inner_product_of_the_factors(connection: Connection, of: Factors, name: str) -> None:
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
def test_user_vector_is_the_view_s_and_for_an_unknown_user_the_mean(
    connection: Connection, of: Factors, name: str
) -> None:
    vector_type = "halfvec" if name == "half" else "vector"
    assert value(connection, f"SELECT pg_typeof({name}.user_vector(1))::text") == vector_type
    assert value(
        connection, f"SELECT bool_and({name}.user_vector(u.user_id) = u.preference) FROM {name}.user_vectors u"
    )
    for unknown in ("99999", "NULL"):
        found = value(connection, f"SELECT {name}.user_vector({unknown})::real[]")
        assert np.allclose(found, unit(of.x).mean(axis=0), rtol=0, atol=TOLERANCE[name])


def test_the_views_lengths_give_the_factors_back_in_either_column(
    connection: Connection, of: Factors, name: str
) -> None:
    longest = np.linalg.norm(of.y, axis=1).max()
    preferences = column(connection, f"SELECT preference::real[] FROM {name}.item_vectors ORDER BY item_id")
    assert np.allclose(np.array(preferences) * longest, of.y, rtol=0, atol=TOLERANCE[name] * longest)
    lengths = column(connection, f"SELECT length FROM {name}.item_vectors ORDER BY item_id")
    assert max(lengths) == value(connection, f"SELECT max_item_length FROM {name}._generation")


@pytest.mark.contract
def test_stored_users_are_what_implicit_solves_for_them(answers: Database) -> None:
    of = read_factors(answers.connect(), "exact")
    interactions, _ = read_source(answers, "exact")
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
def test_an_unknown_user_gets_popular_items_and_a_view_counts_at_once(
    answers: Database, connection: Connection, name: str
) -> None:
    popular = rows(connection, f"SELECT * FROM {name}.popular_items(1000)")
    users = value(connection, "SELECT count(DISTINCT user_id) FROM shop.views")
    expected = [(row["item_id"], row["users"] / users, "popular") for row in popular]
    for unknown in ("99999", "NULL"):
        answer = rows(connection, f"SELECT * FROM {name}.recommend({unknown}, 1000)")
        assert [tuple(row.values()) for row in answer] == expected
    application = answers.connect("application")
    before = column(application, f"SELECT item_id FROM {name}.recommend(7, 10)")
    with transaction(application):
        application.execute("INSERT INTO shop.views VALUES (7, %s, 1)", [before[0]])
        after = column(application, f"SELECT item_id FROM {name}.recommend(7, 10)")
        assert after[:9] == before[1:]
        assert before[0] not in after
        application.execute("INSERT INTO shop.views SELECT 99999, n, 1 FROM unnest(%s::int[]) n", [[expected[0][0], 3]])
        answer = rows(application, f"SELECT * FROM {name}.recommend(99999, 5)")
        assert {row["reason"] for row in answer} == {"fold_in"}
        assert not {row["item_id"] for row in answer} & {expected[0][0], 3}


def test_an_unknown_item_or_user_has_no_neighbours(connection: Connection, name: str) -> None:
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
    assert (caught.value.diag.message_primary or "").endswith(f"from 1 to 2147483647, not {k}")


@pytest.mark.contract
def test_before_the_first_training_there_is_nothing_and_no_error_but_for_user_vector(shop: Database) -> None:
    shop.create("young")
    connection = shop.connect()
    lists = [call for call in functions("young") if call.startswith("SELECT *")]
    for statement in (*lists, "SELECT * FROM young.item_vectors", "SELECT * FROM young.user_vectors"):
        assert rows(connection, statement) == []
    assert value(connection, "SELECT young.generation()") is None
    assert value(connection, "SELECT young.predict(1, 1)") is None
    assert value(connection, "SELECT count(*) FROM young.interactions") > 0
    connection.execute("SELECT young.use_search_settings()")
    with pytest.raises(pg.ObjectNotInPrerequisiteState) as caught:
        connection.execute("SELECT young.user_vector(1)")
    assert caught.value.diag.message_primary == "young has no live generation yet"
    assert caught.value.diag.message_hint == "Run: recstore retrain young"


@pytest.mark.contract
def test_no_function_changes_the_session_s_settings(answers: Database, name: str) -> None:
    """In sessions of a plain role that have not loaded pgvector's library: its settings do not exist yet."""
    worker = answers.connect()
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


@pytest.mark.contract
def test_search_settings_last_for_the_transaction_and_no_longer_than_a_call_that_fails(answers: Database) -> None:
    own = answers.connect()
    own.execute("SELECT '[1]'::vector")
    before = rows(own, SETTINGS)
    with pytest.raises(psycopg.Error):
        own.execute("SELECT i.item_id / 0 FROM hnsw.recommend(1, 5) i")
    assert rows(own, SETTINGS) == before
    with own.transaction():
        own.execute("SELECT hnsw.use_search_settings()")
        chosen = value(own, "SELECT greatest(recommend_ef, similar_ef, users_ef) FROM hnsw._generation")
        assert value(own, "SHOW hnsw.ef_search") == str(min(2 * max(40, chosen), 1000))
        assert value(own, "SHOW hnsw.iterative_scan") == "strict_order"
    assert rows(own, SETTINGS) == before


@pytest.mark.contract
def test_a_canary_is_seen_in_its_own_recommender_only(server: Server, shop_template: str) -> None:
    with database_from(server, shop_template) as database:
        worker = database.connect()
        for name in ("one", "two"):
            database.create(name, hyperparameters=Hyperparameters(factors=8, iterations=2))
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


def database_rollback(database: Database, connection: Connection, name: str, generation: int) -> None:
    if value(connection, f"SELECT {name}.generation()") != generation:
        jobs.roll_back(database.url, name, to=generation)


@pytest.mark.contract
def test_every_object_is_commented_and_every_function_safe(connection: Connection) -> None:
    uncommented = """
        SELECT p.oid::regprocedure::text FROM pg_proc p
        WHERE p.pronamespace = 'exact'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL
        UNION ALL
        SELECT c.oid::regclass::text FROM pg_class c
        WHERE c.relnamespace = 'exact'::regnamespace AND c.relkind IN ('v', 'p')
            AND obj_description(c.oid, 'pg_class') IS NULL
        UNION ALL
        SELECT t.oid::regtype::text FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid
        WHERE t.typnamespace = 'exact'::regnamespace AND c.relkind = 'c' AND obj_description(t.oid, 'pg_type') IS NULL
        UNION ALL
        SELECT a.attrelid::regclass || '.' || a.attname FROM pg_attribute a
        WHERE a.attrelid IN ('exact.item_vectors'::regclass, 'exact.user_vectors'::regclass) AND a.attnum > 0
            AND a.attname NOT IN ('item_id', 'user_id') AND col_description(a.attrelid, a.attnum) IS NULL
    """
    unsafe = """
        SELECT p.oid::regprocedure::text FROM pg_proc p
        WHERE p.pronamespace = 'exact'::regnamespace AND NOT (
            p.provolatile = CASE WHEN p.proname IN ('use_search_settings', 'forget_user') THEN 'v' ELSE 's' END
            AND p.proparallel = 'u' AND p.prosecdef = (p.proname IN ('_seen_published', 'forget_user'))
            AND p.proconfig = ARRAY['search_path=pg_catalog, pg_temp'] || CASE
                WHEN p.proname IN ('seen', '_left_out', '_pairs_of') THEN ARRAY['plan_cache_mode=force_generic_plan'] END)
    """
    assert (column(connection, uncommented), column(connection, unsafe)) == ([], [])
    assert value(connection, "SELECT count(*) FROM pg_proc WHERE pronamespace = 'exact'::regnamespace") >= 12


def test_functions_may_be_asked_by_name_and_with_defaults(connection: Connection) -> None:
    for number, call in (
        (10, "exact.recommend(user_id => 1)"),
        (3, "exact.recommend(1, exclude_seen => true, k => 3)"),
        (4, "exact.similar_items(item_id => 1, k => 4, min_users => 1)"),
        (10, "exact.users_for_item(item_id => 1)"),
        (10, "exact.similar_users(user_id => 1)"),
        (720, "generate_series(1, 240) u(user_id), LATERAL exact.recommend(u.user_id, 3) r"),
    ):
        assert len(rows(connection, f"SELECT * FROM {call}")) == number, call


@pytest.mark.contract
def test_nothing_is_out_of_line(connection: Connection) -> None:
    toast = column(
        connection,
        "SELECT pg_relation_size(c.reltoastrelid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = ANY (%s) AND c.relkind = 'r' AND c.reltoastrelid <> 0",
        list(NAMES),
    )
    assert not any(toast)


def test_ids_and_k_may_be_any_integer(connection: Connection) -> None:
    """Small, wide, NumPy's, and one that no id can be."""
    expected = rows(connection, "SELECT * FROM exact.recommend(1, 5)")
    for argument in ("1::smallint, 5::smallint", "1::integer, 5::bigint", "1::bigint, 5::integer", "'1', '5'"):
        assert rows(connection, f"SELECT * FROM exact.recommend({argument})") == expected, argument
    assert rows(connection, "SELECT * FROM exact.recommend(%s, %s)", np.int64(1), np.int32(5)) == expected
    beyond = 2**40
    assert rows(connection, "SELECT * FROM exact.similar_items(%s, 5)", beyond) == []
    assert rows(connection, "SELECT * FROM exact.users_for_item(%s, 5)", beyond) == []
    assert value(connection, "SELECT exact.predict(%s, %s)", beyond, beyond) is None
    assert {row["reason"] for row in rows(connection, "SELECT * FROM exact.recommend(%s, 5)", beyond)} == {"popular"}
