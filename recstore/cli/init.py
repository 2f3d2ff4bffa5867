"""`recstore init`: a commented TOML file for one's own tables, after looking at them and asking."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from recstore.api.arguments import Option, Yes
from recstore.api.begin import Beginning
from recstore.api.rehearse import Rehearsal
from recstore.api.rows import Initialized
from recstore.atomic import check_place
from recstore.cli.commands import Commands
from recstore.cli.context import at_terminal, confirm, replaced, state
from recstore.cli.screen import say
from recstore.errors import InvalidInput
from recstore.postgres.names import how_to_write, quoted
from recstore.source import discovery
from recstore.source.discovery import Candidate, Table

SHOWN = 12
"""Tables that are listed at a terminal; any other can be named."""

IDS = ("table", "user", "item")
"""Options without which there is no file."""


def register(app: typer.Typer) -> None:
    Commands(app, Beginning).add(
        "init",
        _initialized,
        call=_init,
        data=_data,
        notes="Without a terminal nothing is asked: say --table, --user, --item and --value; --json alone lists what was found.",
        example="recstore init retail.toml --table shop.views --user user_id --item product_id --value view_count",
    )


def _init(
    part: Beginning,
    arguments: dict[str, Any],
    dry_run: Annotated[bool, Option("Print the file and write nothing.")] = False,
    yes: Yes = False,
) -> Initialized | str:
    file = arguments.pop("file")
    if state.json and not dry_run and not any(arguments.get(name) for name in (*IDS, "value", "last_at")):
        return part.init(file)
    if not dry_run:
        check_place(file)
        if question := replaced(file):
            confirm(question, yes)
    if not all(arguments.get(name) for name in (*IDS, "value")):
        seen = part.look()
        found = discovery.candidates(seen.tables)
        if not at_terminal():
            raise InvalidInput(_what_to_say(found, seen.role))
        if not found and "table" not in arguments:
            raise InvalidInput(_nothing_found(seen.role))
        _ask(seen.tables, found, arguments)
    chosen = {name: value for name, value in arguments.items() if name == "titles" or value.lower() != "none"}
    return (Rehearsal(part.settings) if dry_run else part).init(file, **chosen)


def _data(done: Initialized | str) -> Any:
    if isinstance(done, str):
        return {"toml": done}
    if done.written is None:
        return {"candidates": done.candidates, "written": None}
    return {"written": done.written, "definition": done.definition}


def _initialized(done: Initialized | str, part: Beginning, file: Path) -> None:
    if isinstance(done, str):
        say(done)
        return
    say(f"written: {file}. Read it, choose a name for the recommender and its schema, then run:")
    steps = ["recstore db upgrade"] * (not part.look().upgraded)
    for step in [*steps, f"recstore create NAME --file {file}", "recstore retrain NAME"]:
        say(f"  {step}")


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
        "Without a terminal nothing is asked, so say which table and columns have the views: --table, --user, --item,"
        " and --value with a column or none."
    )
    likely = "; ".join(
        f"{c.table.name} (ids: {', '.join(dict.fromkeys(c.users))}; numbers: {', '.join(c.values) or 'none'})"
        for c in found[:5]
    )
    return f"{sentence} The likeliest: {likely}."


def _ask(tables: list[Table], found: list[Candidate], chosen: dict[str, str]) -> None:
    """Complete the options by answers at the terminal. Raises InvalidInput for an unknown table."""
    if "table" not in chosen:
        options = [(c.table.name, _of_table(c)) for c in found[:SHOWN]]
        chosen["table"] = _choose("Which table has the views?", options, {t.name for t in tables})
    named = next((t for t in tables if t.name.replace('"', "") == chosen["table"].replace('"', "")), None)
    if named is None:
        remedy = how_to_write(chosen["table"])
        raise InvalidInput(f"There is no table {chosen['table']} that this role can read. {remedy}")
    likely = next((c for c in found if c.table == named), Candidate(named, (), (), (), (), 0))
    kinds = {column.name: column.type for column in named.columns}

    def ask(what: str, question: str, names: Sequence[str], none: str | None = None) -> None:
        if what not in chosen and (names or none is None):
            options = [(name, kinds[name]) for name in names]
            chosen[what] = _choose(question, options, set(kinds), none)

    ask("user", "Which column is the user's id?", likely.users or list(kinds))
    ask("item", "Which column is the item's id?", [c for c in likely.items or list(kinds) if c != chosen["user"]])
    numbers = [column.name for column in named.columns if column.number]
    values = [c for c in dict.fromkeys((*likely.values, *numbers)) if c not in (chosen["user"], chosen["item"])]
    ask("value", "Which column counts the views?", values, "none: every row counts 1")
    ask("last_at", "Which column is the time of the last view?", likely.times, "none of them")
    of_items = [
        (table, key)
        for table in discovery.tables_of_items(tables, named, chosen["item"])
        if (key := table.column(chosen["item"]) or table.key())
    ]
    titles = [
        (f"{table.name}:{key.name}:{title}", "") for table, key in of_items for title in discovery.titles_of(table)
    ]
    if titles and "titles" not in chosen:
        chosen["titles"] = _choose("Which column names an item to people?", titles, none="none of them")
    limits = {
        f"{table.name} WHERE {condition}": (table.name, key.name, condition)
        for table, key in of_items
        for condition in discovery.conditions_of(table)
    }
    if limits and not {"candidates_table", "candidates_condition"} & chosen.keys():
        question = "Recommend only some items, looked up live?"
        limit = _choose(question, [(text, "") for text in limits], none="no, all of them", default=0)
        if limit in limits:
            names = ("candidates_table", "candidates_column", "candidates_condition")
            chosen |= dict(zip(names, limits[limit], strict=True))


def _of_table(candidate: Candidate) -> str:
    table = candidate.table
    rows = "a view" if table.is_view else f"about {table.rows:,} rows"
    return f"{rows}: {', '.join(column.name for column in table.columns)}"


def _choose(
    question: str,
    options: Sequence[tuple[str, str]],
    others: set[str] | None = None,
    none: str | None = None,
    default: int = 1,
) -> str:
    """Ask until the answer is a number of the list, or a name of it or of `others`; return "none" for no choice."""
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
