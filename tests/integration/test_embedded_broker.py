"""The embedded broker with real processes: restarted, found by others."""

import importlib.util
import os
from pathlib import Path

import kombu
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from recstore.demo.broker import broker_path, temporary_broker
from recstore.embedded import start
from recstore.errors import EmbeddedUnavailable


def test_temporary_broker_serves_celery_restarts_on_its_socket_and_leaves_nothing() -> None:
    with (
        temporary_broker() as broker,
        redis.Redis(unix_socket_path=str(broker.socket), retry=Retry(NoBackoff(), 0)) as client,
    ):
        with kombu.Connection(broker.url) as connection, connection.SimpleQueue("test") as queue:
            queue.put({"n": 1})
            assert queue.get(timeout=5).payload == {"n": 1}
        assert client.config_get("port") == {"port": "0"}
        assert (broker.socket.stat().st_mode & 0o777, broker.socket.parent.stat().st_mode & 0o777) == (0o700, 0o700)
        client.set("a", 1)
        first = broker.pid
        broker.stop()
        broker.stop()
        assert broker.pid is None
        with pytest.raises(redis.ConnectionError):
            client.get("a")
        broker.start()
        assert client.get("a") is None
        assert broker.pid != first
        last = client.info("server")["process_id"]
        assert last == broker.pid
    assert not broker.socket.parent.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)


def test_unavailable_without_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert os.access(broker_path(), os.X_OK)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EmbeddedUnavailable, match=r"recstore\[demo\]"):
        broker_path()
    with pytest.raises(EmbeddedUnavailable, match=r"recstore\[embedded\]"):
        start(tmp_path / "home")
    assert list(tmp_path.iterdir()) == []
