"""A refresh stores changed users and new items in the live generation; everything else stays as it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import Command, Database
from support import Hook, look
from support_sql import Rows, column, read_factors, repeating, rows, value

from recstore import errors, lists, registry
from recstore.background import dispatch
from recstore.definition import Confidence, Filters, Gate, Hyperparameters, Publication, Refresh, Source, Storage
from recstore.files.archive import exporting, importing
from recstore.model import held_out
from recstore.model.interactions import IdMap, Interactions
from recstore.operations import jobs
from recstore.postgres.connection import Connection
from recstore.publication import generations, refreshing
from recstore.publication import stored as stored_generations
from recstore.refresh import Refreshed
from recstore.refresh import refresh as refresh_job

SMALL = {"factors": 16, "iterations": 3, "regularization": 3}

CASES: dict[str, dict[str, Any]] = {
    "als": {},
    "hybrid": {
        "hyperparameters": Hyperparameters(trainer="hybrid", alpha=30, popularity_exponent=0.2, **SMALL),
        "storage": Storage(vector_type="halfvec"),
    },
}
"""The spectral trainer is a part of the hybrid."""


def refresh(database: Database, name: str = "retail", **more: Any) -> Refreshed:
    return refresh_job(database.url, database.settings, name, **more)


def create(shop: Database, **definition: Any) -> None:
    shop.create(**{"hyperparameters": Hyperparameters(alpha=40, **SMALL)} | definition)
    assert shop.retrain().live


def stored(shop: Database) -> dict[str, Rows]:
    with shop.connect() as connection:
        return {
            view: rows(connection, f"SELECT v::text FROM retail.{view} v ORDER BY 1")
            for view in ("item_vectors", "user_vectors")
        }


COUNTS = "SELECT product_id, count(*) FROM shop.views GROUP BY product_id"


@pytest.mark.parametrize("case", CASES)
def test_changed_users_are_stored_as_fresh_answers_them(shop: Database, case: str) -> None:
    create(shop, **CASES[case])
    before = stored(shop)
    done = refresh(shop)
    assert (done.users, done.items) == (0, 0)
    assert stored(shop) == before
    with shop.connect("application") as application:
        counts = dict(map(dict.values, rows(application, COUNTS)))
        application.execute("INSERT INTO shop.views VALUES (7, 119, 9), (500, 3, 2), (500, 5, 1)")
        application.execute("DELETE FROM shop.views WHERE user_id = 8 AND product_id % 2 = 0")
        application.execute("DELETE FROM shop.views WHERE user_id < 60 AND product_id = 17")
        now = dict(map(dict.values, rows(application, COUNTS)))
    with shop.connect() as connection:
        done = refresh(shop)
        # the items with many other users, and every user who has other rows, or one of these items
        marked = "SELECT {0} FROM retail._refreshed_1 WHERE {0} IS NOT NULL ORDER BY 1"
        items = column(connection, marked.format("item_id"))
        assert items == sorted(item for item in counts if abs(now[item] - counts[item]) > 0.1 * counts[item])
        assert 17 in items
        assert len(items) == done.items < 20
        users = column(connection, marked.format("user_id"))
        having = "SELECT user_id FROM shop.views WHERE product_id = ANY (%s) UNION SELECT unnest(%s::int[])"
        at_least = set(column(connection, having, items, [7, 8, 500]))
        assert at_least <= set(users) <= at_least | set(range(60))
        assert len(users) == done.users
        for user in (7, 8, 500):
            asked = "SELECT item_id, reason FROM retail.recommend(%s, 10, fresh => %s)"
            answer = rows(connection, asked, user, False)
            assert {row["reason"] for row in answer} == {"trained"}
            assert [row["item_id"] for row in rows(connection, asked, user, True)] == [row["item_id"] for row in answer]
    after = stored(shop)
    for view, number in (("item_vectors", done.items), ("user_vectors", done.users)):
        assert len(set(map(str, after[view])) - set(map(str, before[view]))) == number

    # a new item: with the views of item 3 it is like item 3
    with shop.connect("application") as application:
        application.execute(
            "INSERT INTO shop.views SELECT user_id, 900, view_count FROM shop.views WHERE product_id = 3"
        )
    done = refresh(shop)
    with shop.connect() as connection:
        viewers = value(connection, "SELECT count(*) FROM shop.views WHERE product_id = 900")
        assert (done.users, done.items) == (viewers, 1)
        assert column(connection, "SELECT item_id FROM retail.similar_items(3, 1)") == [900]
        assert column(connection, "SELECT item_id FROM retail.similar_items(900, 1)") == [3]
        assert value(connection, "SELECT users FROM retail.item_vectors WHERE item_id = 900") == viewers
        found = rows(
            connection,
            "SELECT retail.predict(u.user_id, 3) AS of_old, retail.predict(u.user_id, 900) AS of_new"
            " FROM retail.user_vectors u WHERE u.user_id NOT IN (SELECT user_id FROM shop.views WHERE product_id = 3)",
        )
        assert np.corrcoef([row["of_old"] for row in found], [row["of_new"] for row in found])[0, 1] > 0.9
        different = column(
            connection,
            "SELECT u.user_id FROM retail.user_vectors u"
            " WHERE retail.user_vector(u.user_id, true) <> retail.user_vector(u.user_id)",
        )
        assert different == []
    before = stored(shop)
    done = refresh(shop)
    assert (done.users, done.items) == (0, 0)
    assert stored(shop) == before


def test_items_and_users_solve_the_equations_of_the_training(shop: Database) -> None:
    """By NumPy: items with many other users, and new ones, against the users now; users with the Gram matrix of the training."""
    create(
        shop,
        confidence=Confidence(function="linear", scale="none"),
        hyperparameters=Hyperparameters(alpha=2, **SMALL),
        gate=Gate(held_out=0),
    )

    def solve(y: Any, pairs: Any, gram: Any) -> Any:
        """Factors of each row of values, by Hu, Koren and Volinsky's equation."""
        systems = gram + 3 * np.eye(16) + np.einsum("ui,if,ig->ufg", 2 * pairs, y, y)
        return np.linalg.solve(systems, ((pairs > 0) * (1 + 2 * pairs) @ y)[:, :, None])[:, :, 0]

    with shop.connect() as connection:
        before = read_factors(connection)
        with shop.connect("application") as application:
            application.execute("INSERT INTO shop.views VALUES (7, 119, 9), (500, 3, 2), (500, 5, 1)")
            application.execute("INSERT INTO shop.views SELECT user_id, 900, 2 FROM shop.views WHERE product_id = 3")
            application.execute("INSERT INTO shop.views SELECT n, 17, 4 FROM generate_series(1000, 1030) n")
        refresh(shop)
        now = read_factors(connection)
        assert now.items == [*before.items, 900]
        pairs = np.zeros((len(now.users), len(now.items)))
        for row in rows(connection, "SELECT user_id, product_id, view_count FROM shop.views"):
            pairs[now.users.index(row["user_id"]), now.item(row["product_id"])] += row["view_count"]
        now_users = (pairs > 0).sum(axis=0)
        y = before.y[:, :16]
        gram = y.T @ y
        x = solve(y, pairs[:, :-1], gram)
        solved = solve(x, pairs.T, x.T @ x)
        length = np.linalg.norm(solved, axis=1, keepdims=True)
        solved *= np.minimum(1, np.linalg.norm(y, axis=1).max() / length)
        of = np.array([*before.item_users, 0])
        changed = np.abs(now_users - of) > 0.1 * of
        assert {now.item(17), now.item(900)} <= set(np.flatnonzero(changed))
        assert changed.sum() < 20
        expected = np.vstack([y, np.zeros(16)])
        expected[changed] = solved[changed]
        np.testing.assert_allclose(now.y[:, :16], expected, atol=2e-4 * np.abs(y).max())
        users = solve(expected, pairs, gram)
        np.testing.assert_allclose(now.x[:, :16], users, atol=1e-3 * np.abs(users).max())


