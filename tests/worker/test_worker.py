"""A worker in normal operation: requests from SQL, from messages, from the schedule."""

import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from recstore.worker.celery import tasks
from support import look, until

from recstore.background import health
from recstore.definition import Schedule
from recstore.sql import objects

from .conftest import CELERY, OWN, Workers, below, children, of_kinds

SETTINGS = {"resend": 1000}
"""Settings of the shared worker: no message is sent twice."""


@of_kinds("crew")
def test_requests_from_sql_start_at_once_and_are_merged(shared: Workers) -> None:
    """Without beat: only the listener can start them."""
    before = shared.live()
    first = shared.caught()
    assert shared.state(first) == "running"
    later = [shared.request("retrain") for _ in range(3)]  # after the first has read its data
    index = shared.request("reindex")
    assert [shared.state(request) for request in [*later, index]] == ["waiting"] * 4
    shared.release("train")
    for request in [first, *later, index]:
        shared.ends(request)
    assert sorted(shared.runs()) == [("reindex", "succeeded"), ("retrain", "succeeded"), ("retrain", "succeeded")]
    rows = shared.requests()
    assert len({row["run"] for row in rows[1:4]}) == 1
    assert {row["origin"] for row in rows} == {"sql"}
    assert [rows[n]["outcome"] for n in (0, 1)] == [f"Generation {before + n} is live." for n in (1, 2)]
    shared.nothing_left()


@of_kinds("crew", CELERY, OWN)
def test_the_parent_of_the_pool_loads_no_trainer(shared: Workers) -> None:
    """CUDA must not be initialised before a fork; the child that has trained shows what a trainer looks like."""
    shared.ends(shared.request("retrain"))
    parent = shared.started[0].popen.pid
    loaded = {pid: "/implicit/" in Path(f"/proc/{pid}/maps").read_text() for pid in below(parent)}
    assert any(loaded.values())
    assert not any(loaded[pid] for pid in loaded if children(pid))


@of_kinds("crew", CELERY, CELERY + OWN)
def test_an_application_s_message_becomes_a_request_once(shared: Workers) -> None:
    worker = shared.started[0]
    shared.hold("train")
    for queue in ("default", "celery", "train"):
        shared.send("recstore.retrain", "retail", task_id="the same", queue=queue)
    shared.held("train")
    shared.send("recstore.retrain", "retail", task_id="the same")
    shared.send("recstore.prune", "retail")
    shared.send("recstore.reindex", "unknown")
    shared.release("train")
    until(lambda: worker.output.count("this message came before") == 3)
    until(lambda: shared.runs() == [("retrain", "succeeded"), ("prune", "succeeded")])
    until(lambda: "Recommender 'unknown' does not exist" in worker.output)
    assert [(row["job"], row["state"], row["origin"]) for row in shared.requests()] == [
        ("retrain", "succeeded", "task"),
        ("prune", "succeeded", "task"),
    ]


@of_kinds("crew", CELERY + OWN, rest=[CELERY, OWN])
def test_a_request_in_an_open_transaction_delays_no_other(shared: Workers) -> None:
    with shared.database.connect() as other, shared.database.connect() as worker:
        other.execute("BEGIN")
        still_open = other.execute("SELECT recstore.request_retrain('retail') AS n").fetchone()
        assert still_open
        worker.execute("SET lock_timeout = '1s'")
        asked = worker.execute("SELECT recstore.request_retrain('retail') AS n").fetchone()
        assert asked
        shared.ends(asked["n"])
        assert shared.runs() == [("retrain", "succeeded")]
        other.execute("COMMIT")
    shared.ends(still_open["n"])
    assert shared.runs() == [("retrain", "succeeded")] * 2


@of_kinds("crew", CELERY, OWN)
def test_a_request_waits_for_the_dispatch_when_no_worker_listens(shared: Workers, beat: None) -> None:  # noqa: ARG001
    end = (
        "SELECT pg_terminate_backend(pid, 5000) AS ended FROM pg_stat_activity"
        " WHERE datname = %s AND application_name LIKE 'recstore:listen:%%'"
    )
    assert (
        len(until(lambda: look(shared.database, end, shared.database.name))) == 1
    )  # a new worker listens after a moment
    request = shared.request("retrain")
    shared.started[0].logs("not listening for requests")
    shared.ends(request)


@of_kinds("crew", CELERY, OWN)
def test_a_request_that_cannot_begin_reports_why_and_waits(shared: Workers, beat: None) -> None:  # noqa: ARG001
    versions = "UPDATE recstore_private.recommenders SET objects_version = %s RETURNING id"
    look(shared.database, versions, 0)
    request = shared.request("retrain")
    until(lambda: "recstore db upgrade" in (shared.one(request)["outcome"] or ""))
    assert shared.state(request) in ("waiting", "sent")
    (worker,) = shared.started[:1]
    before, began = worker.output.count("have version 0"), time.monotonic()
    time.sleep(1)
    tried = worker.output.count("have version 0") - before
    assert tried <= (time.monotonic() - began) / 0.5 + 2, "again and again without a pause"
    look(shared.database, versions, objects.OBJECTS_VERSION)
    shared.ends(request)


