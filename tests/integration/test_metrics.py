"""The metrics for Prometheus, against a real database: no process counts anything."""

import re
import time

import psycopg
import pytest
from conftest import Database
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from support import Hook, look

from recstore import pipeline, requests
from recstore.background import health
from recstore.background.prometheus import SERIES, DatabaseCollector
from recstore.config import Settings
from recstore.definition import Filters, Schedule
from recstore.errors import NothingLeft
from recstore.sql import queries

Samples = dict[str, dict[tuple[str, ...], float]]


def scrape(settings: Settings) -> Samples:
    """Metric -> values of its labels, in the order that the metric declares them -> value."""
    registry = CollectorRegistry()
    registry.register(DatabaseCollector(settings))
    text = generate_latest(registry).decode()
    lint(text)
    labels = {series.name: series.labels for series in SERIES}
    found: Samples = {}
    for metric in text_string_to_metric_families(text):
        for sample in metric.samples:
            values = tuple(sample.labels[name] for name in labels.get(sample.name, ()))
            assert values not in found.setdefault(sample.name, {}), f"{sample} twice"
            found[sample.name][values] = sample.value
    return found


def lint(text: str) -> None:
    """Check what `promtool check metrics` checks, and the labels that Prometheus adds itself."""
    for metric in text_string_to_metric_families(text):
        for name in {sample.name for sample in metric.samples}:
            assert re.fullmatch(r"recstore_[a-z]+(_[a-z]+)*", name)
            assert (metric.type == "counter") == name.endswith("_total"), name
            assert not re.search(r"_(count|sum|bucket|gauge|counter|info|minutes|hours|days|millis\w*|ms|kb|mb)$", name)
        assert metric.documentation.endswith(".")
        assert not {"job", "instance"} & {label for sample in metric.samples for label in sample.labels}


def test_what_is_live_runs_waits_and_failed(shop: Database) -> None:
    shop.create()
    shop.create("broken", filters=Filters(min_item_views=10**9))
    reader, connection = shop.connect(), shop.connect()

    def read(stage: str) -> None:  # what the next generation, attached after the flip, has to wait for
        if stage == "flip":
            reader.execute("BEGIN")
            reader.execute("SELECT FROM retail.item_vectors LIMIT 1")

    before = time.time()
    assert shop.retrain(reporter=Hook(read)).live
    during: list[Samples] = []
    impatient = shop.settings.model_copy(update={"flip_wait": 0})
    hook = Hook(lambda stage: during.append(scrape(shop.settings)) if stage == "train" else None)
    assert not pipeline.retrain(shop.url, impatient, "retail", reporter=hook).live
    with pytest.raises(NothingLeft):
        shop.retrain("broken")
    for job in ("retrain", "retrain", "reindex"):
        connection.execute(f"SELECT recstore.request_{job}('retail')")
    connection.execute(queries.query("note_dispatch"), {"host": "here"})
    connection.execute("INSERT INTO recstore_private.dispatches VALUES ('gone', now() - interval '2 days')")

    found = scrape(shop.settings)
    assert found["recstore_database_up"] == {(): 1}
    assert before < found["recstore_last_success_timestamp_seconds"].pop(("retail",)) < time.time() + 1
    row = look(
        shop, "SELECT generation, users, items, stages FROM recstore.generations JOIN recstore.runs USING (generation)"
    )
    live = next(one for one in row if one["generation"] == found["recstore_live_generation"]["retail",])
    pairs = next(stage["pairs"] for stage in live["stages"] if stage["stage"] == "filter")
    for name, value in {"users": live["users"], "items": live["items"], "interactions": pairs, "factors": 16}.items():
        assert found[f"recstore_live_{name}"] == {("retail",): value}
    assert found["recstore_live_ann_recall_ratio"] == {("retail", "recommend"): 1, ("retail", "similar"): 1}
    assert all(0 < seconds < 1 for seconds in found["recstore_live_query_seconds"].values())
    assert found["recstore_ready_generations"] == {("retail",): 1, ("broken",): 0}
    assert 0 < found["recstore_ready_age_seconds"]["retail",] < found["recstore_live_age_seconds"]["retail",]
    assert during[0]["recstore_running"] == {("retail", "retrain", "train"): 1, ("broken", "", ""): 0}
    assert found["recstore_running"] == {("retail", "", ""): 0, ("broken", "", ""): 0}
    ended = {labels: runs for labels, runs in found["recstore_runs_total"].items() if runs}
    assert ended == {
        ("retail", "retrain", "succeeded"): 1,
        ("retail", "retrain", "ready"): 1,
        ("broken", "retrain", "failed"): 1,
    }
    assert found["recstore_runs_total"]["retail", "publish", "failed"] == 0
    assert found["recstore_last_run_succeeded"] == {("retail", "retrain"): 1, ("broken", "retrain"): 0}
    assert found["recstore_last_run_wal_bytes"]["retail", "retrain"] > 0
    stages = {stage: seconds for (_, stage), seconds in found["recstore_last_retrain_stage_seconds"].items()}
    assert {"read", "train", "calibrate", "flip"} <= set(stages)
    # each is rounded to a tenth of a millisecond
    assert sum(stages.values()) < found["recstore_last_run_duration_seconds"]["retail", "retrain"] + 0.01
    waiting = {labels: n for labels, n in found["recstore_requests_waiting"].items() if n}
    assert waiting == {("retail", "retrain"): 2, ("retail", "reindex"): 1}
    oldest = {labels for labels, age in found["recstore_oldest_request_age_seconds"].items() if age}
    assert oldest == set(waiting)
    assert set(found["recstore_dispatch_age_seconds"]) == {("here",)}
    of_the_gate = {
        "recstore_live_ndcg_ratio",
        "recstore_live_rmse",
    }  # so few users that nothing is held out: tests/integration/test_gate.py
    assert {series.name for series in SERIES} - of_the_gate | {"recstore_database_up"} == set(found)


