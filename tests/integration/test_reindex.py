"""The indexes of the live generation rebuilt: readers go on, the plans follow the settings, failures leave what was."""

import threading
from typing import Any

import pytest
from conftest import Database
from support import Hook, assert_nothing_left, full_disk, look, until

from recstore.definition import Publication, Source, Storage
from recstore.errors import NotTrained, RecstoreError, ReindexBlocked
from recstore.operations import jobs
from recstore.postgres.connection import Connection
from recstore.publication import calibration, exact_lists
from recstore.runs import Run
from recstore.sql.generation import Generation

pytestmark = pytest.mark.usefixtures("calibrated")

INDEXES = """
    SELECT c.relname AS name, pg_relation_filenode(c.oid) AS file, i.indisvalid AS valid
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid IN ('retail._items_1'::regclass, 'retail._users_1'::regclass) ORDER BY 1
"""
LOOKUPS = {"_items_1_item_id", "_items_1_popularity", "_users_1_user_id"}
HNSW = {"_items_1_embedding_hnsw", "_items_1_preference_hnsw"}


@pytest.fixture
def live(shop: Database) -> Database:
    shop.create(publication=Publication(search="hnsw"))
    assert shop.retrain().live
    return shop


def reindex(database: Database, **settings: object) -> jobs.Outcome:
    return jobs.reindex(database.url, database.settings.model_copy(update=settings), "retail")


def files(database: Database) -> dict[str, int]:
    rows = look(database, INDEXES)
    assert all(row["valid"] for row in rows)
    return {row["name"]: row["file"] for row in rows}


def answers(connection: Connection) -> list[Any]:
    return [
        connection.execute(f"SELECT array_agg(r.item_id) AS ids FROM retail.{call} r").fetchone()
        for call in ("recommend(1, 10)", "similar_items(5, 10)", "popular_items(10)")
    ]


@pytest.mark.contract
def test_every_index_is_rebuilt_and_readers_go_on(live: Database) -> None:
    before, stop, read, errors = files(live), threading.Event(), [0], []
    with live.connect() as connection:
        expected = answers(connection)

        def loop() -> None:
            try:
                with live.connect() as reader:
                    while not stop.is_set():
                        assert answers(reader) == expected
                        read[0] += 1
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            until(lambda: read[0] > 3)
            outcome = reindex(live)
        finally:
            stop.set()
            thread.join()
        assert errors == []
        assert (outcome.live, outcome.generation) == (True, 1)
        assert answers(connection) == expected
    after = files(live)
    assert before.keys() == after.keys() == LOOKUPS | HNSW
    assert not set(before.values()) & set(after.values())
    run = look(live, "SELECT * FROM recstore.runs ORDER BY run DESC LIMIT 1")[0]
    assert [stage["stage"] for stage in run["stages"]] == ["prepare", "index", "calibrate", "check"]
    assert run["outcome"].startswith("Generation 1 is reindexed and calibrated (recommend: HNSW")
    assert_nothing_left(live)


@pytest.mark.contract
def test_the_plans_follow_what_was_altered(live: Database) -> None:
    live.alter(publication=Publication(search="exact"))
    reindex(live)
    assert files(live).keys() == LOOKUPS
    assert look(live, "SELECT recommend_ef, similar_ef FROM recstore.generations WHERE state = 'live'") == [
        {"recommend_ef": None, "similar_ef": None}
    ]
    live.alter(publication=Publication(search="hnsw", index_users=True))
    reindex(live)
    assert files(live).keys() == LOOKUPS | HNSW | {"_users_1_preference_hnsw"}
    row = look(live, "SELECT recommend_ef, similar_ef, users_ef FROM recstore.generations WHERE state = 'live'")[0]
    assert all(row.values())
    assert live.retrain().live
    assert_nothing_left(live)


