"""The errands of a worker: a job that was requested, a trial of a study, a dispatch. Their outcome is stored and logged."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

import psycopg

from recstore import doctor, pipeline, requests
from recstore import lists as batch_lists
from recstore.background import dispatch as dispatcher
from recstore.config import Settings
from recstore.embedded.configured import database_url
from recstore.errors import ConnectionFailed, ConnectionLost, NothingRequested, RecstoreError, RunInProgress
from recstore.experiments.tuning import work
from recstore.operations import jobs
from recstore.postgres.connection import connect
from recstore.refresh import refresh

from .reporters import LogReporter, LogWatch

log = logging.getLogger(__name__)

LONGEST_PAUSE = 60.0
"""Seconds before a request is taken again for which no run could begin, unless dispatches are more frequent."""

JOBS: dict[requests.Job, Callable[..., Any]] = {
    "retrain": partial(pipeline.retrain, examine=doctor.problems_of),
    "refresh": refresh,
    "reindex": jobs.reindex,
    "prune": jobs.prune,
    "lists": batch_lists.write_defined,
}


def warn(settings: Settings) -> None:
    """Log what doctor finds at once."""
    with suppress(RecstoreError):
        for problem in doctor.problems(settings):
            log.warning("doctor: %s", problem)


def do_job(settings: Settings, job: requests.Job, name: str) -> None:
    """Run a job that is requested. Raises ConnectionFailed if it could not begin."""
    url = database_url(settings)
    reporter = LogReporter(log, job, name)
    try:
        JOBS[job](url, settings, name, reporter=reporter, requested=True, time_limit=settings.time_limit)
    except NothingRequested:
        log.info("%s %s: done already", job, name)
    except RunInProgress as error:
        log.info("%s %s waits: %s", job, name, error.message)
        with connect(url) as connection:
            requests.unsend(connection, name, job, f"Waits: {error.message}")
            requests.notify(connection)  # that run may have ended just before
    except ConnectionFailed:
        raise
    except KeyboardInterrupt:
        log.error("%s %s: interrupted", job, name)
        with suppress(RecstoreError, psycopg.Error), connect(url) as connection:
            requests.unsend(connection, name, job)
    except RecstoreError as error:
        log.error("%s %s: %s", job, name, error.message)
        with suppress(RecstoreError, psycopg.Error), connect(url) as connection:  # those that it did not begin
            pause = min(settings.dispatch_interval, LONGEST_PAUSE)
            requests.unsend(connection, name, job, f"Waits: {error.message}", pause)


def do_trial(settings: Settings, study: str) -> bool:
    """Run one trial of a study, or measure its winner; return whether there was anything to do. Raises ConnectionFailed,
    ConnectionLost."""
    watch, reporter = LogWatch(log, f"study {study}"), LogReporter(log, "study", study)
    try:
        done = work.work_on(database_url(settings), settings, int(study), watch=watch, reporter=reporter, message=True)
        log.info("study %s: %s", study, done.value)
        return done is not work.Step.WAITING
    except (ConnectionFailed, ConnectionLost):
        raise
    except KeyboardInterrupt:
        log.error("study %s: a trial took longer than RECSTORE_TIME_LIMIT and was interrupted", study)
    except RecstoreError as error:
        log.error("study %s: %s", study, error.message)
    return True


def do_dispatch(settings: Settings, send: dispatcher.Send | None, pause: float) -> None:
    """Dispatch everything that is due, unless a dispatch began less than `pause` seconds ago."""
    try:
        report(dispatcher.dispatch(database_url(settings), settings, send, pause=pause))
    except RecstoreError as error:
        log.error("dispatch: %s", error.message)


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


def let_interrupt() -> None:
    """Let SIGUSR1, the soft time limit, interrupt the run, which then reports why it ended; psycopg cancels its query."""
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
