"""`recstore init`: a commented TOML file for one's own tables, after looking at them and asking."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from recstore import registry
from recstore.api import toml
from recstore.api.options import merge
from recstore.atomic import check_place, write_bytes
from recstore.cli import completion
from recstore.cli.context import Json, Yes, at_terminal, confirm_replacing, connection, say, show
from recstore.errors import InvalidInput
from recstore.postgres.names import quoted
from recstore.source import discovery
from recstore.source.discovery import Candidate, Table
from recstore.sql import schema_revision

SHOWN = 12
"""Tables that are listed at a terminal; any other can be named."""


def register(app: typer.Typer) -> None:
    app.command()(init)


def _columns(help: str, metavar: str = "COLUMN") -> Any:
    return typer.Option(help=help, metavar=metavar, show_default=False, autocompletion=completion.columns)


def init(
    file: Annotated[Path, typer.Argument(help="The file that is written.")] = Path("recstore.toml"),
    table: Annotated[
        str | None,
        typer.Option(
            help="The table that tells who viewed what.",
            metavar="SCHEMA.TABLE",
            show_default=False,
            autocompletion=completion.tables,
        ),
    ] = None,
    user: Annotated[str | None, _columns("Its column of user ids.")] = None,
    item: Annotated[str | None, _columns("Its column of item ids.")] = None,
    value: Annotated[
        str | None, _columns("Its column of view counts; none: every row counts 1.", "COLUMN|none")
    ] = None,
    last_at: Annotated[str | None, _columns("Its column with the time of the last interaction.", "COLUMN|none")] = None,
    titles: Annotated[
        str | None, typer.Option(help="Lookup table of titles.", metavar="TABLE:ID:TITLE|none", show_default=False)
    ] = None,
    candidates_table: Annotated[
        str | None,
        typer.Option(
            help="Recommend items of this table only.",
            metavar="SCHEMA.TABLE",
            show_default=False,
            autocompletion=completion.tables,
        ),
    ] = None,
    candidates_column: Annotated[
        str | None, typer.Option(help="That table's column of item ids.", metavar="COLUMN", show_default=False)
    ] = None,
    candidates_condition: Annotated[
        str | None,
        typer.Option(
            help="Which of its rows, for instance visible; none: all.", metavar="SQL|none", show_default=False
        ),
    ] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Print the file and write nothing.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Look at your tables, ask which one tells who viewed what, and write a commented file of settings for recstore create.

    Without a terminal nothing is asked: say --table, --user, --item and --value; --json alone lists what was found.
    Example: recstore init retail.toml --table shop.views --user user_id --item product_id --value view_count
    """
    given: dict[str, str | None] = {"table": table, "user": user, "item": item, "value": value, "last_at": last_at}
    only_listed = json and not any(given.values())
    if not dry and not only_listed:
        check_place(file)
        confirm_replacing(file, yes)
    limits = {"table": candidates_table, "column": candidates_column, "condition": candidates_condition}
    with connection() as (opened, _, _settings):
        tables = discovery.readable_tables(opened)
        found = discovery.candidates(tables)
        if only_listed:
            show({"candidates": [candidate.as_dict() for candidate in found], "written": None})
            return
        if not all((table, user, item, value)):
            if not at_terminal():
                raise InvalidInput(_what_to_say(found, opened.info.user))
            if not found and table is None:
                raise InvalidInput(_nothing_found(opened.info.user))
            given, titles, limits = _asked(tables, found, given, titles, limits)
        sections: dict[str, dict[str, Any]] = {"source": _set(given), "candidates": _set(limits)}
        definition = merge({}, sections, titles)
        registry.inspect(opened, definition)  # refused here as create would refuse it
        installed = schema_revision.current(opened) is not None
    text = toml.settings_file(definition, file.name)
    if dry:
        show({"toml": text}) if json else say(text)
        return
    write_bytes(file, text.encode())
    if json:
        show({"written": str(file), "definition": definition.model_dump(mode="json")})
    steps = ["recstore db upgrade"] * (not installed)
    steps += [f"recstore create NAME --file {file}", "recstore retrain NAME"]
    say(f"written: {file}. Read it, choose a name for the recommender and its schema, then run:")
    for step in steps:
        say(f"  {step}")


def _set(values: dict[str, str | None]) -> dict[str, str]:
    """Without what is not said, and what is said to be none."""
    return {key: value for key, value in values.items() if value is not None and value.lower() != "none"}


def _nothing_found(role: str) -> str:
    to = quoted(role)
    return (
        "No table that this role may read has two columns that could be ids of users and items. Have its owner grant them, for"
        f" instance: GRANT USAGE ON SCHEMA shop TO {to}; GRANT SELECT ON shop.views TO {to}; Or give recstore create a query"
        " that makes them: --query 'SELECT .. AS user_id, .. AS item_id, .. AS value'"
    )


