"""What the shell offers when Tab is pressed: recommenders, generations, runs, .. of the database that is configured, and the
choices of a setting. Within two seconds or not at all, and silent whatever goes wrong."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import typer
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from recstore.config import load_settings
from recstore.embedded.configured import database_url
from recstore.postgres.connection import conninfo
from recstore.sql import queries

SECONDS = 2
"""Of everything that is asked for one line; libpq, which takes no less, means each host of the URL."""

Offered = list[tuple[str, str]]
Completer = Callable[[typer.Context, str], Offered]


def asking(query: str, table: str = "table") -> Completer:
    """Offers what a named query of `completing.sql` finds; its parameters are what was typed before: the name, and the table
    in the parameter `table`."""

    def complete(ctx: typer.Context, incomplete: str) -> Offered:
        rows: Offered = []

        def ask() -> None:
            with suppress(Exception):  # there is nothing to tell: the cursor stands in the middle of a command
                rows.extend(_ask(ctx, queries.query(query), table=ctx.params.get(table)))

        until = ctx.meta.setdefault("recstore.until", time.monotonic() + SECONDS)
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(max(0.0, until - time.monotonic()))
        return [row for row in rows if row[0].startswith(incomplete)]

    return complete


def either(*completers: Completer) -> Completer:
    """Offers what each of them does."""

    def complete(ctx: typer.Context, incomplete: str) -> Offered:
        return [row for completer in completers for row in completer(ctx, incomplete)]

    return complete


def choosing(*choices: str) -> Completer:
    """Offers fixed words."""

    def complete(_: typer.Context, incomplete: str) -> Offered:
        return [(choice, "") for choice in choices if choice.startswith(incomplete)]

    return complete


def trainers(_: typer.Context, incomplete: str) -> Offered:
    """Those that come with recstore, and those of installed packages."""
    from recstore.model.trainers import trainer_names

    return [(name, "") for name in trainer_names() if name.startswith(incomplete)]


def _ask(ctx: typer.Context, query: str, **typed: Any) -> Offered:
    typed = {"name": None, "table": None} | dict(ctx.params) | typed
    if typed["name"] is None:  # an option at the end that wants its value keeps arguments from being taken apart
        typed["name"] = next((word for word in ctx.args if not word.startswith("-")), None)
    given = load_settings(database_url=ctx.find_root().params.get("database"))
    target = make_conninfo(conninfo(database_url(given), "recstore:completion"), connect_timeout=SECONDS)
    with psycopg.connect(target, autocommit=True, row_factory=dict_row) as connection:
        connection.execute(f"SET statement_timeout = '{SECONDS}s'")
        rows: list[dict[str, Any]] = connection.execute(query, typed).fetchall()
    return [(str(row["text"]), str(row["meaning"])) for row in rows]


recommenders = asking("complete_recommenders")
generations = asking("complete_generations")
runs = asking("complete_runs")
open_requests = asking("complete_open_requests")
studies = asking("complete_studies")
roles = asking("complete_roles")
tables = asking("complete_tables")
columns = asking("complete_columns")

revisions = choosing("base")
recommenders_and_runs = either(recommenders, runs)

SETTINGS: dict[tuple[str, str], Completer] = {
    ("hyperparameters", "trainer"): trainers,
    ("source", "table"): tables,
    ("candidates", "table"): tables,
    ("candidates", "column"): asking("complete_columns", "candidates__table"),
} | {("source", name): asking("complete_columns", "source__table") for name in ("user", "item", "value", "last_at")}
"""Of the options that are made from a definition's settings; those with fixed choices offer these."""
