"""The worker's main process in addition to Celery: check the database at the start, listen for requests, serve metrics."""

import logging
import threading
from contextlib import suppress
from typing import Any

import kombu.exceptions
import psycopg
from celery import signals
from celery.apps import worker

from recstore import doctor, requests
from recstore.background import dispatch, health
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
    signals.worker_init.connect(check, weak=False)
    signals.worker_ready.connect(begin, weak=False)
    signals.worker_shutting_down.connect(end, weak=False)


class Worker(worker.Worker):  # type: ignore[misc]
    """A worker that sends no events and listens to no other worker, unless the settings allow remote control.

    Celery's main loop would wait for a broker that does not answer in order to send its events.
    """

    def prepare_args(self, **options: Any) -> dict[str, Any]:
        quiet = dict.fromkeys(("without_gossip", "without_mingle", "without_heartbeat"), True)
        return options if self.app.conf.worker_enable_remote_control else options | quiet


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
    with suppress(kombu.exceptions.OperationalError):  # beat sends the next
        app.send_task("recstore.dispatch")


def end(**_: Any) -> None:
    """Stop listening at SIGTERM. Metrics and health checks continue while the jobs end."""
    _stopped.set()


def listen(settings: Settings) -> None:
    """Log what doctor finds at once, then send what is due on a NOTIFY. If this thread fails, beat's dispatch sends it later.

    By the session's name `recstore health` and the metrics know which queues have a worker.
    """
    name = health.LISTENING + ",".join(sorted(app.amqp.queues.consume_from))
    with suppress(RecstoreError):
        for problem in doctor.problems(settings):
            log.warning("doctor: %s", problem)
    while not _stopped.is_set():
        try:
            with connect(database_url(settings), name) as connection:
                connection.execute(f"LISTEN {requests.CHANNEL}")
                while not _stopped.is_set():  # first what was requested before LISTEN
                    report(dispatch.send_due(connection, settings, send))
                    for _ in connection.notifies(timeout=ALIVE_EVERY, stop_after=1):
                        pass
        except (RecstoreError, psycopg.Error) as error:
            log.warning("not listening for requests at the moment: %s", " ".join(str(error).split()))
            _stopped.wait(PAUSE)
