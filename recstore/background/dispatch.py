"""One look at what is due: schedules become requests, requests become messages, and what dead or waiting runs left is seen to.

Called by the workers, every minute or so and whenever a request comes in; several at once do each thing once. Nothing here
takes long or waits for anybody, and what goes wrong with one recommender holds up no other.
"""

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from recstore import registry, requests, schedule
from recstore.config import Settings
from recstore.errors import RecstoreError, RunInProgress
from recstore.operations import jobs
from recstore.postgres.connection import Connection, connect, one_line, plain_errors
from recstore.publication import flipping, generations
from recstore.runs import LISTS_NAMESPACE, abandon, give_lock, take_lock
from recstore.sql import queries
from recstore.sql.schema_revision import require_current

log = logging.getLogger(__name__)

APPLICATION_NAME = "recstore:dispatch"

GRACE = 60.0
"""Seconds past its deadline after which a run's session is ended: by then the worker's own limit has failed to."""

Errand = requests.Job | Literal["trial"]

Send = Callable[[Errand, str], None]
"""Sends the message that wakes a worker for a job of a recommender, or for a trial of a study. Raises RecstoreError when it
can not."""


@dataclass
class Dispatched:
    """What a dispatch did."""

    scheduled: list[str] = field(default_factory=list)
    sent: list[tuple[Errand, str]] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    tidied: list[str] = field(default_factory=list)
    published: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON, without what is empty."""
        return {name: value for name, value in vars(self).items() if value}


def dispatch(url: str, settings: Settings, send: Send) -> Dispatched:
    """Everything that is due. Raises RecstoreError only where nothing could be looked at: no connection, wrong schema."""
    done = Dispatched()
    # nobody is waited for here: what can not be done now is done by a later dispatch
    impatient = settings.model_copy(update={"lock_attempts": 2, "flip_wait": 0, "prune_wait": 0})
    with connect(url, APPLICATION_NAME) as connection, plain_errors("dispatching", connection):
        require_current(connection)
        connection.execute(queries.query("note_dispatch"), {"host": socket.gethostname()})
        for row in connection.execute(queries.query("scheduled_recommenders")).fetchall():
            _each(connection, done, row["name"], partial(_schedule, connection, row, done))
        send_due(connection, settings, send, done)
        _end_overdue(connection, done)
        for row in connection.execute(queries.query("abandoned_lists")).fetchall():
            _each(connection, done, row["name"], partial(_abandon_lists, connection, settings, row["name"]))
        untidy = connection.execute(queries.query("untidy_recommenders")).fetchall()
        for row in untidy:
            _each(connection, done, row["name"], partial(_tidy, url, connection, impatient, row, done))
        connection.execute(queries.query("forgotten_requests"))
        requests.settle_ready(connection)
        for query in ("forget_requests", "forget_runs", "forget_dispatches", "forget_studies"):
            connection.execute(queries.query(query), {"days": settings.history})
    return done


def send_due(connection: Connection, settings: Settings, send: Send, done: Dispatched | None = None) -> Dispatched:
    """Sends a message for whatever is asked for and due, and for trials of studies. What can not be sent waits for the next
    dispatch."""
    done = done or Dispatched()
    for row in requests.take_due(connection, settings):
        job, name = row["job"], row["recommender"]
        try:
            send(job, name)
            done.sent.append((job, name))
        except RecstoreError as error:
            requests.unsend(connection, name, job)
            done.problems.append(f"{name}: {error.message}")
    _send_trials(connection, settings, send, done)
    return done


def _send_trials(connection: Connection, settings: Settings, send: Send, done: Dispatched) -> None:
    """As many messages as studies lack trials at work."""
    for row in connection.execute(queries.query("take_due_trials"), {"resend": settings.resend}).fetchall():
        study = row["study"]
        for sent in range(row["messages"]):
            try:
                send("trial", str(study))
                done.sent.append(("trial", str(study)))
            except RecstoreError as error:
                left = {"study": study, "messages": row["messages"] - sent}
                connection.execute(queries.query("unsend_trials"), left)
                done.problems.append(f"study {study}: {error.message}")
                break


def _each(connection: Connection, done: Dispatched, name: str, look: Callable[[], None]) -> None:
    try:
        look()
    except RunInProgress:  # it looks after itself
        pass
    except Exception as error:
        if connection.closed:
            raise
        done.problems.append(f"{name}: {error.message if isinstance(error, RecstoreError) else one_line(error)}")
        log.debug("while looking after %s", name, exc_info=True)


def _schedule(connection: Connection, row: dict[str, Any], done: Dispatched) -> None:
    """A request for a recommender whose time has come, once for however many times were missed."""
    ahead = row["scheduled_at"] > row["now"]  # of a clock that was wrong: or the schedule would stand still until then
    due = schedule.next_time(row["cron"], row["timezone"], row["scheduled_at"])
    if not ahead and (due is None or due > row["now"]):
        return
    with connection.transaction():
        advance = "advance_schedule" if row["job"] == "retrain" else "advance_lists"
        if connection.execute(queries.query(advance), row).fetchone() is None or ahead:
            return
        asked = {"recommender": row["name"], "job": row["job"]}
        if connection.execute(queries.query("schedule_waits"), asked).fetchone() is None:
            requests.insert(connection, row["name"], row["job"], "schedule")
            done.scheduled.append(row["name"])


def _end_overdue(connection: Connection, done: Dispatched) -> None:
    """Ends the sessions of runs that are long past their deadline: their process hangs, and would hold the lock for ever."""
    for row in connection.execute(queries.query("overdue_backends"), {"grace": GRACE}).fetchall():
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", [row["pid"]])
        done.ended.append(row["run"])


def _abandon_lists(connection: Connection, settings: Settings, name: str) -> None:
    """Ends the row of a run whose process is gone; its requests wait for another. It left nothing else behind."""
    recommender = registry.get(connection, name)
    take_lock(connection, recommender, LISTS_NAMESPACE)
    try:
        with connection.transaction():
            abandon(connection, settings, recommender, lists=True)
    finally:
        if not connection.closed:
            give_lock(connection, recommender, LISTS_NAMESPACE)


def _tidy(url: str, connection: Connection, settings: Settings, row: dict[str, Any], done: Dispatched) -> None:
    """Waits that other transactions held up go on, and end in a flip or a removal where nobody holds them up any more."""
    recommender = registry.get(connection, row["name"])
    if row["blocked"]:
        generations.advance_attached(connection, recommender)
    if row["ready"] and not flipping.look_again(connection, recommender):
        jobs.publish(url, settings, row["name"])
        done.published.append(row["name"])
    elif row["abandoned"] or (row["leftovers"] and not generations.held_up(connection, recommender)):
        jobs.prune(url, settings, row["name"])
        done.tidied.append(row["name"])