@of_kinds("crew")
def test_a_schedule_runs_once_for_all_that_was_missed_and_skips_what_is_not_new(
    shared: Workers,
    beat: None,  # noqa: ARG001
) -> None:
    database = shared.database
    succeeded, skipped = ("retrain", "succeeded"), ("retrain", "skipped")
    with database.connect() as connection:
        database.alter(schedule=Schedule(cron="0 3 * * *", timezone="Asia/Tokyo"))
        missed = datetime(2026, 1, 1, tzinfo=UTC)
        connection.execute("UPDATE recstore_private.recommenders SET scheduled_at = %s", [missed])
        until(lambda: shared.runs() == [skipped])  # the newest generation was trained from the same rows
        (request,) = shared.requests()
        assert request["outcome"].startswith("Skipped: the source has nothing new since generation")
        assert request["origin"] == "schedule"
        with database.connect("application") as application:
            application.execute("INSERT INTO shop.views VALUES (1, 119, 7) ON CONFLICT DO NOTHING")
        database.alter(schedule=Schedule(cron="* * * * * *"))
        until(lambda: succeeded in shared.runs())
        until(lambda: shared.runs()[-1] == skipped)
        database.alter(schedule=Schedule())
    assert shared.runs().count(succeeded) == 1
    shared.ends(shared.request("retrain"))  # a person's request is not skipped
    assert shared.runs().count(succeeded) == 2


@of_kinds("workers", CELERY, OWN)
def test_health_knows_the_workers_of_each_queue(workers: Workers) -> None:
    def known() -> dict[str, int]:
        with workers.database.connect() as connection:
            return health.workers_of_queues(connection)

    assert known() == {"default": 0, "train": 0}
    training = workers.start(queues="train")
    until(lambda: known() == {"default": 0, "train": 1})
    workers.start(queues="celery,default")
    until(lambda: known() == {"default": 1, "train": 1})
    training.signal(signal.SIGKILL)
    until(lambda: known() == {"default": 1, "train": 0})


def test_no_message_expires_by_another_host_s_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, object]] = []
    monkeypatch.setattr(tasks.app, "send_task", lambda *_, **options: sent.append(options))
    tasks.send("retrain", "retail")
    assert sent == [{}]
    assert tasks.app.conf.beat_schedule["dispatch"]["options"] == {"queue": "default"}


@pytest.mark.campaign
def test_a_cron_fires_on_time_across_a_change_of_schedule(workers: Workers) -> None:
    """At its time and not before, once; never at the time of a schedule that was changed before it came."""
    database = workers.database
    workers.start()
    workers.beat(dispatch_interval=0.2)
    asked = "SELECT requested_at, clock_timestamp() AS now FROM recstore.requests ORDER BY 1"

    def at(seconds: float) -> datetime:
        time = (datetime.now(UTC) + timedelta(seconds=seconds)).replace(microsecond=0)
        cron = f"{time.second} {time.minute} {time.hour} {time.day} {time.month} *"
        database.alter(schedule=Schedule(cron=cron))
        return time

    due = []
    for _ in range(2):
        never = at(5)
        due.append(at(7))
        assert datetime.now(UTC) < never, "too slow to see the difference"
        until(lambda: len(look(database, asked)) == len(due))
    for row, expected in zip(look(database, asked), due, strict=True):
        assert row["requested_at"] >= expected


@of_kinds("workers", CELERY, OWN)
def test_a_worker_refuses_a_database_that_is_not_ready_for_it(workers: Workers) -> None:
    database = workers.database
    with database.connect() as connection:
        connection.execute("UPDATE recstore_private.alembic_version SET version_num = '0001'")
    worker = workers.start(wait=False)
    assert worker.popen.wait(60) == 1
    assert "at revision 0001; this recstore requires" in worker.output
    assert "Run: recstore db upgrade" in worker.output
    assert "Traceback" not in worker.output
    nowhere = workers.start(wait=False, database_url="postgresql://nobody@/nothing?host=/nonexistent")
    assert nowhere.popen.wait(60) == 3
    assert "The database could not be reached" in nowhere.output
    assert "Traceback" not in nowhere.output


@pytest.mark.parametrize(
    ("module", "not_needed"), [("process", {"celery", "redis", "numpy", "pyarrow"}), ("errands", {"celery", "redis"})]
)
def test_the_worker_without_a_broker_imports_no_broker_and_its_main_process_no_job(
    module: str, not_needed: set[str]
) -> None:
    code = f"import sys, recstore.worker.{module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert f"recstore.worker.{module}" in loaded
    assert not_needed.isdisjoint(loaded)
