"""One command for a container's health check and for monitoring scripts."""

from dataclasses import asdict

import typer

from recstore.background import health as checks
from recstore.cli.context import Json, say, settings, show
from recstore.embedded.configured import broker_url, database_url


def register(app: typer.Typer) -> None:
    app.command()(health)


def health(json: Json = False) -> None:
    """Check that the database is current and pgvector usable, that the broker answers, and that workers look for due work.

    Exit code 0: all is well; 3: no connection; 1: anything else, with what to do about it. Example: recstore health
    """
    given = settings()
    found = checks.check(database_url(given), broker_url(given), given)
    if json:
        show(asdict(found))
    say(
        f"healthy: the database is at revision {found.revision}, the broker answers, the last dispatch was"
        f" {found.last_dispatch_seconds:.0f} s ago"
    )
