"""Whether a Celery worker is alive and ready, and the metrics of its broker."""

import logging
import time
from collections.abc import Iterator
from typing import Any, ClassVar

from celery import bootsteps
from celery.worker import state
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from recstore.background import due
from recstore.background.messages import queue_lengths
from recstore.config import Settings
from recstore.errors import BrokerUnreachable, RecstoreError

from .. import monitoring
from .app import app

log = logging.getLogger(__name__)

BEAT = 5.0
"""Seconds between two beats of the main loop's pulse."""

QUEUES = (*sorted(due.QUEUES), "celery")
"""Queues that workers take from; Celery's default, `celery`, is where applications send that name none."""


class Pulse(bootsteps.StartStopStep):  # type: ignore[misc]
    """Beats while the main loop turns. Between stop and start it need not: the worker waits for its broker or its jobs."""

    requires = ("celery.worker.consumer.connection:Connection",)
    last: float | None = None
    """Time of the last beat (time.monotonic); None while it need not beat."""
    waiting: ClassVar[dict[str, float]] = {}
    """Tasks that the pool has not begun although it has a free process, each with the time when that was first seen."""

    def start(self, consumer: Any) -> None:
        Pulse.beat(consumer.pool)
        consumer.timer.call_repeatedly(BEAT, Pulse.beat, (consumer.pool,))

    def stop(self, _consumer: Any) -> None:
        Pulse.last, Pulse.waiting = None, {}

    @staticmethod
    def beat(pool: Any) -> None:
        Pulse.last = now = time.monotonic()
        free = len(state.active_requests) < pool.num_processes
        tasks = [task.id for task in state.reserved_requests - state.active_requests] if free else []
        Pulse.waiting = {task: Pulse.waiting.get(task, now) for task in tasks}


class BrokerCollector(Collector):
    """Metrics of the broker that this worker takes its messages from. Never raises, and ends within seconds."""

    def describe(self) -> Iterator[Metric]:
        """Yield every metric without samples."""
        return self._metrics(0, {})

    def collect(self) -> Iterator[Metric]:
        try:
            return self._metrics(1, queue_lengths(app.conf.broker_url, QUEUES))
        except BrokerUnreachable as error:
            log.warning("no metrics of the broker at the moment: %s", error.message)
            return self._metrics(0, {})

    def _metrics(self, up: int, lengths: dict[str, int]) -> Iterator[Metric]:
        yield GaugeMetricFamily("recstore_broker_up", "1 if the broker answered; 0 if it could not be reached.", up)
        messages = GaugeMetricFamily(
            "recstore_queue_messages", "Messages in a queue that no worker has taken yet.", labels=("queue",)
        )
        for queue, length in lengths.items():
            messages.add_metric([queue], length)
        yield messages


def not_alive() -> str | None:
    """Return why this worker should be restarted. Checks no server: a restart would fix neither database nor broker."""
    return monitoring.silence(Pulse.last)


def not_ready(settings: Settings) -> str | None:
    """Return why this worker cannot work at the moment."""
    try:
        monitoring.check_database(settings)
        queue_lengths(app.conf.broker_url)
    except RecstoreError as error:
        return error.message
    if Pulse.last is None:
        return "The worker takes no messages: it waits for its broker, or is being stopped."
    return monitoring.stuck(Pulse.waiting.values())
