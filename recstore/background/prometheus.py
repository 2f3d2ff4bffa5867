"""Metrics of the recommenders for Prometheus, all read from the database at each scrape: no process counts anything.

So every worker exports the same, and a restarted worker has lost nothing. Imports neither Celery nor Redis.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from recstore import requests
from recstore.background import health
from recstore.config import Settings
from recstore.embedded.configured import database_url
from recstore.errors import RecstoreError
from recstore.sql import queries

log = logging.getLogger(__name__)

Rows = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Series:
    """A metric as a column of a named query: a sample per row, except where the column is NULL. Labels are columns, too."""

    query: str
    labels: tuple[str, ...]
    name: str
    column: str
    help: str

    def metric(self, rows: Rows) -> Metric:
        kind = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        metric = kind(self.name, self.help, labels=self.labels)
        for row in rows.get(self.query, []):
            if row[self.column] is not None:
                metric.add_metric([row[label] for label in self.labels], float(row[self.column]))
        return metric


UP = "recstore_database_up"
UP_HELP = (
    "1 if the database answered; 0 if it could not be reached or refused, and then the only metric of the database."
)

JOB = ("recommender", "recstore_job")

TABLE: dict[tuple[str, tuple[str, ...]], list[tuple[str, str, str]]] = {
    ("metrics_recommenders", ("recommender",)): [
        (
            "recstore_last_success_timestamp_seconds",
            "last_success",
            "When the last retrain ended that did not fail: it trained, or was skipped because the source had nothing new.",
        ),
        (
            "recstore_retrain_overdue_seconds",
            "overdue",
            "Seconds since the schedule first asked for a retrain, if none has succeeded since; otherwise 0.",
        ),
        ("recstore_live_generation", "live_generation", "Number of the live generation."),
        (
            "recstore_live_age_seconds",
            "live_age",
            "Seconds since the live generation was trained. A skipped retrain does not reset it.",
        ),
        ("recstore_live_users", "users", "Users of the live generation."),
        ("recstore_live_items", "items", "Items of the live generation."),
        (
            "recstore_live_interactions",
            "interactions",
            "Pairs of user and item that the live generation was trained on, after the filters.",
        ),
        ("recstore_live_factors", "factors", "Factors of the live generation."),
        (
            "recstore_ready_generations",
            "ready",
            "Generations newer than the live one that are ready, but wait for other transactions to end.",
        ),
        (
            "recstore_ready_age_seconds",
            "ready_age",
            "Seconds that the newest generation has waited to go live; 0 if none waits.",
        ),
    ],
    ("metrics_recommenders", (*JOB, "stage")): [
        ("recstore_running", "running", "1 while a run is in progress, with its job and stage; otherwise 0."),
    ],
    ("metrics_queries", ("recommender", "query")): [
        (
            "recstore_live_ann_recall_ratio",
            "ann_recall",
            "ANN recall@10 of the live generation for a kind of query (recommend, similar, users), as last calibrated.",
        ),
        (
            "recstore_live_query_seconds",
            "seconds",
            "Median seconds of a vector search of that kind in the live generation, as last calibrated.",
        ),
    ],
    ("metrics_held_out", ("recommender", "model")): [
        (
            "recstore_live_ndcg_ratio",
            "ndcg",
            "NDCG@20 on the held-out pairs of the live generation when it was trained (model live), and of popularity on the"
            " same pairs; missing where too few users were held out.",
        ),
        (
            "recstore_live_rmse",
            "rmse",
            "RMSE of the predicted ratings on the same pairs, of the live generation (model live) and of biases; explicit"
            " feedback only.",
        ),
    ],
    ("metrics_runs", (*JOB, "state")): [
        (
            "recstore_runs_total",
            "runs",
            "Runs that ended since midnight UTC, by how they ended. Begins at 0 each day, which rate() and increase() take into"
            " account; so the deletion of old history (RECSTORE_HISTORY) changes nothing.",
        ),
    ],
    ("metrics_last_runs", JOB): [
        (
            "recstore_last_run_succeeded",
            "succeeded",
            "1 if the last run of a job that ended did not fail, 0 if it failed or was abandoned.",
        ),
        ("recstore_last_run_duration_seconds", "seconds", "Seconds that the last run of a job took."),
        (
            "recstore_last_run_wal_bytes",
            "wal_bytes",
            "WAL that the last run of a job wrote: its own from PostgreSQL 18 on, before that the whole server's meanwhile.",
        ),
    ],
    ("metrics_stages", ("recommender", "stage")): [
        (
            "recstore_last_retrain_stage_seconds",
            "seconds",
            "Seconds of each stage of the last retrain that trained to its end.",
        ),
    ],
    ("metrics_requests", JOB): [
        ("recstore_requests_waiting", "waiting", "Requests that no run has begun to serve."),
        (
            "recstore_oldest_request_age_seconds",
            "oldest",
            "Seconds that the oldest of those has waited; 0 if there is none.",
        ),
    ],
    ("metrics_queues", ("queue",)): [
        (
            "recstore_queue_workers",
            "workers",
            "Workers that serve a queue, by their sessions in the database.",
        ),
    ],
    ("metrics_dispatches", ("host",)): [
        (
            "recstore_dispatch_age_seconds",
            "age",
            "Seconds since the workers of a host last dispatched; hosts of the last day.",
        ),
    ],
}
"""Query and labels -> name, column and help of its metrics."""

SERIES = tuple(Series(*source, *metric) for source, metrics in TABLE.items() for metric in metrics)


class DatabaseCollector(Collector):
    """Queries the database at each scrape, over a connection of its own. Never raises, and ends within seconds."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def describe(self) -> Iterator[Metric]:
        """Yield every metric without samples."""
        yield GaugeMetricFamily(UP, UP_HELP)
        yield from (series.metric({}) for series in SERIES)

    def collect(self) -> Iterator[Metric]:
        try:
            rows = self._rows()
        except RecstoreError as error:
            log.warning("no metrics of the database at the moment: %s", error.message)
            yield GaugeMetricFamily(UP, UP_HELP, 0)
            return
        yield GaugeMetricFamily(UP, UP_HELP, 1)
        yield from (series.metric(rows) for series in SERIES)

    def _rows(self) -> Rows:
        keys = {"jobs": list(get_args(requests.Job)), "listening": health.LISTENING}
        with health.asking(database_url(self.settings), "recstore:metrics") as connection:
            names = dict.fromkeys(series.query for series in SERIES)
            return {name: connection.execute(queries.query(name), keys).fetchall() for name in names}