def test_everything_else_works_on_a_refreshed_generation(shop: Database, tmp_path: Path) -> None:
    """Held-out pairs are those of the same items; rollback, retrain from its items, export and import, lists, prune."""
    create(shop, gate=Gate(held_out=0.2), publication=Publication(keep=3))
    with shop.connect() as connection:
        held_out = "SELECT held_out FROM recstore_private.generations WHERE generation = 1"
        items = "SELECT item_id FROM retail.item_vectors ORDER BY 1"
        of = [column(connection, items)[place] for place in value(connection, held_out)["items"]]
        with shop.connect("application") as application:
            application.execute("INSERT INTO shop.views SELECT user_id, -1, 3 FROM shop.views WHERE product_id = 5")
        assert refresh(shop).items == 1
        now = value(connection, held_out)
        assert [column(connection, items)[place] for place in now["items"]] == [-1, *of]
        generation = generations.live(connection, registry.get(connection, "retail"))
        assert generation is not None
        read = stored_generations.read(connection, shop.url, generation, "test")
        assert read is not None
        assert (read.fold_in.item_users > 0).all()
        assert registry.dependents(connection, generation.recommender) == []
        vectors = stored(shop)
        lists.recommend_all(shop.url, shop.settings, "retail", str(tmp_path / "lists.csv"), k=5)
        exporting.export(shop.url, "retail", tmp_path / "g.npz")
        assert importing.import_generation(shop.url, shop.settings, "retail", tmp_path / "g.npz").live
        assert stored(shop) == vectors
        hook = Hook()
        assert shop.retrain(reporter=hook).live
        assert hook.stages["train"]["warm"]
        jobs.roll_back(shop.url, "retail", to=1)
        assert stored(shop) == vectors
        assert refresh(shop).users == 0
        jobs.release(shop.url, "retail")
        for _ in range(2):
            assert shop.retrain().live
        assert column(connection, "SELECT relname FROM pg_class WHERE relname = '_refreshed_1'") == []


