"""Shared by all commands: the options before the command, the settings, questions at the terminal."""

from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from recstore.config import Settings, load_settings
from recstore.errors import InvalidInput


@dataclass
class State:
    """The options before the command, and where it prints."""

    database: str | None = None
    json: bool = False
    output: Console = field(default_factory=lambda: Console(soft_wrap=True, highlight=False))
    errors: Console = field(default_factory=lambda: Console(stderr=True, soft_wrap=True, highlight=False))


state = State()


def use_json(value: bool) -> bool:
    """Print as this command's --json asks; called without the option, too."""
    state.json = value
    return value


Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.", callback=use_json)]


def _version(value: bool) -> None:
    if value:
        state.output.print(f"recstore {version('recstore')}")
        raise typer.Exit


def new_application() -> typer.Typer:
    """Return the command line without a command yet."""
    app = typer.Typer(
        help="Recommendations that live in the application's own Postgres.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(options)
    return app


def options(
    database: Annotated[
        str | None,
        typer.Option(
            help="The database's URL; otherwise RECSTORE_DATABASE_URL, otherwise the embedded server.", metavar="URL"
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    del version  # handled by its callback
    state.database = database


def settings() -> Settings:
    """Return this process's settings, with --database."""
    return load_settings(database_url=state.database)


def at_terminal() -> bool:
    """Return whether a question can be answered."""
    return state.output.is_terminal and typer.get_text_stream("stdin").isatty()


def replaced(file: Path) -> str | None:
    """Return the question before an existing file is replaced."""
    return f"{file} exists. Replace it?" if file.exists() else None


def confirm(question: str, yes: bool) -> None:
    """Ask at a terminal; elsewhere require --yes. Raises typer's Abort, InvalidInput."""
    if yes:
        return
    if not at_terminal():
        raise InvalidInput(f"{question} Add --yes to confirm without a terminal.")
    typer.confirm(question, abort=True)
