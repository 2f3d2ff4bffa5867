"""A broker that fails over, refuses to write, or freezes: no worker ends for it, and each ends when it is told to."""

import os
import signal
import time

import pytest
from redis import Redis
from support import until

from recstore.background.messages import queue_lengths
from recstore.demo.broker import SCHEME
from recstore.errors import BrokerUnreachable

from .conftest import Workers


def client(workers: Workers) -> Redis:
    return Redis(unix_socket_path=workers.broker.url.removeprefix(SCHEME))


def test_a_broker_that_becomes_a_replica_ends_no_worker(workers: Workers) -> None:
    worker = workers.start()
    workers.beat()
    workers.ends(workers.request("reindex"))
    with client(workers) as redis:
        request = workers.caught()
        redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        workers.release("train")
        workers.ends(request)  # the run needs no broker
        meanwhile = workers.request("reindex")
        until(lambda: "read only replica" in worker.output)
        time.sleep(3)
        assert worker.popen.poll() is None, worker.output
        with pytest.raises(BrokerUnreachable, match="read only replica"):
            queue_lengths(workers.broker.url)
        assert workers.state(meanwhile) in ("waiting", "sent")
        redis.execute_command("REPLICAOF", "NO", "ONE")
        workers.ends(meanwhile)
        workers.ends(workers.request("retrain"))
    assert worker.popen.poll() is None


@pytest.mark.parametrize("busy", [True, pytest.param(False, marks=pytest.mark.campaign)])
def test_a_worker_stops_although_its_broker_is_frozen(workers: Workers, busy: bool) -> None:
    worker = workers.start()
    request = workers.caught() if busy else None
    os.kill(workers.broker.pid, signal.SIGSTOP)
    try:
        with pytest.raises(BrokerUnreachable):
            queue_lengths(workers.broker.url)
        time.sleep(1)
        worker.popen.send_signal(signal.SIGTERM)
        if request:
            time.sleep(1)
            workers.release("train")
            workers.ends(request)
        assert worker.popen.wait(60) == 0, worker.output
    finally:
        os.kill(workers.broker.pid, signal.SIGCONT)


def test_a_queue_that_is_no_list_ends_no_worker(workers: Workers) -> None:
    worker = workers.start()
    workers.ends(workers.request("reindex"))
    with client(workers) as redis:
        redis.set("train", "not a list")
        until(lambda: "wrong kind of value" in worker.output)
        time.sleep(3)
        assert worker.popen.poll() is None, worker.output
        redis.delete("train")
    workers.ends(workers.request("retrain"))
    assert worker.popen.poll() is None
