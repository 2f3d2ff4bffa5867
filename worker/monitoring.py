"""A worker's HTTP endpoints: /metrics for Prometheus, /live and /ready for what starts and stops it.

They run in threads of the worker's main process, which only dispatches: a training in a child of its pool delays no answer.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.registry import Collector

from recstore.background import health
from recstore.background.prometheus import DatabaseCollector
from recstore.config import Settings
from recstore.embedded.configured import database_url

log = logging.getLogger(__name__)

SILENCE = 60.0
"""Seconds without a beat after which the worker counts as dead, and with a task that the pool does not begin as stuck."""

Start = Callable[..., Any]

Check = Callable[[], str | None]
"""Returns what is wrong with the worker, in a sentence."""


def silence(last: float | None) -> str | None:
    """Return why a worker counts as dead whose main loop turned at `last` (time.monotonic); None where it need not turn."""
    seconds = 0.0 if last is None else time.monotonic() - last
    return f"The worker's main loop has not turned for {seconds:.0f} s." if seconds > SILENCE else None


def stuck(waiting: Iterable[float]) -> str | None:
    """Return why a worker counts as stuck which has given tasks to free processes at these times (time.monotonic)."""
    waits = max((time.monotonic() - since for since in waiting), default=0.0)
    if waits <= SILENCE:
        return None
    return f"The worker's pool has not begun a task for {waits:.0f} s although a process is free. Restart the worker."


def check_database(settings: Settings) -> None:
    """Raise RecstoreError unless the database can be worked with."""
    with health.asking(database_url(settings), "recstore:ready") as connection:
        health.check_database(connection)


_asking = threading.Lock()
"""Held while a request queries a server. A fork waits for it: otherwise the child could inherit locks of OpenSSL and of the
resolver that no thread in it ever releases."""


def application(
    settings: Settings, not_alive: Check, not_ready: Check, *collectors: Collector
) -> Callable[[dict[str, Any], Start], Iterable[bytes]]:
    """Return the WSGI application."""
    registry = CollectorRegistry()
    for collector in (DatabaseCollector(settings), *collectors):
        registry.register(collector)
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
                    problem = not_ready()
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


def serve(settings: Settings, not_alive: Check, not_ready: Check, *collectors: Collector) -> None:
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
    server.set_app(application(settings, not_alive, not_ready, *collectors))
    os.register_at_fork(before=_asking.acquire, after_in_parent=_asking.release, after_in_child=_asking.release)
    os.register_at_fork(after_in_child=server.socket.close)  # otherwise the child would keep the port in use
    threading.Thread(target=server.serve_forever, name="recstore-monitoring", daemon=True).start()
    log.info("metrics and health checks: http://%s:%s/metrics, /live, /ready", host, port)