def _what_to_say(found: list[Candidate], role: str) -> str:
    if not found:
        return _nothing_found(role)
    sentence = (
        "Nobody can be asked here, so say which table and columns tell who viewed what: --table, --user, --item, and"
        " --value with a column or none."
    )
    likely = "; ".join(
        f"{c.table.name} (ids: {', '.join(dict.fromkeys(c.users))}; numbers: {', '.join(c.values) or 'none'})"
        for c in found[:5]
    )
    return f"{sentence} The likeliest: {likely}."


Asked = tuple[dict[str, str | None], str | None, dict[str, str | None]]


def _asked(
    tables: list[Table],
    found: list[Candidate],
    given: dict[str, str | None],
    titles: str | None,
    limits: dict[str, str | None],
) -> Asked:
    """What was said, and for the rest what is answered at the terminal. Raises InvalidInput where there is no such table."""
    given = dict(given)
    if given["table"] is None:
        options = [(c.table.name, _of_table(c)) for c in found[:SHOWN]]
        given["table"] = _choose("Which table tells who viewed what?", options, {t.name for t in tables})
    named = next((t for t in tables if t.name.replace('"', "") == str(given["table"]).replace('"', "")), None)
    if named is None:
        raise InvalidInput(f"There is no table {given['table']} that this role can read. Write it as schema.table.")
    likely = next((c for c in found if c.table == named), Candidate(named, (), (), (), (), 0))
    kinds = {column.name: column.type for column in named.columns}

    def ask(what: str, question: str, names: Sequence[str], none: str | None = None) -> None:
        if given[what] is None and (names or none is None):
            options = [(name, kinds[name]) for name in names]
            given[what] = _choose(question, options, set(kinds), none)

    ask("user", "Which column is the user's id?", likely.users or list(kinds))
    ask("item", "Which column is the item's id?", [c for c in likely.items or list(kinds) if c != given["user"]])
    taken = {given["user"], given["item"]}
    numbers = [column.name for column in named.columns if column.number and column.name not in taken]
    values = [c for c in (*likely.values, *(n for n in numbers if n not in likely.values)) if c not in taken]
    ask("value", "Which column counts the views?", values, "none: every row counts 1")
    ask("last_at", "Which column is the time of the last view?", likely.times, "none of them")
    of_items = discovery.tables_of_items(tables, named, str(given["item"]))
    if titles is None:
        titles = _titles(of_items, str(given["item"]))
    if limits["table"] is None and limits["condition"] is None:
        limits = _limits(of_items, str(given["item"])) or limits
    return given, titles, limits


def _of_table(candidate: Candidate) -> str:
    table = candidate.table
    rows = "a view" if table.is_view else f"about {table.rows:,} rows"
    return f"{rows}: {', '.join(column.name for column in table.columns)}"


def _titles(of_items: list[Table], item: str) -> str | None:
    options = [
        (f"{table.name}:{key.name}:{title}", "")
        for table in of_items
        if (key := table.column(item) or table.key())
        for title in discovery.titles_of(table)
    ]
    return _choose("Which column names an item to people?", options, none="none of them") if options else None


def _limits(of_items: list[Table], item: str) -> dict[str, str | None] | None:
    found = {
        f"{table.name} WHERE {condition}": {"table": table.name, "column": key.name, "condition": condition}
        for table in of_items
        if (key := table.column(item) or table.key())
        for condition in discovery.conditions_of(table)
    }
    if not found:
        return None
    question = "Recommend only some items, looked up live?"
    chosen = _choose(question, [(text, "") for text in found], none="no, all of them", default=0)
    return dict(found[chosen]) if chosen in found else None


def _choose(
    question: str,
    options: Sequence[tuple[str, str]],
    others: set[str] | None = None,
    none: str | None = None,
    default: int = 1,
) -> str:
    """Asks until the answer is a number of the list, or a name of it or of `others`; "none" where nothing is chosen."""
    say(f"\n{question}")
    width = max((len(text) for text, _ in options), default=0)
    for number, (text, meaning) in enumerate(options, 1):
        say(f"  {number:>2}  {text:<{width}}  {meaning}".rstrip())
    if none is not None:
        say(f"   0  {none}")
    while True:
        answer = str(typer.prompt("Number or name", default=str(default if options else 0))).strip()
        if answer == "0" and none is not None:
            return "none"
        if answer.isdecimal() and 1 <= int(answer) <= len(options):
            return options[int(answer) - 1][0]
        if answer in {text for text, _ in options} | (others or set()):
            return answer
        say(f"There is no {answer!r} to choose.")
