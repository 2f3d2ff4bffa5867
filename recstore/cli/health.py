"""One command for a container's health check and for monitoring scripts."""

import typer

from recstore.api.watch import Watching
from recstore.background.health import Health
from recstore.cli.commands import Commands
from recstore.cli.screen import say


def register(app: typer.Typer) -> None:
    Commands(app, Watching).add(
        "health",
        _healthy,
        notes="Exit code 0: healthy; 3: no connection; 1: anything else, with what to do about it.",
        example="recstore health",
    )


def _healthy(found: Health) -> None:
    say(
        f"healthy: the database is at revision {found.revision}, the broker answers, the last dispatch was"
        f" {found.last_dispatch_seconds:.0f} s ago"
    )
