"""Workers that are killed, stopped and paused: the live generation still serves, no request is lost, nothing is done twice and
nothing is left over."""

import importlib
import os
import signal
import time
from pathlib import Path

import pytest
from recstore.worker import errands
from support import assert_nothing_left, look, until

from .conftest import CELERY, OWN, Workers, below, children, of_kinds

STAGES = ["in load", "flip"]
OTHERS = ["train", "check", "prepare", "in read", "calibrate", "read", "filter", "hold out"]
OTHERS += ["weigh", "in train", "solve users", "vectors", "load", "index", "in calibrate", "tidy"]


@of_kinds("workers")
@pytest.mark.parametrize(
    "places", [STAGES, pytest.param(OTHERS + STAGES * 2, marks=pytest.mark.campaign)], ids=["some", "all"]
)
def test_kill_9_at_any_stage(workers: Workers, places: list[str]) -> None:
    workers.beat()
    workers.start()
    for place in places:
        before = workers.live()
        request = workers.caught(place)
        victim = workers.holder(place)
        victim.signal(signal.SIGKILL)
        victim.popen.wait()
        assert workers.live() == before + (place in ("flip", "tidy")), place
        workers.release(place)
        victim.again()
        workers.ends(request)
        assert workers.one(request)["attempts"] == 1
        assert workers.live() > before, place
        workers.nothing_left()
    assert workers.retrains().count("abandoned") == len(places)
    assert workers.retrains().count("succeeded") == len(places)


@of_kinds("workers", CELERY, OWN)
def test_a_killed_pool_process_is_replaced_and_its_request_tried_again(workers: Workers) -> None:
    workers.beat()
    rare = {"dispatch_interval": 1000, "test_noticed": 1} if workers.kinds == OWN else {}
    worker = workers.start(attempts=2, **rare)
    request = workers.caught()
    os.kill(workers.held("train"), signal.SIGKILL)
    workers.release("train")
    workers.ends(request)
    assert workers.retrains() == ["abandoned", "succeeded"]
    workers.hold("train")
    request = workers.request("retrain")
    for _ in range(2):
        os.kill(workers.held("train"), signal.SIGKILL)
        (workers.folder / "held train").unlink()
    workers.ends(request, "failed")  # not for ever: it may be what kills the process
    assert workers.one(request)["attempts"] == 2
    assert "ended without finishing" in workers.one(request)["outcome"]
    assert worker.popen.poll() is None
    workers.nothing_left()


@of_kinds("workers", CELERY, OWN)
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
    until(lambda: workers.retrains() == ["abandoned"])
    workers.start(queues="train")
    workers.release("train")
    workers.ends(request)
    assert workers.live() == 2
    sleeper.signal(signal.SIGCONT)
    sleeper.logs("was lost while in stage 'solve users'")
    assert workers.live() == 2
    assert workers.retrains().count("succeeded") == 1
    workers.nothing_left()


@of_kinds("workers", CELERY, OWN)
def test_a_warm_stop_ends_the_run_and_a_cold_one_gives_it_back(workers: Workers) -> None:
    worker = workers.start()
    request = workers.caught()
    worker.popen.send_signal(signal.SIGTERM)
    until(lambda: "Warm shutdown" in worker.output or "stopping when" in worker.output)
    workers.release("train")
    workers.ends(request)
    assert worker.popen.wait(60) == 0
    assert workers.retrains() == ["succeeded"]
    assert_nothing_left(workers.database)

    worker = workers.start()
    request = workers.caught()
    worker.popen.send_signal(signal.SIGQUIT)
    worker.popen.wait(60)
    until(lambda: workers.retrains() in (["succeeded", "failed"], ["succeeded", "abandoned"]))
    workers.release("train")
    workers.beat()
    workers.start()
    workers.ends(request)
    workers.nothing_left()


@of_kinds("workers", OWN)
def test_the_processes_of_a_killed_worker_end_and_the_request_costs_no_attempt(workers: Workers) -> None:
    worker = workers.start()
    request = workers.caught()
    processes = below(worker.popen.pid) - {worker.popen.pid}
    assert len(processes) >= 4  # the server that forks, two of queues, one that dispatches
    os.kill(worker.popen.pid, signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes))
    assert workers.state(request) == "waiting"
    workers.release("train")
    workers.start()
    workers.ends(request)
    assert workers.one(request)["attempts"] == 0
    workers.nothing_left()


@of_kinds("workers", OWN)
def test_a_request_that_its_process_did_not_begin_is_taken_again_at_once(workers: Workers) -> None:
    worker = workers.start(resend=1000)
    pool = [pid for pid in below(worker.popen.pid) if not children(pid)]
    for pid in pool:
        os.kill(pid, signal.SIGSTOP)
    request = workers.request("retrain")
    until(lambda: workers.state(request) == "sent")
    for pid in pool:
        os.kill(pid, signal.SIGKILL)
    workers.ends(request)
    assert workers.one(request)["attempts"] == 0


@of_kinds("workers", OWN)
def test_a_run_that_ignores_its_interrupt_is_killed_and_an_idle_process_is_not(workers: Workers) -> None:
    workers.start(time_limit=1.5, test_margin=0.3, attempts=1)
    workers.hold("prepare")
    workers.ends(workers.request("retrain"), "failed")
    process = workers.held("prepare")
    time.sleep(1.5)
    os.kill(process, 0)
    workers.release("prepare")
    request = workers.caught("prepare")
    assert workers.held("prepare") == process
    os.kill(process, signal.SIGSTOP)
    workers.ends(request, "failed")
    assert "ended without finishing" in workers.one(request)["outcome"]


@of_kinds("workers", CELERY, OWN)
def test_a_run_that_takes_too_long_ends_with_an_error(workers: Workers) -> None:
    workers.start(time_limit=1.5)
    workers.hold("prepare")  # before a slow machine imports the trainer
    request = workers.request("retrain")
    workers.ends(request, "failed")
    assert workers.one(request)["outcome"].startswith("The run took longer than RECSTORE_TIME_LIMIT (1.5 s)")
    workers.release("prepare")
    workers.nothing_left()


def test_the_time_limit_lets_an_import_end_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "interrupted.py").write_text("import signal\nsignal.raise_signal(signal.SIGUSR1)\nwhole = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.getsignal(signal.SIGUSR1)
    errands.let_interrupt()
    try:
        whole = importlib.import_module("interrupted").whole
        with pytest.raises(KeyboardInterrupt):
            time.sleep(10)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert whole
