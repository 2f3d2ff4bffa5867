"""Users who came after the training: folded in by SQL, from the rows of the caller's snapshot."""

from collections.abc import Iterator
from typing import Any

import implicit
import numpy as np
import pytest
from conftest import Database, database_from
from scipy import sparse
from support_sql import column, read_factors, rows, transaction, value

from recstore import registry
from recstore.definition import Confidence, Filters, Hyperparameters, Refresh, Source, Storage
from recstore.embedded import Server
from recstore.operations import readers
from recstore.postgres.connection import Connection

SMALL = {"factors": 16, "iterations": 3, "regularization": 3}

RAW = "SELECT user_id, product_id AS item_id, n AS value, at AS last_at FROM shop.raw"

RATED = "SELECT user_id, product_id AS item_id, n - 3 AS value, at AS last_at FROM shop.raw"
DISLIKED = Source(query=RATED.replace("n - 3", "n - 1"), negative="dislike")
RATINGS = Hyperparameters(factors=12, iterations=3)

CASES: dict[str, dict[str, Any]] = {
    "als": {},
    "log": {"confidence": Confidence(function="log", eps=2), "source": Source(query=RAW, duplicates="max")},
    "share": {"confidence": Confidence(function="share"), "source": Source(query=RAW, duplicates="last")},
    "linear": {"confidence": Confidence(function="linear", scale="none"), "filters": Filters(max_value=2)},
    "plain": {"confidence": Confidence(function="linear", scale="none")},
    "net": {"source": Source(query=RAW, negative="net"), "filters": Filters(min_users_per_item=8)},
    "mean": {"confidence": Confidence(function="binary"), "source": Source(query=RAW, duplicates="mean")},
    "decay": {"confidence": Confidence(half_life="3 hours")},
    "decay_of_logs": {
        "confidence": Confidence(function="log", half_life="90 minutes"),
        "filters": Filters(max_value=3),
    },
    "decay_of_net": {
        "confidence": Confidence(function="share", half_life="1 hour"),
        "source": Source(query=RAW, negative="net"),
    },
    "spectral": {"hyperparameters": Hyperparameters(trainer="spectral", **SMALL)},
    "half": {"storage": Storage(vector_type="halfvec")},
    "hybrid": {"hyperparameters": Hyperparameters(trainer="hybrid", alpha=30, **SMALL)},
    "popular": {"hyperparameters": Hyperparameters(trainer="hybrid", alpha=30, popularity_exponent=0.3, **SMALL)},
    "dislike": {"source": DISLIKED, "confidence": Confidence(function="log")},
    "dislike_bm25": {"source": DISLIKED},
    "power": {"confidence": Confidence(function="power", k1=2, activity_exponent=0.7)},
    "dislike_spectral": {"source": DISLIKED, "hyperparameters": Hyperparameters(trainer="spectral", **SMALL)},
    "dislike_hybrid": {"source": DISLIKED, "hyperparameters": Hyperparameters(trainer="hybrid", alpha=30, **SMALL)},
    "ratings": {"source": Source(query=RATED, feedback="explicit"), "hyperparameters": RATINGS},
    "rated_last": {"source": Source(query=RATED, feedback="explicit", duplicates="last"), "hyperparameters": RATINGS},
}


@pytest.fixture(scope="module")
def raw(server: Server, shop_template: str) -> Iterator[Database]:
    """shop.raw: several rows for many pairs, at different times, with returns and a few rows that no training uses."""
    with database_from(server, shop_template) as database, database.connect("application") as application:
        application.execute(
            """
            CREATE TABLE shop.raw AS
            SELECT v.user_id, v.product_id, (hashint8(v.user_id * 1000 + v.product_id + c) % 7)::float8 AS n,
                timestamptz '2026-01-01' + make_interval(hours => (7 * c + v.user_id::int) % 2) AS at, c
            FROM shop.views v CROSS JOIN LATERAL generate_series(1, 1 + v.view_count % 3) c;
            UPDATE shop.raw SET at = NULL WHERE product_id % 4 = c;
            UPDATE shop.raw SET n = 'NaN' WHERE user_id % 31 = 5 AND product_id % 11 = 0;
            CREATE INDEX ON shop.raw (user_id);
            GRANT SELECT ON shop.raw TO worker
            """
        )
        yield database


