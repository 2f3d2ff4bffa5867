"""A shop with titles, pictures and two generations, and the explorer over it."""

import re
from html import unescape
from typing import Any

from conftest import Database
from flask.testing import FlaskClient

from recstore.config import Settings
from recstore.definition import Gate, Publication, Titles
from recstore.explorer.app import create

LONG = "A handmade enamel jug with a lid, cream, holds two litres, 23 cm"
RIGHT_TO_LEFT = "إبريق مطلي بالمينا مع غطاء، كريمي اللون"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'& {{7*7}}"
TITLES = Titles(table="shop.products", item="product_id", title="title", picture="picture")


def make_titles(database: Database) -> None:
    """Titles and pictures that a page must survive, and two generations before the live one."""
    with database.connect("application") as connection:
        connection.execute("ALTER TABLE shop.products ADD picture text")
        for item, title in {1: LONG, 2: RIGHT_TO_LEFT, 3: HOSTILE}.items():
            connection.execute("UPDATE shop.products SET title = %s WHERE product_id = %s", [title, item])
        connection.execute("UPDATE shop.products SET picture = 'http://127.0.0.1:9/1.png' WHERE product_id = 1")
        connection.execute("UPDATE shop.products SET picture = 'javascript:alert(1)' WHERE product_id = 2")
    database.alter(titles=TITLES, gate=Gate(held_out=0.2), publication=Publication(search="exact", keep=3))
    assert database.retrain().live
    assert database.retrain().live


def client_of(database: Database, role: str = "worker", *, operators: bool = False, password: str = "") -> FlaskClient:
    settings = Settings(database_url=database.url_of(role), explorer_password=password, home=database.settings.home)  # type: ignore[arg-type]
    app = create(settings, operators=operators)
    database.opened.append(app.extensions["recstore"])  # closed with the database
    return app.test_client()


def text_of(page: str) -> str:
    """What a reader sees, without the SQL."""
    page = re.sub(r"<details.*?</details>|<head>.*?</head>", "", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def lists_of(page: str) -> list[tuple[list[str], str]]:
    """The ids in each list of items, and the SQL below it."""
    found = []
    for part in re.split(r"(?<=</details>)", page):
        statement = re.search(r"<pre[^>]*><code>(.*?)</code>", part, re.DOTALL)
        ids = re.findall(r'<tr>\s*<td class="item"><a href="[^"]*/item\?id=([^"&]*)"', part)
        if statement and ids:
            found.append((ids, unescape(statement[1])))
    return found


def executed(connection: Any, statement: str) -> list[dict[str, Any]]:
    """The rows of a statement that was copied, its transaction's too."""
    cursor = connection.execute(statement)
    while True:
        if cursor.description:
            rows: list[dict[str, Any]] = cursor.fetchall()
        if not cursor.nextset():
            return rows
