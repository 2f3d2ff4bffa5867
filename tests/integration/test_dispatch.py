"""The dispatcher in this process: due, waiting and abandoned work, and that an open transaction delays none of it."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from conftest import Database, superuser
from support import Hook, look, states

from recstore import pipeline, registry, requests
from recstore.background import dispatch, health, watching
from recstore.definition import Hyperparameters, Schedule
from recstore.errors import AlteredMeanwhile, BrokerUnreachable, NothingRequested
from recstore.operations import jobs
from recstore.requests import Job


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
def test_one_message_for_all_that_ask_for_the_same(trained: Database) -> None:
    for _ in range(3):
        request(trained)
    request(trained, "reindex")
    assert dispatched(trained)[1] == [("retrain", "retail"), ("reindex", "retail")]
    assert dispatched(trained)[1] == []
    request(trained)  # served by the run that the message on its way begins
    assert dispatched(trained)[1] == []
    outcome = serve(trained)
    assert outcome.live
    assert [row["state"] for row in rows(trained)] == ["succeeded"] * 3 + ["sent", "succeeded"]
    with pytest.raises(NothingRequested):
        serve(trained)
    answer = look(trained, "SELECT retail.generation() AS generation, r.* FROM retail.recommend(1, 5) r")
    assert {(row["generation"], row["reason"]) for row in answer} == {(outcome.generation, "trained")}
    assert [row["score"] for row in answer] == sorted((row["score"] for row in answer), reverse=True)
    assert len(answer) == 5


def test_a_message_that_no_run_begins_is_sent_again(trained: Database) -> None:
    request(trained)
    assert len(dispatched(trained)[1]) == 1
    assert dispatched(trained, resend=3600)[1] == []
    assert len(dispatched(trained, resend=0)[1]) == 1
    look(trained, "UPDATE recstore_private.requests SET sent_at = now() + interval '30 days' RETURNING run")
    assert len(dispatched(trained, resend=3600)[1]) == 1  # a clock that was wrong


def test_a_request_that_cannot_be_sent_waits(trained: Database) -> None:
    request(trained)

    def send(_job: Job, _name: str) -> None:
        raise BrokerUnreachable(reason="it is down")

    done = dispatch.dispatch(trained.url, trained.settings, send)
    assert "it is down" in done.problems[0]
    assert rows(trained)[0]["state"] == "waiting"


@pytest.mark.contract
def test_an_open_cancel_delays_no_other_request(trained: Database) -> None:
    first, second = request(trained), request(trained)
    with trained.connect() as other:
        other.execute("BEGIN")
        other.execute("SELECT recstore.cancel_request(%s)", [first])
        assert dispatched(trained)[1] == [("retrain", "retail")]
        assert serve(trained).live
        assert [row["state"] for row in rows(trained)] == ["waiting", "succeeded"]
        other.execute("COMMIT")
    assert [row["state"] for row in rows(trained)] == ["cancelled", "succeeded"]
    assert second == 2


def test_a_request_that_a_run_could_not_claim_waits_for_no_resend(trained: Database) -> None:
    """Another worker that looks for due requests locks them for a moment."""
    request(trained)
    second = request(trained)
    assert dispatched(trained)[1] == [("retrain", "retail")]
    with trained.connect() as other:
        other.execute("BEGIN")
        other.execute("SELECT FROM recstore_private.requests WHERE request = %s FOR UPDATE", [second])
        hook = Hook(on_stage=lambda _: other.execute("ROLLBACK"))
        pipeline.retrain(trained.url, trained.settings, "retail", requested=True, reporter=hook)
        assert [row["state"] for row in rows(trained)] == ["succeeded", "waiting"]
    assert dispatched(trained)[1] == [("retrain", "retail")]


def test_a_dropped_recommender_s_requests_end(trained: Database) -> None:
    request(trained)
    with trained.connect() as connection:
        retail = registry.get(connection, "retail")
        jobs.drop(connection, trained.settings, retail)
        dispatched(trained)
        (row,) = rows(trained)
        assert (row["state"], "was dropped" in row["outcome"]) == ("failed", True)
        trained.create()
        look(
            trained,
            "INSERT INTO recstore_private.requests (recommender, job, origin, state, run)"
            " VALUES ('retail', 'retrain', 'sql', 'running', 4711) RETURNING run",
        )  # of a run that went with the one before
        dispatched(trained)
    assert [row["state"] for row in rows(trained)] == ["failed", "failed"]


def test_ready_requests_end_when_their_generation_is_live_or_overtaken(trained: Database) -> None:
    with trained.connect() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM retail.item_vectors")
        assert trained.retrain().live  # 2 was attached before the reader came
        for _ in range(2):
            request(trained)
            assert not serve(trained, flip_wait=0).live
        assert [row["state"] for row in rows(trained)] == ["ready", "ready"]
        dispatched(trained)
        assert rows(trained)[0]["outcome"] == "Generation 3 had to wait until a later one took its place."
        assert rows(trained)[1]["state"] == "ready"
        reader.execute("COMMIT")
    done, _ = dispatched(trained)
    assert done.published == ["retail"]
    assert (rows(trained)[1]["state"], rows(trained)[1]["outcome"]) == ("succeeded", "Generation 4 is live.")


@pytest.mark.contract
def test_a_rollback_is_not_undone_by_a_generation_that_was_ready_before(trained: Database) -> None:
    """Nor by one whose time a wrong clock set after it."""
    with trained.connect() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM retail.item_vectors")
        assert trained.retrain().generation == 2
        given = trained.settings.model_copy(update={"flip_wait": 0})
        assert not pipeline.retrain(trained.url, given, "retail").live
        assert jobs.roll_back(trained.url, "retail") == (2, 1)
        reader.execute("COMMIT")
    ahead = (
        "UPDATE recstore_private.generations SET ready_at = now() + interval '1 hour' WHERE state = 'ready' RETURNING 1"
    )
    look(trained, ahead)
    assert dispatched(trained)[0].published == []
    assert (states(trained)[1], states(trained)[3]) == ("live", "ready")
    assert jobs.publish(trained.url, trained.settings, "retail", wait=5).generation == 3  # at the operator's word


def held(database: Database) -> str | None:
    return look(database, "SELECT held_by FROM recstore.status")[0]["held_by"]  # type: ignore[no-any-return]


@pytest.mark.contract
@pytest.mark.parametrize("word", ["release", "publish", "now", "force", "forced request", "forward"])
def test_publications_are_held_after_a_rollback_until_an_operator_releases_them(trained: Database, word: str) -> None:
    request(trained)
    assert trained.retrain().live
    request(trained)
    assert jobs.roll_back(trained.url, "retail") == (2, 1)
    assert held(trained) == "worker"
    outcome = serve(trained)
    assert (outcome.generation, outcome.live, outcome.held) == (3, False, True)
    assert dispatched(trained)[0].published == []
    assert [row["state"] for row in rows(trained)] == ["succeeded", "ready"]
    assert not trained.retrain().live  # a command without force, too
    assert states(trained)[1] == "live"
    match word:
        case "release":
            assert jobs.release(trained.url, "retail")
            assert not jobs.release(trained.url, "retail")
            assert dispatched(trained)[0].published == ["retail"]
            assert rows(trained)[1]["state"] == "succeeded"
        case "publish" | "now":
            assert jobs.publish(trained.url, trained.settings, "retail", now=word == "now").live
        case "force":
            assert pipeline.retrain(trained.url, trained.settings, "retail", force=True).live
        case "forced request":
            look(trained, "SELECT recstore.request_retrain('retail', true)")
            assert serve(trained).live
        case "forward":
            assert jobs.roll_back(trained.url, "retail", to=2) == (1, 2)
    assert held(trained) is None
    assert trained.retrain().live


def test_a_schedule_asks_once_however_much_was_missed_and_whatever_the_clock_said(trained: Database) -> None:
    def schedule(cron: str, since: datetime) -> None:
        trained.alter(schedule=Schedule(cron=cron))
        look(trained, "UPDATE recstore_private.recommenders SET scheduled_at = %s RETURNING id", since)

    now = datetime.now(UTC)
    schedule("* * * * *", now - timedelta(days=7))
    assert dispatched(trained)[0].scheduled == ["retail"]
    look(trained, "UPDATE recstore_private.recommenders SET scheduled_at = now() - interval '1 day' RETURNING id")
    assert dispatched(trained)[0].scheduled == []  # the first still waits
    assert len(rows(trained)) == 1
    assert serve(trained).skipped
    schedule("* * * * *", now + timedelta(days=30))  # of a clock that was wrong
    assert dispatched(trained)[0].scheduled == []
    look(
        trained,
        "UPDATE recstore_private.recommenders SET scheduled_at = scheduled_at - interval '2 minutes' RETURNING id",
    )
    assert dispatched(trained)[0].scheduled == ["retail"]


def test_a_failed_removal_is_not_retried_each_time(trained: Database) -> None:
    with trained.connect() as owner:
        owner.execute("CREATE SCHEMA mine")
        owner.execute("CREATE VIEW mine.items AS SELECT item_id FROM retail._items_1")
        for _ in range(3):
            trained.retrain()
        for _ in range(5):
            dispatched(trained)
        assert states(trained)[1] == "pruning"
        assert look(trained, "SELECT count(*) AS n FROM recstore.runs WHERE job = 'prune'")[0]["n"] <= 1
        assert 2 not in states(trained)  # one that cannot be removed does not delay the others
        owner.execute("DROP VIEW mine.items")
    jobs.prune(trained.url, trained.settings, "retail")
    assert 1 not in states(trained)


def test_what_was_altered_before_the_request_is_what_is_trained(
    trained: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = requests.claim

    def claim(*arguments: Any) -> Any:
        monkeypatch.setattr(requests, "claim", really)
        trained.alter(hyperparameters=Hyperparameters(factors=8))  # after the run has read its recommender
        request(trained)
        return really(*arguments)

    monkeypatch.setattr(requests, "claim", claim)
    generation = trained.retrain().generation
    assert rows(trained)[0]["state"] == "succeeded"
    factors = "SELECT factors FROM recstore.generations WHERE generation = %s"
    assert look(trained, factors, generation) == [{"factors": 8}]


def test_of_two_concurrent_alters_the_second_fails(trained: Database) -> None:
    with trained.connect() as connection:
        retail = registry.get(connection, "retail")
        trained.alter(schedule=Schedule(cron="0 3 * * *"))
        with pytest.raises(AlteredMeanwhile, match="nothing was changed"):
            registry.alter(connection, trained.settings, retail, retail.definition)


def test_what_a_host_sets_for_the_role_stops_no_run(trained: Database) -> None:
    sets = {"statement_timeout": "200ms", "idle_session_timeout": "300ms", "default_transaction_read_only": "on"}
    with superuser(trained.server) as connection:
        for name, value in sets.items():
            connection.execute(f"ALTER ROLE worker IN DATABASE {trained.name} SET {name} = '{value}'")
    # a training during which the run's session is idle for longer than that
    assert trained.retrain(reporter=Hook(lambda stage: time.sleep(0.4) if stage == "read" else None)).live


def test_a_cancelled_run_whose_process_died_is_not_tried_again(trained: Database) -> None:
    for cancelled in (False, True):
        number = request(trained)
        dead = "INSERT INTO recstore_private.runs (recommender_id, job, state) SELECT id, 'retrain', 'running'"
        (row,) = look(trained, f"{dead} FROM recstore_private.recommenders RETURNING run")
        serving = "UPDATE recstore_private.requests SET state = 'running', run = %s WHERE request = %s RETURNING run"
        look(trained, serving, row["run"], number)
        if cancelled:
            look(trained, "INSERT INTO recstore_private.cancellations (run) VALUES (%s) RETURNING run", row["run"])
        jobs.prune(trained.url, trained.settings, "retail")
        assert rows(trained)[-1]["state"] == ("cancelled" if cancelled else "waiting")
    dispatched(trained)
    assert look(trained, "SELECT FROM recstore_private.cancellations") == []


@pytest.mark.contract
def test_times_that_a_wrong_clock_wrote_hold_up_nothing(trained: Database) -> None:
    """A database whose clock was a year ahead for a moment: it retains, postpones and reports nothing for a year."""
    trained.retrain()
    look(
        trained, "UPDATE recstore_private.flips SET flipped_at = flipped_at + interval '1 year' RETURNING to_generation"
    )
    given = trained.settings.model_copy(update={"retention": 60})
    assert jobs.prune(trained.url, given, "retail", keep=1)["pruned"] == [1]
    request(trained)
    look(trained, "UPDATE recstore_private.requests SET not_before = now() + interval '1 year' RETURNING request")
    assert dispatched(trained)[1] == [("retrain", "retail")]
    look(trained, "UPDATE recstore_private.dispatches SET dispatched_at = now() + interval '1 year' RETURNING host")
    with trained.connect() as connection:
        assert health.last_dispatch(connection) is None
        assert "No worker" in str(watching.dispatch_warning(connection, trained.settings))


def test_messages_of_beat_that_waited_for_long_dispatch_once(trained: Database) -> None:
    request(trained)
    assert dispatch.dispatch(trained.url, trained.settings, lambda *_: None, pause=60).sent
    request(trained, "reindex")
    assert not dispatch.dispatch(trained.url, trained.settings, lambda *_: None, pause=60).sent
    assert dispatch.dispatch(trained.url, trained.settings, lambda *_: None).sent
