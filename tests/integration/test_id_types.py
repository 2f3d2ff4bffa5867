"""Ids of every type an application may have, through the whole job; joins need no cast and use the application's index."""

import uuid
from typing import Any

import pytest
from conftest import Database
from support_sql import assert_ranking, column, read_factors, rows, unit, value

from recstore import Recstore, registry
from recstore.definition import Hyperparameters, Publication, Source
from recstore.operations import jobs
from recstore.types import IdType

ODD = ["", " ", *"'\"\\aABÄßé", "%s", "{a}", "NULL", "e\u0301", "日本", "😀", "x" * 300, "\t\n"]
"""Text ids that go wrong easily."""

NAMESPACE = uuid.UUID(int=7)


def make_id(kind: str, number: int) -> Any:
    """The number-th id, from 1."""
    match kind:
        case "smallint":
            return number - 100  # negative ones, too
        case "integer":
            return number * 10_000_019 % 2**31
        case "bigint":
            return (number - 50) * 2**48
        case "uuid":
            return uuid.uuid5(NAMESPACE, str(number))
        case _:
            return ODD[number - 1] if number <= len(ODD) else f"{'ab'[number % 2]}{'ñ' * (number % 5)} {number}"


OTHERWISE = {"uuid": ("%s", "%s::text", "%s::varchar"), "text": ("%s", "%s::varchar", '%s COLLATE "POSIX"')}
"""Other forms of an argument: as a literal, as the text that many clients send, with a collation."""

CASES = [
    pytest.param("bigint", "integer", "live", marks=pytest.mark.contract),
    pytest.param("integer", "smallint", "live", marks=pytest.mark.campaign),
    ("smallint", "bigint", "published"),
    pytest.param("uuid", "text", "live", marks=pytest.mark.contract),
    ("text", "uuid", "published"),
    pytest.param("text", "text", "published", marks=pytest.mark.campaign),
    ("varchar(400)", "varchar(400)", "live"),
    ("uuid", "uuid", "live"),
]


def make_typed(shop: Database, user_type: str, item_type: str) -> tuple[dict[int, Any], dict[int, Any]]:
    """shop.typed: the views with ids of these types; returns the ids by number."""
    application = shop.connect("application")
    found = rows(application, "SELECT user_id, product_id, view_count FROM shop.views WHERE user_id <= 120")
    users = {row["user_id"]: make_id(user_type, row["user_id"]) for row in found}
    items = {row["product_id"]: make_id(item_type, row["product_id"]) for row in found}
    application.execute(
        f"CREATE TABLE shop.typed (customer {user_type}, article {item_type}, value integer,"
        " PRIMARY KEY (customer, article))"
    )
    with application.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO shop.typed VALUES (%s, %s, %s)",
            [(users[row["user_id"]], items[row["product_id"]], row["view_count"]) for row in found],
        )
    application.execute(
        f"CREATE TABLE shop.articles (article {item_type} PRIMARY KEY, visible boolean);"
        " INSERT INTO shop.articles SELECT DISTINCT article, true FROM shop.typed;"
        " GRANT SELECT ON shop.typed, shop.articles TO worker; ANALYZE shop.typed, shop.articles"
    )
    return users, items


