"""The Celery tasks: `recstore.retrain`, `recstore.refresh`, `recstore.reindex`, `recstore.prune` and `recstore.lists` with a
recommender's name, which any application may send; beat's `recstore.dispatch`; and `recstore.trial`, which only the
dispatcher sends.

An application's message becomes a request; the dispatcher's own (`requested`) wakes a worker that serves requests. So a
message that comes twice, late, or to the wrong queue is harmless: the database knows what is requested.
"""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

import kombu.exceptions
import psycopg
from celery import Task
from celery.utils.log import get_task_logger

from recstore import doctor, pipeline, requests
from recstore import lists as batch_lists
from recstore.background import dispatch as dispatcher
from recstore.config import Settings, load_settings
from recstore.embedded.configured import database_url
from recstore.errors import (
    BrokerUnreachable,
    ConnectionFailed,
    ConnectionLost,
    NothingRequested,
    RecstoreError,
    RunInProgress,
)
from recstore.experiments.tuning import work
from recstore.operations import jobs
from recstore.postgres.connection import connect, plain_errors
from recstore.refresh import refresh
from recstore.sql.schema_revision import require_current

from .app import app
from .logs import LogReporter, LogWatch

log = get_task_logger(__name__)

JOBS: dict[requests.Job, Callable[..., Any]] = {
    "retrain": partial(pipeline.retrain, examine=doctor.problems_of),
    "refresh": refresh,
    "reindex": jobs.reindex,
    "prune": jobs.prune,
    "lists": batch_lists.write_defined,
}

PAUSE = 1.0
"""Seconds between two dispatches: messages of beat that no worker took for long do nothing."""


class Job(Task):  # type: ignore[misc]
    """Retries with growing pauses while the database cannot be reached, and in no other case."""

    autoretry_for = (ConnectionFailed, ConnectionLost)
    max_retries = None
    retry_backoff = 1
    retry_backoff_max = 300


def _task(job: requests.Job) -> Task:
    """Return the task `recstore.<job>`, which takes a recommender's name."""

    @app.task(name=f"recstore.{job}", base=Job, bind=True)
    def work(self: Task, name: object = None, requested: bool = False) -> None:
        _work(self, job, name, requested)

    return work


TASKS = {job: _task(job) for job in JOBS}


@app.task(name="recstore.trial", base=Job)
def trial(study: object = None, requested: bool = False) -> None:  # noqa: ARG001
    """Run one trial of a study, or measure its winner."""
    if not isinstance(study, str) or not study.isdecimal():
        log.error("a message of recstore.trial names no study; recstore tune NAME --background starts one")
        return
    settings = load_settings()
    _limit()
    watch, reporter = LogWatch(log, f"study {study}"), LogReporter(log, "study", study)
    try:
        done = work.work_on(database_url(settings), settings, int(study), watch=watch, reporter=reporter, message=True)
        log.info("study %s: %s", study, done.value)
    except (ConnectionFailed, ConnectionLost):
        raise
    except KeyboardInterrupt:
        log.error("study %s: a trial took longer than RECSTORE_TIME_LIMIT and was interrupted", study)
    except RecstoreError as error:
        log.error("study %s: %s", study, error.message)


@app.task(name="recstore.dispatch", ignore_result=True)
def dispatch() -> None:
    """Dispatch everything that is due; beat sends this task every RECSTORE_DISPATCH_INTERVAL seconds."""
    settings = load_settings()
    try:
        pause = min(PAUSE, settings.dispatch_interval / 2)
        done = dispatcher.dispatch(database_url(settings), settings, send, pause=pause)
    except RecstoreError as error:
        log.error("dispatch: %s", error.message)
        return
    report(done)


def send(job: dispatcher.Errand, name: str) -> None:
    """Wake a worker for a job of a recommender, or for a trial of a study.

    The message does not expire: Celery would compare the clocks of two hosts. The database knows what is still requested.
    Raises BrokerUnreachable.
    """
    try:
        app.send_task(f"recstore.{job}", [name], {"requested": True})
    except kombu.exceptions.OperationalError as error:
        raise BrokerUnreachable(reason=str(error)) from error


def report(done: dispatcher.Dispatched) -> None:
    """Log a line for each action of a dispatch."""
    for name in done.scheduled:
        log.info("%s is due by its schedule", name)
    for errand, name in done.sent:
        log.info("%s %s sent to a worker", errand, name)
    for number in done.ended:
        log.warning("run %s was past its deadline; its session was ended", number)
    for name in done.published:
        log.info("%s: the generation that was ready is live", name)
    for name in done.tidied:
        log.info("%s: the leftovers of a run are removed", name)
    for sentence in done.problems:
        log.error("%s", sentence)


def _work(task: Task, job: requests.Job, name: object, requested: bool) -> None:
    if not isinstance(name, str) or "\0" in name:
        log.error('a message of recstore.%s names no recommender; send it as ("recstore.%s", ["NAME"])', job, job)
        return
    settings = load_settings()
    url = database_url(settings)
    if not requested:
        _register(url, settings, job, name, task.request.id)
        return
    _limit()
    try:
        JOBS[job](
            url, settings, name, reporter=LogReporter(log, job, name), requested=True, time_limit=settings.time_limit
        )
    except NothingRequested:
        log.info("%s %s: done already", job, name)
    except RunInProgress as error:
        log.info("%s %s waits: %s", job, name, error.message)
        with connect(url) as connection:
            requests.unsend(connection, name, job, f"Waits: {error.message}")
            requests.notify(connection)  # that run may have ended just before
    except ConnectionFailed:  # it had not begun
        raise
    except KeyboardInterrupt:
        log.error("%s %s: interrupted by its time limit, before the run began or after it ended", job, name)
    except RecstoreError as error:
        log.error("%s %s: %s", job, name, error.message)
        with suppress(RecstoreError, psycopg.Error), connect(url) as connection:
            requests.unsend(connection, name, job, f"Waits: {error.message}")  # those that it did not begin


def _register(url: str, settings: Settings, job: requests.Job, name: str, task_id: str) -> None:
    """Turn an application's message into a request, once, and send it on to the right queue."""
    try:
        with connect(url) as connection, plain_errors(f"taking a message for {name!r}", connection):
            require_current(connection)
            new = requests.register(connection, name, job, task_id)
            log.info("%s %s: %s", job, name, "requested by a message" if new else "this message came before")
            report(dispatcher.send_due(connection, settings, send))
    except RecstoreError as error:
        log.error("%s %s: %s", job, name, error.message)
        if error.passing:
            raise


def _limit() -> None:
    """Let Celery's soft time limit interrupt the run, which then reports why it ended; psycopg cancels its query."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but only after an import: an interrupted one fails with another error, and so does the next."""
    while frame:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            threading.Timer(0.1, os.kill, [os.getpid(), number]).start()
            return
        frame = frame.f_back
    raise KeyboardInterrupt
