"""Every recipe of docs/recipes.md, run as the application's own role, gives what its heading promises."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Database, copy_of, make_database, make_template
from support_sql import column, rows, value

from recstore import cli
from recstore.embedded import Server
from recstore.operations import readers
from recstore.postgres.connection import Connection

PAGE = (Path(__file__).parents[2] / "docs/recipes.md").read_text()
SECTIONS = {
    text.partition("\n")[0]: re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL) for text in PAGE.split("\n## ")[1:]
}
MOST_LINES = 15
NEW = [121, 122, 123]
"""Products that nobody has viewed, the newest last."""

Rows = list[dict[str, Any]]
Check = Callable[[Connection, Rows], None]
CHECKS: dict[str, Check] = {}


@pytest.fixture(scope="session")
def recipes_template(server: Server, shop_template: str) -> str:
    database = make_database(server, shop_template)
    with database.connect("application") as application:
        application.execute(
            """
            ALTER TABLE shop.products ADD seller_id integer, ADD stock integer, ADD language text, ADD tenant text,
                ADD category text, ADD created_at timestamptz;
            INSERT INTO shop.products (product_id, title) SELECT n, 'product ' || n FROM generate_series(121, 123) n;
            UPDATE shop.products SET seller_id = product_id % 8, stock = product_id % 3,
                language = CASE WHEN product_id % 2 = 0 THEN 'en' ELSE 'es' END,
                tenant = CASE WHEN product_id % 5 < 2 THEN 'north' ELSE 'south' END, category = 'c' || product_id % 7,
                created_at = timestamptz '2026-01-01' + make_interval(days => product_id);
            CREATE TABLE shop.users AS SELECT n AS user_id, 'es' AS language FROM generate_series(1, 240) n;
            CREATE TABLE shop.events AS
            SELECT user_id, product_id, CASE WHEN view_count > 6 THEN 'download' ELSE 'view' END AS event FROM shop.views;
            GRANT SELECT ON ALL TABLES IN SCHEMA shop TO worker
            """
        )
    recommender = database.create()
    assert database.retrain().live
    with database.connect() as connection:
        readers.grant_reader(connection, recommender, "application", people=True)
    return make_template(database, "template_recipes")


made = copy_of("recipes_template")


def check(head: str) -> Callable[[Check], Check]:
    return lambda function: CHECKS.setdefault(head, function)


def test_every_recipe_has_a_check_and_is_short() -> None:
    assert CHECKS.keys() == SECTIONS.keys()
    for head, blocks in SECTIONS.items():
        assert any(language == "sql" for language, _ in blocks), head
        assert all(len(text.splitlines()) <= MOST_LINES for _, text in blocks), head


@pytest.mark.contract
@pytest.mark.parametrize("head", SECTIONS)
def test_it_does_what_it_says(made: Database, head: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer: Rows = []
    with made.connect("application") as application:
        for language, text in SECTIONS[head]:
            if language == "sh":
                for line in text.splitlines():
                    code = cli.run(["--database", made.url, *shlex.split(line)[1:]])
                    assert code == 0, capsys.readouterr()
                continue
            if head == "Tenant":  # the application owns the table here
                application.execute("ALTER TABLE shop.products FORCE ROW LEVEL SECURITY")
            for statement in text.split(";"):
                if statement.strip():
                    cursor = application.execute(statement)
                    answer = cursor.fetchall() if cursor.description else answer
        CHECKS[head](application, answer)


def best(application: Connection, k: int = 120, user: int = 42) -> list[int]:
    """All unseen items in the user's order."""
    return column(application, "SELECT item_id FROM retail.recommend(%s, %s)", user, k)


def items(answer: Rows) -> list[int]:
    return [row.get("item_id", row.get("product_id")) for row in answer]


@check("Only own items")
def _own(application: Connection, answer: Rows) -> None:
    assert items(answer) == [item for item in best(application) if item % 8 == 7][:10]
    assert len(answer) == 10