@pytest.mark.parametrize(("user_type", "item_type", "seen"), CASES)
def test_the_whole_job(shop: Database, user_type: str, item_type: str, seen: Any) -> None:
    users, items = make_typed(shop, user_type, item_type)
    recommender = shop.create(
        source=Source(table="shop.typed", user="customer", item="article", value="value", seen=seen),
        hyperparameters=Hyperparameters(factors=8, iterations=3, regularization=1),
        publication=Publication(search="hnsw", index_users=True),
    )
    plain = {"varchar(400)": "text"}
    user_sql, item_sql = plain.get(user_type, user_type), plain.get(item_type, item_type)
    assert (recommender.user_type, recommender.item_type) == (IdType(user_sql), IdType(item_sql))
    generations = [shop.retrain().generation for _ in range(2)]
    connection = shop.connect()
    stored = rows(connection, "SELECT c.value FROM recstore.generations g, jsonb_each(g.calibration) c")
    exact = [row["value"]["trials"][0] for row in stored]
    assert [trial["ann_recall"] for trial in exact] == [1.0] * 6  # the lists computed here are those of the exact scan

    viewed: dict[Any, set[Any]] = {}
    for row in rows(connection, "SELECT customer, article FROM shop.typed"):
        viewed.setdefault(row["customer"], set()).add(row["article"])
    of = read_factors(connection)
    assert set(of.users) == set(users.values()) == set(viewed)
    assert set(of.items) == set(items.values())
    if seen == "published":
        table = rows(connection, f"SELECT user_id, item_id FROM retail._seen_{generations[1]}")
        assert {(row["user_id"], row["item_id"]) for row in table} == {
            (user, item) for user, found in viewed.items() for item in found
        }
        assert len(table) == sum(map(len, viewed.values()))

    for user in [users[number] for number in (1, 2, 8, 9, 14, 18, 40)]:
        answer = rows(connection, f"SELECT * FROM retail.recommend(%s::{user_sql}, 1000)", user)
        assert_ranking(answer, of.items, of.scores[of.user(user)], 1000, excluded=list(viewed[user]))
        assert {row["reason"] for row in answer} == {"trained"}
        for other in OTHERWISE.get(user_sql, ()):
            assert rows(connection, f"SELECT * FROM retail.recommend({other}, 1000)", str(user)) == answer
        near = rows(connection, f"SELECT * FROM retail.similar_users(%s::{user_sql}, 5)", user)
        assert_ranking(near, of.users, unit(of.x) @ unit(of.x)[of.user(user)], 5, excluded=[user], key="user_id")
        item = of.items[0]
        predicted = value(connection, f"SELECT retail.predict(%s::{user_sql}, %s::{item_sql})", user, item)
        assert predicted == pytest.approx(of.scores[of.user(user), 0], abs=1e-4)
    for item in [items[number] for number in (1, 2, 10, 11, 17, 60)]:
        answer = rows(connection, f"SELECT * FROM retail.similar_items(%s::{item_sql}, 10, 1)", item)
        assert_ranking(answer, of.items, unit(of.y) @ unit(of.y)[of.item(item)], 10, excluded=[item])
        assert len(rows(connection, f"SELECT * FROM retail.users_for_item(%s::{item_sql}, 7)", item)) == 7
        for other in OTHERWISE.get(item_sql, ()):
            assert rows(connection, f"SELECT * FROM retail.similar_items({other}, 10, 1)", str(item)) == answer

    popular = column(connection, "SELECT item_id FROM retail.popular_items(1000)")
    assert len(popular) == len(items)
    order = "count(*) DESC, sum(value) DESC, article" + (' COLLATE "C"' if item_sql == "text" else "")
    assert popular == column(connection, f"SELECT article FROM shop.typed GROUP BY article ORDER BY {order}")

    some = [items[number] for number in (1, 2, 10, 11, 17, 60)]  # as literals of the command line's SQL
    ranked = Recstore(shop.url).recommend(recommender.name, users[1], items=some)
    assert sorted(row.item_id for row in ranked) == sorted(some)
    assert len(Recstore(shop.url).recommend(recommender.name, items=some, weights=[1] * 6)) == 10

    # joins without a cast, through the application's index
    connection.execute("SET enable_seqscan = off")
    for join in (
        "retail.recommend(user_id => (SELECT min(customer::text)::{user} FROM shop.typed), k => 5) r",
        "(SELECT item_id FROM retail.item_vectors LIMIT 5) r",
        "retail.popular_items(5) r",
    ):
        query = f"SELECT a.article FROM {join.format(user=user_sql)} JOIN shop.articles a ON a.article = r.item_id"
        assert len(rows(connection, query)) == 5
        plan = "\n".join(column(connection, f"EXPLAIN {query}"))
        assert "articles_pkey" in plan, plan

    assert jobs.roll_back(shop.url, "retail") == (generations[1], generations[0])
    assert value(connection, "SELECT retail.generation()") == generations[0]
    assert registry.drop(connection, shop.settings, recommender) == []


@pytest.mark.contract
def test_literals_fit_and_what_is_out_of_range_is_unknown(shop: Database) -> None:
    make_typed(shop, "smallint", "smallint")
    source = Source(table="shop.typed", user="customer", item="article", value="value")
    shop.create(source=source, hyperparameters=Hyperparameters(factors=8, iterations=2))
    shop.retrain()
    connection = shop.connect()
    assert len(rows(connection, "SELECT * FROM retail.recommend(-99, 5)")) == 5
    assert len(rows(connection, "SELECT * FROM retail.similar_items(-99, 5)")) == 5
    assert value(connection, "SELECT retail.predict(-99, -99)") is not None
    assert value(connection, "SELECT pg_typeof(item_id)::text FROM retail.recommend(-99, 1)") == "smallint"
    # a smallint column fits, too
    assert value(connection, "SELECT count(*) FROM shop.articles a, retail.similar_items(a.article, 1, 1)") > 100
    for unknown in ("100000", "-40000"):
        for function in ("similar_items", "similar_users", "users_for_item"):
            assert rows(connection, f"SELECT * FROM retail.{function}({unknown}, 5)") == []
        assert value(connection, f"SELECT retail.predict({unknown}, -99)") is None
        assert set(column(connection, f"SELECT reason FROM retail.recommend({unknown}, 5)")) == {"popular"}


def test_text_ties_are_in_the_order_of_the_bytes(shop: Database) -> None:
    """Everybody's list ends among equals: items that the same users viewed as often."""
    application = shop.connect("application")
    application.execute("CREATE TABLE shop.typed (customer text, article text, PRIMARY KEY (customer, article))")
    with application.cursor() as cursor:
        cursor.executemany("INSERT INTO shop.typed VALUES (%s, %s)", [(str(n), odd) for n in range(9) for odd in ODD])
    application.execute("GRANT SELECT ON shop.typed TO worker")
    source = Source(table="shop.typed", user="customer", item="article")
    shop.create(source=source, hyperparameters=Hyperparameters(factors=4, iterations=2, regularization=1))
    shop.retrain()
    connection = shop.connect()
    expected = sorted(ODD, key=str.encode)
    assert column(connection, "SELECT item_id FROM retail.popular_items(1000)") == expected
    assert column(connection, "SELECT item_id FROM retail.recommend('new', 1000)") == expected
    generation = value(connection, "SELECT retail.generation()")
    connection.execute(
        f"UPDATE retail._items_{generation} SET (embedding, preference) ="
        f" (SELECT embedding, preference FROM retail._items_{generation} WHERE item_id = 'a')"
    )
    assert column(connection, "SELECT item_id FROM retail.recommend('1', 7, false)") == expected[:7]
    without = [item for item in expected if item != "a"]
    assert column(connection, "SELECT item_id FROM retail.similar_items('a', 1000)") == without
