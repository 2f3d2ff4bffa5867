"""The plans: HNSW in order for queries on the views, what calibration chose for functions, indexes for lookups."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import Database, database_from
from support import look
from support_sql import column, make_many, rows, transaction, value, wait_for_other_sessions

from recstore.definition import Hyperparameters, Publication, Source
from recstore.embedded import Server
from recstore.operations import jobs
from recstore.postgres.connection import Connection

ITEMS, USERS, VIEWS = 4000, 4000, 6

COMMON: dict[str, Any] = {
    "source": Source(table="shop.many", value="value"),
    "hyperparameters": Hyperparameters(factors=16, iterations=2, regularization=1),
}

Plan = dict[str, Any]


@pytest.fixture(scope="module")
def planned(server: Server, shop_template: str) -> Iterator[Database]:
    """shop.many: large enough for an index to be the natural choice. Recommender hnsw has two generations, of
    which the second is live, exact has one; both have the next, empty one."""
    random = np.random.default_rng(5)
    with database_from(server, shop_template) as database, pytest.MonkeyPatch.context() as patch:
        with database.connect("application") as application:
            make_many(
                application,
                {(user, int(i)) for user in range(1, USERS + 1) for i in random.integers(1, ITEMS + 1, VIEWS)},
            )
            application.execute(
                f"CREATE TABLE shop.things AS SELECT n AS id, n % 2 = 0 AS visible FROM generate_series(1, {ITEMS}) n;"
                " ALTER TABLE shop.things ADD PRIMARY KEY (id); GRANT SELECT ON shop.things TO worker"
            )
            application.execute("ANALYZE shop.things")
        database.create("hnsw", publication=Publication(search="hnsw", index_users=True, ann_recall=0.7), **COMMON)
        database.create("exact", **COMMON)
        patch.setenv("RECSTORE_CALIBRATION_QUESTIONS", "40")  # what is chosen is not the point here
        for name in ("hnsw", "hnsw", "exact"):
            assert database.retrain(name).live
        look(  # at what these vectors without any taste ask for, comparing all 4,000 rows is rightly cheaper
            database,
            "UPDATE recstore_private.generations SET recommend_ef = 40, similar_ef = 40, users_ef = 40"
            " WHERE recommend_ef IS NOT NULL RETURNING generation",
        )
        yield database


@pytest.fixture
def connection(planned: Database) -> Iterator[Connection]:
    with planned.connect() as connection:
        yield connection


def explain(connection: Connection, query: str) -> Plan:
    plan: Plan = value(connection, f"EXPLAIN (ANALYZE, FORMAT JSON) {query}")[0]["Plan"]
    return plan


def nodes(plan: Plan, above: tuple[Plan, ...] = ()) -> Iterator[tuple[Plan, tuple[Plan, ...]]]:
    """Every node with those above it."""
    yield plan, above
    for child in plan.get("Plans", ()):
        yield from nodes(child, (*above, plan))


def executed(plan: Plan, relation: str) -> list[Plan]:
    """Scans of the relation, or of its partitions, that really ran."""
    return [
        node
        for node, _ in nodes(plan)
        if node.get("Relation Name", "").startswith(relation) and node["Actual Loops"] > 0
    ]


def live(connection: Connection, name: str) -> int:
    generation: int = value(connection, f"SELECT {name}.generation()")
    return generation


ORDERED = {
    "recommendations": (
        "SELECT item_id FROM hnsw.item_vectors ORDER BY preference <#> (SELECT hnsw.user_vector(1)) LIMIT 10",
        "_items_{}_preference_hnsw",
    ),
    "recommendations to a literal vector": (
        "SELECT v.item_id FROM hnsw.item_vectors v ORDER BY v.preference <#> '{vector}' LIMIT 10",
        "_items_{}_preference_hnsw",
    ),
    "similar items": (
        "SELECT v.item_id FROM hnsw.item_vectors v"
        " ORDER BY v.embedding <=> (SELECT o.embedding FROM hnsw.item_vectors o WHERE o.item_id = 3) LIMIT 10",
        "_items_{}_embedding_hnsw",
    ),
    "an audience": (
        "SELECT u.user_id FROM hnsw.user_vectors u"
        " ORDER BY u.preference <#> (SELECT i.preference FROM hnsw.item_vectors i WHERE i.item_id = 3) LIMIT 10",
        "_users_{}_preference_hnsw",
    ),
    "with columns of the application's": (
        "SELECT t.id FROM shop.things t JOIN hnsw.item_vectors v ON v.item_id = t.id WHERE t.visible"
        " ORDER BY v.preference <#> (SELECT hnsw.user_vector(1)) LIMIT 10",
        "_items_{}_preference_hnsw",
    ),
}


@pytest.mark.contract
@pytest.mark.parametrize(("statement", "index"), ORDERED.values(), ids=ORDERED)
def test_a_query_on_a_view_scans_the_live_generation_s_hnsw_in_order(
    connection: Connection, statement: str, index: str
) -> None:
    statement = statement.replace("{vector}", value(connection, "SELECT hnsw.user_vector(1)::text"))
    assert_in_order(connection, "hnsw", statement, index)


def assert_in_order(connection: Connection, name: str, statement: str, index: str) -> None:
    generation = live(connection, name)
    with connection.transaction():
        connection.execute(f"SELECT {name}.use_search_settings()")
        plan = explain(connection, statement)
    ((node, above),) = [found for found in nodes(plan) if found[0].get("Index Name") == index.format(generation)]
    assert node["Actual Loops"] == 1
    assert "Order By" in node
    assert [parent["Node Type"] for parent in above if "Sort" in parent["Node Type"]] == []
    # of the other generations' partitions none is touched
    others = [
        scan["Relation Name"]
        for scan, _ in nodes(plan)
        if scan["Actual Loops"] > 0 and scan.get("Relation Name", "").startswith(("_items_", "_users_"))
    ]
    assert {name.rpartition("_")[2] for name in others} == {str(generation)}
    assert plan["Actual Rows"] == 10


@pytest.mark.contract
def test_a_resize_leaves_the_views_their_indexes(planned: Database, connection: Connection) -> None:
    planned.create("resized", publication=Publication(search="hnsw", ann_recall=0.7), **COMMON)
    planned.retrain("resized")
    jobs.resize(planned.url, planned.settings, "resized", 100)
    statement = (
        "SELECT item_id FROM resized.item_vectors ORDER BY preference <#> (SELECT resized.user_vector(1)) LIMIT 10"
    )
    assert_in_order(connection, "resized", statement, "_items_{}_preference_hnsw")
    assert planned.retrain("resized").live
    assert value(connection, "SELECT to_regclass('resized._items_old') IS NOT NULL")  # the generation before is kept
    assert_in_order(connection, "resized", statement, "_items_{}_preference_hnsw")


@pytest.mark.contract
def test_a_filtered_query_on_a_view_comes_in_order(planned: Database) -> None:
    """Nothing sorts after the index, so the scan itself has to keep the order when it goes on beyond ef_search."""
    with planned.connect() as connection, connection.transaction():
        connection.execute("SELECT hnsw.use_search_settings()")
        connection.execute("SET LOCAL enable_sort = off")
        for user in range(1, 41):
            distances = column(
                connection,
                f"SELECT v.preference <#> (SELECT hnsw.user_vector({user})) FROM hnsw.item_vectors v"
                f" WHERE v.item_id % 20 = 0 ORDER BY v.preference <#> (SELECT hnsw.user_vector({user})) LIMIT 10",
            )
            assert len(distances) == 10
            assert distances == sorted(distances)


NEAREST = "v.preference <#> (SELECT hnsw.user_vector(1))"
FILTERED = {
    "joined": "SELECT v.item_id FROM shop.shown s JOIN hnsw.item_vectors v ON v.item_id = s.id"
    f" WHERE s.visible ORDER BY {NEAREST} LIMIT 10",
    "looked up": f"""
        WITH nearest AS MATERIALIZED (
            SELECT v.item_id, {NEAREST} AS distance FROM hnsw.item_vectors v
            WHERE (SELECT s.visible FROM shop.shown s WHERE s.id = v.item_id) ORDER BY {NEAREST} LIMIT 10
        )
        SELECT s.id FROM nearest n JOIN shop.shown s ON s.id = n.item_id ORDER BY n.distance""",
}


@pytest.mark.contract
def test_a_filter_that_is_looked_up_keeps_the_index_whatever_the_statistics_say(planned: Database) -> None:
    """As docs/sql.md says: with statistics from before the items were visible, a join next to ORDER BY loses the index."""
    with planned.connect("application") as application:
        application.execute(
            f"""
            CREATE TABLE shop.shown (id integer PRIMARY KEY, visible boolean) WITH (autovacuum_enabled = false);
            INSERT INTO shop.shown SELECT n, n % 2 = 0 FROM generate_series(1, {ITEMS}) n;
            GRANT SELECT ON shop.shown TO worker;
            ANALYZE shop.shown
            """
        )

        def by_index() -> dict[str, bool]:
            plans = {}
            with planned.connect() as connection, connection.transaction():
                connection.execute("SELECT hnsw.use_search_settings()")
                for form, statement in FILTERED.items():
                    plan = explain(connection, statement)
                    assert plan["Actual Rows"] == 10
                    plans[form] = any(
                        node.get("Index Name", "").endswith("preference_hnsw") and "Order By" in node
                        for node, _ in nodes(plan)
                    )
            return plans

        assert by_index() == {"joined": True, "looked up": True}
        application.execute(
            "UPDATE shop.shown SET visible = false; ANALYZE shop.shown; UPDATE shop.shown SET visible = true"
        )
        assert by_index() == {"joined": False, "looked up": True}


@pytest.mark.contract
def test_a_lookup_on_a_view_is_one_index_scan(connection: Connection) -> None:
    for name in ("hnsw", "exact"):
        generation = live(connection, name)
        for side, one in (("items", "item"), ("users", "user")):
            plan = explain(connection, f"SELECT * FROM {name}.{one}_vectors WHERE {one}_id = 7")
            (scan,) = executed(plan, f"_{side}_")
            assert scan["Index Name"] == f"_{side}_{generation}_{one}_id"
            join = (
                f"SELECT v.* FROM shop.things t JOIN {name}.{one}_vectors v ON v.{one}_id = t.id WHERE t.id IN (3, 5)"
            )
            scans = executed(explain(connection, join), f"_{side}_")
            assert {scan.get("Index Name") for scan in scans} == {f"_{side}_{generation}_{one}_id"}


class Counters:
    """How often indexes were scanned, and tables read from end to end, by what this session does in between."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        wait_for_other_sessions(connection)
        self.before = self._read()

    def _read(self) -> dict[str, int]:
        self.connection.execute("SELECT pg_stat_force_next_flush()")
        found = rows(
            self.connection,
            "SELECT schemaname || '.' || indexrelname AS name, idx_scan AS n FROM pg_stat_user_indexes"
            " UNION ALL SELECT schemaname || '.' || relname, seq_scan FROM pg_stat_user_tables",
        )
        return {row["name"]: row["n"] or 0 for row in found}

    def used(self) -> dict[str, int]:
        """Since the last call; recstore's own small tables and the catalog left out."""
        after = self._read()
        used = {
            name: after[name] - self.before.get(name, 0)
            for name in after
            if not name.startswith("recstore_private.") and after[name] != self.before.get(name, 0)
        }
        self.before = after
        return used


