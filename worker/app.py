"""The Celery app and its configuration, all of it from recstore's settings."""

import sys

from celery import Celery
from kombu.entity import Exchange, Queue

from recstore.config import Settings, load_settings
from recstore.embedded.configured import broker_url
from recstore.errors import RecstoreError

MARGIN = 60
"""Seconds between the limit that ends a run with a sentence and the one that kills its process."""


def configure(settings: Settings) -> dict[str, object]:
    """Celery's settings: JSON only; a message is acknowledged when its run has ended, one at a time is taken."""
    broker = broker_url(settings)
    return {
        "broker_url": broker,
        "broker_read_url": broker,  # with these, CELERY_BROKER_URL, perhaps another application's, does not come first
        "broker_write_url": broker,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # a training goes on without a broker; the worker waits for it
        "broker_transport_options": {"visibility_timeout": settings.visibility_timeout},
        "accept_content": ["json"],
        "task_serializer": "json",
        "task_ignore_result": True,
        "task_queues": [Queue(name, Exchange(name), routing_key=name) for name in ("default", "train")],
        "task_default_queue": "default",
        "task_routes": {f"recstore.{task}": {"queue": "train"} for task in ("retrain", "trial")},
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,  # the dispatcher sees to what a lost process left, and counts the attempts
        "task_soft_time_limit": settings.time_limit,
        "task_time_limit": settings.time_limit + MARGIN,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # the run needs no broker; doubled, it does nothing
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,
        "worker_log_format": "%(asctime)s %(levelname)s %(message)s",
        "worker_task_log_format": "%(asctime)s %(levelname)s %(message)s",
        "beat_scheduler": "celery.beat:Scheduler",  # one entry, kept in memory: no file to be left behind
        "beat_max_loop_interval": settings.dispatch_interval,
        "beat_schedule": {
            "dispatch": {
                "task": "recstore.dispatch",
                "schedule": settings.dispatch_interval,
                # on the worker's clock; long enough for clocks that differ a little, short enough not to pile up
                "options": {"queue": "default", "expires": max(2 * settings.dispatch_interval, 120)},
            }
        },
        "timezone": "UTC",
    }


def _settings() -> Settings:
    """A wrong setting ends the process with its sentence, and not with Celery's account of an import that failed."""
    try:
        return load_settings()
    except RecstoreError as error:
        sys.stderr.write(f"Error: {error.message}\n")
        sys.exit(error.exit_code)


app = Celery("recstore", include=[f"{__package__}.tasks"])
app.conf.update(configure(_settings()))
