"""Catalogues that are not like the others: heavy users, collapsed items, duplicates, published seen items, many factors."""

import numpy as np
import pytest
from conftest import Database
from support_sql import assert_ranking, column, make_many, read_factors, rows, unit, value

from recstore.definition import Duplicates, Filters, Hyperparameters, Publication, Source, Storage

SMALL = Hyperparameters(factors=8, iterations=2)

pytestmark = pytest.mark.usefixtures("calibrated")


def test_long_text_ids_stay_in_the_row_next_to_wide_vectors(shop: Database) -> None:
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
    assert len(tables) == 6
    assert not any(row["size"] for row in tables), tables
    assert len(rows(connection, "SELECT * FROM wide.recommend('a customer with quite a long identifier 5', 7)")) == 7


def test_k_rows_come_for_a_user_who_has_seen_a_thousand_items(shop: Database) -> None:
    random = np.random.default_rng(3)
    pairs = {(user, int(item)) for user in range(2, 200) for item in random.integers(1, 2001, 60)}
    pairs |= {(1, int(item)) for item in random.permutation(2000)[:1000] + 1}
    make_many(shop.connect("application"), pairs)
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
    shop.create(hyperparameters=Hyperparameters(factors=8, iterations=25, regularization=300, alpha=60))
    outcome = shop.retrain()
    assert outcome.live
    assert any("1 item collapsed" in warning for warning in outcome.warnings)
    connection = shop.connect()
    (collapsed,) = rows(connection, "SELECT * FROM retail.item_vectors WHERE embedding IS NULL OR preference IS NULL")
    nothing = {"embedding": None, "preference": None, "length": pytest.approx(0, abs=1e-6)}
    assert collapsed == {"item_id": 500, "users": 3, "views": 3.0} | nothing
    assert value(connection, "SELECT collapsed_items FROM recstore.generations WHERE state = 'live'") == 1
    assert value(connection, "SELECT retail.predict(1, 500)") is None
    for call in ("similar_items(500, 5)", "users_for_item(500, 5)", "similar_users(501, 5)"):
        assert rows(connection, f"SELECT * FROM retail.{call}") == [], call
    assert 500 in column(connection, "SELECT item_id FROM retail.popular_items(1000)")
    found = column(connection, "SELECT item_id FROM retail.similar_items(1, 1000, 1)")
    assert (500 in found, len(found)) == (False, 119)
    # k rows while k exist: last comes what has no vector
    reasons = {
        row["item_id"]: row["reason"] for row in rows(connection, "SELECT * FROM retail.recommend(1, 1000, false)")
    }
    assert list(reasons.values()) == ["trained"] * 120 + ["popular"]
    assert list(reasons)[120] == 500
    # its users collapse with it: they are unknown
    assert set(column(connection, "SELECT reason FROM retail.recommend(501, 5)")) == {"popular"}
    assert 500 not in column(connection, "SELECT item_id FROM retail.recommend(501, 1000)")
    assert value(connection, "SELECT retail.user_vector(501) = retail.user_vector(99999)")
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
    shop.create(hyperparameters=SMALL)
    assert shop.retrain().live
    query = (
        "SELECT v.user_id, v.product_id AS item_id, d.part * v.view_count AS value, now() + d.part * interval '1 h'"
        " AS last_at FROM shop.views v, (VALUES (0.25), (0.75)) d(part)"
    )
    connection = shop.connect()
    ways: dict[Duplicates, float] = {"sum": 1, "max": 0.75, "mean": 0.5, "last": 0.75}
    for how, factor in ways.items():
        name = f"by_{how}"
        shop.create(name, source=Source(query=query, duplicates=how), hyperparameters=SMALL)
        assert shop.retrain(name).live
        once = rows(connection, "SELECT item_id, users, views * %s AS views FROM retail.popular_items(1000)", factor)
        assert rows(connection, f"SELECT item_id, users, views FROM {name}.popular_items(1000)") == once
        answer = column(connection, f"SELECT item_id FROM {name}.recommend(60, 200)")
        seen = column(connection, "SELECT product_id FROM shop.views WHERE user_id = 60")
        assert len(answer) == len(set(answer)) == 120 - len(seen)


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