def test_an_index_on_users_is_calibrated_for_items_too(live: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """users_for_item asks it for the users of an item, similar_users for those of a user."""
    asked: dict[str, Any] = {}
    measure = calibration._measure

    def noted(run: Any, sessions: Any, kind: calibration.Kind, *rest: Any) -> Any:
        asked[kind.name] = kind.queries
        return measure(run, sessions, kind, *rest)

    monkeypatch.setattr(calibration, "_measure", noted)
    live.alter(publication=Publication(search="hnsw", index_users=True))
    reindex(live)
    of = {
        side: {row["vector"] for row in look(live, f"SELECT v.preference::text AS vector FROM retail._{side}_1 v")}
        for side in ("items", "users")
    }
    with_user: dict[bool, set[str]] = {True: set(), False: set()}
    for query in asked["users"]:
        with_user[bool(query.excluded)].add(query.vector)
    assert with_user[True] <= of["users"]
    assert with_user[False] <= of["items"]


@pytest.mark.parametrize("vector_type", ["vector", "halfvec"])
def test_the_exact_lists_are_those_of_the_exact_scan(
    shop: Database, vector_type: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact_lists, "ROWS", 50)  # several batches
    shop.create(storage=Storage(vector_type=vector_type), publication=Publication(search="exact", index_users=True))
    assert shop.retrain().live
    with Run(shop.url, shop.settings, "retail", "reindex") as run:
        run.generation = Generation(run.recommender, 1)
        kinds = calibration._kinds(run)
        assert [kind.name for kind in kinds] == ["recommend", "similar", "users"]
        assert exact_lists.distances(run, "items", "embedding", [], 10) == []
        for kind in kinds:
            asked = [query for query in kind.queries[::9] if query.excluded] + kind.queries[:9]
            answers = exact_lists.distances(run, kind.side, kind.column, asked, 90, kind.min_users)
            for query, answer in zip(asked, answers, strict=True):
                row = run.connection.execute(
                    f"SELECT array_agg(n.distance ORDER BY n.distance) AS exact FROM unnest(retail._nearest_{kind.side}("
                    f"1, %s, %s::{run.recommender.vector}, 90, %s, %s, NULL, true)) n",
                    [kind.column, query.vector, query.excluded, kind.min_users],
                ).fetchone()
                assert row
                assert answer == pytest.approx(row["exact"], rel=1e-4, abs=1e-6)


def test_similar_items_are_calibrated_with_their_default_filter(
    live: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The items that it hides are nearest to some queries: without them a scan has to go further."""
    monkeypatch.setattr(calibration, "MIN_USERS", 8)
    with Run(live.url, live.settings, "retail", "reindex") as run:
        run.generation = Generation(run.recommender, 1)
        (kind,) = (kind for kind in calibration._kinds(run) if kind.name == "similar")
        recall = {
            min_users: calibration._measure(
                run,
                [run.connection],
                kind,
                None,
                None,
                exact_lists.distances(run, kind.side, kind.column, kind.queries, 10, min_users),
                print,
            ).ann_recall
            for min_users in (None, 8)
        }
    assert recall[8] == 1.0
    assert recall[None] < 0.95


def test_few_queries_wait_for_the_exact_scan_and_for_a_plan_that_is_ruled_out(live: Database) -> None:
    (row,) = look(live, "SELECT calibration FROM recstore.generations WHERE generation = 1")
    for name, kind in row["calibration"].items():
        exact, *others, chosen = kind["trials"]
        assert exact["queries"] <= calibration.TIMED
        assert chosen["queries"] == {"recommend": 480, "similar": 120}[name]
        assert all(trial["queries"] <= chosen["queries"] for trial in others)


@pytest.mark.contract
def test_an_old_transaction_is_named_and_what_was_there_stays(live: Database) -> None:
    before = files(live)
    with live.connect() as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM retail.item_vectors")
        with pytest.raises(ReindexBlocked, match=f"process {reader.info.backend_pid}"):
            reindex(live, flip_wait=0.2)
        assert files(live) == before

        def late(stage: str) -> None:
            if stage == "prepare":  # after the look for older transactions
                reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                reader.execute("SELECT count(*) FROM retail.item_vectors, retail.user_vectors")

        reader.execute("COMMIT")
        patient = live.settings.model_copy(update={"flip_wait": 0.5, "prune_wait": 0.1})
        with pytest.raises(ReindexBlocked):
            jobs.reindex(live.url, patient, "retail", reporter=Hook(late))
        assert len(answers(reader)) == 3
        reader.execute("COMMIT")
    reindex(live)
    assert files(live).keys() == before.keys()  # and no invalid one is left
    assert_nothing_left(live)


def test_a_failed_build_leaves_the_old_indexes(live: Database) -> None:
    before = files(live)
    with full_disk(live), pytest.raises(RecstoreError, match="No space left on device"):
        reindex(live)
    assert files(live) == before
    reindex(live)
    assert files(live).keys() == before.keys()


def test_there_is_nothing_to_reindex_before_the_first_training(shop: Database) -> None:
    shop.create()
    with pytest.raises(NotTrained):
        reindex(shop)
    assert look(shop, "SELECT state FROM recstore.runs") == [{"state": "failed"}]


def test_the_published_table_of_seen_items_is_reindexed_too(shop: Database) -> None:
    shop.create(source=Source(table="shop.views", item="product_id", value="view_count", seen="published"))
    shop.retrain()
    reindex(shop)
    stages = look(shop, "SELECT stages FROM recstore.runs ORDER BY run DESC LIMIT 1")[0]["stages"]
    assert "_seen_1_user_id" in stages[1]["indexes"]


def test_a_prepared_transaction_is_named(live: Database) -> None:
    if look(live, "SHOW max_prepared_transactions")[0]["max_prepared_transactions"] == "0":
        pytest.skip("this server allows no prepared transactions")
    with live.connect() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM retail.item_vectors")
        reader.execute("PREPARE TRANSACTION 'forgotten'")
        try:
            with pytest.raises(ReindexBlocked, match="the prepared transaction 'forgotten'"):
                reindex(live, flip_wait=0.2, prune_wait=0.1)
        finally:
            reader.execute("ROLLBACK PREPARED 'forgotten'")
    reindex(live)
    assert files(live).keys() == LOOKUPS | HNSW


INVALID = "SELECT indexrelid::regclass::text AS name FROM pg_index WHERE NOT indisvalid"


@pytest.mark.parametrize("job", ["prune", "retrain"])
def test_the_next_run_drops_an_invalid_index_of_a_killed_build(trained: Database, job: str) -> None:
    trained.connect().execute("CREATE INDEX _items_1_item_id_ccnew ON retail._items_1 (item_id)")
    look(
        trained,
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'retail._items_1_item_id_ccnew'::regclass"
        " RETURNING indexrelid",
    )
    assert look(trained, INVALID) != []
    if job == "prune":
        jobs.prune(trained.url, trained.settings, "retail")
    else:
        trained.retrain()
    assert look(trained, INVALID) == []
