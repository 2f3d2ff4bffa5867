"""`recstore worker`, and `recstore up`: all the processes of one machine in the foreground."""

import re
from contextlib import suppress
from importlib import import_module
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
from recstore.embedded.configured import celery, celery_environment, celery_worker, own_worker
from recstore.errors import InvalidInput, installed_parts

COLOURS = {"postgres": "blue", "train": "green", "worker": "cyan", "beat": "magenta"}
"""Colours of the names before the lines at a terminal."""


def register(app: typer.Typer) -> None:
    app.command()(worker)
    app.command()(up)


def worker(
    train: Annotated[int, typer.Option(help="Trainings, and trials of searches, at once; 0: none.", min=0, max=64)] = 1,
    default: Annotated[int, typer.Option(help="Other jobs at once; 0: none.", min=0, max=64)] = 2,
    grace: Annotated[
        float | None,
        typer.Option(
            help="Seconds that jobs have to finish after SIGTERM; no limit by default.",
            metavar="SECONDS",
            min=0,
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print each line of the log as JSON.", callback=use_json)
    ] = False,
) -> None:
    """Run a worker that needs no broker: it serves requests, schedules and searches until SIGTERM or Ctrl-C.

    Running jobs end first; a second signal, or SIGQUIT, interrupts them, and they are tried again. Example: recstore worker
    """
    if not train + default:
        raise InvalidInput("A worker without a process does nothing; give --train or --default.")
    with installed_parts():
        process = import_module("recstore.worker.process")
    process.run(settings(), {"train": train, "default": default}, grace, json)


def up(
    grace: Annotated[
        float, typer.Option(help="Seconds that jobs have to finish after Ctrl-C.", metavar="SECONDS", min=0)
    ] = 20,
    json: Annotated[
        bool, typer.Option("--json", help="Print each line as JSON, with its process.", callback=use_json)
    ] = False,
) -> None:
    """Run everything in the foreground until Ctrl-C: PostgreSQL and a worker, or Celery's workers and beat where a broker is
    configured.

    A configured database is used as it is; a PostgreSQL that runs here already stays. Example: recstore up
    """
    own = settings()
    with suppress(KeyboardInterrupt), embedded.foreground(own.home, _print) as processes:
        database = _database(own, processes)
        variables = celery_environment(RECSTORE_DATABASE_URL=database, RECSTORE_HOME=str(processes.home))
        for line in _banner(own, processes, database):
            _print("recstore", line) if json else say(line)
        if own.broker_url:
            processes.start("train", celery_worker("train", "train", 1), variables, grace)
            variables["RECSTORE_METRICS_PORT"] = str(_second_port(own))
            processes.start("worker", celery_worker("default", "default", 2), variables, grace)
            processes.start("beat", celery("beat"), variables)
        else:
            processes.start("worker", own_worker(), variables, grace)
        processes.wait()
    say("stopped")


def _second_port(own: Settings) -> int:
    return own.metrics_port and own.metrics_port + 1


def _database(own: Settings, processes: embedded.Processes) -> str:
    """Return the URL of a database whose schema is current: the configured one is checked, the embedded one upgraded."""
    if own.database_url:
        Part(own).require_current()
        return own.database_url
    url = processes.postgres().url
    for sentence in Schema(own.model_copy(update={"database_url": url})).upgrade().done:
        say(sentence)
    return url


def _banner(own: Settings, processes: embedded.Processes, database: str) -> list[str]:
    def metrics(port: int) -> str:
        return f"; metrics: http://{own.metrics_host}:{port}" if port else ""

    log = "" if own.database_url else f"\n          its log: {processes.home / 'postgres.log'}"
    if processes.postgres_is_ours is False:
        log += "; it ran before, and stays"
    if own.broker_url:
        workers = [
            f"broker    {_without_password(own.broker_url)}",
            f"train     trainings, one at a time{metrics(own.metrics_port)}",
            f"worker    everything else{metrics(_second_port(own))}",
            f"beat      looks for what is due every {own.dispatch_interval:g} s",
        ]
    else:
        workers = [f"worker    trainings, one at a time, and everything else{metrics(own.metrics_port)}"]
    return [
        "recstore runs here until Ctrl-C:",
        f"postgres  {_without_password(database)}{log}",
        *workers,
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
