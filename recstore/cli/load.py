"""`recstore load`: a file into a table of the application, by COPY."""

from pathlib import Path
from typing import Any

import typer

from recstore.api.arguments import Yes
from recstore.api.files import Loading
from recstore.api.progress import StageReporter
from recstore.api.rehearse import Rehearsal
from recstore.api.rows import Loaded
from recstore.cli.commands import Commands
from recstore.cli.context import at_terminal, confirm, state
from recstore.cli.screen import say, show, table
from recstore.errors import LoadInterrupted
from recstore.wording import counted


def register(app: typer.Typer) -> None:
    Commands(app, Loading, Rehearsal).add(
        "load",
        _loaded,
        call=_load,
        rehearsed=_planned,
        dry_run="Show types, bad lines and SQL, and write nothing to the database.",
        notes="Delimiter, header and types are detected. A bad line refuses the load, unless --max-bad allows it.",
        example="recstore load views.csv --table shop.views",
    )


def _load(part: Loading, arguments: dict[str, Any], yes: Yes = False) -> Loaded:
    looked, reporter = False, StageReporter(state.errors)

    def examined(found: Loaded) -> None:
        nonlocal looked
        looked = True
        reporter.bar.stop()  # what follows is on standard output
        _show_plan(found, arguments.get("bad"))
        if found.refused and state.json:
            show(found)
        elif not found.refused:
            _ask(found, yes)
            reporter.bar.start()

    try:
        with reporter.showing():
            return part.load(**arguments, reporter=reporter, examined=examined)
    except KeyboardInterrupt:
        if looked:
            raise
        raise LoadInterrupted(table=arguments["table"]) from None


def _loaded(done: Loaded) -> None:
    say(f"loaded into {done.table}: {counted(done.written, 'row')}")


def _planned(found: Loaded, bad: Path | None) -> None:
    _show_plan(found, bad)
    if found.refused:
        raise found.refused
    say("nothing was written")


def _ask(found: Loaded, yes: bool) -> None:
    replacing = found.mode == "replace"
    if replacing or (at_terminal() and not state.json):
        what = f"Replace all rows of {found.table} by" if replacing else f"Load into {found.table}"
        confirm(f"{what} {counted(found.rows - found.bad, 'row')}?", yes)


def _show_plan(found: Loaded, bad: Path | None) -> None:
    unit, columns = found.unit, found.columns
    say(f"{found.file}: {found.what}; {counted(found.rows, unit)}\n")
    renamed = any(column["name"] != column["in_the_file"] for column in columns)
    table(
        [
            {"column": column["name"]}
            | ({"in the file": column["in_the_file"]} if renamed else {})
            | {"type": column["type"], "nulls": column["nulls"]}
            | {"examples": ", ".join(map(_example, column["examples"]))}
            for column in columns
        ]
    )
    for column in columns:
        if column["note"]:
            say(f"\n{column['note']}")
    if all(column["name"].startswith("column_") for column in columns):
        names = ", ".join(column["name"] for column in columns[:3]) + ", .." * (len(columns) > 3)
        say(f"\nThe file has no header, so its columns are named {names}: --columns A,B,C names them otherwise.")
    if found.bad:
        from recstore.files.load.bad_lines import ranges

        say(f"\n{counted(found.bad, f'bad {unit}')} ({found.bad / found.rows:.2%}):")
        for reason in found.reasons:
            say(f"  {unit} {reason[unit]:,}: {reason['reason']}")
        if rest := ranges(found.bad_lines[len(found.reasons) :]):
            say(f"  and {unit}s {rest}")
        if bad is not None:
            say(f"  all of them are in {bad}")
    if not found.refused:
        say("")
        for statement in found.statements:
            say(statement)
        say("")


def _example(text: str) -> str:
    if text.isprintable() and 0 < len(text) <= 24:
        return text
    return repr(text if len(text) <= 24 else text[:22] + "..")
