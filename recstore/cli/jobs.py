"""The jobs that compute: retrain, reindex."""

from typing import Annotated

import typer

from recstore import pipeline
from recstore.api.progress import StageReporter
from recstore.cli.context import Force, Json, Name, say, settings, show, state
from recstore.cli.generations import tell_outcome
from recstore.cli.measured import Device
from recstore.embedded.configured import database_url
from recstore.operations import jobs


def register(app: typer.Typer) -> None:
    app.command()(retrain)
    app.command()(reindex)


def retrain(
    name: Name,
    loss: Annotated[bool, typer.Option("--loss", help="Compute and show the loss of each iteration.")] = False,
    device: Device = None,
    threads: Annotated[int | None, typer.Option(help="Threads of training; 0: all cores.", metavar="N")] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Pull the view counts, train, and publish a new generation. The live one serves until the flip.

    Exit code 4: the generation is ready but waits for other sessions to end; 5: the gate or the source guard refused it.
    Example: recstore retrain retail
    """
    given = settings(device=device, threads=threads)
    with StageReporter(state.errors).showing() as reporter:
        outcome = pipeline.retrain(database_url(given), given, name, reporter=reporter, with_loss=loss, force=force)
    tell_outcome(outcome, name)


def reindex(name: Name, json: Json = False) -> None:
    """Rebuild the indexes of the live generation and calibrate it again, while readers go on. Nothing is trained.

    Example: recstore reindex retail
    """
    given = settings()
    with StageReporter(state.errors).showing() as reporter:
        outcome = jobs.reindex(database_url(given), given, name, reporter=reporter)
    if json:
        show(vars(outcome))
    say(f"generation {outcome.generation} of {name} is reindexed and calibrated; recstore show {name} tells how")
