"""`recstore up`: all the processes of one machine in the foreground."""

import re
from contextlib import suppress
from json import dumps
from typing import Annotated

import typer
from rich.text import Text

from recstore import embedded
from recstore.cli.context import current, say, settings, state, use_json
from recstore.config import Settings
from recstore.embedded.configured import celery, celery_environment, celery_worker
from recstore.operations import schema
from recstore.sql import schema_revision

COLOURS = {"postgres": "blue", "redis": "red", "train": "green", "worker": "cyan", "beat": "magenta"}
"""Of the names before the lines at a terminal."""


def register(app: typer.Typer) -> None:
    app.command()(up)


def up(
    grace: Annotated[
        float, typer.Option(help="Seconds that jobs have to finish when it is stopped.", metavar="SECONDS", min=0)
    ] = 20,
    json: Annotated[
        bool, typer.Option("--json", help="Print each line as JSON: its process, and what it said.", callback=use_json)
    ] = False,
) -> None:
    """Run everything in the foreground: PostgreSQL, Redis, the workers and beat, until Ctrl-C.

    A configured database or broker is used as it is; a PostgreSQL that runs here already stays. Example: recstore up
    """
    given = settings()
    with suppress(KeyboardInterrupt), embedded.foreground(given.home, _print) as processes:
        if given.broker_url is None:
            embedded.broker_path()  # before anything is started
        database = _database(given, processes)
        broker = given.broker_url or processes.broker()
        known = celery_environment(
            RECSTORE_DATABASE_URL=database, RECSTORE_BROKER_URL=broker, RECSTORE_HOME=str(processes.home)
        )
        second_port = given.metrics_port and given.metrics_port + 1
        for line in _banner(given, processes, database, broker, second_port):
            _print("recstore", line) if json else say(line)
        # on a broker of our own also what applications send to Celery's default queue; elsewhere that may be somebody's
        queues = "default" if given.broker_url else "default,celery"
        processes.start("train", celery_worker("train", "train", 1), known, grace)
        known["RECSTORE_METRICS_PORT"] = str(second_port)
        processes.start("worker", celery_worker("default", queues, 2), known, grace)
        processes.start("beat", celery("beat"), known)
        processes.wait()
    say("stopped")


def _database(given: Settings, processes: embedded.Foreground) -> str:
    """URL of a database whose schema is this version's: the configured one as it is, the embedded one brought to it."""
    if given.database_url:
        with current():
            return given.database_url
    url = processes.postgres().url
    with schema_revision.opened(url) as opened:
        for sentence in schema.upgrade(opened, url, given):
            say(sentence)
    return url


def _banner(given: Settings, processes: embedded.Foreground, database: str, broker: str, second: int) -> list[str]:
    def metrics(port: int) -> str:
        return f"; metrics: http://{given.metrics_host}:{port}" if port else ""

    log = "" if given.database_url else f"\n          its log: {processes.home / 'postgres.log'}"
    if processes.postgres_is_ours is False:
        log += "; it ran before, and stays"
    return [
        "recstore runs here until Ctrl-C:",
        f"postgres  {_without_password(database)}{log}",
        f"redis     {_without_password(broker)}",
        f"train     trainings, one at a time{metrics(given.metrics_port)}",
        f"worker    everything else{metrics(second)}",
        f"beat      looks for what is due every {given.dispatch_interval:g} s",
        "In another terminal: recstore status --watch; recstore request retrain NAME",
        "",
    ]


def _without_password(url: str) -> str:
    return re.sub(r"password=[^\s&]+", "password=..", re.sub(r"(://[^:/@]*):.*@", r"\1:..@", url))


def _print(name: str, line: str) -> None:
    if state.json:
        state.output.print(dumps({"process": name, "line": line}), markup=False)
        return
    state.output.print(Text.assemble((f"{name:<6} | ", COLOURS.get(name, "bold")), line))
