"""Dispatch due work: turn schedules into requests, give requests to workers, and clean up after dead runs.

The workers call it every minute or so, and whenever a request comes in; of several at once each thing is done once. Nothing
here takes long or waits for a lock, and a problem with one recommender does not hold up the others.
"""

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from recstore import registry, requests, schedule
from recstore.background.due import Errand, take_trials, unsend_trials
from recstore.background.health import last_dispatch
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
"""Seconds past its deadline after which a run's session is terminated, because the worker's own limit has failed to."""

Send = Callable[[Errand, str], None]
"""Sends the message that wakes a worker for a job of a recommender, or for a trial of a study. Raises RecstoreError."""


@dataclass
class Dispatched:
    """The actions of a dispatch."""

    scheduled: list[str] = field(default_factory=list)
    sent: list[tuple[Errand, str]] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    tidied: list[str] = field(default_factory=list)
    published: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def dispatch(url: str, settings: Settings, send: Send | None, *, pause: float = 0) -> Dispatched:
    """Dispatch everything that is due, unless a dispatch began less than `pause` seconds ago. Without `send` requests wait for
    the workers that listen.

    Raises RecstoreError only for a missing connection or a wrong schema.
    """
    done = Dispatched()
    # a later dispatch does what would have to wait now
    impatient = settings.model_copy(update={"lock_attempts": 2, "flip_wait": 0, "prune_wait": 0})
    with connect(url, APPLICATION_NAME) as connection, plain_errors("dispatching", connection):

        def each(query: str, act: Callable[[dict[str, Any]], None]) -> None:
            for row in connection.execute(queries.query(query)).fetchall():
                _guard(connection, done, row["name"], partial(act, row))

        require_current(connection)
        if (last := last_dispatch(connection)) is not None and last < pause:
            return done
        connection.execute(queries.query("note_dispatch"), {"host": socket.gethostname()})
        each("scheduled_recommenders", lambda row: _schedule(connection, row, done))
        if send:
            send_due(connection, settings, send, done)
        for row in connection.execute(queries.query("overdue_backends"), {"grace": GRACE}).fetchall():
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", [row["pid"]])
            done.ended.append(row["run"])
        each("abandoned_lists", lambda row: _abandon_lists(connection, settings, row["name"]))
        each("untidy_recommenders", lambda row: _tidy(url, connection, impatient, row, done))
        connection.execute(queries.query("forgotten_requests"))
        for query in ("cancel_again", "forget_cancellations"):
            connection.execute(queries.query(query))
        requests.settle_ready(connection)
        for query in ("forget_requests", "forget_runs", "forget_dispatches", "forget_studies"):
            connection.execute(queries.query(query), {"days": settings.history})
    return done


def send_due(connection: Connection, settings: Settings, send: Send, done: Dispatched | None = None) -> Dispatched:
    """Send a message for each due request, and for missing trials of studies. A later dispatch retries what fails."""
    done = done or Dispatched()
    for row in requests.take_due(connection, settings):
        job, name = row["job"], row["recommender"]
        try:
            send(job, name)
            done.sent.append((job, name))
        except RecstoreError as error:
            requests.unsend(connection, name, job)
            done.problems.append(f"{name}: {error.message}")
    for row in take_trials(connection, settings):
        study = row["study"]
        for sent in range(row["messages"]):
            try:
                send("trial", str(study))
                done.sent.append(("trial", str(study)))
            except RecstoreError as error:
                unsend_trials(connection, study, row["messages"] - sent)
                done.problems.append(f"study {study}: {error.message}")
                break
    return done


def _guard(connection: Connection, done: Dispatched, name: str, act: Callable[[], None]) -> None:
    """Act on one recommender, and note an error instead of raising it."""
    try:
        act()
    except RunInProgress:  # that run does it itself
        pass
    except Exception as error:
        if connection.closed:
            raise
        done.problems.append(f"{name}: {error.message if isinstance(error, RecstoreError) else one_line(error)}")
        log.debug("dispatching %s", name, exc_info=True)


def _schedule(connection: Connection, row: dict[str, Any], done: Dispatched) -> None:
    """Insert a request for a recommender that is due: one, however many times were missed."""
    ahead = row["scheduled_at"] > row["now"]  # set by a wrong clock; without this the schedule would stop until then
    due = schedule.next_time(row["cron"], row["timezone"], row["scheduled_at"])
    if not ahead and (due is None or due > row["now"]):
        return
    with connection.transaction():
        advance = "advance_schedule" if row["job"] == "retrain" else f"advance_{row['job']}"
        if connection.execute(queries.query(advance), row).fetchone() is None or ahead:
            return
        key = {"recommender": row["name"], "job": row["job"]}
        if connection.execute(queries.query("schedule_waits"), key).fetchone() is None:
            requests.insert(connection, row["name"], row["job"], "schedule")
            done.scheduled.append(row["name"])


def _abandon_lists(connection: Connection, settings: Settings, name: str) -> None:
    """Close the row of a lists run whose process is gone; it left nothing else. Its requests wait for another run."""
    recommender = registry.get(connection, name)
    take_lock(connection, recommender, LISTS_NAMESPACE)
    try:
        with connection.transaction():
            abandon(connection, settings, recommender, lists=True)
    finally:
        if not connection.closed:
            give_lock(connection, recommender, LISTS_NAMESPACE)


def _tidy(url: str, connection: Connection, settings: Settings, row: dict[str, Any], done: Dispatched) -> None:
    """Advance what other transactions held up: publish or remove a generation that nothing blocks any more."""
    recommender = registry.get(connection, row["name"])
    if row["blocked"]:
        generations.advance_attached(connection, recommender)
    if row["ready"] and not flipping.look_again(connection, recommender):
        if jobs.publish(url, settings, row["name"], release=False).live:
            done.published.append(row["name"])
    elif row["abandoned"] or (row["leftovers"] and not generations.held_up(connection, recommender)):
        jobs.prune(url, settings, row["name"])
        done.tidied.append(row["name"])
