"""Explicit feedback: ratings, zero and below included, from the source to what SQL answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Database, database_from
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from support_sql import column, repeating, rows, transaction, value

from recstore import errors, lists, registry
from recstore.background.prometheus import DatabaseCollector
from recstore.definition import Candidates, Definition, Gate, Hyperparameters, Publication, Source
from recstore.embedded import Server
from recstore.evaluation.splits import SplitChoice
from recstore.experiments.evaluate import evaluate
from recstore.experiments.measurement import Measurement
from recstore.experiments.tuning import work
from recstore.experiments.tuning.search_options import Options
from recstore.files.archive import exporting, importing
from recstore.operations import jobs, readers
from recstore.postgres.connection import Connection
from recstore.refresh import refresh as refresh_job

FACTORS = 6
RATED = Source(table="shop.ratings", item="product_id", value="stars", feedback="explicit")

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def shop(server: Server, shop_template: str) -> Iterator[Database]:
    """Ratings from -10 to 10 that taste, mood and quality make, a rating of 0 among them, and what each kind of read needs."""
    random = np.random.default_rng(5)
    users, items = 400, 90
    taste, quality = random.normal(size=(users, 3)), random.normal(size=(items, 3))
    stars = 1 + 2 * random.normal(size=(users, 1)) + 2 * random.normal(size=(1, items)) + 2 * taste @ quality.T
    stars = np.clip(np.rint(stars + random.normal(size=stars.shape)), -10, 10)
    user, item = np.nonzero(random.random((users, items)) < 0.25)
    item_of = item + 1
    with database_from(server, shop_template) as database, database.connect("application") as application:
        application.execute(
            """
            CREATE TABLE shop.ratings (user_id bigint NOT NULL, product_id integer NOT NULL, stars numeric NOT NULL);
            GRANT SELECT ON shop.ratings TO worker
            """
        )
        with application.cursor() as cursor, cursor.copy("COPY shop.ratings FROM STDIN") as copy:
            for row in zip(user.tolist(), item_of.tolist(), stars[user, item].astype(int).tolist(), strict=True):
                copy.write_row(row)
        application.execute("CREATE INDEX ON shop.ratings (user_id)")
        recommender = database.create(
            source=RATED,
            hyperparameters=Hyperparameters(factors=FACTORS, iterations=8),
            publication=Publication(search="exact"),
            gate=Gate(held_out=0.1),
        )
        assert database.retrain().live
        with database.connect() as connection:
            readers.grant_reader(connection, recommender, "application", people=True)
        yield database


@pytest.fixture
def reader(shop: Database) -> Iterator[Connection]:
    with shop.connect("application") as connection, transaction(connection) as inside:
        yield inside


def model(connection: Connection) -> tuple[list[int], list[int], NDArray[Any]]:
    """Return users, items and the predicted ratings, from the published vectors."""
    users = rows(connection, "SELECT user_id, preference::real[] AS v, length FROM retail.user_vectors ORDER BY 1")
    items = rows(connection, "SELECT item_id, preference::real[] AS v FROM retail.item_vectors ORDER BY 1")
    x = np.array([row["v"] for row in users]) * np.array([row["length"] for row in users])[:, None]
    y = np.array([row["v"] for row in items])
    with_mean = rows(
        connection, "SELECT w.weighting, g.max_item_length AS m FROM retail._weighting w, retail._generation g"
    )
    scale, longest = with_mean[0]["weighting"], with_mean[0]["m"]
    predicted = scale["mean"] + scale["scale_factor"] * longest * (x @ y.T)
    predicted = np.clip(predicted, scale["lowest"], scale["highest"])
    return [row["user_id"] for row in users], [row["item_id"] for row in items], predicted


def test_the_vectors_carry_the_biases_and_the_embedding_does_not(reader: Connection) -> None:
    (found,) = rows(
        reader,
        """
        SELECT min(vector_norm(embedding)) AS least, max(vector_norm(embedding)) AS most,
            bool_and((embedding::real[])[7] = 0 AND (embedding::real[])[8] = 0) AS without,
            count(DISTINCT round(((preference::real[])[7])::numeric, 5)) AS ones
        FROM retail.item_vectors
        """,
    )
    assert found["least"] == pytest.approx(1, abs=1e-5)
    assert found["most"] == pytest.approx(1, abs=1e-5)
    assert found["without"]
    assert found["ones"] == 1  # [y_i, 1, b_i], all divided by the longest


def test_predicted_ratings_are_those_of_numpy_and_within_the_range(reader: Connection) -> None:
    users, items, predicted = model(reader)
    asked = [(3, 5), (10, 80), (77, 1), (200, 44)]
    found = [value(reader, "SELECT retail.predict(%s, %s)", user, item) for user, item in asked]
    assert found == pytest.approx([predicted[users.index(u), items.index(i)] for u, i in asked], abs=1e-4)
    assert value(reader, "SELECT retail.predict(3, 1000)") is None
    assert value(reader, "SELECT retail.predict(123456, 5)") is None
    every = column(reader, "SELECT retail.predict(7, v.item_id) FROM retail.item_vectors v")
    assert min(every) >= -10
    assert max(every) <= 10


def test_recommend_ranks_by_the_predicted_rating_and_leaves_out_what_was_rated(reader: Connection) -> None:
    users, items, predicted = model(reader)
    for user in (0, 50, 399):
        rated = set(column(reader, "SELECT product_id FROM shop.ratings WHERE user_id = %s", user))
        mine = predicted[users.index(user)]
        unrated = [(round(-mine[n], 3), item) for n, item in enumerate(items) if item not in rated]
        found = rows(reader, "SELECT * FROM retail.recommend(%s, 10)", user)
        assert [row["score"] for row in found] == pytest.approx([-score for score, _ in sorted(unrated)[:10]], abs=2e-3)
        assert not rated & {row["item_id"] for row in found}
        assert [row["score"] for row in found] == pytest.approx(
            [value(reader, "SELECT retail.predict(%s, %s)", user, row["item_id"]) for row in found], abs=1e-5
        )


def test_a_rating_of_zero_is_seen_and_counts(shop: Database) -> None:
    with shop.connect() as connection:
        zeros = rows(connection, "SELECT user_id, product_id FROM shop.ratings WHERE stars = 0 LIMIT 1")
        user, item = zeros[0]["user_id"], zeros[0]["product_id"]
        assert item in column(connection, "SELECT retail.seen(%s)", user)
        assert item in column(connection, "SELECT item_id FROM retail.explain(%s, 1, 100)", user)
        pairs = value(
            connection,
            "SELECT (snapshot ->> 'pairs')::int FROM recstore_private.generations WHERE generation = retail.generation()",
        )
        assert pairs == value(connection, "SELECT count(*) FROM shop.ratings")


def test_contributions_add_up_to_the_rating_without_what_holds_for_everyone(reader: Connection) -> None:
    """That is the mean and the item's bias."""
    (scale,) = column(reader, "SELECT w.weighting FROM retail._weighting w")
    for user, item in ((5, 9), (120, 33)):
        parts = column(reader, "SELECT contribution FROM retail.explain(%s, %s, 1000)", user, item)
        bias = value(reader, "SELECT (preference::real[])[8] * m.max_item_length FROM retail.item_vectors v,"
                             " retail._generation m WHERE v.item_id = %s", item)  # fmt: skip
        everyone = scale["mean"] + scale["scale_factor"] * bias
        assert len(parts) > 5
        predicted = value(reader, "SELECT retail.predict(%s, %s)", user, item)
        assert sum(parts) + everyone == pytest.approx(predicted, abs=1e-3)


