"""The demo: the main job on the Online Retail data, printed step by step. It can be repeated."""

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
from recstore.operations import questions, recommenders, schema
from recstore.postgres.connection import Connection, connect, plain_errors
from recstore.sql.objects import Registered

NAME = "retail"
PRODUCTS = (1606, 2505, 599)
CUSTOMERS = (1, 42, 1000)
NEWCOMER = 990001
"""A customer whom no training has seen."""

TITLES = Titles(table="shop.products", item="product_id", title="title")

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
"""Roles of an application and of an operator, for `recstore grant` and `recstore db grant`."""


def run(settings: Settings, console: Console, program: str = "recstore") -> dict[str, Any]:
    """Do the main job in the embedded server of `settings.home`, and print it; `program` is how the reader calls recstore.

    Returns the server's URL, the live generation and the answers. Raises RecstoreError.
    """
    began = time.perf_counter()
    with step(console, "start") as done:
        server = embedded.start(settings.home, embedded.version_in(settings.home))
        done.append(f"PostgreSQL {server.version} with pgvector, data in {settings.home.absolute()}")
    with connect(server.url) as connection, plain_errors("running the demo", connection):
        with step(console, "migrate") as done:
            done += schema.upgrade(connection, server.url, settings) or ["recstore's schema is up to date"]
        with step(console, "shop") as done:
            done.append(load_shop(connection))
            connection.execute(ROLES)
        with step(console, "create") as done:
            done.append(_create(connection, settings))
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


@contextmanager
def step(console: Console, name: str) -> Iterator[list[str]]:
    """Print the name of a step, its seconds, and the sentences that the block appends."""
    began, done = time.perf_counter(), list[str]()
    yield done
    console.print(f"{name:<12} {time.perf_counter() - began:7.2f} s   {'; '.join(done)}", markup=False)


def read_data(file: str) -> bytes:
    return gzip.decompress(resources.files(__package__).joinpath("data", file).read_bytes())


def load_shop(connection: Connection) -> str:
    """Create the application's own tables, and fill them if they are empty."""
    with connection.transaction():
        connection.execute(SHOP)
        if not connection.execute("SELECT FROM shop.views LIMIT 1").fetchall():
            for table, columns, file in (
                ("products", "product_id, stock_code, title", "online_retail_2010.resources.csv.gz"),
                ("views", "user_id, product_id, view_count", "online_retail_2010.views.csv.gz"),
            ):
                with connection.cursor().copy(f"COPY shop.{table} ({columns}) FROM STDIN (FORMAT csv, HEADER)") as copy:
                    copy.write(read_data(file))
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
            titles=TITLES,
        )
        recommenders.create(connection, settings, NAME, definition)
        return f"recommender {NAME} over shop.views"


def show_answers(console: Console, connection: Connection, recommender: Registered) -> list[dict[str, Any]]:
    """Print similar products and recommendations, each under its SQL."""
    titles = questions.titles_of(connection, recommender, PRODUCTS)
    asked = [(f"Similar to {one}, {titles[one].strip()}", questions.similar(recommender, one, 5)) for one in PRODUCTS]
    for customer in CUSTOMERS:
        bought, recommended = questions.seen(recommender, customer, 5), questions.recommended(recommender, customer, 5)
        asked.append((f"Customer {customer} bought, most often first", bought))
        asked.append((f"Recommended for customer {customer}", recommended))
    answers = [_show(console, connection, heading, question) for heading, question in asked]
    return [*answers, _show_newcomer(console, connection, recommender)]


def _show_newcomer(console: Console, connection: Connection, recommender: Registered) -> dict[str, Any]:
    """Print the recommendations for a customer who comes and clicks in this transaction, which is rolled back."""
    insert = (
        "INSERT INTO shop.views (user_id, product_id, view_count)\n"
        f"VALUES ({NEWCOMER}, {PRODUCTS[0]}, 1), ({NEWCOMER}, {PRODUCTS[1]}, 1);"
    )
    with connection.transaction(force_rollback=True):
        console.print("\nA new customer clicks twice, and has recommendations in the same transaction", style="bold")
        console.print(f"BEGIN;\n{insert}", style="cyan", markup=False)
        connection.execute(insert)
        answer = _print_answer(console, connection, questions.recommended(recommender, NEWCOMER, 5))
    console.print("ROLLBACK;", style="cyan")
    return {"heading": "A new customer"} | answer


def _show(console: Console, connection: Connection, heading: str, question: questions.Question) -> dict[str, Any]:
    console.print(f"\n{heading}", style="bold", markup=False)
    return {"heading": heading} | _print_answer(console, connection, question)


def _print_answer(console: Console, connection: Connection, question: questions.Question) -> dict[str, Any]:
    console.print(question.statement, style="cyan", markup=False)
    rows = question.ask(connection)
    for row in rows:
        others = [f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()]
        title = [f"{others.pop(1).strip():<38}"] if "title" in row else []
        console.print(f"  {others[0]:>6}  " + "  ".join(title + others[1:]), markup=False)
    return {"sql": question.statement, "rows": rows}


def _what_next(console: Console, program: str) -> None:
    console.print(
        f"""
The server stays up. Look at it in the browser, http://127.0.0.1:8000:
  {program} explore

Try:
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