def trained(raw: Database, case: str) -> str:
    """Train a case, unless another test has, and return the recommender's name."""
    definition = {"source": Source(query=RAW), "hyperparameters": Hyperparameters(alpha=30, **SMALL)} | CASES[case]
    definition["source"] = definition["source"].model_copy(update={"max_nulls": 0.5})
    name = f"of_{case}"
    with raw.connect() as connection:
        if value(connection, "SELECT to_regnamespace(%s) IS NULL", name):
            raw.create(name, **definition)
            assert raw.retrain(name).live
    return name


@pytest.mark.contract
@pytest.mark.parametrize("case", CASES)
def test_it_is_what_a_training_solves(raw: Database, case: str) -> None:
    """Every user of the training, from the same rows: as Python solved them, exactly. So `fresh` gives what is stored."""
    name = trained(raw, case)
    with raw.connect() as connection:
        (found,) = rows(
            connection,
            f"""
            SELECT max(f.preference <-> u.preference) AS direction, max(abs(f.length / u.length - 1)) AS length,
                count(f.preference) AS folded, count(u.preference) AS trained
            FROM {name}.user_vectors u CROSS JOIN {name}._generation g
            CROSS JOIN LATERAL {name}._fold_in(g, {name}._pairs_of(u.user_id)) f
            """,
        )
        different = column(
            connection,
            f"""
            SELECT u.user_id FROM {name}.user_vectors u
            WHERE ARRAY(SELECT r FROM {name}.recommend(u.user_id, 20, fresh => true) r)
                <> ARRAY(SELECT r FROM {name}.recommend(u.user_id, 20) r)
                OR {name}.user_vector(u.user_id, true) <> {name}.user_vector(u.user_id)
            """,
        )
    assert found["folded"] == found["trained"] > 200
    rounding = 1e-3 if case == "half" else 1e-4
    assert found["direction"] < rounding
    assert found["length"] < rounding
    assert different == []


@pytest.fixture(scope="module")
def shop(server: Server, shop_template: str) -> Iterator[Database]:
    with database_from(server, shop_template) as database, database.connect() as connection:
        recommender = database.create(
            hyperparameters=Hyperparameters(alpha=40, **SMALL),
            confidence=Confidence(function="linear", scale="none"),
            filters=Filters(max_items_per_user=60),
        )
        assert database.retrain().live
        readers.grant_reader(connection, recommender, "application", people=True)
        yield database


@pytest.fixture
def application(shop: Database) -> Iterator[Connection]:
    with shop.connect("application") as connection, transaction(connection):
        yield connection


def view(connection: Connection, user: int, items: dict[int, int]) -> None:
    connection.execute(
        "INSERT INTO shop.views SELECT %s, * FROM unnest(%s::int[], %s::int[])", [user, [*items], [*items.values()]]
    )