def test_a_new_user_is_folded_in_within_the_transaction(shop: Database) -> None:
    with shop.connect("application") as application, transaction(application):
        application.execute(
            "INSERT INTO shop.ratings SELECT 9999, r.product_id, r.stars FROM shop.ratings r WHERE r.user_id = 12"
        )
        old, new = (rows(application, "SELECT * FROM retail.recommend(%s, 12)", user) for user in (12, 9999))
        assert {row["reason"] for row in new} == {"fold_in"}
        assert [row["item_id"] for row in new] == [row["item_id"] for row in old]
        assert [row["score"] for row in new] == pytest.approx([row["score"] for row in old], abs=1e-3)
        (twin,) = rows(application, "SELECT * FROM retail.similar_users(9999, 1)")
        assert twin["user_id"] == 12
        assert twin["score"] == pytest.approx(1, abs=1e-4)


def test_similar_users_are_alike_in_taste_whatever_their_mood(reader: Connection) -> None:
    people = rows(reader, "SELECT user_id, preference::real[] AS v FROM retail.user_vectors ORDER BY 1")
    x = np.array([row["v"][:FACTORS] for row in people])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosine = x @ x[30]
    expected = [n for n in np.argsort(-cosine) if n != 30][:5]
    found = rows(reader, "SELECT * FROM retail.similar_users(%s, 5)", people[30]["user_id"])
    assert [row["user_id"] for row in found] == [people[n]["user_id"] for n in expected]
    assert [row["score"] for row in found] == pytest.approx(cosine[expected], abs=1e-4)


