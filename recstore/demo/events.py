"""The demo of background work: a shop's year arrives in a minute, beat has a worker retrain on it, a visitor queries
meanwhile, and the changes of each publication are printed. It has embedded servers of its own, which end with it."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from threading import Event
from typing import Any

from rich.console import Console

from recstore import embedded
from recstore.config import Settings
from recstore.definition import Definition, Hyperparameters, Publication, Schedule, Source
from recstore.demo import TITLES, broker, step
from recstore.demo.story import Story
from recstore.demo.traffic import Arrivals, Visitor
from recstore.embedded.configured import celery, celery_environment, celery_worker
from recstore.errors import RecstoreError
from recstore.operations import recommenders, schema
from recstore.postgres.connection import Connection, connect, plain_errors

HOME = "worker-demo"
"""Folder of its servers within the home."""

HISTORY = datetime(2010, 2, 1)
"""Time of the opening: earlier events are there from the beginning."""

TRAININGS = 7.5
"""Number of trainings that fit into the replay, about."""

PATIENCE = 120
"""Seconds without a run after which the demo fails."""

QUERY = """SELECT user_id, product_id AS item_id, count(*) AS value, max(viewed_at) AS last_at
FROM shop.events
GROUP BY user_id, product_id"""

ENDED = """
SELECT u.run, u.state, coalesce(u.error, u.outcome) AS outcome, u.generation, u.stages,
    extract(epoch FROM u.duration)::float8 AS seconds,
    ARRAY(SELECT q.origin FROM recstore.requests q WHERE q.run = u.run) AS origins
FROM recstore.runs u
WHERE u.recommender = 'retail' AND u.job = 'retrain' AND u.run > %s AND u.finished_at IS NOT NULL
ORDER BY u.run
"""


def run(settings: Settings, console: Console, seconds: float, program: str = "recstore") -> dict[str, Any]:
    """Run the demo, whose events arrive within `seconds`, and print it; `program` is how the reader calls recstore.
    Returns the sums. Raises RecstoreError."""
    home, began = settings.home / HOME, time.monotonic()
    log = home / "processes.log"

    def keep(name: str, line: str) -> None:
        with log.open("a", errors="replace") as file:
            file.write(f"{datetime.now():%H:%M:%S} {name:<6} | {line}\n")

    with embedded.foreground(home, keep) as processes:
        log.unlink(missing_ok=True)
        console.print(f"A year of an online shop in {seconds:g} s; its recommendations follow.\n", style="bold")
        with step(console, "start") as done:
            server = processes.postgres()
            url = _fresh_database(server, settings)
            done.append(f"PostgreSQL {server.version} with pgvector, its data in {home}")
        with connect(url, "recstore:demo") as connection, plain_errors("running the demo", connection):
            with step(console, "shop") as done:
                arrivals = Arrivals()
                arrivals.open_shop(connection, HISTORY)
                done.append(f"{arrivals.arrived:,} events of an online shop, all before {HISTORY:%B %Y}")
            with step(console, "create") as done:
                done.append(_create(connection, settings, seconds))
            with step(console, "work") as done:
                _start_workers(processes, url)
                connection.execute("SELECT recstore.request_retrain('retail')")
                done.append("Redis, a Celery worker, beat; the first training is requested in SQL")
            story = Story(console, connection, arrivals, Visitor.of(connection, arrivals))
            _follow(story, processes, url, seconds)
            sums = story.end(time.monotonic() - began)
    console.print(f"\nAll processes have ended. Their output: {log}\nTo look around:", markup=False)
    for command in "psql", "stop":
        console.print(f"  RECSTORE_HOME={home} {program} {command}", markup=False)
    if story.visitor.errors:
        raise RecstoreError(f"{len(story.visitor.errors)} reads failed, the first with: {story.visitor.errors[0]}.")
    return sums | {"log": str(log)}


def _follow(story: Story, processes: embedded.Processes, url: str, seconds: float) -> None:
    """Print each run until all events have arrived and are trained, and a scheduled run has found nothing new."""
    stop, working = Event(), list[Future[None]]()
    with ThreadPoolExecutor() as threads:
        try:
            for run in _ended(story, processes, working):
                if run["state"] == "failed":
                    raise RecstoreError(f"Run {run['run']} failed: {run['outcome']}")
                story.show(run)
                if run["state"] == "skipped" and story.complete:
                    break
                if not working:
                    story.open(HISTORY, seconds)
                    working.append(threads.submit(story.arrivals.replay, url, HISTORY, seconds, stop))
                    working.append(threads.submit(story.visitor.read, url, stop))
        finally:
            stop.set()


def _ended(story: Story, processes: embedded.Processes, working: list[Future[None]]) -> Iterator[dict[str, Any]]:
    """Yield each run once it has ended. Raises the error that ended a process or a thread."""
    latest, heard = 0, time.monotonic()
    with story.console.status("") as status:
        while time.monotonic() < heard + PATIENCE:
            if not all(child.lives() for child in processes.children):
                processes.wait()  # raises, with its last output
            for thread in working:
                if thread.done():
                    thread.result()
            for run in story.connection.execute(ENDED, [latest]).fetchall():
                latest, heard = run["run"], time.monotonic()
                yield run
            status.update(story.now())
            time.sleep(0.1)
    raise RecstoreError(f"No training has ended for {PATIENCE} s, though one is due.")


def _fresh_database(server: embedded.Server, settings: Settings) -> str:
    with connect(server.url_of("postgres")) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{server.database}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{server.database}"')
    with connect(server.url) as connection:
        schema.upgrade(connection, server.url, settings)
    return server.url


def _create(connection: Connection, settings: Settings, seconds: float) -> str:
    """Create the recommender, with a schedule that suits the replay."""
    every = next(n for n in (2, 3, 4, 5, 6, 10, 12, 15, 20, 30) if n >= seconds / TRAININGS or n == 30)
    definition = Definition(
        source=Source(query=QUERY),
        titles=TITLES,
        # two cores do everything: fewer factors than usual, and no index, which so few products hardly need
        hyperparameters=Hyperparameters(factors=64),
        publication=Publication(search="exact"),
        schedule=Schedule(cron=f"*/{every} * * * * *"),
    )
    recommenders.create(connection, settings, "retail", definition)
    return f"recommender retail over shop.events, schedule {definition.schedule.cron}: every {every} s"


def _start_workers(processes: embedded.Processes, url: str) -> None:
    known = celery_environment(
        RECSTORE_DATABASE_URL=url,
        RECSTORE_BROKER_URL=broker.start(processes),
        RECSTORE_HOME=str(processes.home),
        RECSTORE_DISPATCH_INTERVAL="1",
        RECSTORE_RETENTION="10",
        RECSTORE_METRICS_PORT="0",
    )
    processes.start("worker", celery_worker("demo", "train,default", 2), known)
    processes.start("beat", celery("beat"), known)
