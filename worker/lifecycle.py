"""The worker's main process in addition to Celery: check the database at the start, listen for requests, serve metrics."""

import logging
import threading
from typing import Any

import psycopg
from celery import signals
from celery.worker.consumer.gossip import Gossip
from celery.worker.consumer.mingle import Mingle

from recstore import requests
from recstore.background import dispatch
from recstore.config import Settings, load_settings
from recstore.embedded.configured import database_url
from recstore.errors import RecstoreError
from recstore.postgres.connection import connect, plain_errors
from recstore.sql.schema_revision import require_current, require_extension

from .app import app, exit_on_error
from .logs import use_lines
from .monitoring import Pulse, serve
from .tasks import report, send

log = logging.getLogger(__name__)

PAUSE = 5.0
"""Seconds before the listener reconnects."""

ALIVE_EVERY = 30.0
"""Seconds after which a silent connection is tested."""

_stopped = threading.Event()


def connect_signals() -> None:
    """Connect the functions below; called once, when the app is created."""
    app.steps["consumer"].add(Pulse)
    signals.after_setup_logger.connect(use_lines, weak=False)
    signals.after_setup_task_logger.connect(use_lines, weak=False)
    signals.celeryd_init.connect(keep_to_itself, weak=False)
    signals.worker_init.connect(check, weak=False)
    signals.worker_ready.connect(begin, weak=False)
    signals.worker_shutting_down.connect(end, weak=False)


def keep_to_itself(**_: Any) -> None:
    """Exchange nothing with other workers either, unless the settings allow remote control."""
    if not app.conf.worker_enable_remote_control:
        Gossip.compatible_transports = Mingle.compatible_transports = frozenset()


def check(**_: Any) -> None:
    """Exit with an error unless the database is as this version needs it."""
    settings = load_settings()
    with (
        exit_on_error(),
        connect(database_url(settings)) as connection,
        plain_errors("starting the worker", connection),
    ):
        require_extension(connection)
        require_current(connection)
    if settings.visibility_timeout <= settings.time_limit:
        log.warning(
            "RECSTORE_VISIBILITY_TIMEOUT (%g s) is not above RECSTORE_TIME_LIMIT (%g s): Redis will deliver the message of"
            " a long run again. Harmless: the second delivery finds nothing to do.",
            settings.visibility_timeout,
            settings.time_limit,
        )


def begin(**_: Any) -> None:
    settings = load_settings()
    threading.Thread(target=listen, args=[settings], name="recstore-listener", daemon=True).start()
    serve(settings)
    app.send_task("recstore.dispatch", expires=settings.dispatch_interval)  # without waiting for beat


def end(**_: Any) -> None:
    """Stop listening at SIGTERM. Metrics and health checks continue while the jobs end."""
    _stopped.set()


def listen(settings: Settings) -> None:
    """Send what is due at once on a NOTIFY. If this thread fails, beat's dispatch does the same later."""
    while not _stopped.is_set():
        try:
            with connect(database_url(settings), "recstore:listen") as connection:
                connection.execute(f"LISTEN {requests.CHANNEL}")
                while not _stopped.is_set():  # first what was requested before LISTEN
                    report(dispatch.send_due(connection, settings, send))
                    for _ in connection.notifies(timeout=ALIVE_EVERY, stop_after=1):
                        pass
        except (RecstoreError, psycopg.Error) as error:
            log.warning("not listening for requests at the moment: %s", " ".join(str(error).split()))
            _stopped.wait(PAUSE)