@check("Stock")
def _stock(application: Connection, answer: Rows) -> None:
    assert len(answer) == 10
    assert all(item % 3 for item in items(answer))
    application.execute("UPDATE shop.products SET stock = 0 WHERE product_id = %s", [answer[0]["item_id"]])
    assert best(application, 9) == items(answer)[1:]


@check("Language")
def _language(application: Connection, answer: Rows) -> None:
    assert items(answer) == [item for item in best(application) if item % 2][:10]


@check("Tenant")
def _tenant(application: Connection, answer: Rows) -> None:
    application.execute("ALTER TABLE shop.products NO FORCE ROW LEVEL SECURITY")
    assert items(answer) == [item for item in best(application) if item % 5 < 2][:10]
    assert len(answer) == 10


@check("Score threshold")
def _threshold(application: Connection, answer: Rows) -> None:
    every = rows(application, "SELECT item_id, score FROM retail.recommend(42, 120)")
    assert answer == [row for row in every if row["score"] >= 0.3]
    assert 0 < len(answer) < 50


@check("Pages without repeats")
def _pages(application: Connection, answer: Rows) -> None:
    assert items(answer) == [item for item in best(application) if item not in (17, 4, 61)][:10]


@check("One per category")
def _categories(application: Connection, answer: Rows) -> None:
    first: dict[int, int] = {}
    for item in best(application):
        first.setdefault(item % 7, item)
    assert items(answer) == list(first.values())


@check("Popularity discount")
def _discount(application: Connection, answer: Rows) -> None:
    users = dict(_pairs(application, "SELECT item_id, users FROM retail.item_vectors"))
    scores = dict(_pairs(application, "SELECT item_id, score FROM retail.recommend(42, 100)"))
    expected = sorted(scores, key=lambda item: (-scores[item] / users[item] ** 0.3, item))[:10]
    assert items(answer) == expected != best(application, 10)


def _pairs(application: Connection, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in rows(application, query)]


@check("Diversity")
def _diversity(application: Connection, answer: Rows) -> None:
    pool = rows(
        application,
        "SELECT r.item_id, r.score, v.embedding::real[] AS unit FROM retail.recommend(42, 50) r"
        " JOIN retail.item_vectors v ON v.item_id = r.item_id ORDER BY r.score DESC, r.item_id",
    )
    cosines = np.array([row["unit"] for row in pool]) @ np.array([row["unit"] for row in pool]).T
    chosen = [0]
    while len(chosen) < 10:
        gain = 0.5 * np.array([row["score"] for row in pool]) - 0.5 * cosines[:, chosen].max(axis=1)
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
    assert items(answer) == [pool[place]["item_id"] for place in chosen]
    assert items(answer) != best(application, 10)


@check("Event weights")
def _events(application: Connection, answer: Rows) -> None:
    counts = dict(_pairs(application, "SELECT product_id, view_count FROM shop.views WHERE user_id = 42"))
    assert {row["item_id"]: row["value"] for row in answer} == {
        item: 3 if count > 6 else 1 for item, count in counts.items()
    }
    assert value(application, "SELECT max(views) FROM retail.item_vectors") == value(
        application,
        "SELECT max(n) FROM (SELECT sum(CASE WHEN view_count > 6 THEN 3 ELSE 1 END) AS n FROM shop.views GROUP BY product_id) s",
    )


@check("Items without views")
def _new(application: Connection, answer: Rows) -> None:
    first = best(application, 8)
    assert items(answer) == [*first[:3], NEW[-1], *first[3:7], NEW[-2], first[7]]


@check("Lists for 50 users")
def _fifty(application: Connection, answer: Rows) -> None:
    assert len(answer) == 500
    for user in (1, 42, 50):
        assert [row["item_id"] for row in answer if row["user_id"] == user] == best(application, 10, user)
