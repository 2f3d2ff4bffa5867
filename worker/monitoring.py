"""A worker's HTTP endpoints: /metrics for Prometheus, /live and /ready for what starts and stops it.

They run in threads of the worker's main process, which only dispatches: a training in a child of its pool delays no answer.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, ClassVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from celery import bootsteps
from celery.worker import state
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from recstore.background import health
from recstore.background.messages import queue_lengths
from recstore.background.prometheus import DatabaseCollector
from recstore.config import Settings
from recstore.embedded.configured import database_url
from recstore.errors import BrokerUnreachable, RecstoreError

from .app import app

log = logging.getLogger(__name__)

BEAT = 5.0
"""Seconds between two beats of the main loop's pulse."""

SILENCE = 60.0
"""Seconds without a beat after which the worker counts as dead, and with a task that the pool does not begin as stuck."""

QUEUES = ("default", "train", "celery")
"""Queues that workers take from; Celery's default, `celery`, is where applications send that name none."""

Start = Callable[..., Any]


class Pulse(bootsteps.StartStopStep):  # type: ignore[misc]
    """Beats while the main loop turns. Between stop and start it need not: the worker waits for its broker or its jobs."""

    requires = ("celery.worker.consumer.connection:Connection",)
    last: float | None = None
    """Time of the last beat (time.monotonic); None while it need not beat."""
    waiting: ClassVar[dict[str, float]] = {}
    """Tasks that the pool has not begun although it has a free process, each with the time when that was first seen."""

    def start(self, consumer: Any) -> None:
        Pulse.beat(consumer.pool)
        consumer.timer.call_repeatedly(BEAT, Pulse.beat, (consumer.pool,))

    def stop(self, _consumer: Any) -> None:
        Pulse.last, Pulse.waiting = None, {}

    @staticmethod
    def beat(pool: Any) -> None:
        Pulse.last = now = time.monotonic()
        free = len(state.active_requests) < pool.num_processes
        tasks = [task.id for task in state.reserved_requests - state.active_requests] if free else []
        Pulse.waiting = {task: Pulse.waiting.get(task, now) for task in tasks}


class BrokerCollector(Collector):
    """Metrics of the broker that this worker takes its messages from. Never raises, and ends within seconds."""

    def describe(self) -> Iterator[Metric]:
        """Yield every metric without samples."""
        return self._metrics(0, {})

    def collect(self) -> Iterator[Metric]:
        try:
            return self._metrics(1, queue_lengths(app.conf.broker_url, QUEUES))
        except BrokerUnreachable as error:
            log.warning("no metrics of the broker at the moment: %s", error.message)
            return self._metrics(0, {})

    def _metrics(self, up: int, lengths: dict[str, int]) -> Iterator[Metric]:
        yield GaugeMetricFamily("recstore_broker_up", "1 if the broker answered; 0 if it could not be reached.", up)
        messages = GaugeMetricFamily(
            "recstore_queue_messages", "Messages in a queue that no worker has taken yet.", labels=("queue",)
        )
        for queue, length in lengths.items():
            messages.add_metric([queue], length)
        yield messages


def not_alive() -> str | None:
    """Return why this worker should be restarted. Checks no server: a restart would fix neither database nor broker."""
    silence = 0.0 if Pulse.last is None else time.monotonic() - Pulse.last
    return f"The worker's main loop has not turned for {silence:.0f} s." if silence > SILENCE else None


def not_ready(settings: Settings) -> str | None:
    """Return why this worker cannot work at the moment."""
    try:
        with health.asking(database_url(settings), "recstore:ready") as connection:
            health.check_database(connection)
        queue_lengths(app.conf.broker_url)
    except RecstoreError as error:
        return error.message
    if Pulse.last is None:
        return "The worker takes no messages: it waits for its broker, or is being stopped."
    waits = max((time.monotonic() - since for since in Pulse.waiting.values()), default=0.0)
    if waits > SILENCE:
        return (
            f"The worker's pool has not begun a task for {waits:.0f} s although a process is free. Restart the worker."
        )
    return None


_asking = threading.Lock()
"""Held while a request queries a server. A fork waits for it: otherwise the child could inherit locks of OpenSSL and of the
resolver that no thread in it ever releases."""


def application(settings: Settings) -> Callable[[dict[str, Any], Start], Iterable[bytes]]:
    """Return the WSGI application."""
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
                problem = not_alive()
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
    allow_reuse_port = False  # the second of two workers on one port gets an error

    def __init__(self, host: str, port: int) -> None:
        self.address_family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        super().__init__(address[:2], _Handler)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        """Bind without HTTPServer's look-up of the host's own name, which can take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        log.debug("a request for metrics or health was interrupted", exc_info=True)


class _Handler(WSGIRequestHandler):
    timeout = 10  # seconds for a client that sends nothing

    def log_message(self, *_: object) -> None:
        """Log nothing: requests come every few seconds."""


def serve(settings: Settings) -> None:
    """Serve in a thread until the process ends. An unavailable port is a warning: the worker works without."""
    host, port = settings.metrics_host, settings.metrics_port
    if not port:
        return
    try:
        server = _Server(host, port)
    except OSError as error:
        log.warning(
            "no metrics and no health checks from this worker: port %s of %s is not available (%s). Every worker of a machine"
            " needs its own RECSTORE_METRICS_PORT; 0 means none.",
            port,
            host,
            error.strerror,
        )
        return
    server.set_app(application(settings))
    os.register_at_fork(before=_asking.acquire, after_in_parent=_asking.release, after_in_child=_asking.release)
    os.register_at_fork(after_in_child=server.socket.close)  # otherwise the child would keep the port in use
    threading.Thread(target=server.serve_forever, name="recstore-monitoring", daemon=True).start()
    log.info("metrics and health checks: http://%s:%s/metrics, /live, /ready", host, port)
