"""Workers that are killed, stopped and paused: what was live serves on, nothing asked for is lost, nothing is done twice and
nothing is left over."""

import os
import signal

import pytest
from support import look, until

from .conftest import Workers
from .looking import live, nothing_left, one, runs

STAGES = ["in load", "flip"]
OTHERS = [
    "train",
    "check",
    "prepare",
    "in read",
    "calibrate",
    "read",
    "filter",
    "hold out",
    "weigh",
    "in train",
    "solve users",
    "vectors",
    "load",
    "index",
    "in calibrate",
    "tidy",
]


@pytest.mark.parametrize(
    "places", [STAGES, pytest.param(OTHERS + STAGES * 2, marks=pytest.mark.campaign)], ids=["some", "all"]
)
def test_kill_9_at_any_stage(workers: Workers, places: list[str]) -> None:
    database = workers.database
    workers.beat()
    victim = workers.start()
    for place in places:
        before = live(database)
        workers.hold(place)
        request = workers.request("retrain")
        workers.held(place)
        victim.signal(signal.SIGKILL)
        victim.popen.wait()
        assert live(database) == before + (place in ("flip", "tidy")), place
        workers.release(place)
        victim = workers.start()
        workers.ends(request)
        assert one(database, request)["attempts"] == 1
        assert live(database) > before, place
        nothing_left(database)
    assert runs(database).count("abandoned") == len(places)
    assert runs(database).count("succeeded") == len(places)


def test_a_killed_pool_process_is_replaced_and_its_request_tried_again(workers: Workers) -> None:
    workers.beat()
    worker = workers.start(attempts=2)
    workers.hold("train")
    request = workers.request("retrain")
    os.kill(workers.held("train"), signal.SIGKILL)
    workers.release("train")
    workers.ends(request)
    assert runs(workers.database) == ["abandoned", "succeeded"]
    workers.hold("train")
    request = workers.request("retrain")
    for _ in range(2):
        os.kill(workers.held("train"), signal.SIGKILL)
        (workers.folder / "held train").unlink()
    workers.ends(request, "failed")  # not for ever: it may be what kills the process
    assert one(workers.database, request)["attempts"] == 2
    assert "ended without finishing" in one(workers.database, request)["outcome"]
    assert worker.popen.poll() is None
    nothing_left(workers.database)


def test_a_worker_that_slept_past_its_deadline_publishes_nothing(workers: Workers) -> None:
    database = workers.database
    workers.beat()
    sleeper = workers.start(queues="train")
    workers.hold("train")
    request = workers.request("retrain")
    workers.start(queues="default")
    workers.held("train")
    sleeper.signal(signal.SIGSTOP)
    look(
        database,
        "UPDATE recstore_private.runs SET deadline = now() - interval '2 minutes' WHERE state = 'running' RETURNING run",
    )
    until(lambda: runs(database) == ["abandoned"])
    workers.start(queues="train")
    workers.release("train")
    workers.ends(request)
    assert live(database) == 2
    sleeper.signal(signal.SIGCONT)
    sleeper.says("or it was lost, while in stage 'solve users'")
    sleeper.says("Task recstore.retrain")
    assert live(database) == 2
    assert runs(database).count("succeeded") == 1
    nothing_left(database)


def test_a_warm_stop_ends_the_run_and_a_cold_one_gives_it_back(workers: Workers) -> None:
    database = workers.database
    worker = workers.start()
    workers.hold("train")
    request = workers.request("retrain")
    workers.held("train")
    worker.popen.send_signal(signal.SIGTERM)
    worker.says("Warm shutdown")
    workers.release("train")
    workers.ends(request)
    assert worker.popen.wait(60) == 0
    assert runs(database) == ["succeeded"]
    nothing_left(database)

    worker = workers.start()
    workers.hold("train")
    request = workers.request("retrain")
    workers.held("train")
    worker.popen.send_signal(signal.SIGQUIT)
    worker.popen.wait(60)
    until(lambda: runs(database) == ["succeeded", "failed"] or runs(database) == ["succeeded", "abandoned"])
    workers.release("train")
    workers.beat()
    workers.start()
    workers.ends(request)
    nothing_left(database)


def test_a_run_that_takes_too_long_ends_with_a_sentence(workers: Workers) -> None:
    workers.start(time_limit=1.5)
    workers.hold("train")
    request = workers.request("retrain")
    workers.ends(request, "failed")
    assert one(workers.database, request)["outcome"].startswith("The run took longer than RECSTORE_TIME_LIMIT (1.5 s)")
    workers.release("train")
    nothing_left(workers.database)
