"""The dispatcher in this process: what is due, what waits, what was left, and that an open transaction holds up none of it."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from conftest import Database, superuser
from support import Hook, look, states

from recstore import pipeline, registry, requests
from recstore.background import dispatch
from recstore.definition import Schedule
from recstore.errors import AlteredMeanwhile, BrokerUnreachable, NothingRequested
from recstore.operations import jobs
from recstore.requests import Job


@pytest.fixture
def live(shop: Database) -> Database:
    shop.create()
    assert shop.retrain().live
    return shop


def dispatched(database: Database, **settings: object) -> tuple[dispatch.Dispatched, list[tuple[Job, str]]]:
    sent: list[tuple[Job, str]] = []
    given = database.settings.model_copy(update=settings)
    return dispatch.dispatch(database.url, given, lambda job, name: sent.append((job, name))), sent


def request(database: Database, job: str = "retrain") -> int:
    return int(look(database, f"SELECT recstore.request_{job}('retail') AS n")[0]["n"])


def rows(database: Database) -> list[dict[str, Any]]:
    return look(database, "SELECT * FROM recstore.requests ORDER BY request")


def serve(database: Database, **settings: object) -> jobs.Outcome:
    given = database.settings.model_copy(update=settings)
    return pipeline.retrain(database.url, given, "retail", requested=True)


@pytest.mark.contract
def test_one_message_for_all_that_ask_for_the_same(live: Database) -> None:
    for _ in range(3):
        request(live)
    request(live, "reindex")
    assert dispatched(live)[1] == [("retrain", "retail"), ("reindex", "retail")]
    assert dispatched(live)[1] == []
    request(live)  # served by the run that the message on its way begins
    assert dispatched(live)[1] == []
    assert serve(live).live
    assert [row["state"] for row in rows(live)] == ["succeeded"] * 3 + ["sent", "succeeded"]
    with pytest.raises(NothingRequested):
        serve(live)


def test_a_message_that_nobody_begins_is_sent_again(live: Database) -> None:
    request(live)
    assert len(dispatched(live)[1]) == 1
    assert dispatched(live, resend=3600)[1] == []
    assert len(dispatched(live, resend=0)[1]) == 1
    look(live, "UPDATE recstore_private.requests SET sent_at = now() + interval '30 days' RETURNING run")
    assert len(dispatched(live, resend=3600)[1]) == 1  # a clock that was wrong


def test_what_can_not_be_sent_waits(live: Database) -> None:
    request(live)

    def send(_job: Job, _name: str) -> None:
        raise BrokerUnreachable(reason="it is down")

    done = dispatch.dispatch(live.url, live.settings, send)
    assert "it is down" in done.problems[0]
    assert rows(live)[0]["state"] == "waiting"


@pytest.mark.contract
def test_an_open_cancel_delays_nobody(live: Database) -> None:
    first, second = request(live), request(live)
    with live.connect() as other:
        other.execute("BEGIN")
        other.execute("SELECT recstore.cancel_request(%s)", [first])
        assert dispatched(live)[1] == [("retrain", "retail")]
        assert serve(live).live
        assert [row["state"] for row in rows(live)] == ["waiting", "succeeded"]
        other.execute("COMMIT")
    assert [row["state"] for row in rows(live)] == ["cancelled", "succeeded"]
    assert second == 2


def test_a_dropped_recommender_s_requests_end(live: Database) -> None:
    request(live)
    with live.connect() as connection:
        retail = registry.get(connection, "retail")
        jobs.drop(connection, live.settings, retail)
        dispatched(live)
        assert (rows(live)[0]["state"], rows(live)[0]["outcome"]) == ("failed", "The recommender 'retail' was dropped.")
        live.create()
        look(
            live,
            "INSERT INTO recstore_private.requests (recommender, job, origin, state, run)"
            " VALUES ('retail', 'retrain', 'sql', 'running', 4711) RETURNING run",
        )  # of a run that went with the one before
        dispatched(live)
    assert [row["state"] for row in rows(live)] == ["failed", "failed"]


def test_ready_requests_end_when_their_generation_is_live_or_overtaken(live: Database) -> None:
    with live.connect() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM retail.item_vectors")
        assert live.retrain().live  # 2 was attached before the reader came
        for _ in range(2):
            request(live)
            assert not serve(live, flip_wait=0).live
        assert [row["state"] for row in rows(live)] == ["ready", "ready"]
        dispatched(live)
        assert rows(live)[0]["outcome"] == "Generation 3 had to wait until a later one took its place."
        assert rows(live)[1]["state"] == "ready"
        reader.execute("COMMIT")
    done, _ = dispatched(live)
    assert done.published == ["retail"]
    assert (rows(live)[1]["state"], rows(live)[1]["outcome"]) == ("succeeded", "Generation 4 is live.")


@pytest.mark.contract
def test_a_rollback_is_not_undone_by_a_generation_that_was_ready_before(live: Database) -> None:
    with live.connect() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM retail.item_vectors")
        assert live.retrain().generation == 2
        given = live.settings.model_copy(update={"flip_wait": 0})
        assert not pipeline.retrain(live.url, given, "retail").live
        assert jobs.roll_back(live.url, "retail") == (2, 1)
        reader.execute("COMMIT")
    assert dispatched(live)[0].published == []
    assert (states(live)[1], states(live)[3]) == ("live", "ready")
    assert jobs.publish(live.url, live.settings, "retail", wait=5).generation == 3  # at the operator's word


def test_a_schedule_asks_once_however_much_was_missed_and_whatever_the_clock_said(live: Database) -> None:
    def schedule(cron: str, since: datetime) -> None:
        with live.connect() as connection:
            retail = registry.get(connection, "retail")
            changed = retail.definition.model_copy(update={"schedule": Schedule(cron=cron)})
            registry.alter(connection, live.settings, retail, changed)
        look(live, "UPDATE recstore_private.recommenders SET scheduled_at = %s RETURNING id", since)

    now = datetime.now(UTC)
    schedule("* * * * *", now - timedelta(days=7))
    assert dispatched(live)[0].scheduled == ["retail"]
    look(live, "UPDATE recstore_private.recommenders SET scheduled_at = now() - interval '1 day' RETURNING id")
    assert dispatched(live)[0].scheduled == []  # the first still waits
    assert len(rows(live)) == 1
    assert serve(live).skipped
    schedule("* * * * *", now + timedelta(days=30))  # of a clock that was wrong
    assert dispatched(live)[0].scheduled == []
    look(
        live,
        "UPDATE recstore_private.recommenders SET scheduled_at = scheduled_at - interval '2 minutes' RETURNING id",
    )
    assert dispatched(live)[0].scheduled == ["retail"]


def test_what_can_not_be_removed_is_not_tried_each_time(live: Database) -> None:
    with live.connect() as owner:
        owner.execute("CREATE SCHEMA mine")
        owner.execute("CREATE VIEW mine.items AS SELECT item_id FROM retail._items_1")
        for _ in range(3):
            live.retrain()
        for _ in range(5):
            dispatched(live)
        assert states(live)[1] == "pruning"
        assert look(live, "SELECT count(*) AS n FROM recstore.runs WHERE job = 'prune'")[0]["n"] <= 1
        assert 2 not in states(live)  # one that can not go holds up no other
        owner.execute("DROP VIEW mine.items")
    jobs.prune(live.url, live.settings, "retail")
    assert 1 not in states(live)


def test_what_was_altered_before_the_request_is_what_is_trained(
    live: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = requests.claim

    def claim(*arguments: Any) -> Any:
        monkeypatch.setattr(requests, "claim", really)
        with live.connect() as connection:  # after the run has looked at its recommender
            retail = registry.get(connection, "retail")
            fewer = retail.definition.hyperparameters.model_copy(update={"factors": 8})
            changed = retail.definition.model_copy(update={"hyperparameters": fewer})
            registry.alter(connection, live.settings, retail, changed)
            request(live)
        return really(*arguments)

    monkeypatch.setattr(requests, "claim", claim)
    generation = live.retrain().generation
    assert rows(live)[0]["state"] == "succeeded"
    factors = "SELECT factors FROM recstore.generations WHERE generation = %s"
    assert look(live, factors, generation) == [{"factors": 8}]


def test_of_two_who_alter_at_once_the_second_is_told(live: Database) -> None:
    with live.connect() as connection:
        retail = registry.get(connection, "retail")
        registry.alter(
            connection,
            live.settings,
            retail,
            retail.definition.model_copy(update={"schedule": Schedule(cron="0 3 * * *")}),
        )
        with pytest.raises(AlteredMeanwhile, match="nothing was changed"):
            registry.alter(connection, live.settings, retail, retail.definition)


def test_what_a_host_sets_for_the_role_stops_no_run(live: Database) -> None:
    sets = {"statement_timeout": "200ms", "idle_session_timeout": "300ms", "default_transaction_read_only": "on"}
    with superuser(live.server) as connection:
        for name, value in sets.items():
            connection.execute(f"ALTER ROLE worker IN DATABASE {live.name} SET {name} = '{value}'")
    # a training during which the run's session is idle for longer than that
    assert live.retrain(reporter=Hook(lambda stage: time.sleep(0.4) if stage == "read" else None)).live