def test_a_basket_has_ratings(reader: Connection) -> None:
    """The same ratings as somebody's are that person; without ratings every given item is loved."""
    mine = rows(reader, "SELECT product_id, stars::float8 FROM shop.ratings WHERE user_id = 40 ORDER BY 1")
    items, stars = ([row[key] for row in mine] for key in ("product_id", "stars"))
    basket = "SELECT * FROM retail.recommend_for_items(%s::int[], %s::float8[], 8)"
    found, expected = rows(reader, basket, items, stars), rows(reader, "SELECT * FROM retail.recommend(40, 8)")
    assert [row["item_id"] for row in found] == [row["item_id"] for row in expected]
    liked = rows(reader, basket, items[:3], None)
    assert liked == rows(reader, basket, items[:3], [10.0, 10.0, 10.0])
    assert liked != rows(reader, basket, items[:3], [-10.0, -10.0, -10.0])


def test_ranking_a_page_and_an_audience_give_ratings(reader: Connection) -> None:
    users, items, predicted = model(reader)
    ranked = rows(reader, "SELECT * FROM retail.rank_items(8, ARRAY[4, 5, 6, 7, 1000])")
    mine = predicted[users.index(8)]
    assert [row["item_id"] for row in ranked[:4]] == sorted([4, 5, 6, 7], key=lambda item: -mine[items.index(item)])
    assert [row["score"] for row in ranked[:4]] == pytest.approx(
        sorted((mine[items.index(i)] for i in (4, 5, 6, 7)), reverse=True), abs=1e-3
    )
    assert ranked[4]["score"] is None
    assert ranked[4]["reason"] is None
    for row in rows(reader, "SELECT * FROM retail.users_for_item(9, 4)"):
        assert row["preference"] == pytest.approx(
            value(reader, "SELECT retail.predict(%s, 9)", row["user_id"]), abs=1e-4
        )


def test_candidates_and_left_out_items_hold(shop: Database) -> None:
    with shop.connect() as connection:
        recommender = registry.get(connection, "retail")
        allowed = recommender.definition.model_copy(
            update={
                "candidates": Candidates(
                    query="SELECT DISTINCT product_id FROM shop.ratings WHERE product_id BETWEEN 10 AND 40"
                )
            }
        )
        registry.alter(connection, shop.settings, recommender, allowed)
        found = column(connection, "SELECT item_id FROM retail.recommend(3, 50, exclude_items => ARRAY[11, 12])")
        assert set(found) <= set(range(10, 41)) - {11, 12}
        registry.alter(connection, shop.settings, registry.get(connection, "retail"), recommender.definition)
    assert len(found) > 10


