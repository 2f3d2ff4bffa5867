"""`recstore up`: all the processes of one machine in the foreground."""

import re
from contextlib import suppress
from json import dumps
from typing import Annotated

import typer
from rich.text import Text

from recstore import embedded
from recstore.api.base import Part
from recstore.api.schema import Schema
from recstore.cli.context import settings, state, use_json
from recstore.cli.screen import say
from recstore.config import Settings
from recstore.embedded.configured import celery, celery_environment, celery_worker

COLOURS = {"postgres": "blue", "redis": "red", "train": "green", "worker": "cyan", "beat": "magenta"}
"""Colours of the names before the lines at a terminal."""


def register(app: typer.Typer) -> None:
    app.command()(up)


def up(
    grace: Annotated[
        float, typer.Option(help="Seconds that jobs have to finish after Ctrl-C.", metavar="SECONDS", min=0)
    ] = 20,
    json: Annotated[
        bool, typer.Option("--json", help="Print each line as JSON, with its process.", callback=use_json)
    ] = False,
) -> None:
    """Run everything in the foreground: PostgreSQL, Redis, the workers and beat, until Ctrl-C.

    A configured database or broker is used as it is; a PostgreSQL that runs here already stays. Example: recstore up
    """
    own = settings()
    with suppress(KeyboardInterrupt), embedded.foreground(own.home, _print) as processes:
        if own.broker_url is None:
            embedded.broker_path()  # before anything is started
        database = _database(own, processes)
        broker = own.broker_url or processes.broker()
        variables = celery_environment(
            RECSTORE_DATABASE_URL=database, RECSTORE_BROKER_URL=broker, RECSTORE_HOME=str(processes.home)
        )
        second_port = own.metrics_port and own.metrics_port + 1
        for line in _banner(own, processes, database, broker, second_port):
            _print("recstore", line) if json else say(line)
        # on our own broker also Celery's default queue; on another broker that may be someone else's
        queues = "default" if own.broker_url else "default,celery"
        processes.start("train", celery_worker("train", "train", 1), variables, grace)
        variables["RECSTORE_METRICS_PORT"] = str(second_port)
        processes.start("worker", celery_worker("default", queues, 2), variables, grace)
        processes.start("beat", celery("beat"), variables)
        processes.wait()
    say("stopped")


def _database(own: Settings, processes: embedded.Processes) -> str:
    """Return the URL of a database whose schema is current: the configured one is checked, the embedded one upgraded."""
    if own.database_url:
        Part(own).require_current()
        return own.database_url
    url = processes.postgres().url
    for sentence in Schema(own.model_copy(update={"database_url": url})).upgrade().done:
        say(sentence)
    return url


def _banner(own: Settings, processes: embedded.Processes, database: str, broker: str, second: int) -> list[str]:
    def metrics(port: int) -> str:
        return f"; metrics: http://{own.metrics_host}:{port}" if port else ""

    log = "" if own.database_url else f"\n          its log: {processes.home / 'postgres.log'}"
    if processes.postgres_is_ours is False:
        log += "; it ran before, and stays"
    return [
        "recstore runs here until Ctrl-C:",
        f"postgres  {_without_password(database)}{log}",
        f"redis     {_without_password(broker)}",
        f"train     trainings, one at a time{metrics(own.metrics_port)}",
        f"worker    everything else{metrics(second)}",
        f"beat      looks for what is due every {own.dispatch_interval:g} s",
        "In another terminal: recstore status --watch; recstore request retrain NAME",
        "",
    ]


def _without_password(url: str) -> str:
    return re.sub(r"password=[^\s&]+", "password=..", re.sub(r"(://[^:/@]*):.*@", r"\1:..@", url))


def _print(name: str, line: str) -> None:
    if state.json:
        state.output.print(dumps({"process": name, "line": line}))
        return
    state.output.print(Text.assemble((f"{name:<6} | ", COLOURS.get(name, "bold")), line))