def test_a_counter_only_goes_up_or_back_to_0(shop: Database) -> None:
    shop.create()
    insert = (
        "INSERT INTO recstore_private.runs (recommender_id, job, state, finished_at) SELECT 1, 'prune', 'failed', %s"
    )
    with shop.connect() as connection:
        row = connection.execute("SELECT date_trunc('day', now(), 'UTC') AS midnight, now() AS now").fetchone()
        assert row
        for moment in row.values():
            connection.execute(insert, [moment])
        connection.execute(insert + " - interval '1 second'", [row["midnight"]])
    assert scrape(shop.settings)["recstore_runs_total"]["retail", "prune", "failed"] == 2


def test_a_schedule_is_overdue_from_its_first_request_until_a_retrain_succeeds(shop: Database) -> None:
    def overdue() -> float:
        return scrape(shop.settings)["recstore_retrain_overdue_seconds"]["retail",]

    def ask(origin: str, hours: int) -> None:
        statement = (
            "UPDATE recstore_private.requests SET requested_at = now() - make_interval(hours => %s) WHERE request = %s"
        )
        with shop.connect() as connection:
            number = requests.insert(connection, "retail", "retrain", origin)  # type: ignore[arg-type]
            connection.execute(statement, [hours, number])

    shop.create(filters=Filters(min_item_views=10**9), schedule=Schedule(cron="0 3 * * *"))
    ask("sql", 9)
    assert overdue() == 0
    ask("schedule", 5)
    assert 5 * 3600 <= overdue() < 5 * 3600 + 60
    with pytest.raises(NothingLeft):
        shop.retrain()
    ask("schedule", 4)
    assert 5 * 3600 <= overdue() < 5 * 3600 + 60  # both requests failed, or wait
    shop.alter(schedule=Schedule())
    assert overdue() == 0
    shop.alter(filters=Filters(), schedule=Schedule(cron="0 3 * * *"))
    shop.retrain()
    assert overdue() == 0


@pytest.mark.parametrize("name", ["empty", "shop"])
def test_one_of_which_nothing_is_known_yet(name: str, request: pytest.FixtureRequest) -> None:
    database: Database = request.getfixturevalue(name)
    found = scrape(database.settings)
    assert found.pop("recstore_database_up") == {(): float(name == "shop")}
    assert not any(any(rows.values()) for rows in found.values())


def test_a_database_that_is_not_there_or_does_not_answer_is_down(
    shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in ("postgresql://nobody@127.0.0.1:1/none", "nonsense://", None):
        assert scrape(shop.settings.model_copy(update={"database_url": url})) == {"recstore_database_up": {(): 0}}
    monkeypatch.setattr(health, "PATIENCE", 1)
    with shop.connect() as other, other.transaction():
        other.execute("LOCK TABLE recstore_private.runs")
        assert scrape(shop.settings) == {"recstore_database_up": {(): 0}}
    with health.asking(shop.url, "test") as connection:
        connection.execute("SET statement_timeout = 0")  # as if the server were frozen
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT pg_sleep(600)")
