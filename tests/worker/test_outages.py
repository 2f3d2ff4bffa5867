"""Servers that restart, refuse or fill up, messages that come twice, readers in the way, one recommender that always fails:
a clear state, no lost request, and nobody held up."""

import pytest
from conftest import administration, superuser
from support import look, until

from recstore.definition import Hyperparameters, Schedule, Source
from recstore.embedded.programs import pg_ctl, run

from .conftest import Workers
from .looking import live, nothing_left, one, runs


def test_a_message_delivered_again_during_the_run_publishes_once(workers: Workers) -> None:
    database = workers.database
    short = {"visibility_timeout": 1, "resend": 1000}
    for _ in range(2):
        workers.start(**short)
    workers.hold("train")
    request = workers.request("retrain")
    workers.held("train")
    again = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name LIKE 'recstore:run:%%'"
    until(
        lambda: any("retrain retail waits: Another run" in p.said or "done already" in p.said for p in workers.started),
        60,
    )
    assert look(database, again)[0]["n"] == 1
    workers.release("train")
    workers.ends(request)
    assert runs(database) == ["succeeded"]
    assert live(database) == 2
    nothing_left(database)


def test_redis_restarted(workers: Workers) -> None:
    workers.start()
    workers.beat()
    workers.hold("train")
    first = workers.request("retrain")
    workers.held("train")
    workers.broker.stop()
    while_down = workers.request("reindex")
    workers.release("train")
    workers.ends(first)
    workers.broker.start()
    workers.ends(while_down)
    after = workers.request("retrain")
    workers.ends(after)
    assert runs(workers.database) == ["succeeded", "succeeded"]
    nothing_left(workers.database)


def test_postgres_restarted(workers: Workers) -> None:
    database = workers.database
    workers.start()
    workers.beat()
    workers.hold("train")
    request = workers.request("retrain")
    workers.held("train")
    server = database.server
    administration(server).close()
    administration.cache_clear()
    outcome = run([*pg_ctl(server.version, server.data), "-m", "fast", "restart", "-l", "log"], server.data.parent)
    assert outcome.returncode == 0, outcome.stderr
    assert live(database) == 1
    workers.release("train")
    workers.ends(request)
    assert one(database, request)["attempts"] == 1
    until(lambda: live(database) == 2)
    later = workers.request("retrain")
    workers.ends(later)
    nothing_left(database)


def test_postgres_out_of_connections(workers: Workers) -> None:
    database = workers.database
    workers.start()
    workers.beat()
    with superuser(database.server) as connection:
        connection.execute("ALTER ROLE worker CONNECTION LIMIT 0")  # the listener has its connection, and nobody else
        try:
            request = workers.request("retrain")
            workers.started[0].says("too many connections for role")
            assert workers.state(request) in ("sent", "waiting")
        finally:
            connection.execute("ALTER ROLE worker CONNECTION LIMIT -1")
    workers.ends(request)
    assert "Traceback" not in workers.started[0].said
    assert live(database) == 2
    nothing_left(database)


FULL_DISK = """
    CREATE FUNCTION public.full_disk() RETURNS event_trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE 'No space left on device' USING ERRCODE = 'disk_full'; END $$;
    CREATE EVENT TRIGGER full_disk ON ddl_command_end WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION public.full_disk();
"""


def test_an_index_build_without_disk_fails_plainly_and_the_next_succeeds(workers: Workers) -> None:
    database = workers.database
    workers.start()
    with superuser(database.server, database.name) as connection:
        connection.execute(FULL_DISK)
        request = workers.request("retrain")
        workers.ends(request, "failed")
        assert "No space left on device" in one(database, request)["outcome"]
        assert one(database, request)["attempts"] == 0
        assert live(database) == 1
        connection.execute("DROP EVENT TRIGGER full_disk")
    request = workers.request("retrain")
    workers.ends(request)
    nothing_left(database)


def test_a_ready_generation_is_flipped_by_a_later_dispatch(workers: Workers) -> None:
    database = workers.database
    workers.start(flip_wait=0)
    workers.beat()
    with database.connect("worker") as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM retail.item_vectors")
        first = workers.request("retrain")
        workers.ends(first)  # 2 was attached before the reader came; 3 waits for it
        second = workers.request("retrain")
        until(lambda: workers.state(second) == "ready")
        assert f"process {reader.info.backend_pid}" in one(database, second)["outcome"]
        status = look(database, "SELECT * FROM recstore.status")[0]
        assert (status["live_generation"], status["ready_generation"], status["running"]) == (2, 3, None)
        reader.execute("COMMIT")
    until(lambda: workers.state(second) == "succeeded")
    assert live(database) == 3
    nothing_left(database)


@pytest.mark.parametrize(("recommenders", "rounds"), [(8, 2), pytest.param(20, 6, marks=pytest.mark.campaign)])
def test_many_recommenders_and_one_that_always_fails(workers: Workers, recommenders: int, rounds: int) -> None:
    """Due at the same time, again and again: each runs once a round."""
    database = workers.database
    small = {"hyperparameters": Hyperparameters(factors=4, iterations=1), "schedule": Schedule(cron="0 3 * * *")}
    names = [f"shop_{number}" for number in range(recommenders)]
    for name in names:
        database.create(name, **small)
    database.create(
        "broken",
        **small | {"source": Source(query="SELECT 1 AS user_id, 1 AS item_id, 1 / (random() < 2)::int AS value")},
    )
    with database.connect() as connection:
        connection.execute(
            "CREATE OR REPLACE VIEW broken.interactions WITH (security_invoker) AS"
            " SELECT 1 AS user_id, 1 AS item_id, 1 / (random() > 2)::int AS value"
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
        nothing_left(database, name)