def test_the_gate_judges_by_the_error_and_biases_are_the_baseline(shop: Database) -> None:
    with shop.connect() as connection:
        metrics = value(
            connection, "SELECT metrics FROM recstore_private.generations WHERE generation = retail.generation()"
        )
    assert metrics["popularity"]["metric"] == "rmse"
    assert metrics["popularity"]["other"] == "biases"
    assert metrics["metrics"]["rmse"] < metrics["popularity"]["of_other"]
    assert metrics["metrics"]["mae"] < metrics["metrics"]["rmse"]
    scraped = CollectorRegistry()
    scraped.register(DatabaseCollector(shop.settings))
    values = (("live", metrics["metrics"]["rmse"]), ("biases", metrics["popularity"]["of_other"]))
    for model, error in values:
        assert scraped.get_sample_value("recstore_live_rmse", {"recommender": "retail", "model": model}) == error
    ndcg = [
        scraped.get_sample_value("recstore_live_ndcg_ratio", {"recommender": "retail", "model": m}) for m, _ in values
    ]
    assert ndcg == [metrics["metrics"]["ndcg@20"], None]


def test_a_worse_model_is_refused(shop: Database) -> None:
    with shop.connect() as connection:
        before = value(connection, "SELECT retail.generation()")
        good = registry.get(connection, "retail").definition
    shop.alter(hyperparameters=good.hyperparameters.model_copy(update={"regularization": 7.0, "warm_iterations": 0}))
    with pytest.raises(errors.GateRefused, match="RMSE"):
        shop.retrain()
    shop.alter(hyperparameters=good.hyperparameters)
    with shop.connect() as connection:
        assert value(connection, "SELECT retail.generation()") == before


def test_a_retrain_starts_from_the_live_items(shop: Database) -> None:
    with shop.connect() as connection:
        before = model(connection)[2]
    outcome = shop.retrain()
    with shop.connect() as connection:
        training = value(
            connection, "SELECT training FROM recstore_private.generations WHERE generation = %s", outcome.generation
        )
        after = model(connection)[2]
    assert training["warm"]
    assert training["factors"] == FACTORS
    assert np.abs(after - before).mean() < 0.3


def test_readers_during_publications_and_a_rollback_see_one_generation(shop: Database) -> None:
    """Every list and every prediction of a snapshot are those of its generation, folded-in user included."""
    ask = "SELECT array_agg(r.item_id) || array_agg((1e6 * r.score)::bigint) FROM retail.recommend(%s, 6, fresh => true) r"
    seen: set[tuple[int, int, str]] = set()

    def read() -> None:
        with shop.connect("application") as connection:
            for user in (3, 7):
                with connection.transaction():
                    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    seen.add((value(connection, "SELECT retail.generation()"), user, str(value(connection, ask, user))))

    with shop.connect() as connection:
        good = registry.get(connection, "retail").definition.hyperparameters
    with repeating(read, read):
        for seed in (1, 2, 3):
            shop.alter(hyperparameters=good.model_copy(update={"seed": seed, "warm_iterations": 0}))
            assert shop.retrain(force=True).live
        jobs.roll_back(shop.url, "retail")
    shop.alter(hyperparameters=good)
    kept = {generation for generation, _, _ in seen}
    assert len(kept) >= 3
    assert len(seen) == 2 * len(kept)  # one answer for each user and generation
    with shop.connect("application") as connection:
        for generation, user, answer in seen:
            if generation in sorted(kept)[-2:]:
                with connection.transaction():
                    connection.execute("SELECT set_config('recstore.generation', %s, true)", [str(generation)])
                    assert str(value(connection, ask, user)) == answer


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"duplicates": "sum"}, "mean or the last"),
        ({"value": None}, "column of ratings"),
    ],
)
def test_what_ratings_cannot_have_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Source(**({"table": "t", "value": "stars", "feedback": "explicit"} | change))  # type: ignore[arg-type]


def test_a_trainer_of_implicit_feedback_is_refused() -> None:
    with pytest.raises(ValueError, match="the trainer spectral is for implicit feedback"):
        Definition(source=RATED, hyperparameters=Hyperparameters(trainer="spectral"))
    assert Definition(source=RATED).hyperparameters.trainer == "ratings"


