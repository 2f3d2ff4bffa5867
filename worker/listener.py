"""Send what is due at once on a NOTIFY. If this thread fails, beat's dispatch does the same later."""

import logging
import threading

import psycopg

from recstore import requests
from recstore.background import dispatch
from recstore.config import Settings
from recstore.embedded.configured import database_url
from recstore.errors import RecstoreError
from recstore.postgres.connection import connect

from .tasks import report, send

log = logging.getLogger(__name__)

PAUSE = 5.0
"""Seconds before reconnecting."""

ALIVE_EVERY = 30.0
"""Seconds after which a silent connection is tested."""


class Listener(threading.Thread):
    """A thread of the worker's main process, with a connection of its own."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="recstore-listener", daemon=True)
        self.settings = settings
        self.stopped = threading.Event()

    def stop(self) -> None:
        self.stopped.set()

    def run(self) -> None:
        while not self.stopped.is_set():
            try:
                self._listen()
            except (RecstoreError, psycopg.Error) as error:
                log.warning("not listening for requests at the moment: %s", " ".join(str(error).split()))
                self.stopped.wait(PAUSE)

    def _listen(self) -> None:
        with connect(database_url(self.settings), "recstore:listen") as connection:
            connection.execute(f"LISTEN {requests.CHANNEL}")
            while not self.stopped.is_set():  # first what was requested before LISTEN
                report(dispatch.send_due(connection, self.settings, send))
                for _ in connection.notifies(timeout=ALIVE_EVERY, stop_after=1):
                    pass
