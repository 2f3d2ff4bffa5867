"""The demo: the main job on the Online Retail data, told step by step. Runs twice as well as once."""

import gzip
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any

from rich.console import Console

from recstore import embedded, pipeline, registry
from recstore.api.progress import StageReporter
from recstore.config import Settings
from recstore.definition import Definition, Source, Titles
from recstore.errors import RecommenderNotFound
from recstore.operations import jobs, questions, schema
from recstore.postgres.connection import Connection, connect, plain_errors
from recstore.sql.objects import Registered

NAME = "retail"
PRODUCTS = (1606, 2505, 599)
CUSTOMERS = (1, 42, 1000)

SHOP = """
CREATE SCHEMA IF NOT EXISTS shop;
CREATE TABLE IF NOT EXISTS shop.products (
    product_id integer PRIMARY KEY,
    stock_code text NOT NULL,
    title text NOT NULL,
    visible boolean NOT NULL DEFAULT true
);
CREATE TABLE IF NOT EXISTS shop.views (
    user_id bigint,
    product_id integer REFERENCES shop.products,
    view_count integer NOT NULL,
    PRIMARY KEY (user_id, product_id)
);
"""


ROLES = """
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = 'webapp') THEN
        CREATE ROLE webapp;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = 'ops') THEN
        CREATE ROLE ops;
    END IF;
END
$$;
GRANT USAGE ON SCHEMA shop TO webapp;
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO webapp;
"""
"""The roles of the application and of who watches, for `recstore grant` and `recstore db grant`."""


def run(settings: Settings, console: Console, program: str = "recstore") -> dict[str, Any]:
    """Does the main job in the embedded server of `settings.home` and tells it; `program` is how the reader calls
    recstore. Returns the server's URL, what went live, and the answers. Raises RecstoreError."""
    began = time.perf_counter()

    @contextmanager
    def step(name: str) -> Iterator[list[str]]:
        start, told = time.perf_counter(), [""]
        yield told
        console.print(f"{name:<12} {time.perf_counter() - start:7.2f} s   {told[0]}", markup=False)

    with step("start") as told:
        server = embedded.start(settings.home, embedded.version_in(settings.home))
        told[0] = f"PostgreSQL {server.version} with pgvector, data in {settings.home.absolute()}"
    with connect(server.url) as connection, plain_errors("running the demo", connection):
        with step("migrate") as told:
            told[0] = "; ".join(schema.upgrade(connection, server.url, settings)) or "recstore's schema is up to date"
        with step("shop") as told:
            told[0] = load_shop(connection)
            connection.execute(ROLES)
        with step("create") as told:
            told[0] = _create(connection, settings)
        with StageReporter(console).showing() as reporter:
            outcome = pipeline.retrain(server.url, settings, NAME, reporter=reporter)
        seconds = time.perf_counter() - began
        console.print(f"{'all':<12} {seconds:7.2f} s")
        answers = show_answers(console, connection, registry.get(connection, NAME))
    _what_next(console, program)
    return {
        "url": server.url,
        "recommender": NAME,
        "generation": outcome.generation,
        "seconds": seconds,
        "answers": answers,
    }


def load_shop(connection: Connection) -> str:
    """The application's own tables, as it would have them; filled if they are empty."""
    data = resources.files(__package__).joinpath("data")
    with connection.transaction():
        connection.execute(SHOP)
        if not connection.execute("SELECT FROM shop.views LIMIT 1").fetchall():
            for table, columns, file in (
                ("products", "product_id, stock_code, title", "online_retail_2010.resources.csv.gz"),
                ("views", "user_id, product_id, view_count", "online_retail_2010.views.csv.gz"),
            ):
                with connection.cursor().copy(f"COPY shop.{table} ({columns}) FROM STDIN (FORMAT csv, HEADER)") as copy:
                    copy.write(gzip.decompress(data.joinpath(file).read_bytes()))
            connection.execute("ANALYZE shop.products, shop.views")
    counts = connection.execute(
        "SELECT (SELECT count(*) FROM shop.products) AS products, (SELECT count(*) FROM shop.views) AS views"
    ).fetchone()
    assert counts is not None
    return f"{counts['products']:,} products, {counts['views']:,} view counts of an online shop, 2010"


def _create(connection: Connection, settings: Settings) -> str:
    try:
        registry.get(connection, NAME)
        return f"{NAME} exists already"
    except RecommenderNotFound:
        definition = Definition(
            source=Source(table="shop.views", item="product_id", value="view_count"),
            titles=Titles(table="shop.products", item="product_id", title="title"),
        )
        jobs.create(connection, settings, NAME, definition)
        return f"recommender {NAME} over shop.views"


def show_answers(console: Console, connection: Connection, recommender: Registered) -> list[dict[str, Any]]:
    """Similar products and recommendations, each under the SQL that gave it."""
    asked = [
        (f"Similar to {_title(connection, product)}", questions.similar(recommender, product, 5))
        for product in PRODUCTS
    ]
    for customer in CUSTOMERS:
        bought, recommended = questions.seen(recommender, customer, 5), questions.recommended(recommender, customer, 5)
        asked.append((f"Customer {customer} bought, most often first", bought))
        asked.append((f"Recommended for customer {customer}", recommended))
    return [_show(console, connection, heading, question) for heading, question in asked]


def _title(connection: Connection, product: int) -> str:
    row = connection.execute("SELECT title FROM shop.products WHERE product_id = %s", [product]).fetchone()
    assert row is not None
    return f"{product}, {row['title'].strip()}"


def _show(console: Console, connection: Connection, heading: str, question: questions.Question) -> dict[str, Any]:
    console.print(f"\n{heading}", style="bold", markup=False)
    console.print(question.statement, style="cyan", markup=False)
    rows = question.ask(connection)
    for row in rows:
        others = [f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()]
        title = [f"{others.pop(1).strip():<38}"] if "title" in row else []
        console.print(f"  {others[0]:>6}  " + "  ".join(title + others[1:]), markup=False)
    return {"heading": heading, "sql": question.statement, "rows": rows}


def _what_next(console: Console, program: str) -> None:
    console.print(
        f"""
The server stays up. Try:
  {program} psql
      paste any of the SQL above
  {program} recommend {NAME} 7 --sql
  {program} show {NAME}
      what is live, and how it was calibrated
  {program} alter {NAME} --min-users-per-item 3 && {program} retrain {NAME}
  {program} rollback {NAME}
Your own database: see "Connect your own database" in README.md.
Stop the server with: {program} stop""",
        markup=False,
    )
