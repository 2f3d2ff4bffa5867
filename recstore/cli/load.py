"""`recstore load`: a file into a table of the application, by COPY."""

from pathlib import Path
from typing import Annotated

import typer

from recstore.api.progress import StageReporter
from recstore.cli.context import Json, Yes, at_terminal, confirm, connection, say, show, show_rows, state
from recstore.errors import InvalidInput, LoadInterrupted
from recstore.files.load.bad_lines import ranges
from recstore.files.load.examining import Plan, examine, shortened, wanted_of
from recstore.files.load.layout import Given
from recstore.files.load.opening import opened, refuse_to_overwrite
from recstore.files.load.telling import SHOWN_BAD, as_dict, refusal
from recstore.files.load.writing import write


def register(app: typer.Typer) -> None:
    app.command()(load)


def load(
    file: Annotated[
        str, typer.Argument(help="CSV, TSV or Parquet, plain or compressed; - is standard input.", show_default=False)
    ],
    table: Annotated[
        str, typer.Option(help="The table, which is made unless it exists.", metavar="SCHEMA.TABLE", show_default=False)
    ],
    append: Annotated[bool, typer.Option("--append", help="Add to the rows of a table that exists.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put the file's rows in the place of those there, in one transaction.")
    ] = False,
    delimiter: Annotated[
        str | None, typer.Option(help="Between fields, such as ';' or tab; otherwise found out.", metavar="CHAR")
    ] = None,
    quote: Annotated[
        str | None, typer.Option(help='Around fields, or none; otherwise found out, mostly ".', metavar="CHAR")
    ] = None,
    escape: Annotated[
        str | None,
        typer.Option(help="Before a character that stands for itself, or none; otherwise found out.", metavar="CHAR"),
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Of a text file; otherwise UTF-8.", metavar="NAME")] = None,
    header: Annotated[
        bool | None, typer.Option("--header/--no-header", help="Whether the first line is one; otherwise found out.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Choose the header's columns, or name all of the file's; - leaves one out.", metavar="A,B,C"),
    ] = None,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", help="The type of a column of a new table; again for others.", metavar="COLUMN=TYPE"),
    ] = None,
    null: Annotated[
        list[str] | None,
        typer.Option(help="An unquoted field that is NULL, otherwise an empty one; again for others.", metavar="TEXT"),
    ] = None,
    primary_key: Annotated[
        str | None, typer.Option(help="Of a new table; doubles are told.", metavar="A,B", show_default=False)
    ] = None,
    max_bad: Annotated[
        str, typer.Option(help="Bad lines that are left out: a number, or a share such as 1%.", metavar="N|SHARE")
    ] = "0",
    bad: Annotated[
        Path | None,
        typer.Option(help="Write all bad lines to this file, as CSV.", metavar="FILE", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show types, bad lines and SQL, and write nothing to the database.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Load a file into a table: what its columns are is found and shown first, bad lines are counted, then COPY.

    Delimiter, header and types are found from the file. A bad line refuses the load, unless --max-bad allows it.
    Example: recstore load views.csv --table shop.views
    """
    wanted = wanted_of(
        table,
        append,
        replace,
        Given(delimiter, quote, escape, encoding, header),
        None if columns is None else [name.strip() for name in columns.split(",")],
        _types(types or []),
        null,
        [name.strip() for name in primary_key.split(",")] if primary_key else [],
        max_bad,
        bad,
    )
    refuse_to_overwrite(file, bad)
    with (
        connection() as (database, _, _settings),
        opened(file) as found,
        StageReporter(state.errors).showing() as reporter,
    ):
        try:
            plan = examine(database, found, wanted, reporter)
        except KeyboardInterrupt:
            raise LoadInterrupted(table=table) from None
        reporter.bar.stop()  # what follows is on standard output
        if bad is not None:
            plan.bad.write(bad)
        _show_plan(plan, bad)
        written = 0
        if not (plan.refused or dry_run):
            _ask(plan, yes)
            reporter.bar.start()
            written = write(database, plan, reporter)
        if json:
            show(as_dict(plan) | {"written": written, "dry_run": dry_run})
    if plan.refused:
        raise refusal(plan)
    say("nothing was written" if dry_run else f"loaded into {plan.target}: {_counted(written, 'row')}")


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("s" if number != 1 else "")


def _types(given: list[str]) -> dict[str, str]:
    types = {}
    for text in given:
        name, separator, kind = text.partition("=")
        if not (separator and name.strip() and kind.strip()):
            raise InvalidInput(f"--type is {text!r}: write it as COLUMN=TYPE, for instance view_count=integer.")
        types[name.strip()] = kind.strip()
    return types


def _ask(plan: Plan, yes: bool) -> None:
    replacing = plan.target.mode == "replace"
    asked = at_terminal() and not state.json
    if replacing or asked:
        what = f"Replace all rows of {plan.target} by" if replacing else f"Load into {plan.target}"
        confirm(f"{what} {_counted(plan.good, 'row')}?", yes)


def _show_plan(plan: Plan, bad: Path | None) -> None:
    if state.json:
        return
    say(f"{plan.file.name}: {plan.reader.what}; {_counted(plan.rows, plan.reader.unit)}")
    say("")
    renamed = any(column.match.name != column.match.file_name for column in plan.columns)
    show_rows(
        [
            {"column": column.match.name}
            | ({"in_the_file": column.match.file_name} if renamed else {})
            | {"type": column.type, "nulls": column.nulls, "examples": ", ".join(map(_example, column.examples))}
            for column in plan.columns
        ]
    )
    for column in plan.columns:
        if column.note:
            say(f"\n{column.note}")
    if not plan.reader.named and all(column.match.name.startswith("column_") for column in plan.columns):
        names = ", ".join(column.match.name for column in plan.columns[:3]) + ", .." * (len(plan.columns) > 3)
        say(f"\nThe file has no header, so its columns are named {names}: --columns A,B,C names them otherwise.")
    if len(plan.bad):
        unit = plan.reader.unit
        say(f"\n{_counted(len(plan.bad), f'bad {unit}')} ({len(plan.bad) / plan.rows:.2%}):")
        for line, reason in plan.bad.first(SHOWN_BAD):
            say(f"  {unit} {line:,}: {reason}")
        if rest := ranges(plan.bad.lines()[SHOWN_BAD:]):
            say(f"  and {unit}s {rest}")
        if bad is not None:
            say(f"  all of them are in {bad}")
    if not plan.refused:
        say("")
        for statement in plan.statements():
            say(statement)
        say("")


def _example(text: str) -> str:
    return text if text.isprintable() and 0 < len(text) <= 24 else shortened(text, 24)
