"""What a worker's main process does beside Celery: checks the database at the start, listens for requests, serves metrics."""

import logging
import sys
from typing import Any

from celery import signals

from recstore.config import load_settings
from recstore.embedded.configured import database_url
from recstore.errors import RecstoreError
from recstore.postgres.connection import connect, plain_errors
from recstore.sql.schema_revision import require_current, require_extension

from .app import app
from .listener import Listener
from .monitoring import Pulse, serve

log = logging.getLogger(__name__)

_listener: Listener | None = None


def connect_signals() -> None:
    """Called once, when the app is made."""
    app.steps["consumer"].add(Pulse)
    signals.worker_init.connect(check, weak=False)
    signals.worker_ready.connect(begin, weak=False)
    signals.worker_shutting_down.connect(end, weak=False)


def check(**_: Any) -> None:
    """Refuses to start, with a sentence and an exit code, on a database that is not as this version needs it."""
    settings = load_settings()
    try:
        with connect(database_url(settings)) as connection, plain_errors("starting the worker", connection):
            require_extension(connection)
            require_current(connection)
    except RecstoreError as error:
        sys.stderr.write(f"Error: {error.message}\n")
        sys.exit(error.exit_code)
    if settings.visibility_timeout <= settings.time_limit:
        log.warning(
            "RECSTORE_VISIBILITY_TIMEOUT (%g s) is not above RECSTORE_TIME_LIMIT (%g s): Redis will deliver the message of"
            " a long run again. That does no harm, but is in vain.",
            settings.visibility_timeout,
            settings.time_limit,
        )


def begin(**_: Any) -> None:
    global _listener
    settings = load_settings()
    _listener = Listener(settings)
    _listener.start()
    serve(settings)
    app.send_task("recstore.dispatch", expires=settings.dispatch_interval)  # what is due need not wait for beat


def end(**_: Any) -> None:
    """At SIGTERM. Metrics and health checks go on while the jobs end."""
    if _listener:
        _listener.stop()