def test_lists_of_all_users_are_those_of_recommend(shop: Database) -> None:
    with shop.connect("application") as application:
        application.execute("GRANT CREATE ON SCHEMA shop TO worker")
    lists.recommend_all(shop.url, shop.settings, "retail", "shop.lists", k=6)
    with shop.connect() as connection:
        (different,) = column(
            connection,
            """
            SELECT count(*) FROM shop.lists l
            LEFT JOIN LATERAL (
                SELECT row_number() OVER () AS rank, r.* FROM retail.recommend(l.user_id, 6) r
            ) r ON r.rank = l.rank
            WHERE r.item_id <> l.item_id AND abs(r.score - l.score) > 1e-4 OR abs(r.score - l.score) > 1e-3
            """,
        )
        assert different == 0
        assert value(connection, "SELECT count(*) FROM shop.lists") == 6 * 400


def test_a_file_carries_the_model_to_another_recommender_of_ratings_only(shop: Database, tmp_path: Path) -> None:
    file = tmp_path / "ratings.npz"
    exporting.export(shop.url, "retail", file)
    shop.create("copy", source=RATED, hyperparameters=Hyperparameters(factors=FACTORS))
    shop.create("counts")
    with pytest.raises(errors.FileRefused, match="its feedback is explicit"):
        importing.import_generation(shop.url, shop.settings, "counts", file)
    assert importing.import_generation(shop.url, shop.settings, "copy", file).live
    with shop.connect() as connection:
        for user in (1, 2, 3):
            mine, copied = (
                rows(connection, f"SELECT * FROM {name}.recommend({user}, 5, fresh => true)")
                for name in ("retail", "copy")
            )
            assert [row["item_id"] for row in copied] == [row["item_id"] for row in mine]
            assert [row["score"] for row in copied] == pytest.approx([row["score"] for row in mine], abs=1e-4)


def test_refreshed_users_are_those_folded_in(shop: Database) -> None:
    with shop.connect("application") as application:
        application.execute(
            "INSERT INTO shop.ratings SELECT 7000, product_id, stars FROM shop.ratings WHERE user_id = 21"
        )
    refresh_job(shop.url, shop.settings, "retail")
    with shop.connect() as connection:
        old, new = (rows(connection, "SELECT * FROM retail.recommend(%s, 8)", user) for user in (21, 7000))
    with shop.connect("application") as application:
        application.execute("DELETE FROM shop.ratings WHERE user_id = 7000")
    assert {row["reason"] for row in new} == {"trained"}
    assert [row["item_id"] for row in new] == [row["item_id"] for row in old]


def test_evaluation_reports_errors_next_to_ranking_and_beats_biases(shop: Database) -> None:
    found = evaluate(shop.url, shop.settings, "retail", Measurement(through_sql=True, curve=3), SplitChoice())
    mine, biases = found.results[0].metrics, found.results[1]
    assert biases.name == "biases"
    assert mine["rmse"] < 0.9 * biases.metrics["rmse"]
    assert mine["mae"] < biases.metrics["mae"]
    assert mine["ndcg@20"] > found.results[2].metrics["ndcg@20"]
    assert found.results[2].metrics["rmse"] is None  # popularity predicts no ratings
    sql = next(result for result in found.results if "through SQL" in result.name)
    assert sql.metrics["ndcg@20"] == pytest.approx(mine["ndcg@20"], abs=0.01)
    assert found.curve[-1].validation["rmse"] < found.curve[0].validation["rmse"]


def test_a_search_minimizes_the_error(shop: Database) -> None:
    own = Options(metric="r2", trials=4, most_iterations=6)
    shop.create("counted")
    with pytest.raises(errors.InvalidInput, match="r2 is a metric of ratings"):
        work.begin(shop.url, shop.settings, "counted", own, SplitChoice())
    study = work.begin(shop.url, shop.settings, "retail", own, SplitChoice())
    work.work(shop.url, shop.settings, study)
    with shop.connect() as connection:
        found = work.result(connection, study)
    best = max(found.trials, key=lambda trial: trial.value or 0)
    error = {trial.number: min(point.validation["rmse"] for point in trial.curve) for trial in found.trials}
    assert error[best.number] == min(error.values())
    assert {trial.parameters["trainer"] for trial in found.trials} == {"ratings"}
