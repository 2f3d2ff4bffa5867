"""What every command shares: the options before the command, the settings, a connection, and how to print."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from recstore.cli import completion
from recstore.config import Settings, load_settings
from recstore.embedded.configured import database_url
from recstore.errors import InvalidInput
from recstore.postgres.connection import Connection
from recstore.sql import schema_revision


@dataclass
class State:
    """The options before the command."""

    database: str | None = None
    json: bool = False
    output: Console = field(default_factory=lambda: Console(soft_wrap=True, highlight=False))
    errors: Console = field(default_factory=lambda: Console(stderr=True, soft_wrap=True, highlight=False))


state = State()


def use_json(value: bool) -> bool:
    """The callback of --json, called without it, too: from then on everything is said as this command is asked to."""
    state.json = value
    return value


Name = Annotated[
    str, typer.Argument(help="The recommender.", show_default=False, autocompletion=completion.recommenders)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.", callback=use_json)]
Force = Annotated[bool, typer.Option("--force", help="Publish even what the gate or the source guard would refuse.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the SQL that would be executed, and change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


def _version(value: bool) -> None:
    if value:
        state.output.print(f"recstore {version('recstore')}")
        raise typer.Exit


def new_application() -> typer.Typer:
    """The command line without a command yet."""
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
    del version  # its callback has seen to it
    state.database = database


def settings(**overrides: object) -> Settings:
    """This process's settings, with --database and a command's own options."""
    return load_settings(database_url=state.database, **overrides)


@contextmanager
def connection() -> Iterator[tuple[Connection, str, Settings]]:
    """A connection to the configured database, its URL and the settings, with errors in plain words."""
    given = settings()
    url = database_url(given)
    with schema_revision.opened(url) as opened:
        yield opened, url, given


@contextmanager
def current() -> Iterator[tuple[Connection, str, Settings]]:
    """`connection`, to a database whose schema is this version's."""
    given = settings()
    url = database_url(given)
    with schema_revision.ready(url) as opened:
        yield opened, url, given


def as_json(value: Any) -> str:
    def plain(other: object) -> object:
        if isinstance(other, datetime | date):
            return other.isoformat()
        if isinstance(other, timedelta):
            return other.total_seconds()
        if isinstance(other, Decimal):
            return float(other)
        return str(other)

    unicode = state.output.encoding.startswith("utf")
    return json.dumps(value, default=plain, ensure_ascii=not unicode, indent=2)


def say(sentence: str) -> None:
    """A line for people; nothing with --json, whose output is the data."""
    if not state.json:
        state.output.print(sentence, markup=False)


def show(value: Any) -> None:
    """Data for programs."""
    state.output.print(as_json(value), markup=False)


def show_statements(statements: Sequence[str]) -> None:
    """What a dry run found; with --json {"statements": [..]}."""
    if state.json:
        show({"statements": list(statements)})
    elif not statements:
        say("-- nothing to do")
    for statement in statements:
        say(statement)


def told(rows: Sequence[dict[str, Any]], empty: str) -> bool:
    """Whether a table of these rows needs no drawing: they were printed for a program, or there are none, which was said."""
    if state.json:
        show(list(rows))
    elif not rows:
        say(empty)
    return state.json or not rows


def show_rows(
    rows: Sequence[dict[str, Any]], columns: Iterable[str] | None = None, empty: str = "Nothing to show."
) -> None:
    """A table for people, or with --json a list of objects."""
    if told(rows, empty):
        return
    names = list(columns or rows[0])
    cells = [[_cell(row[name]) for name in names] for row in rows]
    heads = [name.replace("_", " ") for name in names]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    terminal = state.output.is_terminal
    if terminal and sum(widths) + 2 * len(widths) > state.output.width:  # too wide: a block per row, as psql's \x
        for row in cells:
            for head, cell in zip(heads, row, strict=True):
                state.output.print(Text.assemble((f"{head:<{max(map(len, heads))}}  ", "bold"), cell))
            state.output.print()
        return
    box, gap = (SIMPLE_HEAD, 1) if terminal else (None, 2)  # a box adds one
    table = Table(box=box, show_edge=False, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for head, name in zip(heads, names, strict=True):
        numeric = all(isinstance(row[name], int | float | Decimal) for row in rows if row[name] is not None)
        table.add_column(head, justify="right" if numeric else "left", no_wrap=True)
    for row in cells:
        table.add_row(*map(Text, row))
    # a pipe or a file has no width
    console = (
        state.output if terminal else Console(file=state.output.file, width=10_000, highlight=False, color_system=None)
    )
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value.astimezone():%Y-%m-%d %H:%M:%S %Z}"
    if isinstance(value, float):
        return f"{value:.3f}".removesuffix(".000")
    if isinstance(value, UUID | str | int | Decimal):
        return str(value)
    return json.dumps(value, default=str, ensure_ascii=False)


def at_terminal() -> bool:
    """Whether somebody is there to be asked."""
    return state.output.is_terminal and typer.get_text_stream("stdin").isatty()


def confirm_replacing(file: Path, yes: bool) -> None:
    """`confirm`, where there is such a file."""
    if file.exists():
        confirm(f"{file} exists. Replace it?", yes)


def confirm(question: str, yes: bool) -> None:
    """Asks at a terminal; elsewhere --yes must have been given. Raises click's Abort, InvalidInput."""
    if yes:
        return
    if not at_terminal():
        raise InvalidInput(f"{question} Add --yes to say so where nobody can be asked.")
    typer.confirm(question, abort=True)
