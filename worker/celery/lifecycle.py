"""A Celery worker's main process in addition to Celery: check the database at the start, listen for requests, serve metrics."""

import logging
import threading
from contextlib import suppress
from functools import partial
from typing import Any

import kombu.exceptions
import psycopg
from celery import signals
from celery.apps import worker
from celery.utils.log import ColorFormatter, get_multiprocessing_logger

from recstore import requests
from recstore.background import dispatch, health
from recstore.config import Settings, load_settings
from recstore.embedded.configured import database_url
from recstore.errors import RecstoreError
from recstore.postgres.connection import connect

from .. import errands, monitoring
from ..logs import LineFormatter
from .app import app, exit_on_error
from .pulse import BrokerCollector, Pulse, not_alive, not_ready
from .tasks import send

log = logging.getLogger(__name__)

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


def use_lines(logger: logging.Logger, **_: Any) -> None:
    """Let the handlers of a logger that Celery has set up write lines."""
    for handler in [*logger.handlers, *get_multiprocessing_logger().handlers]:
        if isinstance(before := handler.formatter, ColorFormatter):
            handler.setFormatter(LineFormatter(before._fmt, before.datefmt))


def check(**_: Any) -> None:
    """Exit with an error unless the database is as this version needs it."""
    settings = load_settings()
    with exit_on_error():
        health.check_start(database_url(settings))
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
    monitoring.serve(settings, not_alive, partial(not_ready, settings), BrokerCollector())
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
    errands.warn(settings)
    while not _stopped.is_set():
        try:
            with connect(database_url(settings), name) as connection:
                connection.execute(f"LISTEN {requests.CHANNEL}")
                while not _stopped.is_set():  # first what was requested before LISTEN
                    errands.report(dispatch.send_due(connection, settings, send))
                    for _ in connection.notifies(timeout=health.ALIVE_EVERY, stop_after=1):
                        pass
        except (RecstoreError, psycopg.Error) as error:
            log.warning("not listening for requests at the moment: %s", " ".join(str(error).split()))
            _stopped.wait(health.PAUSE)
