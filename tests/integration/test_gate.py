"""The gate and the source guard on a real server: what they refuse, what stays, what is stored and shown, and force."""

import numpy as np
import pytest
from conftest import Command, Database
from prometheus_client import CollectorRegistry
from support import Hook, look
from support_sql import read_source

from recstore import pipeline, registry, requests
from recstore.background.prometheus import DatabaseCollector
from recstore.definition import Gate, Hyperparameters, Schedule
from recstore.errors import GateRefused, SourceShrunk
from recstore.model import confidence, held_out, trainers
from recstore.model.confidence import fit
from recstore.model.interactions import Interactions
from recstore.operations.jobs import Outcome
from recstore.publication import stored
from recstore.sql.generation import Generation

GIVEN = Hyperparameters(factors=8, iterations=6, regularization=5, alpha=60)


@pytest.fixture
def gated(shop: Database) -> Database:
    """A shop so small that a fifth of all pairs has to be held out; its first generation is live."""
    shop.create(hyperparameters=GIVEN, gate=Gate(held_out=0.2))
    assert shop.retrain().live
    return shop


def worsen(database: Database) -> None:
    """Too few factors from the next training on."""
    database.alter(hyperparameters=GIVEN.model_copy(update={"factors": 1}))


def pulled(database: Database) -> tuple[Interactions, held_out.HeldOut]:
    """The interactions, and what is held out of them."""
    interactions, _ = read_source(database, "retail")
    with database.connect() as connection:
        return interactions, held_out.choose(interactions, registry.get(connection, "retail").held_out_key, 0.2)


def test_the_live_generation_never_saw_the_held_out_pairs(gated: Database) -> None:
    interactions, held = pulled(gated)
    with gated.connect() as connection:
        recommender = registry.get(connection, "retail")
        live = stored.read(connection, gated.url, Generation(recommender, 1), "test")
    assert live is not None
    assert 0.1 < held.pairs.mean() <= 0.2
    assert (live.held_out or {})["pairs"] == held.pairs.sum()
    np.testing.assert_array_equal(live.item_users, np.bincount(interactions.item_index))
    # the items are what a training gives that was never shown them, and not what one gives that was
    seen = interactions.part(~held.pairs)
    np.testing.assert_array_equal(live.fold_in.item_users, np.bincount(seen.item_index, minlength=120))
    trainer = trainers.trainer("als")
    for shown, close in ((seen, True), (interactions, False)):
        matrix = fit(shown, confidence.Confidence()).matrix(shown, GIVEN.alpha)
        items = trainer.train(matrix, GIVEN, factors=8, device="cpu").item_factors
        assert np.allclose(items, live.fold_in.item_factors, atol=1e-5) == close
    # and users are folded in by all their pairs
    whole = trainer.solve_users(live.confidence.matrix(interactions, live.alpha), live.fold_in)
    lengths = look(gated, "SELECT length FROM retail._users_1 ORDER BY user_id")
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), [row["length"] for row in lengths], rtol=1e-4)


def test_a_worse_one_is_refused_and_published_by_force(gated: Database, recstore: Command) -> None:
    worsen(gated)
    with pytest.raises(GateRefused, match="--force"):
        gated.retrain()
    runs = look(gated, "SELECT state, error, stages FROM recstore_private.runs ORDER BY run")
    assert [run["state"] for run in runs] == ["succeeded", "failed"]
    verdict = runs[1]["stages"][-1]
    assert (verdict["stage"], verdict["refused"], verdict["live"]["other"]) == ("gate", True, "generation 1")
    assert "generation 1 0." in recstore("logs retail").out
    assert look(gated, "SELECT generation FROM recstore_private.pointers") == [{"generation": 1}]
    recstore("retrain retail --json").expect(5, '"kind": "GateRefused"')
    forced = recstore("retrain retail --force")
    assert (forced.code, "by force" in " ".join(forced.err.split())) == (0, True)
    assert look(gated, "SELECT generation FROM recstore_private.pointers") == [{"generation": 2}]


