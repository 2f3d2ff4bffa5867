"""The worker's main process in addition to Celery: check the database at the start, listen for requests, serve metrics."""

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
    """Connect the functions below; called once, when the app is created."""
    app.steps["consumer"].add(Pulse)
    signals.worker_init.connect(check, weak=False)
    signals.worker_ready.connect(begin, weak=False)
    signals.worker_shutting_down.connect(end, weak=False)


def check(**_: Any) -> None:
    """Exit with an error unless the database is as this version needs it."""
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
            " a long run again. Harmless: the second delivery finds nothing to do.",
            settings.visibility_timeout,
            settings.time_limit,
        )


def begin(**_: Any) -> None:
    global _listener
    settings = load_settings()
    _listener = Listener(settings)
    _listener.start()
    serve(settings)
    app.send_task("recstore.dispatch", expires=settings.dispatch_interval)  # without waiting for beat


def end(**_: Any) -> None:
    """Stop listening at SIGTERM. Metrics and health checks continue while the jobs end."""
    if _listener:
        _listener.stop()