@pytest.mark.contract
def test_functions_use_the_plan_that_calibration_chose(connection: Connection) -> None:
    chosen = {
        name: rows(connection, f"SELECT recommend_ef, similar_ef, users_ef FROM {name}._generation")[0]
        for name in ("hnsw", "exact")
    }
    assert all(chosen["hnsw"].values())
    assert not any(chosen["exact"].values())
    counters = Counters(connection)
    h, e = live(connection, "hnsw"), live(connection, "exact")
    calls = {
        "recommend(7, 10)": ("items", "preference"),
        "recommend(7, 10, false)": ("items", "preference"),
        "similar_items(7, 10, 1)": ("items", "embedding"),
        "similar_users(7, 10)": ("users", "preference"),
    }
    for call, (side, vectors) in calls.items():
        lookup = "item_id" if call.startswith("similar_items") else "user_id"
        looked_up = "items" if lookup == "item_id" else "users"
        source = {"shop.many_pkey": 1} if call == "recommend(7, 10)" else {}
        connection.execute(f"SELECT * FROM hnsw.{call}")
        expected = {f"hnsw._{side}_{h}_{vectors}_hnsw": 1, f"hnsw._{looked_up}_{h}_{lookup}": 1}
        assert counters.used() == expected | source, call
        connection.execute(f"SELECT * FROM exact.{call}")
        assert counters.used() == {f"exact._{side}_{e}": 1, f"exact._{looked_up}_{e}_{lookup}": 1} | source, call
    connection.execute("SELECT * FROM hnsw.users_for_item(7, 10)")
    used = counters.used()
    assert used[f"hnsw._users_{h}_preference_hnsw"] == 1
    assert f"hnsw._users_{h}" not in used
    # fewer than k through the index: the exact scan answers, and then the fallback looks for more
    connection.execute(f"SELECT * FROM hnsw.recommend(7, {ITEMS * 2}, false)")
    used = counters.used()
    assert used[f"hnsw._items_{h}_preference_hnsw"] == 1
    assert used[f"hnsw._items_{h}"] + used.get(f"hnsw._items_{h}_popularity", 0) == 2


