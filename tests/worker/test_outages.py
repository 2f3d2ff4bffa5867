"""Servers that restart, refuse or fill up, messages that come twice, readers that block, one recommender that always fails:
a clear state, no lost request, and no other recommender delayed."""

import os
import signal

import pytest
from conftest import administration, superuser
from support import full_disk, look, until

from recstore.definition import Hyperparameters, Schedule, Source
from recstore.embedded.programs import pg_ctl, run

from .conftest import CELERY, OWN, Workers, of_kinds

SETTINGS = {"resend": 3, "flip_wait": 2}
"""Settings of the shared worker."""


def test_a_message_delivered_again_during_the_run_publishes_once(workers: Workers) -> None:
    short = {"visibility_timeout": 1, "resend": 1000}
    for _ in range(2):
        workers.start(**short)
    request = workers.caught()
    again = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name LIKE 'recstore:run:%%'"
    until(
        lambda: any(
            "retrain retail waits: Another run" in p.output or "done already" in p.output for p in workers.started
        ),
        60,
    )
    assert look(workers.database, again)[0]["n"] == 1
    workers.release("train")
    workers.ends(request)
    assert workers.retrains() == ["succeeded"]
    assert workers.live() == 2
    workers.nothing_left()


@of_kinds("crew", CELERY + OWN, rest=[CELERY])
def test_redis_restarted(shared: Workers, beat: None) -> None:  # noqa: ARG001
    first = shared.caught()
    shared.broker.stop()
    while_down = shared.request("reindex")
    shared.release("train")
    shared.ends(first)
    shared.broker.start()
    shared.ends(while_down)
    shared.ends(shared.request("retrain"))
    assert shared.retrains() == ["succeeded", "succeeded"]
    shared.nothing_left()


@of_kinds("crew", CELERY + OWN, rest=[CELERY, OWN])
def test_postgres_restarted(shared: Workers, beat: None) -> None:  # noqa: ARG001
    before, server = shared.live(), shared.database.server
    request = shared.caught()
    administration(server).close()
    administration.cache_clear()
    outcome = run([*pg_ctl(server.version, server.data), "-m", "fast", "restart", "-l", "log"], server.data.parent)
    assert outcome.returncode == 0, outcome.stderr
    assert shared.live() == before
    shared.release("train")
    shared.ends(request)
    assert shared.one(request)["attempts"] == 1
    until(lambda: shared.live() == before + 1)
    shared.ends(shared.request("retrain"))
    shared.nothing_left()


@of_kinds("crew", CELERY + OWN, rest=[CELERY, OWN])
def test_postgres_out_of_connections(shared: Workers, beat: None) -> None:  # noqa: ARG001
    before, printed = shared.live(), len(shared.started[0].output)
    with superuser(shared.database.server) as connection:
        connection.execute(
            "ALTER ROLE worker CONNECTION LIMIT 0"
        )  # the listener has its connection, and no other gets one
        try:
            request = shared.request("retrain")
            shared.started[0].logs("too many connections for role")
            assert shared.state(request) in ("sent", "waiting")
        finally:
            connection.execute("ALTER ROLE worker CONNECTION LIMIT -1")
    shared.ends(request)
    assert "Traceback" not in shared.started[0].output[printed:]
    assert shared.live() == before + 1
    shared.nothing_left()


@of_kinds("workers", OWN)
def test_a_session_that_is_frozen_holds_up_neither_the_end_nor_the_requests(workers: Workers) -> None:
    worker = workers.start(test_patience=0.5)
    listening = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name LIKE 'recstore:listen:%%'"
    (frozen,) = look(workers.database, listening, workers.database.name)
    os.kill(frozen["pid"], signal.SIGSTOP)
    try:
        workers.ends(workers.request("reindex"))
        worker.popen.send_signal(signal.SIGTERM)
        assert worker.popen.wait(60) == 0
    finally:
        os.kill(frozen["pid"], signal.SIGCONT)


def test_an_index_build_without_disk_fails_plainly_and_the_next_succeeds(shared: Workers) -> None:
    before = shared.live()
    with full_disk(shared.database):
        request = shared.request("retrain")
        shared.ends(request, "failed")
    failed = shared.one(request)
    assert "No space left on device" in failed["outcome"]
    assert failed["attempts"] == 0
    assert shared.live() == before
    shared.ends(shared.request("retrain"))
    shared.nothing_left()


@of_kinds("crew", CELERY + OWN, rest=[CELERY, OWN])
def test_a_ready_generation_is_flipped_by_a_later_dispatch(shared: Workers, beat: None) -> None:  # noqa: ARG001
    before = shared.live()
    with shared.database.connect("worker") as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM retail.item_vectors")
        shared.ends(shared.request("retrain"))  # attached before the reader came; the next one waits for it
        second = shared.request("retrain")
        until(lambda: shared.state(second) == "ready")
        assert f"process {reader.info.backend_pid}" in shared.one(second)["outcome"]
        (status,) = look(shared.database, "SELECT * FROM recstore.status")
        generations = status["live_generation"], status["ready_generation"], status["running"]
        assert generations == (before + 1, before + 2, None)
        reader.execute("COMMIT")
    until(lambda: shared.state(second) == "succeeded")
    assert shared.live() == before + 2
    shared.nothing_left()


@of_kinds("workers", CELERY + OWN, rest=[CELERY, OWN])
@pytest.mark.parametrize(("recommenders", "rounds"), [(5, 2), pytest.param(20, 6, marks=pytest.mark.campaign)])
def test_many_recommenders_and_one_that_always_fails(workers: Workers, recommenders: int, rounds: int) -> None:
    """Due at the same time, again and again: each runs once a round."""
    database = workers.database
    small = {"hyperparameters": Hyperparameters(factors=4, iterations=1), "schedule": Schedule(cron="0 3 * * *")}
    names = [f"shop_{number}" for number in range(recommenders)]
    for name in names:
        database.create(name, **small)
    database.create(
        "broken",
        **small | {"source": Source(query="SELECT 1 AS user_id, 1 AS item_id, 1 / (random() > 2)::int AS value")},
    )
    workers.start(concurrency=2)
    workers.beat(dispatch_interval=0.3)
    done = (
        "SELECT recommender, count(*) FILTER (WHERE state IN ('succeeded', 'skipped')) AS good, count(*) AS n"
        " FROM recstore.runs WHERE recommender <> 'retail' AND state <> 'running' GROUP BY 1"
    )
    for number in range(1, rounds + 1):
        look(
            database,
            "UPDATE recstore_private.recommenders SET scheduled_at = scheduled_at - interval '3 days' RETURNING id",
        )
        expected = dict.fromkeys(names, (number, number)) | {"broken": (0, number)}

        def counted() -> dict[str, tuple[int, int]]:
            return {row["recommender"]: (row["good"], row["n"]) for row in look(database, done)}

        until(lambda: counted() == expected, 60)  # noqa: B023
    until(lambda: look(database, "SELECT FROM recstore.requests WHERE finished_at IS NULL") == [])
    assert counted() == expected
    assert look(database, "SELECT count(*) AS n FROM recstore.requests")[0]["n"] == (recommenders + 1) * rounds
    for name in names:
        workers.nothing_left(name)
