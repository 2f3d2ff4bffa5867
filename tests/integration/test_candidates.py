"""Candidates: which items may be recommended now, in every function that returns items."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest
from conftest import Command, Database, copy_of, make_database, make_template, superuser
from psycopg import errors as pg
from support import Hook
from support_sql import (
    Factors,
    assert_ranking,
    column,
    make_many,
    read_factors,
    repeating,
    rows,
    transaction,
    unit,
    value,
    wait_for_other_sessions,
)

from recstore import pipeline, registry
from recstore.api.options import merge
from recstore.definition import Candidates, Hyperparameters, Publication, Source
from recstore.embedded import Server
from recstore.errors import (
    AlteredMeanwhile,
    CandidatesInvalid,
    InvalidInput,
    PermissionDenied,
    ReadersLackRights,
    RecstoreError,
)
from recstore.operations import jobs, readers, repair
from recstore.postgres.connection import Connection
from recstore.source import candidates
from recstore.sql import objects

ITEMS, USERS = 4000, 80
SHARES = {"90 %": 3600, "50 %": 2000, "5 %": 200, "0.5 %": 20}
"""Eligible items of ITEMS."""

SMALL = Hyperparameters(factors=16, iterations=2, regularization=3, alpha=60)
CALLS = ("recommend(7)", "recommend(99999)", "similar_items(7)", "popular_items()")
VISIBLE = Candidates(query="SELECT id FROM shop.things WHERE visible")


def alter(database: Database, name: str, chosen: Candidates, **more: bool) -> objects.Registered:
    with database.connect() as connection:
        recommender = registry.get(connection, name)
        definition = recommender.definition.model_copy(update={"candidates": chosen})
        return registry.alter(connection, database.settings, recommender, definition, **more)


@pytest.fixture(scope="module", autouse=True)
def _few_questions() -> Iterator[None]:
    """Calibrations ask a tenth of the default questions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSTORE_CALIBRATION_QUESTIONS", "20")
        yield