@pytest.mark.contract
def test_an_index_that_no_plan_uses_is_not_kept(connection: Connection) -> None:
    indexes = "SELECT indexname FROM pg_indexes WHERE schemaname = %s AND indexdef LIKE '%%USING hnsw%%' ORDER BY 1"
    generation = live(connection, "hnsw")
    kept = column(connection, indexes, "hnsw")
    assert [name for name in kept if f"_{generation}_" in name] == [
        f"_items_{generation}_embedding_hnsw",
        f"_items_{generation}_preference_hnsw",
        f"_users_{generation}_preference_hnsw",
    ]
    assert column(connection, indexes, "exact") == []


@pytest.mark.contract
def test_popular_and_predicted_are_read_through_their_indexes(connection: Connection) -> None:
    generation = live(connection, "exact")
    counters = Counters(connection)
    connection.execute("SELECT * FROM exact.popular_items(5)")
    assert counters.used() == {f"exact._items_{generation}_popularity": 1}
    connection.execute("SELECT exact.predict(3, 3)")
    assert counters.used() == {f"exact._items_{generation}_item_id": 1, f"exact._users_{generation}_user_id": 1}
    connection.execute("SELECT exact.user_vector(3)")
    assert counters.used() == {f"exact._users_{generation}_user_id": 1}
    connection.execute("SELECT * FROM exact.recommend(999999, 5)")
    assert counters.used() == {
        f"exact._items_{generation}_popularity": 1,
        f"exact._users_{generation}_user_id": 1,
        "shop.many_pkey": 2,  # what was seen, and what can be folded in
    }


