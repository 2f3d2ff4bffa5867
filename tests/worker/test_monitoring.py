"""A worker's HTTP endpoints, and `recstore health` on the command line."""

import json
import os
import re
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import Database, superuser
from recstore.worker import monitoring
from recstore.worker.celery import lifecycle, pulse
from support import free_port, until

from recstore import cli
from recstore.background import health
from recstore.background.messages import queue_lengths
from recstore.background.prometheus import DatabaseCollector
from recstore.config import Settings
from recstore.demo.broker import Broker
from recstore.errors import BrokerUnreachable
from recstore.postgres.connection import connect
from recstore.sql import queries

from .conftest import CELERY, OWN, Workers, below, children, of_kinds

PAGE = Path(__file__).parents[2] / "docs/monitoring.md"


def ask(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def listens(pid: int, port: int) -> bool:
    """Return whether the process has the open socket that listens on this port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    ours = {f"socket:[{row[9]}]" for row in rows if row[1] == f"0100007F:{port:04X}" and row[3] == "0A"}
    assert ours
    return any(str(file.readlink()) in ours for file in Path(f"/proc/{pid}/fd").iterdir())


@pytest.mark.campaign
def test_a_worker_answers_whatever_becomes_of_its_broker_and_its_children(workers: Workers) -> None:
    port = free_port()
    worker = workers.start(metrics_port=port, dispatch_interval=1000)
    assert ask(port, "/live") == (200, "ok\n")
    assert ask(port, "/ready") == (200, "ok\n")
    assert ask(port, "/") == (404, "There are /metrics, /live and /ready.\n")
    status, text = ask(port, "/metrics")
    assert status == 200
    for line in ("recstore_database_up 1.0", "recstore_broker_up 1.0", 'recstore_queue_messages{queue="train"} 0.0'):
        assert f"\n{line}\n" in text

    over = threading.Event()

    def scrape() -> None:
        while not over.is_set():
            ask(port, "/metrics")

    readers = [threading.Thread(target=scrape) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(3):  # children are forked while requests are served
            before = children(worker.popen.pid)
            for child in before:
                os.kill(child, signal.SIGKILL)
            until(lambda before=before: children(worker.popen.pid) - before)
        workers.ends(workers.request("reindex"))
        (child,) = children(worker.popen.pid)
        assert listens(worker.popen.pid, port)
        assert not listens(child, port)
    finally:
        over.set()
        for reader in readers:
            reader.join()

    workers.broker.stop()
    status, text = ask(port, "/ready")
    assert status == 503
    assert "The broker could not be reached" in text
    assert "\nrecstore_broker_up 0.0\n" in ask(port, "/metrics")[1]
    worker.logs("Trying again in")
    assert ask(port, "/live") == (200, "ok\n")
    workers.broker.start()
    until(lambda: ask(port, "/ready")[0] == 200)
    request = workers.caught()
    worker.popen.send_signal(signal.SIGTERM)
    until(lambda: ask(port, "/ready")[0] == 503)
    assert "is being stopped" in ask(port, "/ready")[1]
    assert ask(port, "/live") == (200, "ok\n")
    workers.release("train")
    workers.ends(request)
    assert worker.popen.wait(60) == 0


@of_kinds("workers", CELERY, OWN)
def test_a_worker_whose_pool_begins_no_task_is_not_ready(workers: Workers) -> None:
    port = free_port()
    worker = workers.start(metrics_port=port, dispatch_interval=1000, test_silence=1)
    workers.ends(workers.request("reindex"))
    assert ask(port, "/live") == (200, "ok\n")
    assert "\nrecstore_database_up 1.0\n" in ask(port, "/metrics")[1]
    pool = [pid for pid in below(worker.popen.pid) if not children(pid)]
    for pid in pool:
        os.kill(pid, signal.SIGSTOP)
    request = workers.request("reindex")
    until(lambda: ask(port, "/ready")[0] == 503)
    assert "pool has not begun a task for" in ask(port, "/ready")[1]
    assert ask(port, "/live") == (200, "ok\n")
    for pid in pool:
        os.kill(pid, signal.SIGCONT)
    workers.ends(request)
    until(lambda: ask(port, "/ready")[0] == 200)


def test_a_port_in_use_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        monitoring.serve(Settings(metrics_port=port), lambda: None, lambda: None)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"port {port} of 127.0.0.1 is not available (Address already in use)" in record.message
    assert "RECSTORE_METRICS_PORT" in record.message


def test_a_worker_logs_at_its_start_what_doctor_finds_and_is_ready(
    trained: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with superuser(trained.server, trained.name) as connection:
        connection.execute("ALTER TABLE retail._items ENABLE ROW LEVEL SECURITY")
    stopped = threading.Event()
    stopped.set()  # it does not begin to listen
    monkeypatch.setattr(lifecycle, "_stopped", stopped)
    lifecycle.listen(Settings(database_url=trained.url))
    assert caplog.messages == [
        "doctor: own-row-security of retail: row-level security is on for retail._items. Remedy: ALTER TABLE retail._items"
        " DISABLE ROW LEVEL SECURITY;"
    ]
    with health.asking(trained.url, "test") as connection:
        health.check_database(connection)


def test_a_main_loop_that_stands_still_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    for ago, alive in ((0, True), (59, True), (75, False)):
        monkeypatch.setattr(pulse.Pulse, "last", time.monotonic() - ago)
        assert (pulse.not_alive() is None) == alive
    assert pulse.not_alive() == "The worker's main loop has not turned for 75 s."


def test_health_is_an_exit_code_and_a_sentence(
    shop: Database, broker: Broker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSTORE_BROKER_URL", broker.url)
    monkeypatch.setenv("RECSTORE_DISPATCH_INTERVAL", "30")

    def healthy(code: int, words: str, *more: str) -> str:
        assert cli.run(["--database", shop.url, "health", *more]) == code
        printed = capsys.readouterr()
        assert words in printed.out + printed.err
        return printed.out + printed.err

    healthy(1, "No dispatch has been made yet")
    with shop.connect() as connection:
        connection.execute(queries.query("note_dispatch"), {"host": "here"})
        assert "queue default and train" in healthy(1, "No worker")
        sessions = [connect(shop.url, f"recstore:listen:{queues}") for queues in ("celery,default", "train")]
        assert re.search(
            r"^healthy: .* revision \d{4}, .* the last dispatch was 0 s ago\n$", healthy(0, "the broker answers")
        )
        answer = json.loads(healthy(0, "", "--json"))
        assert answer["healthy"] is True
        assert answer["last_dispatch_seconds"] < 100
        assert answer["workers"] == {"default": 1, "train": 1}
        sessions.pop().close()
        until(lambda: cli.run(["--database", shop.url, "health"]) == 1)
        assert "worker -Q train" in capsys.readouterr().err
        sessions.append(connect(shop.url, "recstore:listen:train"))
        connection.execute("UPDATE recstore_private.dispatches SET dispatched_at = now() - interval '101 seconds'")
        assert "101 s ago" in json.loads(healthy(1, "", "--json"))["error"]
        broker.stop()
        healthy(3, "The broker could not be reached")
        connection.execute("UPDATE recstore_private.alembic_version SET version_num = '0001'")
        healthy(1, "Run: recstore db upgrade")
        for session in sessions:
            session.close()
    assert cli.run(["--database", "postgresql://127.0.0.1:1/none", "health"]) == 3


def test_celery_s_urls_of_a_broker(broker: Broker) -> None:
    assert queue_lengths(f"{broker.url}?virtual_host=3", ["train"]) == {"train": 0}
    for url in (
        "redis://127.0.0.1:1/0",
        "rediss://127.0.0.1:1?ssl_cert_reqs=CERT_NONE",
        "amqp://h",
        "redis+socket:///no",
    ):
        with pytest.raises(BrokerUnreachable):
            queue_lengths(url)


def test_the_page_of_the_metrics_is_complete() -> None:
    page = PAGE.read_text()
    known = set()
    for collector in (DatabaseCollector(Settings()), pulse.BrokerCollector()):
        for metric in collector.describe():
            name = metric.name + "_total" * (metric.type == "counter")
            known.add(name)
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # type: ignore[attr-defined]
            row = f"| `{name}` | {labels} | {metric.documentation} |"
            assert row in page, f"missing in docs/monitoring.md: {row}"
    assert set(re.findall(r"\brecstore_(?!job\b)[a-z_]+", page)) == known