@pytest.fixture(scope="module")
def limited(server: Server, shop_template: str) -> str:
    """shop.things, of which all are visible, and recommenders exact and hnsw over many views of them, whose candidates are
    the visible ones; as a template."""
    database = make_database(server, shop_template)
    with database.connect("application") as application:
        application.execute(
            "CREATE TABLE shop.things (id integer PRIMARY KEY, visible boolean NOT NULL DEFAULT true);"
            f" INSERT INTO shop.things SELECT generate_series(1, {ITEMS})"
        )
        random = np.random.default_rng(3)
        near = (np.arange(USERS)[:, None] * ITEMS // USERS + random.integers(0, 200, (USERS, 100))) % ITEMS
        pairs = {(user + 1, int(item) + 1) for user in range(USERS) for item in near[user]}
        pairs |= {(item * USERS // ITEMS + 1, item + 1) for item in range(ITEMS)}  # every item has a user
        make_many(application, pairs)
        application.execute("GRANT SELECT ON shop.things TO worker; ANALYZE shop.things")
    of_many = {"source": Source(table="shop.many"), "candidates": VISIBLE, "hyperparameters": SMALL}
    for name in ("exact", "hnsw"):
        database.create(name, publication=Publication(search=name, ann_recall=0.97), **of_many)
        assert database.retrain(name).live
    return make_template(database, "template_limited")


asked = copy_of("limited", "module")
"""For tests that change it in a transaction that is rolled back, or undo their changes."""

changed = copy_of("limited")
"""For tests that change it."""


@pytest.fixture(scope="module")
def factors(asked: Database) -> dict[str, Factors]:
    with asked.connect() as connection:
        return {name: read_factors(connection, name) for name in ("exact", "hnsw")}


def hide(connection: Connection, condition: str) -> None:
    """Within the caller's transaction, as the application."""
    connection.execute(f"UPDATE shop.things SET visible = NOT ({condition})")


def make_heap(application: Connection) -> None:
    """Ids without an index to look them up in."""
    application.execute("CREATE TABLE shop.heap AS SELECT id FROM shop.things CROSS JOIN generate_series(1, 20)")
    application.execute("GRANT SELECT ON shop.heap TO worker; ANALYZE shop.heap")


def ids(connection: Connection, call: str) -> list[Any]:
    return column(connection, f"SELECT r.item_id FROM {call} r")


@pytest.fixture
def shopkeeper(asked: Database) -> Iterator[psycopg.Connection[Any]]:
    """A role that may do anything, in a transaction that is rolled back."""
    with asked.connect("postgres") as connection, transaction(connection):
        yield connection


@pytest.mark.contract
@pytest.mark.parametrize("name", ["exact", "hnsw"])
def test_a_product_hidden_a_moment_ago_is_gone_from_the_next_answer(shopkeeper: Connection, name: str) -> None:
    for call in ("recommend(7, 10)", "recommend(7, 10, false)", "recommend(99999, 10)", "similar_items(7, 10, 1)",
                 "popular_items(10)"):  # fmt: skip
        before = ids(shopkeeper, f"{name}.{call}")
        shopkeeper.execute("UPDATE shop.things SET visible = false WHERE id = %s", [before[0]])
        after = ids(shopkeeper, f"{name}.{call}")
        assert len(after) == 10
        assert before[0] not in after, call
        if name == "exact":  # the other's is approximate, before and after
            assert after[:9] == before[1:], call
        shopkeeper.execute("UPDATE shop.things SET visible = true")
        assert ids(shopkeeper, f"{name}.{call}") == before


@pytest.mark.contract
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", ["exact", "hnsw"])
def test_lists_are_numpy_s_at_any_share(
    shopkeeper: Connection, factors: dict[str, Factors], name: str, share: str
) -> None:
    of, number = factors[name], SHARES[share]
    chosen = set(np.random.default_rng(number).choice(of.items, number, replace=False).tolist())
    shopkeeper.execute("UPDATE shop.things SET visible = id = ANY (%s)", [list(chosen)])
    hidden = [item for item in of.items if item not in chosen]
    cosines = unit(of.y) @ unit(of.y).T
    hits = total = 0
    for one in range(1, USERS + 1, 9):
        seen = column(shopkeeper, "SELECT item_id FROM shop.many WHERE user_id = %s", one)
        answers = {
            "recommend": (rows(shopkeeper, f"SELECT * FROM {name}.recommend({one}, 10)"),
                          of.scores[of.user(one)], seen),
            "similar": (rows(shopkeeper, f"SELECT * FROM {name}.similar_items({one}, 10, 1)"),
                        cosines[of.item(one)], [one]),
        }  # fmt: skip
        for answer, scores, besides in answers.values():
            without = hidden + [item for item in besides if item in chosen]
            given = [row["item_id"] for row in answer]
            assert len(given) == min(10, len(of.items) - len(without))
            assert set(given) <= chosen - set(besides)
            if name == "exact":
                assert_ranking(answer, of.items, scores, 10, excluded=without)
            allowed = np.isin(of.items, without, invert=True)
            least = np.sort(scores[allowed])[-len(given)] if given else 0
            hits += sum(scores[of.item(item)] >= least - 1e-5 * abs(least) for item in given)
            total += len(given)
    assert hits >= (0.94 if name == "hnsw" and number > 1000 else 1) * total  # few are compared one by one


@pytest.mark.contract
@pytest.mark.parametrize("share", ["50 %", "0.5 %"])
@pytest.mark.parametrize("name", ["exact", "hnsw"])
def test_a_call_s_own_exclusions_leave_k_rows_while_k_exist(
    shopkeeper: Connection, factors: dict[str, Factors], name: str, share: str
) -> None:
    of, random = factors[name], np.random.default_rng(SHARES[share])
    chosen = set(random.choice(of.items, SHARES[share], replace=False).tolist())
    shopkeeper.execute("UPDATE shop.things SET visible = id = ANY (%s)", [list(chosen)])
    for user in random.integers(1, USERS + 1, 8).tolist():
        basket = random.choice(of.items, 3).tolist()
        calls: dict[str, list[int]] = {
            f"recommend({user}, 10, false": [],
            f"recommend({user}, 10, true": column(shopkeeper, "SELECT item_id FROM shop.many WHERE user_id = %s", user),
            "recommend(99999, 10, true": [],
            f"recommend_for_items(ARRAY{basket}, NULL, 10": basket,
            f"similar_items({basket[0]}, 10, 1": basket[:1],
            "popular_items(10": [],
        }
        for call, without in calls.items():
            best = ids(shopkeeper, f"{name}.{call})")
            for excluded in (best[::2], [*best, *random.choice(list(chosen), len(chosen) // 2)]):
                answer = ids(shopkeeper, f"{name}.{call}, exclude_items => ARRAY{list(map(int, excluded))}::int[])")
                left = chosen - set(without) - set(excluded)
                assert set(answer) <= left, call
                assert len(set(answer)) == len(answer) == min(10, len(left)), call


@pytest.mark.contract
def test_an_index_answers_where_many_are_eligible_else_a_scan(changed: Database, factors: dict[str, Factors]) -> None:
    reader = changed.connect()
    table = f"hnsw._items_{value(reader, 'SELECT hnsw.generation()')}"

    def scans() -> tuple[int, int, int]:
        reader.execute("SELECT pg_stat_force_next_flush()")
        return (
            value(reader, "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelid = %s::regclass",
                  f"{table}_preference_hnsw"),
            value(reader, "SELECT seq_scan FROM pg_stat_user_tables WHERE relid = %s::regclass", table),
            value(reader, "SELECT seq_scan + idx_scan FROM pg_stat_user_tables WHERE relid = 'shop.things'::regclass"),
        )  # fmt: skip

    def changes(condition: str, user: int) -> tuple[int, int, int]:
        """Index scans, and sequential ones, of a question while these are hidden, and lookups of candidates."""
        with changed.connect("application") as application:
            hide(application, condition)
        wait_for_other_sessions(reader)  # and what they counted
        try:
            before = scans()
            assert len(ids(reader, f"hnsw.recommend({user}, 5, false)")) == 5
            after = scans()
        finally:
            with changed.connect("application") as application:
                hide(application, "false")
        return after[0] - before[0], after[1] - before[1], after[2] - before[2]

    of = factors["hnsw"]
    # a user with five eighths of the best 50, the second scan's width at ef_search 40, with remainders 0 to 4, and fewer of the
    # best eight, which the first looks up
    best = np.array(of.items)[np.argsort(-of.scores, axis=1)[:, :50]] % 8 < 5
    user = of.users[int(np.argmin(np.abs(best.sum(axis=1) - 31) + 50 * (best[:, :8].sum(axis=1) > 4)))]
    reader.execute("UPDATE recstore_private.generations SET recommend_ef = 40")
    assert changes("false", user) == (1, 0, 8)
    assert changes("id % 8 > 4", user)[:2] == (3, 0)  # two wider ones
    index, sequential, _ = changes("id > 20", user)
    assert index == 2  # no third, since so few are eligible
    assert sequential <= 1  # or a join through the ids


@pytest.mark.contract
@pytest.mark.parametrize("name", ["exact", "hnsw"])
def test_no_candidates_at_all_are_no_rows_and_no_error(shopkeeper: Connection, name: str) -> None:
    shopkeeper.execute("UPDATE shop.things SET visible = false")
    for call in CALLS:
        assert ids(shopkeeper, f"{name}.{call}") == []
    assert value(shopkeeper, f"SELECT {name}.predict(7, 7)") is not None
    assert len(rows(shopkeeper, f"SELECT * FROM {name}.users_for_item(7, 3)")) == 3


def test_nulls_and_duplicates_among_candidates_change_nothing(changed: Database) -> None:
    before = {name: _answers(changed, name) for name in ("exact", "hnsw")}
    query = "SELECT id FROM shop.things UNION ALL SELECT id FROM shop.things WHERE id % 2 = 0 UNION ALL SELECT NULL"
    for name in ("exact", "hnsw"):
        alter(changed, name, Candidates(query=query))
        assert _answers(changed, name) == before[name]


def _answers(database: Database, name: str) -> list[list[Any]]:
    with database.connect() as connection:
        return [ids(connection, f"{name}.{call}") for call in CALLS]


@pytest.mark.contract
def test_the_caller_s_own_rights_decide(changed: Database) -> None:
    """A reader needs SELECT on what the candidates read; row-level security there holds."""
    calls = ["SELECT * FROM exact.similar_items(7)", "SELECT * FROM exact.popular_items()"]
    with changed.connect() as worker, superuser(changed.server, changed.name) as administrator:
        administrator.execute("CREATE ROLE clerk LOGIN")
        try:
            recommender = registry.get(worker, "exact")
            printed = readers.grant_reader(worker, recommender, "clerk")
            assert "GRANT USAGE ON SCHEMA shop TO clerk; GRANT SELECT ON shop.things TO clerk;" in printed[-1]
            with changed.connect("clerk") as clerk:
                for call in calls:
                    with pytest.raises(pg.InsufficientPrivilege, match="denied for table things"):
                        clerk.execute(call)
                with changed.connect("application") as application:
                    application.execute("GRANT USAGE ON SCHEMA shop TO clerk; GRANT SELECT ON shop.things TO clerk")
                    assert [len(rows(clerk, call)) for call in calls] == [10, 10]
                    assert readers.grant_reader(worker, recommender, "clerk")[-1].startswith("REVOKE EXECUTE")
                    application.execute("ALTER TABLE shop.things ENABLE ROW LEVEL SECURITY")
                    application.execute("CREATE POLICY few ON shop.things TO clerk USING (id <= 500)")
                    assert all(item <= 500 for call in ("similar_items(7)", "popular_items()")
                               for item in ids(clerk, f"exact.{call}"))  # fmt: skip
                # candidates that this reader may not read are refused, unless said
                with superuser(changed.server, changed.name) as owner:
                    owner.execute(
                        "CREATE TABLE shop.stock AS SELECT 5 AS id, 1 AS place; GRANT SELECT ON shop.stock TO worker"
                    )
                    owner.execute("GRANT SELECT (place) ON shop.stock TO clerk")
                other = Candidates(table="shop.stock", column="id")
                with pytest.raises(ReadersLackRights, match=r"clerk .*GRANT SELECT ON shop\.stock TO clerk;"):
                    alter(changed, "exact", other)
                assert len(rows(clerk, calls[0])) == 10
                alter(changed, "exact", other, readers_may_fail=True)
                with pytest.raises(pg.InsufficientPrivilege):
                    clerk.execute(calls[0])
                alter(changed, "exact", Candidates())
                assert [len(rows(clerk, call)) for call in calls] == [10, 10]
                assert len(column(clerk, "SELECT item_id FROM exact.candidates")) > 1000
        finally:
            administrator.execute("DROP OWNED BY clerk")
            administrator.execute("DROP ROLE clerk")


def test_candidates_come_and_go_while_readers_read_on(changed: Database) -> None:
    narrow, everything = set(range(1, 401)), set(range(1, ITEMS + 1))

    def reader(prepared: bool) -> Callable[[], None]:
        connection = changed.connect()
        connection.prepare_threshold = 0 if prepared else None

        def read() -> None:
            for call in CALLS:
                found = ids(connection, f"hnsw.{call}")
                assert len(found) == 10, call
                assert set(found) <= narrow or set(found) <= everything, call

        return read

    wider = Candidates(query="SELECT id::bigint FROM shop.things WHERE id <= 400")  # another type: a new view
    with repeating(reader(True), reader(False)):
        for chosen in (Candidates(), Candidates(query="SELECT id FROM shop.things WHERE id <= 400"), wider) * 4:
            alter(changed, "hnsw", chosen)
    with changed.connect() as connection:
        assert max(ids(connection, "hnsw.recommend(7, 50)")) <= 400
        alter(changed, "hnsw", Candidates())
        assert max(ids(connection, "hnsw.popular_items(2000)")) > 400
        assert objects.missing(connection, registry.get(connection, "hnsw")) == []


def test_an_upgrade_and_a_training_bring_the_view_back_and_keep_the_candidates(changed: Database) -> None:
    with changed.connect() as worker, changed.connect("application") as application:
        hide(application, "id % 3 = 0")
        recommender = registry.get(worker, "exact")
        before = _answers(changed, "exact")
        # as version 1 left it: no view of candidates, other functions
        worker.execute("DROP VIEW exact.candidates")
        worker.execute("UPDATE recstore_private.recommenders SET object_digests = '{}', objects_version = 1")
        objects.upgrade(worker, changed.settings, replace(recommender, objects_version=1))
        assert objects.missing(worker, recommender) == ["view candidates"]
        assert list(repair.restore_views(worker, changed.settings, recommender)) == ["candidates"]
        assert _answers(changed, "exact") == before
        # dropped along with its table, which comes back
        application.execute("DROP TABLE shop.things CASCADE")
        with pytest.raises(CandidatesInvalid, match="things"):
            repair.restore_views(worker, changed.settings, recommender)
        application.execute(
            "CREATE TABLE shop.things AS SELECT n AS id, true AS visible FROM generate_series(1, 500) n"
        )
        application.execute("GRANT SELECT ON shop.things TO worker")
        outcome = changed.retrain("exact")
        assert "exact.candidates" in outcome.warnings[0]
        worker.execute("DROP VIEW exact.candidates")
        outcome = jobs.reindex(changed.url, changed.settings, "exact")
        assert "exact.candidates" in outcome.warnings[0]
        application.execute("REVOKE SELECT ON shop.things FROM worker")
        for job in (pipeline.retrain, jobs.reindex):
            with pytest.raises(PermissionDenied, match=r"role worker .*GRANT SELECT ON shop\.things TO \"?worker"):
                job(changed.url, changed.settings, "exact")
        stages = "SELECT r.stages -> -1 ->> 'stage' FROM recstore.runs r WHERE r.state = 'failed' AND r.job = 'retrain'"
        assert column(worker, stages) == ["prepare"]
        application.execute("GRANT SELECT ON shop.things TO worker")
        assert max(ids(worker, "exact.popular_items(2000)")) <= 500
        alter(changed, "exact", Candidates())
        worker.execute("DROP VIEW exact.candidates")
        worker.execute("UPDATE recstore_private.recommenders SET objects_version = 1")
        assert objects.upgrade(worker, changed.settings, registry.get(worker, "exact")) == ["view candidates"]
        assert registry.get(worker, "exact").objects_version == objects.OBJECTS_VERSION
        jobs.drop(worker, changed.settings, recommender)


def test_calibration_is_of_every_item_and_says_where_hardly_any_is_a_candidate(changed: Database) -> None:
    with changed.connect("application") as application, changed.connect() as worker:
        hide(application, "true")
        asked = "hnsw.generation(), 'preference', hnsw.user_vector(7), 10, NULL, NULL, 40"
        assert value(worker, f"SELECT cardinality(hnsw._nearest_items({asked}))") == 0
        assert value(worker, f"SELECT cardinality(hnsw._nearest_items({asked}, true))") == 10
        # no index to look candidates up in: no index scan that would read them all for each row, from now on
        make_heap(application)
        assert None not in rows(worker, "SELECT recommend_ef, similar_ef FROM hnsw._generation")[0].values()
        recommender = alter(changed, "hnsw", Candidates(table="shop.heap", column="id", condition="id <= 8"))
        assert not candidates.looked_up_by_index(worker, recommender)
        assert set(rows(worker, "SELECT recommend_ef, similar_ef FROM hnsw._generation")[0].values()) == {None}
        shown = value(worker, "SELECT calibration FROM recstore.generations WHERE generation = hnsw.generation()")
        assert {kind: plan["chosen"]["ef"] for kind, plan in shown.items()} == {"recommend": None, "similar": None}
        outcome = changed.retrain("hnsw")
        assert outcome.live
        assert any("8 are candidates" in warning for warning in outcome.warnings)
        assert any("not found through an index" in warning for warning in outcome.warnings)
        assert set(rows(worker, "SELECT recommend_ef, similar_ef FROM hnsw._generation")[0].values()) == {None}
        assert set(ids(worker, "hnsw.recommend(7, 10, false)")) == set(range(1, 9))
        application.execute("CREATE INDEX ON shop.heap (id)")
        assert candidates.looked_up_by_index(worker, recommender)


def test_what_is_altered_during_a_training_holds_after_it(changed: Database) -> None:
    """Also after the training that finishes a resize, and so do its checks."""
    with changed.connect("application") as application, changed.connect() as worker:
        make_heap(application)
        publication = registry.get(worker, "hnsw").definition.publication.model_copy(update={"keep": 1})
        before = changed.alter("hnsw", candidates=Candidates(), publication=publication)
        jobs.resize(changed.url, changed.settings, "hnsw", 100)
        with pytest.raises(AlteredMeanwhile):  # whoever read it before would put back the former dimensions
            registry.alter(
                worker, changed.settings, before, before.definition.model_copy(update={"candidates": VISIBLE})
            )

        def narrow(stage: str) -> None:
            if stage == "train":
                alter(changed, "hnsw", Candidates(table="shop.heap", column="id", condition="id <= 400"))

        outcome = changed.retrain("hnsw", reporter=Hook(narrow))
        assert outcome.live
        assert any("not found through an index" in warning for warning in outcome.warnings)
        assert not objects.has_old_parents(worker, before)
        assert value(worker, "SELECT max(item_id) FROM hnsw.candidates") == 400
        assert max(ids(worker, "hnsw.popular_items(2000)")) <= 400


def test_another_column_of_items_that_the_candidates_follow_is_looked_at(changed: Database) -> None:
    with changed.connect("application") as application, changed.connect() as worker:
        application.execute("CREATE TABLE shop.wide AS SELECT user_id, item_id, item_id AS other FROM shop.many")
        application.execute("CREATE INDEX ON shop.wide (item_id); GRANT SELECT ON shop.wide TO worker")
        application.execute("ANALYZE shop.wide")
        for column_, found in (("item_id", True), ("other", False)):
            source = Source(table="shop.wide", item=column_)
            changed.alter("hnsw", candidates=Candidates(table="shop.wide"), source=source)
            assert (value(worker, "SELECT recommend_ef FROM hnsw._generation") is not None) == found


REFUSED: dict[str, tuple[Candidates, type[RecstoreError], str]] = {
    "two columns": (Candidates(query="SELECT id, visible FROM shop.things"), CandidatesInvalid, "id, visible"),
    "another type": (Candidates(query="SELECT id::text FROM shop.things"), CandidatesInvalid, "text, .* is integer"),
    "a type that is no id": (Candidates(query="SELECT now()"), CandidatesInvalid, "timestamp with time zone"),
    "no table": (Candidates(table="shop.nothing"), CandidatesInvalid, r"there is no table shop\.nothing"),
    "no column": (Candidates(table="shop.things"), CandidatesInvalid, "no column 'item_id'; its columns are id, visible"),
    "a wrong condition": (
        Candidates(table="shop.things", column="id", condition="in_stock"), CandidatesInvalid, '"in_stock" does not exist'
    ),
    "a mistake": (Candidates(query="SELEC id FROM shop.things"), CandidatesInvalid, 'at or near "SELEC"'),
    "two statements": (Candidates(query="SELECT 1; DROP TABLE shop.things"), CandidatesInvalid, "multiple commands"),
    "a function that names no schema": (
        Candidates(query="SELECT id FROM shop.things WHERE shop.shown(id)"), CandidatesInvalid, "things.* write schema.name"
    ),
    "no rights": (Candidates(query="SELECT user_id FROM shop.secret"), PermissionDenied, "secret"),
}  # fmt: skip


@pytest.mark.parametrize(("chosen", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_wrong_candidates_are_refused(
    asked: Database, chosen: Candidates, error: type[RecstoreError], words: str
) -> None:
    with asked.connect("application") as application:
        application.execute("CREATE TABLE IF NOT EXISTS shop.secret (user_id integer)")
        application.execute(
            "CREATE OR REPLACE FUNCTION shop.shown(integer) RETURNS boolean STABLE LANGUAGE plpgsql"
            " AS 'BEGIN RETURN EXISTS (SELECT FROM things WHERE id = $1); END'"
        )
    with pytest.raises(error, match=words):
        alter(asked, "exact", chosen)
    with asked.connect() as connection:
        assert registry.get(connection, "exact").definition.candidates == VISIBLE


@pytest.mark.contract
@pytest.mark.parametrize(
    ("kind", "theirs"), [("uuid", "uuid"), ("text", "varchar(40)"), ("bigint", "smallint"), ("smallint", "bigint")]
)
def test_ids_of_any_type_are_compared_through_an_index(shop: Database, kind: str, theirs: str) -> None:
    text = "md5(n::text)::uuid" if kind == "uuid" else f"n::{kind}"
    with shop.connect("application") as application:
        application.execute(
            f"CREATE TABLE shop.clicks AS SELECT p.user_id, i.item_id FROM (SELECT u AS user_id, (u * 7 + v * v) % 60 AS n"
            f" FROM generate_series(1, 40) u, generate_series(1, 8) v) p CROSS JOIN LATERAL (SELECT {text} AS item_id) i"
        )
        application.execute(f"CREATE TABLE shop.stock (code {theirs} PRIMARY KEY, amount integer NOT NULL)")
        theirs_text = "md5(n::text)::uuid" if kind == "uuid" else f"n::{theirs}"
        application.execute(f"INSERT INTO shop.stock SELECT {theirs_text}, n % 2 FROM generate_series(0, 19999) n")
        application.execute("GRANT SELECT ON shop.clicks, shop.stock TO worker; ANALYZE shop.stock")
    shop.create(
        source=Source(table="shop.clicks"),
        candidates=Candidates(table="shop.stock", column="code", condition="amount > 0 -- in stock"),
        hyperparameters=SMALL,
        publication=Publication(search="hnsw", ann_recall=0.5),
    )
    assert shop.retrain().live
    with shop.connect() as connection:
        recommender = registry.get(connection, "retail")
        assert candidates.looked_up_by_index(connection, recommender)
        eligible = set(column(connection, f"SELECT code::{kind} FROM shop.stock WHERE amount > 0"))
        for call in ("recommend(1, 10)", "recommend(99999, 10)", "popular_items(10)"):
            found = ids(connection, f"retail.{call}")
            assert len(found) == 10, call
            assert set(found) <= eligible
        assert set(ids(connection, "retail.similar_items((SELECT min(item_id::text) FROM shop.clicks)"
                       f"::{recommender.item_type.parameter_sql}, 10, 1)")) <= eligible  # fmt: skip


def test_commands_set_and_tell_candidates(shop: Database, recstore: Command) -> None:
    source = "--table shop.views --item product_id --value view_count --factors 16 --iterations 2 --search exact"
    recstore(f"create retail {source} --candidates-table shop.products --candidates-condition visible").expect(
        0, "only candidates are recommended, from now on"
    )
    assert recstore("retrain retail").code == 0
    assert "candidates: table = shop.products, condition = visible" in recstore("show retail").out
    with shop.connect("application") as application:
        application.execute("UPDATE shop.products SET visible = product_id <= 12")
    assert {row["item_id"] for row in recstore("popular retail -k 50 --json").json} <= set(range(1, 13))
    few = recstore("alter retail --candidates", "SELECT product_id FROM shop.products WHERE visible AND product_id > 3")
    assert "9 of the live 120 items" in few.out
    assert "next training" not in few.out
    none = "SELECT product_id FROM shop.products WHERE product_id > 999"
    assert "120 items" in recstore("alter retail --candidates", none).err
    with shop.connect("application") as application:
        application.execute("UPDATE shop.products SET visible = false")
    for line in ("popular retail", "recommend retail 1", "similar retail 5"):
        assert "candidate" in recstore(line).out
    broken = recstore("alter retail --candidates", "SELECT product_id FROM shop.producs")
    assert (broken.code, broken.err.count("\n")) == (2, 1)
    assert 'relation "shop.producs" does not exist' in broken.err
    assert "every item may be recommended" in recstore("alter retail --candidates none").out
    assert "candidates:" not in recstore("show retail").out
    assert len(recstore("popular retail -k 50 --json").json) == 50
    recstore("evaluate retail --sql --k 5").expect(0)


@pytest.mark.parametrize("given", [{"query": "SELECT 1", "table": "shop.things"}, {"condition": "visible"}])
def test_half_a_definition_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="candidates"):
        merge({"source": {"table": "shop.views"}}, {"candidates": given}, None)


def test_an_option_replaces_what_it_contradicts() -> None:
    base: dict[str, Any] = {
        "source": {"table": "shop.views"},
        "candidates": {"table": "shop.things", "column": "id", "condition": "visible"},
    }
    cases: Sequence[tuple[dict[str, Any], Candidates]] = [
        ({"query": "SELECT 1"}, Candidates(query="SELECT 1")),
        ({"query": None}, Candidates()),
        ({"table": None}, Candidates()),
        ({"condition": "stock > 0"}, Candidates(table="shop.things", column="id", condition="stock > 0")),
        ({"table": "shop.other"}, Candidates(table="shop.other")),
    ]
    for given, expected in cases:
        assert merge(base, {"candidates": given}, None).candidates == expected