@pytest.mark.contract
def test_a_fold_in_reads_the_users_items_alone(planned: Database, connection: Connection) -> None:
    generation = live(connection, "exact")
    with planned.connect("application") as application:
        application.execute("INSERT INTO shop.many SELECT 777777, n, 1 FROM unnest(%s::int[]) n", [[3, 5, 8]])
    counters = Counters(connection)
    connection.execute("SELECT exact.user_vector(777777)")
    assert counters.used() == {
        f"exact._users_{generation}_user_id": 1,
        "shop.many_pkey": 1,
        f"exact._fold_in_{generation}_item_id": 3,
        f"exact._basis_{generation}": 1,
    }


@pytest.mark.contract
def test_the_pointer_is_read_by_its_keys(connection: Connection) -> None:
    """With a history of thousands of generations, as a recommender that is trained every hour has after a year."""
    with transaction(connection):
        connection.execute(
            "INSERT INTO recstore_private.generations (recommender_id, state, vector_type, dimensions)"
            " SELECT r.id, 'pruned', 'vector', 64 FROM recstore_private.recommenders r, generate_series(1, 9000)"
        )
        connection.execute("ANALYZE recstore_private.generations")
        for setting in ("", "1", "nonsense"):
            connection.execute("SELECT set_config('recstore.generation', %s, true)", [setting])
            plan = explain(connection, "SELECT * FROM exact._generation")
            scans = [node for node, _ in nodes(plan) if node.get("Relation Name") == "generations"]
            assert len(scans) == 2
            assert all("generation =" in node.get("Index Cond", "") for node in scans), setting