@pytest.mark.parametrize("case", CASES)
def test_an_imported_refreshed_generation_answers_as_before(shop: Database, tmp_path: Path, case: str) -> None:
    """Refreshed rows stay such, and the fold-in stays that of the training."""
    create(shop, **CASES[case])
    file = tmp_path / "g.npz"

    def answers(connection: Any) -> tuple[list[str], Any]:
        reasons = "SELECT DISTINCT r.reason FROM shop.views v, LATERAL retail.recommend(v.user_id, 1, fresh => true) r"
        return column(connection, reasons), np.array(column(connection, "SELECT retail.user_vector(501)::real[]"))

    with shop.connect("application") as application, shop.connect() as connection:
        application.execute(
            "INSERT INTO shop.views SELECT user_id, 900 + user_id % 3, 5 FROM generate_series(1, 60) user_id"
        )
        application.execute("INSERT INTO shop.views SELECT n, 17, 4 FROM generate_series(1000, 1030) n")
        application.execute("INSERT INTO shop.views VALUES (500, 3, 2), (500, 901, 1)")
        assert refresh(shop).items == 4
        application.execute("INSERT INTO shop.views VALUES (501, 4, 2), (501, 900, 1)")
        reasons, vector = answers(connection)
        assert sorted(reasons) == ["fold_in", "trained"]
        marks = "SELECT user_id, item_id FROM retail._refreshed_{} ORDER BY 1, 2"
        marked = rows(connection, marks.format(1))
        exporting.export(shop.url, "retail", file)
        assert importing.import_generation(shop.url, shop.settings, "retail", file).live
        assert rows(connection, marks.format(2)) == marked
        found, again = answers(connection)
        assert sorted(found) == sorted(reasons)
        assert np.linalg.norm(again - vector) < (1e-4 if case == "als" else 2e-3)  # of halfvec
        assert (
            value(
                connection, "SELECT snapshot -> 'refreshed' ->> 'items' FROM recstore.generations WHERE generation = 2"
            )
            == "4"
        )
        application.execute("DELETE FROM shop.views WHERE user_id = 501")
        done = refresh(shop)
        assert (done.users, done.items) == (0, 0)

        assert value(connection, "SELECT retail.forget_user(500)") > 0
        assert importing.import_generation(shop.url, shop.settings, "retail", file).live
        assert 500 not in column(connection, "SELECT user_id FROM retail._refreshed_3")

        with np.load(file) as arrays:  # an older file does not say which rows are refreshed
            older = {name: arrays[name] for name in arrays.files if not name.endswith("refreshed")}
        np.savez(file, **older)
        assert importing.import_generation(shop.url, shop.settings, "retail", file).live
        assert value(connection, "SELECT to_regclass('retail._refreshed_4')::text") is None


