"""What a worker does when all goes well: requests from SQL, from messages, from the schedule."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from conftest import Database
from support import assert_nothing_left, look, until

from recstore import registry
from recstore.definition import Schedule
from recstore.sql import objects

from .conftest import Workers


def runs(database: Database) -> list[tuple[str, str]]:
    return [(row["job"], row["state"]) for row in look(database, "SELECT job, state FROM recstore.runs ORDER BY run")][
        1:
    ]


def test_requests_from_sql_start_at_once_and_are_merged(workers: Workers) -> None:
    worker = workers.start(resend=1000)  # no beat: only the listener can have started it
    workers.hold("train")
    first = workers.request("retrain")
    workers.held("train")
    assert workers.state(first) == "running"
    later = [workers.request("retrain") for _ in range(3)]  # after the first has read its data
    index = workers.request("reindex")
    assert [workers.state(request) for request in [*later, index]] == ["waiting"] * 4
    workers.release("train")
    workers.ends(first)
    for request in [*later, index]:
        workers.ends(request)
    assert sorted(runs(workers.database)) == [
        ("reindex", "succeeded"),
        ("retrain", "succeeded"),
        ("retrain", "succeeded"),
    ]
    rows = look(
        workers.database, "SELECT request, run, outcome, requested_by, origin FROM recstore.requests ORDER BY 1"
    )
    assert len({row["run"] for row in rows[1:4]}) == 1
    assert {row["origin"] for row in rows} == {"sql"}
    assert rows[0]["outcome"] == "Generation 2 is live."
    assert rows[1]["outcome"] == "Generation 3 is live."
    assert worker.stop() == 0
    assert_nothing_left(workers.database)


def test_an_application_s_message_becomes_a_request_once(workers: Workers) -> None:
    workers.start(queues="train,default,celery")
    workers.hold("train")
    for queue in ("default", "celery", "train"):
        workers.send("recstore.retrain", "retail", task_id="the same", queue=queue)
    workers.held("train")
    workers.send("recstore.retrain", "retail", task_id="the same")
    workers.send("recstore.prune", "retail")
    workers.send("recstore.reindex", "nobody")
    until(lambda: workers.started[0].said.count("this message came before") >= 2)
    workers.release("train")
    until(lambda: runs(workers.database) == [("retrain", "succeeded"), ("prune", "succeeded")])
    until(lambda: "There is no recommender named 'nobody'" in workers.started[0].said)
    rows = look(workers.database, "SELECT job, state, origin FROM recstore.requests ORDER BY request")
    assert [(row["job"], row["state"], row["origin"]) for row in rows] == [
        ("retrain", "succeeded", "task"),
        ("prune", "succeeded", "task"),
    ]


def test_a_request_waits_for_the_dispatch_when_nobody_listens(workers: Workers) -> None:
    workers.start(queues="train")
    workers.start(queues="default")
    ended = look(
        workers.database,
        "SELECT pg_terminate_backend(pid, 5000) AS ended FROM pg_stat_activity"
        " WHERE datname = %s AND application_name = 'recstore:listen'",
        workers.database.name,
    )
    assert len(ended) == 2
    request = workers.request("retrain")
    workers.beat()
    workers.ends(request)
    for worker in workers.started[:2]:
        worker.says("not listening for requests for the moment")


def test_a_request_in_an_open_transaction_delays_nobody(workers: Workers) -> None:
    workers.start()
    with workers.database.connect() as other, workers.database.connect() as worker:
        other.execute("BEGIN")
        open_still = other.execute("SELECT recstore.request_retrain('retail') AS n").fetchone()
        worker.execute("SET lock_timeout = '1s'")
        worker.execute("SELECT recstore.request_retrain('retail')")
        request = workers.request("retrain")
        workers.ends(request)
        assert runs(workers.database) == [("retrain", "succeeded")]
        other.execute("COMMIT")
    assert open_still
    workers.ends(open_still["n"])
    assert runs(workers.database) == [("retrain", "succeeded")] * 2


def test_a_schedule_runs_once_for_all_that_was_missed_and_skips_what_is_not_new(workers: Workers) -> None:
    database = workers.database
    workers.start()
    workers.beat()
    with database.connect() as connection:
        retail = registry.get(connection, "retail")
        nightly = retail.definition.model_copy(update={"schedule": Schedule(cron="0 3 * * *", timezone="Asia/Tokyo")})
        registry.alter(connection, database.settings, retail, nightly)
        connection.execute(
            "UPDATE recstore_private.recommenders SET scheduled_at = %s", [datetime(2026, 1, 1, tzinfo=UTC)]
        )
        # not due since: 0001 was trained from the same rows
        until(lambda: runs(database) == [("retrain", "skipped")])
        row = connection.execute("SELECT outcome, origin FROM recstore.requests").fetchone()
        assert row
        assert row["outcome"].startswith("Skipped: the source has nothing new since generation 1 was trained (")
        assert row["origin"] == "schedule"
        with database.connect("application") as application:
            application.execute("INSERT INTO shop.views VALUES (1, 119, 7) ON CONFLICT DO NOTHING")
        often = retail.definition.model_copy(update={"schedule": Schedule(cron="* * * * * *")})
        registry.alter(connection, database.settings, registry.get(connection, "retail"), often)
        until(lambda: ("retrain", "succeeded") in runs(database))
        until(lambda: runs(database)[-1] == ("retrain", "skipped"))
        none = retail.definition.model_copy(update={"schedule": Schedule()})
        registry.alter(connection, database.settings, registry.get(connection, "retail"), none)
    assert runs(database).count(("retrain", "succeeded")) == 1
    request = workers.request("retrain")  # a person's wish is not skipped
    workers.ends(request)
    assert runs(database).count(("retrain", "succeeded")) == 2


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
        with database.connect() as connection:
            retail = registry.get(connection, "retail")
            changed = retail.definition.model_copy(update={"schedule": Schedule(cron=cron)})
            registry.alter(connection, database.settings, retail, changed)
        return time

    due = []
    for _ in range(2):
        never = at(5)
        due.append(at(7))
        assert datetime.now(UTC) < never, "too slow to see the difference"
        until(lambda: len(look(database, asked)) == len(due))
    for row, time in zip(look(database, asked), due, strict=True):
        assert row["requested_at"] >= time


def test_a_worker_refuses_a_database_that_is_not_ready_for_it(workers: Workers) -> None:
    database = workers.database
    with database.connect() as connection:
        connection.execute("UPDATE recstore_private.alembic_version SET version_num = '0001'")
    worker = workers.start(wait=False)
    assert worker.popen.wait(60) == 1
    assert "at revision 0001, this recstore needs" in worker.said
    assert "Run: recstore db upgrade" in worker.said
    assert "Traceback" not in worker.said
    nowhere = workers.start(wait=False, database_url="postgresql://nobody@/nothing?host=/nonexistent")
    assert nowhere.popen.wait(60) == 3
    assert "The database could not be reached" in nowhere.said
    assert "Traceback" not in nowhere.said


def test_a_request_that_can_not_begin_says_why_and_waits(workers: Workers) -> None:
    database = workers.database
    workers.start()
    workers.beat()
    look(database, "UPDATE recstore_private.recommenders SET objects_version = 0 RETURNING id")
    request = workers.request("retrain")
    outcome = "SELECT state, outcome FROM recstore.requests WHERE request = %s"
    until(lambda: "Run: recstore db upgrade" in (look(database, outcome, request)[0]["outcome"] or ""))
    assert workers.state(request) in ("waiting", "sent")
    look(
        database,
        "UPDATE recstore_private.recommenders SET objects_version = %s RETURNING id",
        objects.OBJECTS_VERSION,
    )
    workers.ends(request)


def test_the_parent_of_the_pool_loads_no_trainer() -> None:
    """CUDA must not be initialised before a fork."""
    script = "import sys, recstore.worker.tasks, recstore.worker.lifecycle; sys.exit('implicit' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=False).returncode == 0
