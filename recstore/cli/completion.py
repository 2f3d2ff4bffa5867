"""Completion in the shell: recommenders, generations, runs and more from the configured database, and the choices of a setting.

It takes two seconds at most, and is silent on errors.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import typer
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from recstore.config import load_settings
from recstore.embedded.configured import database_url
from recstore.postgres.connection import conninfo
from recstore.postgres.session import open_session
from recstore.sql import queries
from recstore.wording import printable

SECONDS = 2
"""Time limit of one completion in seconds; libpq, which accepts no less, applies it to each host of the URL."""

Offered = list[tuple[str, str]]
Completer = Callable[[typer.Context, str], Offered]


def asking(query: str, table: str = "table") -> Completer:
    """Return a completer of a named query of `completing.sql`.

    Its parameters are words before the cursor: the name, and the table in the parameter `table`.
    """

    def complete(ctx: typer.Context, incomplete: str) -> Offered:
        rows: Offered = []

        def ask() -> None:
            with suppress(Exception):  # a message would appear in the middle of the command line
                rows.extend(_ask(ctx, queries.query(query), table=ctx.params.get(table)))

        until = ctx.meta.setdefault("recstore.until", time.monotonic() + SECONDS)
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(max(0.0, until - time.monotonic()))
        return [row for row in rows if row[0].startswith(incomplete)]

    return complete


def either(*completers: Completer) -> Completer:
    """Return a completer that offers everything that these offer."""

    def complete(ctx: typer.Context, incomplete: str) -> Offered:
        return [row for completer in completers for row in completer(ctx, incomplete)]

    return complete


def choosing(*choices: str) -> Completer:
    """Return a completer of fixed words."""

    def complete(_: typer.Context, incomplete: str) -> Offered:
        return [(choice, "") for choice in choices if choice.startswith(incomplete)]

    return complete


def trainers(_: typer.Context, incomplete: str) -> Offered:
    """Offer the trainers of recstore and of installed packages."""
    from recstore.model.trainers import trainer_names

    return [(name, "") for name in trainer_names() if name.startswith(incomplete)]


def _ask(ctx: typer.Context, query: str, **typed: Any) -> Offered:
    typed = {"name": None, "table": None} | dict(ctx.params) | typed
    if typed["name"] is None:  # arguments are not parsed yet where an option at the end is missing its value
        typed["name"] = next((word for word in ctx.args if not word.startswith("-")), None)
    own = load_settings(database_url=ctx.find_root().params.get("database"))
    target = make_conninfo(conninfo(database_url(own), "recstore:completion"), connect_timeout=SECONDS)
    with open_session(target, row_factory=dict_row) as connection:
        connection.execute(f"SET statement_timeout = '{SECONDS}s'")
        rows: list[dict[str, Any]] = connection.execute(query, typed).fetchall()
    return [(str(row["text"]), printable(str(row["meaning"]))) for row in rows if str(row["text"]).isprintable()]


recommenders = asking("complete_recommenders")
generations = asking("complete_generations")
runs = asking("complete_runs")
open_requests = asking("complete_open_requests")
studies = asking("complete_studies")
roles = asking("complete_roles")
tables = asking("complete_tables")
columns = asking("complete_columns")
columns_of_source = asking("complete_columns", "source__table")
columns_of_candidates = asking("complete_columns", "candidates__table")

revisions = choosing("base")
recommenders_and_runs = either(recommenders, runs)

SETTINGS = {
    ("hyperparameters", "trainer"): "trainers",
    ("source", "table"): "tables",
    ("candidates", "table"): "tables",
    ("candidates", "column"): "columns_of_candidates",
} | {("source", name): "columns_of_source" for name in ("user", "item", "value", "last_at")}
"""Completers of a definition's settings; settings with fixed choices complete these."""
