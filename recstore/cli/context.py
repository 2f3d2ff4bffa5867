"""Shared by all commands: the options before the command, the settings, questions at the terminal."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from recstore.config import Settings, load_settings, unknown_variables
from recstore.errors import InvalidInput
from recstore.wording import printable


class Screen(Console):
    """A console that prints data as they are: brackets and :words: are no markup, and control characters are escaped."""

    def __init__(self, **options: Any) -> None:
        super().__init__(soft_wrap=True, highlight=False, markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)


@dataclass
class State:
    """The options before the command, and where it prints."""

    database: str | None = None
    json: bool = False
    output: Console = field(default_factory=Screen)
    errors: Console = field(default_factory=lambda: Screen(stderr=True))


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
    for sentence in unknown_variables():
        state.errors.print(f"Warning: {sentence}")


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
    typer.confirm(printable(question), abort=True)
