"""What Prometheus is told of the recommenders: all of it read from the database when it asks, nothing counted in a process.

So every worker tells the same, and a worker that was restarted has forgotten nothing. Knows no Celery and no Redis.
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
    """A metric as a column of a named query: a sample per row, but where the column is NULL. Labels are columns, too."""

    name: str
    help: str
    query: str
    column: str
    labels: tuple[str, ...] = ("recommender",)

    def metric(self, rows: Rows) -> Metric:
        kind = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        metric = kind(self.name, self.help, labels=self.labels)
        for row in rows.get(self.query, []):
            if row[self.column] is not None:
                metric.add_metric([row[label] for label in self.labels], float(row[self.column]))
        return metric


UP = "recstore_database_up"
UP_HELP = "1 if the database answered; 0 if it could not be reached or refused, and then it is all that is told."

JOB = ("recommender", "recstore_job")

SERIES = (
    Series(
        "recstore_last_success_timestamp_seconds",
        "When the last retrain ended that did not fail: it trained, or was skipped because the source had nothing new.",
        "metrics_recommenders",
        "last_success",
    ),
    Series("recstore_live_generation", "Number of the live generation.", "metrics_recommenders", "live_generation"),
    Series(
        "recstore_live_age_seconds",
        "Seconds since the live generation was trained. A skipped retrain does not make it younger.",
        "metrics_recommenders",
        "live_age",
    ),
    Series("recstore_live_users", "Users of the live generation.", "metrics_recommenders", "users"),
    Series("recstore_live_items", "Items of the live generation.", "metrics_recommenders", "items"),
    Series(
        "recstore_live_interactions",
        "Pairs of user and item that the live generation was trained on, after the filters.",
        "metrics_recommenders",
        "interactions",
    ),
    Series("recstore_live_factors", "Factors of the live generation.", "metrics_recommenders", "factors"),
    Series(
        "recstore_live_ann_recall_ratio",
        "ANN recall@10 of the live generation for a kind of query (recommend, similar, users), as last calibrated.",
        "metrics_queries",
        "ann_recall",
        ("recommender", "query"),
    ),
    Series(
        "recstore_live_query_seconds",
        "Median seconds of a vector search of that kind in the live generation, as last calibrated.",
        "metrics_queries",
        "seconds",
        ("recommender", "query"),
    ),
    Series(
        "recstore_live_ndcg_ratio",
        "NDCG@20 on the held-out pairs of the live generation when it was trained (model live), and of popularity on the same"
        " pairs; none where too few users were held out.",
        "metrics_held_out",
        "ndcg",
        ("recommender", "model"),
    ),
    Series(
        "recstore_ready_generations",
        "Generations newer than the live one that are ready, but wait for other transactions to end.",
        "metrics_recommenders",
        "ready",
    ),
    Series(
        "recstore_ready_age_seconds",
        "Seconds that the newest generation has waited to go live; 0 if none waits.",
        "metrics_recommenders",
        "ready_age",
    ),
    Series(
        "recstore_running",
        "1 while a run is in progress, with its job and stage; else 0.",
        "metrics_recommenders",
        "running",
        (*JOB, "stage"),
    ),
    Series(
        "recstore_runs_total",
        "Runs that ended since midnight UTC, by how they ended. Begins at 0 each day, which rate() and increase() take into"
        " account; so the deletion of old history (RECSTORE_HISTORY) changes nothing.",
        "metrics_runs",
        "runs",
        (*JOB, "state"),
    ),
    Series(
        "recstore_last_run_succeeded",
        "1 if the last run of a job that ended did not fail, 0 if it failed or was abandoned.",
        "metrics_last_runs",
        "succeeded",
        JOB,
    ),
    Series(
        "recstore_last_run_duration_seconds",
        "Seconds that the last run of a job took.",
        "metrics_last_runs",
        "seconds",
        JOB,
    ),
    Series(
        "recstore_last_run_wal_bytes",
        "WAL that the last run of a job wrote: its own from PostgreSQL 18 on, before that the whole server's meanwhile.",
        "metrics_last_runs",
        "wal_bytes",
        JOB,
    ),
    Series(
        "recstore_last_retrain_stage_seconds",
        "Seconds of each stage of the last retrain that trained to its end.",
        "metrics_stages",
        "seconds",
        ("recommender", "stage"),
    ),
    Series("recstore_requests_waiting", "Requests that no run has begun to serve.", "metrics_requests", "waiting", JOB),
    Series(
        "recstore_oldest_request_age_seconds",
        "Seconds that the oldest of those has waited; 0 if there is none.",
        "metrics_requests",
        "oldest",
        JOB,
    ),
    Series(
        "recstore_dispatch_age_seconds",
        "Seconds since the workers of a host last looked for due work, beat's doing; of the hosts of the last day.",
        "metrics_dispatches",
        "age",
        ("host",),
    ),
)


class DatabaseCollector(Collector):
    """Asks the database at each scrape, over a connection of its own. Never raises, and ends within seconds."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def describe(self) -> Iterator[Metric]:
        """Every metric, without asking anything."""
        yield GaugeMetricFamily(UP, UP_HELP)
        yield from (series.metric({}) for series in SERIES)

    def collect(self) -> Iterator[Metric]:
        try:
            rows = self._rows()
        except RecstoreError as error:
            log.warning("no metrics for the moment: %s", error.message)
            yield GaugeMetricFamily(UP, UP_HELP, 0)
            return
        yield GaugeMetricFamily(UP, UP_HELP, 1)
        yield from (series.metric(rows) for series in SERIES)

    def _rows(self) -> Rows:
        keys = {"jobs": list(get_args(requests.Job))}
        with health.asking(database_url(self.settings), "recstore:metrics") as connection:
            names = dict.fromkeys(series.query for series in SERIES)
            return {name: connection.execute(queries.query(name), keys).fetchall() for name in names}
