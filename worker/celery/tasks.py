"""The Celery tasks: `recstore.retrain`, `recstore.refresh`, `recstore.reindex`, `recstore.prune` and `recstore.lists` with a
recommender's name, which any application may send; beat's `recstore.dispatch`; and `recstore.trial`, which only the
dispatcher sends.

An application's message becomes a request; the dispatcher's own (`requested`) wakes a worker that serves requests. So a
message that comes twice, late, or to the wrong queue is harmless: the database knows what is requested.
"""

import kombu.exceptions
from celery import Task
from celery.utils.log import get_task_logger

from recstore import requests
from recstore.background import dispatch as dispatcher
from recstore.background.due import Errand
from recstore.config import Settings, load_settings
from recstore.embedded.configured import database_url
from recstore.errors import BrokerUnreachable, ConnectionFailed, ConnectionLost, RecstoreError
from recstore.postgres.connection import connect, plain_errors
from recstore.sql.schema_revision import require_current

from .. import errands
from .app import app

log = get_task_logger(__name__)

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
        if not isinstance(name, str) or "\0" in name:
            log.error('a message of recstore.%s names no recommender; send it as ("recstore.%s", ["NAME"])', job, job)
        elif requested:
            errands.let_interrupt()
            errands.do_job(load_settings(), job, name)
        else:
            _register(load_settings(), job, name, self.request.id)

    return work


TASKS = {job: _task(job) for job in errands.JOBS}


@app.task(name="recstore.trial", base=Job)
def trial(study: object = None, requested: bool = False) -> None:  # noqa: ARG001
    """Run one trial of a study, or measure its winner."""
    if not isinstance(study, str) or not study.isdecimal():
        log.error("a message of recstore.trial names no study; recstore tune NAME --background starts one")
        return
    errands.let_interrupt()
    errands.do_trial(load_settings(), study)


@app.task(name="recstore.dispatch", ignore_result=True)
def dispatch() -> None:
    """Dispatch everything that is due; beat sends this task every RECSTORE_DISPATCH_INTERVAL seconds."""
    settings = load_settings()
    errands.do_dispatch(settings, send, min(PAUSE, settings.dispatch_interval / 2))


def send(job: Errand, name: str) -> None:
    """Wake a worker for a job of a recommender, or for a trial of a study.

    The message does not expire: Celery would compare the clocks of two hosts. The database knows what is still requested.
    Raises BrokerUnreachable.
    """
    try:
        app.send_task(f"recstore.{job}", [name], {"requested": True})
    except kombu.exceptions.OperationalError as error:
        raise BrokerUnreachable(reason=str(error)) from error


def _register(settings: Settings, job: requests.Job, name: str, task_id: str) -> None:
    """Turn an application's message into a request, once, and send it on to the right queue."""
    try:
        with (
            connect(database_url(settings)) as connection,
            plain_errors(f"taking a message for {name!r}", connection),
        ):
            require_current(connection)
            new = requests.register(connection, name, job, task_id)
            log.info("%s %s: %s", job, name, "requested by a message" if new else "this message came before")
            errands.report(dispatcher.send_due(connection, settings, send))
    except RecstoreError as error:
        log.error("%s %s: %s", job, name, error.message)
        if error.passing:
            raise