@pytest.mark.contract
def test_a_new_user_has_the_list_of_implicit_before_the_commit(shop: Database, application: Connection) -> None:
    random = np.random.default_rng(5)
    with shop.connect() as connection:
        of = read_factors(connection)
    items, users = of.y[:, :16], of.x[:, :16]
    model = implicit.cpu.als.AlternatingLeastSquares(factors=16, regularization=3, use_cg=False)
    model.item_factors = items.astype(np.float32)
    for user in range(5001, 5013):
        chosen = random.choice(len(of.items), random.integers(1, 40), replace=False)
        views = {of.items[item]: int(random.integers(1, 9)) for item in chosen}
        view(application, user, views)
        confidences = np.zeros((1, len(of.items)))
        confidences[0, chosen] = [1 + 40 * count for count in views.values()]
        x = model.recalculate_user(0, sparse.csr_matrix(confidences)).astype(np.float64)
        vector = np.array(value(application, "SELECT retail.user_vector(%s)::real[]", user))[:16]
        np.testing.assert_allclose(vector, x / np.linalg.norm(x), atol=1e-4)
        scores = items @ x
        scores[chosen] = -np.inf
        answer = rows(application, "SELECT * FROM retail.recommend(%s)", user)
        assert [row["item_id"] for row in answer] == [of.items[item] for item in np.argsort(-scores)[:10]]
        assert {row["reason"] for row in answer} == {"fold_in"}
        np.testing.assert_allclose([row["score"] for row in answer], np.sort(scores)[::-1][:10], rtol=1e-4)
        first = answer[0]
        assert value(application, "SELECT retail.predict(%s, %s)", user, first["item_id"]) == pytest.approx(
            first["score"]
        )
        unit, mine = users / np.linalg.norm(users, axis=1)[:, None], x / np.linalg.norm(x)
        nearest = rows(application, "SELECT * FROM retail.similar_users(%s, 5)", user)
        np.testing.assert_allclose([row["score"] for row in nearest], np.sort(unit @ mine)[::-1][:5], atol=1e-4)


def test_without_usable_rows_a_user_has_popular_items(application: Connection) -> None:
    popular = column(application, "SELECT item_id FROM retail.popular_items(5)")
    with_rows = {"unknown items alone": {900: 3}, "nothing seen": {}, "too many items": dict.fromkeys(range(1, 62), 1)}
    for user, (_, views) in enumerate(with_rows.items(), 6000):
        view(application, user, views)
        answer = rows(application, "SELECT * FROM retail.recommend(%s, 5, false)", user)
        assert [(row["item_id"], row["reason"]) for row in answer] == [(item, "popular") for item in popular]
        assert value(application, "SELECT retail.predict(%s, 1)", user) is None
        assert rows(application, "SELECT * FROM retail.similar_users(%s)", user) == []


def test_unknown_items_beside_known_ones_do_not_count(application: Connection) -> None:
    view(application, 6100, {3: 2, 5: 1})
    view(application, 6101, {3: 2, 5: 1, 901: 7})
    asked = "SELECT item_id, score FROM retail.recommend(%s, 5)"
    assert rows(application, asked, 6100) == rows(application, asked, 6101)


@pytest.mark.parametrize("case", ["als", "share", "spectral", "hybrid", "popular"])
def test_contributions_add_up_to_the_predicted_preference(raw: Database, case: str) -> None:
    trained(raw, case)
    with raw.connect() as connection:
        found = rows(
            connection,
            f"""
            SELECT p.predicted, e.total
            FROM generate_series(1, 240, 20) u (user_id) CROSS JOIN generate_series(1, 120, 7) i (item_id)
            CROSS JOIN LATERAL of_{case}.predict(u.user_id, i.item_id) p (predicted)
            CROSS JOIN LATERAL (
                SELECT sum(contribution) AS total FROM of_{case}.explain(u.user_id, i.item_id, 1000)
            ) e
            WHERE p.predicted IS NOT NULL
            """,
        )
    assert len(found) > 200
    np.testing.assert_allclose([row["total"] for row in found], [row["predicted"] for row in found], atol=1e-4)