def test_the_schedule_does_not_repeat_what_was_refused(gated: Database, recstore: Command) -> None:
    def scheduled() -> Outcome:
        with gated.connect() as connection:
            requests.insert(connection, "retail", "retrain", "schedule")
        return pipeline.retrain(gated.url, gated.settings, "retail", requested=True)

    worsen(gated)
    with pytest.raises(GateRefused):
        scheduled()
    for _ in range(2):
        assert scheduled().skipped
    newest = look(gated, "SELECT state, outcome FROM recstore.requests ORDER BY request DESC")
    assert [row["state"] for row in newest] == ["skipped", "skipped", "failed"]
    assert "run 2, which the gate refused" in newest[0]["outcome"]
    gated.alter(schedule=Schedule(cron="0 3 * * *"))
    assert scheduled().skipped  # trained the same
    recstore("retrain retail").expect(5, "--force")  # a person's own is not skipped
    with gated.connect("application") as application:
        application.execute("INSERT INTO shop.views VALUES (1, 119, 7) ON CONFLICT DO NOTHING")
    with pytest.raises(GateRefused):
        scheduled()
    assert scheduled().skipped
    gated.alter(hyperparameters=GIVEN.model_copy(update={"factors": 1, "iterations": 5}))
    with pytest.raises(GateRefused):
        scheduled()
    gated.alter(hyperparameters=GIVEN)
    assert scheduled().live


def test_an_equal_one_goes_live_and_the_comparison_is_shown(gated: Database, recstore: Command) -> None:
    hook = Hook()
    assert gated.retrain(reporter=hook).live
    verdict = hook.stages["gate"]
    # it went on from the live items, for fewer iterations: of 40 random splits none differed by more than 0.034
    assert abs(verdict["live"]["difference"]) < 0.1 * verdict["live"]["of_other"]
    stored_metrics = look(gated, "SELECT metrics FROM recstore.generations WHERE generation = 2")[0]["metrics"]
    assert verdict["metrics"] == stored_metrics["metrics"]
    assert "held out: NDCG@20 0." in recstore("show retail").out
    scraped = CollectorRegistry()
    scraped.register(DatabaseCollector(gated.settings))
    values = (("live", verdict["metrics"]["ndcg@20"]), ("popularity", verdict["popularity"]["of_other"]))
    for model, value in values:
        labels = {"recommender": "retail", "model": model}
        assert scraped.get_sample_value("recstore_live_ndcg_ratio", labels) == value
        assert scraped.get_sample_value("recstore_live_rmse", labels) is None
    assert recstore("show retail --json").json["live"]["metrics"]["live"]["other"] == "generation 1"


def test_a_half_empty_source_is_refused(gated: Database, recstore: Command) -> None:
    application = gated.connect("application")
    application.execute("DELETE FROM shop.views WHERE user_id > 110")
    with pytest.raises(SourceShrunk, match="110 users instead of 240"):
        gated.retrain()
    assert recstore("retrain retail").code == 5
    recstore("alter retail --max-fall 0.6")
    assert recstore("retrain retail").code == 0
    application.execute("DELETE FROM shop.views WHERE user_id > 40")
    assert recstore("retrain retail").code == 5
    with gated.connect() as connection:
        connection.execute("SELECT recstore.request_retrain('retail', NULL), recstore.request_retrain('retail', true)")
    assert gated.retrain(requested=True).live  # force, as one of the requests asks
    assert look(gated, "SELECT force, state FROM recstore.requests ORDER BY request") == [
        {"force": False, "state": "succeeded"}, {"force": True, "state": "succeeded"}
    ]  # fmt: skip


@pytest.mark.usefixtures("gated")
def test_another_source_may_be_smaller(recstore: Command) -> None:
    changed = "SELECT user_id, product_id AS item_id, view_count AS value FROM shop.views WHERE user_id < 60"
    recstore("alter retail --held-out 0 --table none --query", changed)  # so few users, the gate may find fault with
    recstore("retrain retail").expect(0, "smaller")


def test_a_generation_of_before_the_gate_is_not_compared(gated: Database) -> None:
    with gated.connect() as connection:
        connection.execute("UPDATE recstore_private.generations SET fold_in = NULL, held_out = NULL")
    hook = Hook()
    worsen(gated)
    assert gated.retrain(reporter=hook).live
    assert hook.stages["gate"]["live"] is None
