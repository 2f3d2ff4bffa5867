"""What a worker tells over HTTP: /metrics for Prometheus, /live and /ready for whoever starts and stops it.

In threads of the worker's main process, which only hands work on: a training in a child of its pool holds up no answer.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from celery import bootsteps
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from recstore.background import health
from recstore.background.broker import queue_lengths
from recstore.background.prometheus import DatabaseCollector
from recstore.config import Settings
from recstore.embedded.configured import database_url
from recstore.errors import BrokerUnreachable, RecstoreError

from .app import app

log = logging.getLogger(__name__)

BEAT = 5.0
"""Seconds between two beats of the main loop's pulse."""

SILENCE = 60.0
"""Seconds without one after which the worker is taken for dead."""

QUEUES = ("default", "train", "celery")
"""Those that workers take from; `celery` is where an application sends that names no queue."""

Start = Callable[..., Any]


class Pulse(bootsteps.StartStopStep):  # type: ignore[misc]
    """Shows that the main loop turns. From stop to start it does not, and need not: the worker waits for its broker to come
    back, or for its jobs to end."""

    requires = ("celery.worker.consumer.connection:Connection",)
    last: float | None = None
    """When it last beat (time.monotonic); None while it need not."""

    def start(self, consumer: Any) -> None:
        Pulse.beat()
        consumer.timer.call_repeatedly(BEAT, Pulse.beat)

    def stop(self, _consumer: Any) -> None:
        Pulse.last = None

    @staticmethod
    def beat() -> None:
        Pulse.last = time.monotonic()


class BrokerCollector(Collector):
    """The broker that this worker takes its messages from. Never raises, and ends within seconds."""

    def describe(self) -> Iterator[Metric]:
        """Every metric, without asking anything."""
        return self._metrics(0, {})

    def collect(self) -> Iterator[Metric]:
        try:
            return self._metrics(1, queue_lengths(app.conf.broker_url, QUEUES))
        except BrokerUnreachable as error:
            log.warning("no metrics of the broker for the moment: %s", error.message)
            return self._metrics(0, {})

    def _metrics(self, up: int, lengths: dict[str, int]) -> Iterator[Metric]:
        yield GaugeMetricFamily("recstore_broker_up", "1 if the broker answered; 0 if it could not be reached.", up)
        messages = GaugeMetricFamily(
            "recstore_queue_messages", "Messages in a queue that no worker has taken yet.", labels=("queue",)
        )
        for queue, length in lengths.items():
            messages.add_metric([queue], length)
        yield messages


def not_alive(_settings: Settings) -> str | None:
    """Why whoever watches should start this worker anew; asks nobody, since that would not mend a database or a broker."""
    silence = 0.0 if Pulse.last is None else time.monotonic() - Pulse.last
    return f"The worker's main loop has not turned for {silence:.0f} s." if silence > SILENCE else None


def not_ready(settings: Settings) -> str | None:
    """Why this worker can not do any work at the moment."""
    try:
        with health.asking(database_url(settings), "recstore:ready") as connection:
            health.check_database(connection)
        queue_lengths(app.conf.broker_url)
    except RecstoreError as error:
        return error.message
    return "The worker takes no messages: it waits for its broker, or is being stopped." if Pulse.last is None else None


_asking = threading.Lock()
"""Held while a request asks a server. A fork waits for it: a child that began in the midst would inherit locks of OpenSSL's
and of the resolver's that nobody in it ever gives back."""


def application(settings: Settings) -> Callable[[dict[str, Any], Start], Iterable[bytes]]:
    """The WSGI application."""
    registry = CollectorRegistry()
    registry.register(DatabaseCollector(settings))
    registry.register(BrokerCollector())
    metrics = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        status, sentence = "200 OK", "ok"
        match environ["PATH_INFO"]:
            case "/metrics":
                with _asking:
                    found: Iterable[bytes] = metrics(environ, start)
                    return found
            case "/live":
                problem = not_alive(settings)
            case "/ready":
                with _asking:
                    problem = not_ready(settings)
            case _:
                problem, status = None, "404 Not Found"
                sentence = "There are /metrics, /live and /ready."
        if problem:
            status, sentence = "503 Service Unavailable", problem
        start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")])
        return [f"{sentence}\n".encode()]

    return answer


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_port = False  # of two workers on one port the second shall hear of it

    def __init__(self, host: str, port: int) -> None:
        self.address_family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        super().__init__(address[:2], _Handler)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        """Without HTTPServer's look-up of the host's own name, which can take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        log.debug("a request for metrics or health was cut off", exc_info=True)


class _Handler(WSGIRequestHandler):
    timeout = 10  # of a client that connects and says nothing

    def log_message(self, *_: object) -> None:
        """Nothing: it is asked every few seconds."""


def serve(settings: Settings) -> None:
    """Serves until the process ends. A port that can not be had is a warning: the work goes on without."""
    host, port = settings.metrics_host, settings.metrics_port
    if not port:
        return
    try:
        server = _Server(host, port)
    except OSError as error:
        log.warning(
            "no metrics and no health checks from this worker: port %s of %s can not be had (%s). Every worker of a machine"
            " needs its own RECSTORE_METRICS_PORT; 0 means none.",
            port,
            host,
            error.strerror,
        )
        return
    server.set_app(application(settings))
    os.register_at_fork(before=_asking.acquire, after_in_parent=_asking.release, after_in_child=_asking.release)
    os.register_at_fork(after_in_child=server.socket.close)  # or the port would be in use as long as the child
    threading.Thread(target=server.serve_forever, name="recstore-monitoring", daemon=True).start()
    log.info("metrics and health checks: http://%s:%s/metrics, /live, /ready", host, port)