@pytest.mark.contract
def test_fresh_answers_a_known_user_from_the_current_rows(application: Connection) -> None:
    """As a new user with the same rows."""
    user = 7
    before = rows(application, "SELECT * FROM retail.recommend(%s, 5)", user)
    view(application, user, {before[0]["item_id"]: 9})
    application.execute(
        "INSERT INTO shop.views SELECT 7000, product_id, view_count FROM shop.views WHERE user_id = %s", [user]
    )
    for function, outputs in {
        "recommend({}, 10, {fresh})": "*",
        "similar_users({}, {fresh})": "*",
        "user_vector({}, {fresh})": "*",
        "predict({}, 3, {fresh})": "*",
    }.items():
        asked = f"SELECT {outputs} FROM retail.{function}"
        stale = rows(application, asked.format(user, fresh="fresh => false"))
        fresh = rows(application, asked.format(user, fresh="fresh => true"))
        new = rows(application, asked.format(7000, fresh="fresh => NULL"))
        if function.startswith("similar"):
            new, fresh = [row for row in new if row["user_id"] != user][:9], fresh[:9]
        assert fresh == new != stale
        assert rows(application, asked.format(user, fresh="fresh => NULL")) == stale
    assert {
        row["reason"] for row in rows(application, "SELECT * FROM retail.recommend(%s, 3, fresh => true)", user)
    } == {"fold_in"}
    application.execute("DELETE FROM shop.views WHERE user_id = %s", [user])
    assert rows(application, "SELECT reason FROM retail.recommend(%s, 1, fresh => true)", user) == [
        {"reason": "trained"}
    ]


def test_a_recommender_may_answer_from_current_rows_by_default(shop: Database) -> None:
    def reason(user: int, fresh: str = "NULL") -> str:
        with shop.connect("application") as application, transaction(application):
            view(application, 8, {3: 9})
            return value(application, f"SELECT reason FROM retail.recommend(%s, 1, fresh => {fresh})", user)

    assert reason(8) == "trained"
    shop.alter(refresh=Refresh(fresh=True))
    assert [reason(8), reason(9), reason(8, "false")] == ["fold_in", "trained", "trained"]
    shop.alter(refresh=Refresh())


def test_an_altered_definition_counts_from_the_next_training_on(raw: Database) -> None:
    name = trained(raw, "als")
    asked = f"SELECT user_id, f.item_ids, f.values FROM generate_series(1, 50) u (user_id), {name}._pairs_of(user_id) f"
    with raw.connect() as connection:
        before = rows(connection, asked)
        raw.alter(name, source=Source(query=RAW, duplicates="max", max_nulls=0.5), filters=Filters(max_value=1))
        assert rows(connection, asked) == before


def test_the_last_row_without_times(shop: Database) -> None:
    shop.create("last", source=Source(table="shop.views", item="product_id", value="view_count", duplicates="last"))
    assert shop.retrain("last").live
    with shop.connect("application") as application, transaction(application), shop.connect() as connection:
        readers.grant_reader(connection, registry.get(connection, "last"), "application", people=True)
        view(application, 7000, {3: 2, 5: 1})
        assert set(column(application, "SELECT reason FROM last.recommend(7000, 5)")) == {"fold_in"}


def test_enormous_values_are_solved(raw: Database) -> None:
    """Sums beyond double precision, squares beyond single precision."""
    name = trained(raw, "plain")
    with raw.connect("application") as application, raw.connect() as connection, transaction(application):
        readers.grant_reader(connection, registry.get(connection, name), "application", people=True)
        lists = []
        for user, n in enumerate((1e17, 1e19, 1e29, 1e308), 8000):
            application.execute("INSERT INTO shop.raw SELECT %s, i, %s FROM unnest('{3,5,5,8}'::int[]) i", [user, n])
            lists.append(
                column(application, f"SELECT item_id FROM {name}.recommend(%s, 5) WHERE reason = 'fold_in'", user)
            )
        assert len(lists[0]) == 5
        assert lists == lists[:1] * 4
        application.execute("INSERT INTO shop.raw SELECT 8009, i, 5e-324 FROM unnest('{3,5,5,8}'::int[]) i")
        assert column(application, f"SELECT reason FROM {name}.recommend(8009, 1)") == ["fold_in"]