def test_filters_drop_no_item_that_the_generation_knows(shop: Database) -> None:
    """The fold-in counts it as well."""
    create(shop, filters=Filters(min_users_per_item=5))
    with shop.connect("application") as application, shop.connect() as connection:
        few = "SELECT product_id FROM shop.views GROUP BY 1 HAVING count(*) >= 5 ORDER BY count(*) LIMIT 1"
        item = value(connection, few)
        application.execute(
            "DELETE FROM shop.views WHERE product_id = %s AND user_id NOT IN (SELECT user_id FROM shop.views"
            " WHERE product_id = %s ORDER BY user_id LIMIT 4)",
            [item, item],
        )
        application.execute("INSERT INTO shop.views VALUES (7, 900, 2)")  # an item that no filter lets in
        refresh(shop)
        assert value(connection, "SELECT count(*) FROM retail.item_vectors WHERE item_id = 900") == 0
        fresh = "retail.user_vector(u.user_id, true) <> retail.user_vector(u.user_id)"
        assert column(connection, f"SELECT u.user_id FROM retail.user_vectors u WHERE {fresh}") == []


def test_held_out_pairs_solve_no_item(shop: Database) -> None:
    """An item that only the gate's held-out pairs have gets no vector; its popularity is right all the same."""
    create(shop, gate=Gate(held_out=0.2))
    with shop.connect() as connection:
        key = registry.get(connection, "retail").held_out_key
        bounds = value(connection, "SELECT held_out FROM recstore_private.generations WHERE generation = 1")
        users, items = IdMap(pa.array(range(1, 241), pa.int64())), IdMap(pa.array([900], pa.int32()))
        every = np.arange(240, dtype=np.int32)
        pairs = Interactions(users, items, every, np.zeros_like(every), np.ones(240))
        held = held_out.within(pairs, key, bounds["users_below"], bounds["pairs_below"])
        chosen = [int(user) + 1 for user in np.flatnonzero(held)]
        assert 20 < len(chosen) < 100
        insert = "INSERT INTO shop.views SELECT n, %s, 5 FROM unnest(%s::int[]) n"
        with shop.connect("application") as application:
            application.execute(insert, [900, chosen])
            application.execute(insert, [901, [n for n in range(1, 241) if n not in chosen][:40]])
        assert refresh(shop).items == 2
        found = rows(
            connection,
            "SELECT item_id, embedding IS NULL AS unknown, users FROM retail.item_vectors WHERE item_id >= 900 ORDER BY 1",
        )
        assert found[0] == {"item_id": 900, "unknown": True, "users": len(chosen)}
        assert found[1] == {"item_id": 901, "unknown": False, "users": 40}


def test_published_seen_items_are_those_of_the_source(shop: Database) -> None:
    create(shop, source=Source(table="shop.views", item="product_id", value="view_count", seen="published"))
    with shop.connect("application") as application:
        application.execute("INSERT INTO shop.views VALUES (7, 119, 9), (500, 3, 2)")
        application.execute("DELETE FROM shop.views WHERE user_id = 8 AND product_id % 2 = 0")
    refresh(shop)
    with shop.connect() as connection:
        pairs = "SELECT user_id, {} FROM {} ORDER BY 1, 2"
        seen = rows(connection, pairs.format("item_id", "retail._seen_1"))
        assert seen == rows(connection, pairs.format("product_id AS item_id", "shop.views"))


def test_a_source_that_lost_most_of_its_rows_is_refused(shop: Database) -> None:
    create(shop, source=Source(table="shop.views", item="product_id", value="view_count", seen="published"))
    with shop.connect("application") as application, shop.connect() as connection:
        seen = rows(connection, "SELECT s.* FROM retail._seen_1 s ORDER BY 1, 2")
        application.execute("DELETE FROM shop.views WHERE user_id > 20")
        with pytest.raises(errors.SourceShrunk):
            refresh(shop)
        assert rows(connection, "SELECT s.* FROM retail._seen_1 s ORDER BY 1, 2") == seen
        assert shop.retrain(force=True).live
        assert refresh(shop).users == 0


