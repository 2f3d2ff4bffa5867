"""The Celery app and its configuration, all of it from recstore's settings."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from kombu.entity import Exchange, Queue

from recstore.background import due
from recstore.config import Settings, load_settings
from recstore.embedded.configured import broker_url
from recstore.errors import RecstoreError

from ..logs import FORMAT
from . import screening

ANSWER = 5
"""Seconds that the broker may take to accept a connection, and to answer a command."""


def configure(settings: Settings) -> dict[str, object]:
    """Return Celery's settings: JSON only, one message at a time, acknowledged when its run has ended."""
    broker = broker_url(settings)
    return {
        "broker_url": broker,
        "broker_read_url": broker,  # otherwise CELERY_BROKER_URL, perhaps another application's, comes first
        "broker_write_url": broker,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # a training continues without a broker
        "broker_transport_options": {
            "visibility_timeout": settings.visibility_timeout,
            "socket_timeout": ANSWER,
            "socket_connect_timeout": ANSWER,
        },
        "accept_content": ["json"],
        "task_serializer": "json",
        "task_ignore_result": True,
        "task_queues": [Queue(name, Exchange(name), routing_key=name) for name in sorted(due.QUEUES)],
        "task_default_queue": "default",
        "task_routes": {f"recstore.{task}": {"queue": "train"} for task in (*due.QUEUES["train"], "trial")},
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,  # the dispatcher cleans up, and counts the attempts
        "task_soft_time_limit": settings.time_limit,
        "task_time_limit": settings.time_limit + due.MARGIN,
        "worker_enable_remote_control": settings.remote_control,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # the run needs no broker; a second one does nothing
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,
        "worker_log_format": FORMAT,
        "worker_task_log_format": FORMAT,
        "beat_scheduler": "celery.beat:Scheduler",  # keeps its one entry in memory, not in a file
        "beat_max_loop_interval": settings.dispatch_interval,
        "beat_schedule": {
            "dispatch": {
                "task": "recstore.dispatch",
                "schedule": settings.dispatch_interval,
                "options": {"queue": "default"},  # without `expires`, which compares the clocks of two hosts
            }
        },
        "timezone": "UTC",
    }


@contextmanager
def exit_on_error() -> Iterator[None]:
    """End the process with the error alone, not with Celery's report of it."""
    try:
        yield
    except RecstoreError as error:
        sys.stderr.write(f"Error: {error.message}\n")
        sys.exit(error.exit_code)


class Application(Celery):  # type: ignore[misc]
    """Celery's application with recstore's own worker."""

    @property
    def Worker(self) -> Any:
        screening.install()  # in a worker alone: a process that only sends may consume other applications' messages
        return self.subclass_with_self(f"{__package__}.lifecycle:Worker")


app = Application("recstore", include=[f"{__package__}.tasks"])
with exit_on_error():
    app.conf.update(configure(load_settings()))