@pytest.fixture
def measuring(planned: Database) -> Iterator[Connection]:
    """A superuser's session, which may log what is planned and count the calls of C functions."""
    with planned.connect("postgres") as session:
        yield session


def planned_by(session: Connection, call: str) -> int:
    """How many statements a call plans in a session that has made it before."""
    said: list[str] = []
    session.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
    for _ in range(10):  # five custom plans, then PostgreSQL chooses
        session.execute(f"SELECT count(*) FROM {call}", prepare=True)
    session.execute("SET client_min_messages = log; SET log_planner_stats = on", prepare=False)
    said.clear()
    session.execute(f"SELECT count(*) FROM {call}", prepare=True)
    planned = said.count("PLANNER STATISTICS")
    session.execute("RESET log_planner_stats; RESET client_min_messages", prepare=False)
    return planned


@pytest.mark.contract
@pytest.mark.parametrize("name", ["hnsw", "exact"])
def test_a_call_plans_what_depends_on_the_generation_and_nothing_else(
    planned: Database, measuring: Connection, name: str
) -> None:
    """The lookup and the search. One user's rows in the source are read by a plan that is kept, though this user has fewer than
    most, for which PostgreSQL by itself would plan each call anew."""
    users = "generate_series(1, 50) u CROSS JOIN LATERAL"
    with planned.connect("application") as application:
        application.execute(
            f"INSERT INTO shop.many SELECT u, i, 1 FROM generate_series(500001, 500020) u, generate_series(1, {ITEMS}) i"
        )
        application.execute("ANALYZE shop.many")
    try:
        assert planned_by(measuring, f"{name}.recommend(7, 10)") == 2
        assert planned_by(measuring, f"{name}.recommend(7, 10, false)") == 2
        assert planned_by(measuring, f"{name}.similar_items(7, 10, 1)") == 2
        assert planned_by(measuring, f"{name}.seen(7)") == 0
        assert planned_by(measuring, f"{users} {name}.recommend(u, 10)") == 2 * 50
    finally:
        with planned.connect("application") as application:
            application.execute("DELETE FROM shop.many WHERE user_id > 500000; ANALYZE shop.many")


@pytest.mark.contract
def test_an_exact_scan_computes_each_distance_once(measuring: Connection) -> None:
    calls = (
        "SELECT coalesce(sum(pg_stat_get_xact_function_calls(p.oid)), 0) FROM pg_proc p"
        " WHERE p.proname IN ('vector_negative_inner_product', 'cosine_distance')"
    )
    with measuring.transaction():
        measuring.execute("SET LOCAL track_functions = 'all'")
        for call in ("recommend(7, 10, false)", "similar_items(7, 10, 1)"):
            before = value(measuring, calls)
            measuring.execute(f"SELECT * FROM exact.{call}")
            assert ITEMS - 100 < value(measuring, calls) - before <= ITEMS, call