def test_another_source_is_refused_until_it_is_trained(trained: Database) -> None:
    few = "SELECT user_id, product_id AS item_id, 1 AS value FROM shop.views WHERE product_id <> 3"
    trained.alter(source=Source(query=few))
    with pytest.raises(errors.RefreshRefused, match="was trained on another source"):
        refresh(trained)
    assert trained.retrain().live
    assert refresh(trained).users == 0


def test_a_publication_overtakes(trained: Database) -> None:
    assert trained.retrain().live
    with trained.connect("application") as application:
        application.execute("INSERT INTO shop.views VALUES (7, 119, 9), (7, 900, 2), (9, 900, 2)")
    tables = {
        name: look(trained, f"SELECT v::text FROM retail.{name} v ORDER BY 1") for name in ("_users_1", "_users_2")
    }
    with pytest.raises(errors.RefreshOvertaken):
        refresh(
            trained, reporter=Hook(on_stage=lambda name: name == "compare" and jobs.roll_back(trained.url, "retail"))
        )
    assert {name: look(trained, f"SELECT v::text FROM retail.{name} v ORDER BY 1") for name in tables} == tables
    assert refresh(trained).generation == 1


@pytest.mark.parametrize("stage", ["solve", "store"])
def test_killed_at_a_stage_it_leaves_a_valid_generation(trained: Database, stage: str) -> None:
    with trained.connect("application") as application:
        application.execute("INSERT INTO shop.views VALUES (7, 119, 9), (7, 900, 2), (9, 900, 2)")
    before = stored(trained)

    def kill(name: str) -> None:
        if name == stage:
            look(
                trained,
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE 'recstore:run:%'",
            )

    with pytest.raises(errors.ConnectionLost):
        refresh(trained, reporter=Hook(on_stage=kill))
    assert (stored(trained) == before) == (stage != "store")
    done = refresh(trained)
    assert (bool(done.users), done.items) == ((True, 2) if stage != "store" else (False, 0))
    assert refresh(trained).users == 0


def test_an_error_while_storing_changes_nothing(trained: Database) -> None:
    with trained.connect("application") as application:
        application.execute("INSERT INTO shop.views VALUES (7, 119, 9), (7, 900, 2), (9, 900, 2)")
    before = stored(trained)
    with trained.connect() as connection:
        connection.execute("ALTER TABLE retail._users_1 ADD CHECK (user_id <> 9) NOT VALID")
    with pytest.raises(errors.RecstoreError):
        refresh(trained)
    assert stored(trained) == before


