"""`recstore explore`: the explorer in the foreground."""

from importlib import import_module
from typing import Annotated

import typer

from recstore.cli.context import settings
from recstore.cli.screen import say
from recstore.errors import installed_parts


def register(app: typer.Typer) -> None:
    app.command()(explore)


def explore(
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's demand a password.", metavar="ADDRESS")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8000,
    operators: Annotated[
        bool, typer.Option("--operators", help="Buttons: retrain, publish, roll back, cancel.")
    ] = False,
) -> None:
    """Serve a web page that shows recommenders, their runs and lists, until Ctrl-C. It only reads, unless --operators is given.

    The password is RECSTORE_EXPLORER_PASSWORD. Example: recstore explore
    """
    with installed_parts():
        app = import_module("recstore.explorer.app")
    own = settings()
    app.check(own, host, operators)
    say(f"recstore explores at http://{f'[{host}]' if ':' in host else host}:{port} until Ctrl-C")
    app.serve(own, host, port, operators=operators)
