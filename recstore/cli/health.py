"""One command for a container's health check and for monitoring scripts."""

import typer

from recstore.cli.context import Json, say, settings, show, use_json
from recstore.servers import broker_url, database_url


def register(app: typer.Typer) -> None:
    app.command()(health)


def health(json: Json = False) -> None:
    """Check that the database is current and pgvector usable, that the broker answers, and that workers look for due work.

    Exit code 0: all is well; 3: no connection; 1: anything else, with what to do about it. Example: recstore health
    """
    from recstore import broker, migrate  # redis-py, which no other command needs
    from recstore import health as checks

    use_json(json)
    given = settings()
    with checks.asking(database_url(given), "recstore:health") as connection:
        checks.check_database(connection)
        revision, dispatched = migrate.current(connection), checks.last_dispatch(connection)
    broker.queue_lengths(broker_url(given))
    checks.check_dispatch(given, dispatched)
    if json:
        show({"healthy": True, "revision": revision, "last_dispatch_seconds": dispatched})
    say(
        f"healthy: the database is at revision {revision}, the broker answers, the last dispatch was {dispatched:.0f} s ago"
    )