def test_readers_meanwhile(trained: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers of refreshes, publications and rollbacks see no error, and each statement answers by one state: that before or
    after, never a mixture."""
    assert trained.retrain().live
    store_users = refreshing._store_users
    asked = (
        "SELECT retail.generation(), ARRAY(SELECT r::text FROM retail.recommend({user}, 10) r) AS listed,"
        " ARRAY(SELECT s::text FROM retail.similar_items(5, 10) s) AS similar,"
        " retail.user_vector({user})::text,"
        " (SELECT md5(string_agg(u::text, ' ' ORDER BY u.user_id)) FROM retail.user_vectors u) AS users,"
        " (SELECT md5(string_agg(i::text, ' ' ORDER BY i.item_id)) FROM retail.item_vectors i) AS items"
    )
    users = (1, 7, 12)
    seen: list[tuple[int, str]] = []
    states: set[tuple[int, str]] = set()

    def answers(connection: Connection) -> list[tuple[int, str]]:
        return [(user, str(rows(connection, asked.format(user=user)))) for user in users]

    def reader() -> Any:
        connection = trained.connect()
        return lambda: seen.extend(answers(connection))

    def note() -> None:
        states.update(answers(trained.connect()))

    between = reader()
    monkeypatch.setattr(refreshing, "_store_users", lambda *given: (between(), store_users(*given), between()))
    note()
    with repeating(reader(), reader()):
        for number in range(2):
            with trained.connect("application") as application:
                application.execute(
                    f"INSERT INTO shop.views SELECT user_id, {900 + number}, 3 FROM shop.views WHERE product_id = {5 + number}"
                    f" UNION ALL VALUES ({1000 + number}, 3, 1), ({1000 + number}, 5, 1)"
                )
            note()
            refresh(trained)
            note()
            if number % 2:
                jobs.roll_back(trained.url, "retail")
                note()
                jobs.release(trained.url, "retail")
            else:
                assert trained.retrain().live
                note()
    assert len(states) == 4 * len(users)  # two generations, refreshed or not
    assert len(set(seen)) > len(users)
    assert set(seen) <= states
    assert all(answer.count("trained)") == 10 for _, answer in seen)


def test_old_pgvector_is_refused_where_it_could_corrupt_an_index(shop: Database) -> None:
    create(shop, publication=Publication(search="hnsw"))
    look(shop, "UPDATE pg_extension SET extversion = '0.8.3' WHERE extname = 'vector' RETURNING 1")
    with pytest.raises(errors.RefreshRefused, match=r"pgvector 0\.8\.3 can corrupt"):
        refresh(shop)
    shop.alter(publication=Publication(search="exact"))
    assert shop.retrain().live
    assert refresh(shop).users == 0


def test_ann_recall_is_measured_again_and_the_index_rebuilt(shop: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    create(shop, publication=Publication(search="hnsw"))
    hook = Hook()
    refresh(shop, reporter=hook)
    assert "too few" in hook.stages["measure"]["summary"]
    with shop.connect("application") as application:
        application.execute(
            "INSERT INTO shop.views SELECT user_id, product_id + 1000, view_count FROM shop.views WHERE product_id < 30"
        )
    monkeypatch.setattr(refreshing.calibration, "declined", lambda _: ["recommend"])
    hook = Hook()
    assert refresh(shop, reporter=hook).items == 29
    assert hook.stages["measure"]["summary"] == "ANN recall fell for recommend"
    assert hook.stages["calibrate"]
    hook = Hook()
    refresh(shop, reporter=hook)
    assert "too few" in hook.stages["measure"]["summary"]


def test_the_schedule_asks_for_it(trained: Database) -> None:
    trained.alter(refresh=Refresh(cron="* * * * *"))
    look(trained, "UPDATE recstore_private.recommenders SET refresh_at = now() - interval '2 minutes' RETURNING id")
    sent: list[tuple[str, str]] = []
    done = dispatch.dispatch(trained.url, trained.settings, lambda job, name: sent.append((job, name)))
    assert (done.scheduled, sent) == (["retail"], [("refresh", "retail")])
    assert refresh(trained, requested=True).users == 0
    assert look(trained, "SELECT state FROM recstore.requests") == [{"state": "succeeded"}]


def test_a_user_erased_meanwhile_does_not_come_back(trained: Database) -> None:
    with trained.connect("application") as application:
        application.execute("INSERT INTO shop.views VALUES (7, 119, 9), (8, 119, 9)")

    def erase(name: str) -> None:
        if name == "read":
            with trained.connect("application") as application:
                application.execute("DELETE FROM shop.views WHERE user_id = 7")
            with trained.connect() as connection:
                assert value(connection, "SELECT retail.forget_user(7)") == 1

    refresh(trained, reporter=Hook(on_stage=erase))
    with trained.connect() as connection:
        marked = "SELECT user_id FROM retail._refreshed_1 WHERE user_id IN (7, 8)"
        assert column(connection, "SELECT user_id FROM retail.user_vectors WHERE user_id IN (7, 8)") == [8]
        assert column(connection, marked) == [8]
        assert value(connection, "SELECT retail.forget_user(8)") == 2
        assert column(connection, marked) == []


def test_show_counts_what_was_refreshed(trained: Database, recstore: Command) -> None:
    trained.connect("application").execute("INSERT INTO shop.views VALUES (888, 1, 2), (888, 3, 1), (888, 900, 1)")
    assert recstore("refresh retail").code == 0
    recstore("show retail").expect(0, "refreshed: 1 user and 1 item since the training")
