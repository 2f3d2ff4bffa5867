"""Dislikes in implicit feedback: values below 0, where the source takes them so."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from conftest import Database, database_from
from support_sql import column, rows, transaction, value

from recstore.definition import Confidence, Gate, Hyperparameters, Source
from recstore.embedded import Server
from recstore.evaluation.splits import SplitChoice
from recstore.experiments.evaluate import evaluate
from recstore.experiments.measurement import Measurement
from recstore.experiments.tuning.sampling import noise_of
from recstore.model.interactions import IdMap, Interactions
from recstore.operations import readers
from recstore.postgres.connection import Connection
from recstore.refresh import refresh

pytestmark = pytest.mark.contract

VOTES = Source(table="shop.votes", item="product_id", value="vote", negative="dislike")


@pytest.fixture(scope="module")
def shop(server: Server, shop_template: str) -> Iterator[Database]:
    """The shop's views as votes; every tenth user dislikes product 1 and has no other vote of it."""
    with database_from(server, shop_template) as database, database.connect("application") as application:
        application.execute(
            """
            CREATE TABLE shop.votes AS
            SELECT v.user_id, v.product_id, v.view_count::float8 AS vote FROM shop.views v
            WHERE v.user_id % 10 <> 0 OR v.product_id <> 1;
            INSERT INTO shop.votes SELECT DISTINCT v.user_id, 1, -3 FROM shop.views v WHERE v.user_id % 10 = 0;
            CREATE INDEX ON shop.votes (user_id);
            GRANT SELECT ON shop.votes TO worker;
            GRANT UPDATE, INSERT ON shop.votes TO worker
            """
        )
        recommender = database.create(
            source=VOTES,
            confidence=Confidence(function="linear"),
            hyperparameters=Hyperparameters(factors=16, iterations=5, alpha=20, regularization=5),
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


def test_a_dislike_counts_for_no_popularity(reader: Connection) -> None:
    liked = value(reader, "SELECT count(*) FROM shop.votes WHERE product_id = 1 AND vote > 0")
    found = rows(reader, "SELECT users, views FROM retail.item_vectors WHERE item_id = 1")
    assert found[0]["users"] == liked
    assert found[0]["views"] == value(reader, "SELECT sum(vote) FROM shop.votes WHERE product_id = 1 AND vote > 0")


def test_a_disliked_item_falls_its_neighbours_fall_and_it_never_comes_back(reader: Connection) -> None:
    """In the same transaction, and the same as the training would solve: by `implicit`'s equation with preference 0."""
    user = value(reader, "SELECT min(user_id) FROM shop.votes WHERE user_id % 10 = 3")
    best = column(reader, "SELECT item_id FROM retail.recommend(%s, 3)", user)
    (near,) = column(reader, "SELECT item_id FROM retail.similar_items(%s, 1)", best[0])
    ask = "SELECT retail.predict(%s, %s, fresh => true)"
    before = [value(reader, ask, user, item) for item in (best[0], near)]
    reader.execute("INSERT INTO shop.votes VALUES (%s, %s, -5)", [user, best[0]])
    after = [value(reader, ask, user, item) for item in (best[0], near)]
    assert after[0] < before[0] - 0.05
    assert after[1] < before[1]
    everything = column(reader, "SELECT item_id FROM retail.recommend(%s, 1000, fresh => true)", user)
    assert best[0] not in everything
    assert best[0] in column(reader, "SELECT retail.seen(%s)", user)
    (reason,) = column(
        reader, "SELECT contribution FROM retail.explain(%s, %s, 1000) WHERE item_id = %s", user, near, best[0]
    )
    assert reason == pytest.approx(0, abs=1e-9)  # it adds nothing; it changes what the others add


def test_who_dislikes_an_item_gets_a_lower_score_than_who_says_nothing(shop: Database) -> None:
    scores = """
        SELECT retail.predict(u.user_id, 1) FROM retail.user_vectors u
        WHERE coalesce((SELECT v.vote FROM shop.votes v WHERE v.user_id = u.user_id AND v.product_id = 1), 0) = %s
        """
    with shop.connect() as connection:
        dislikers, others = (column(connection, scores, vote) for vote in (-3, 0))
    assert len(dislikers) > 10
    assert np.mean(dislikers) < 0.5 * np.mean(others)


def test_no_dislike_is_held_out(shop: Database) -> None:
    with shop.connect() as connection:
        held = value(
            connection, "SELECT held_out FROM recstore_private.generations WHERE generation = retail.generation()"
        )
        items = column(connection, "SELECT item_id FROM retail.item_vectors ORDER BY item_id")
        counts = dict(zip((items[place] for place in held["items"]), held["counts"], strict=True))
        likes = value(connection, "SELECT count(*) FROM shop.votes WHERE product_id = 1 AND vote > 0")
    assert counts.get(1, 0) <= likes


def test_rows_that_cancel_out_are_no_vote(reader: Connection) -> None:
    user = value(reader, "SELECT min(user_id) FROM shop.votes WHERE user_id % 10 = 4")
    before = value(reader, "SELECT retail.user_vector(%s, true)::text", user)
    unseen = column(reader, "SELECT item_id FROM retail.recommend(%s, 1)", user)[0]
    reader.execute("INSERT INTO shop.votes VALUES (%s, %s, -2), (%s, %s, 2)", [user, unseen, user, unseen])
    assert value(reader, "SELECT retail.user_vector(%s, true)::text", user) == before


def test_a_refresh_solves_no_item_that_is_only_disliked(shop: Database) -> None:
    """Held-out pairs stay those of the same items, which are stored as positions in the order of the ids."""

    def held(connection: Connection) -> list[tuple[int, int]]:
        bounds = value(
            connection, "SELECT held_out FROM recstore_private.generations WHERE generation = other.generation()"
        )
        items = column(connection, "SELECT item_id FROM other.item_vectors ORDER BY 1")
        return [(items[place], pairs) for place, pairs in zip(bounds["items"], bounds["counts"], strict=True)]

    shop.create("other", source=VOTES, gate=Gate(held_out=0.1))
    assert shop.retrain("other").live
    with shop.connect() as connection, shop.connect("application") as application:
        before = held(connection)
        application.execute("INSERT INTO shop.votes SELECT n, -1, -2 FROM generate_series(1, 9) n")
        application.execute("INSERT INTO shop.votes SELECT n, 0, 2 - n % 2 * 3 FROM generate_series(101, 160) n")
        assert refresh(shop.url, shop.settings, "other").items == 1
        assert column(connection, "SELECT users FROM other.item_vectors WHERE item_id < 1") == [30]
        now = held(connection)
        assert [pair for pair in now if pair[0] > 0] == before
        application.execute("DELETE FROM shop.votes WHERE product_id < 1")


def test_an_evaluation_through_sql_takes_dislikes_too(shop: Database) -> None:
    found = evaluate(shop.url, shop.settings, "retail", Measurement(through_sql=True), SplitChoice()).results
    sql = next(result for result in found if "through SQL" in result.name)
    assert sql.metrics["ndcg@20"] == pytest.approx(found[0].metrics["ndcg@20"], abs=1e-4)


def test_the_noise_of_a_search_counts_dislikes_by_their_weight() -> None:
    ids, user, item = IdMap(pa.array([1, 2, 3])), np.array([0, 0, 1, 2], np.int32), np.array([0, 1, 1, 2], np.int32)
    liked = Interactions(ids, ids, user, item, np.array([1.0, 2, 3, 4]))
    disliked = replace(liked, values=np.array([1.0, -2, 3, -4]))
    assert noise_of(disliked, Confidence(), ["linear", "log"]) == noise_of(liked, Confidence(), ["linear", "log"])
