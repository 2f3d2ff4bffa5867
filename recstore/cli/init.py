"""`recstore init`: a commented TOML file for one's own tables, after looking at them and asking."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from recstore.api.arguments import Option, Yes
from recstore.api.begin import Beginning, Surroundings
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
        _ask(part.look(), arguments)
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


def _without_terminal(found: list[Candidate]) -> str:
    likely = "; ".join(
        f"{c.table.name} (ids: {', '.join(dict.fromkeys(c.users))}; numbers: {', '.join(c.values) or 'none'})"
        for c in found[:5]
    )
    return (
        "Without a terminal nothing is asked, so say which table and columns have the views: --table, --user, --item,"
        f" and --value with a column or none. The likeliest: {likely}."
    )


def _ask(seen: Surroundings, chosen: dict[str, str]) -> None:
    """Complete the options by answers at the terminal. Raises InvalidInput where nothing can be asked or chosen."""
    found = discovery.candidates(seen.tables)
    if not found and not (at_terminal() and "table" in chosen):
        raise InvalidInput(_nothing_found(seen.role))
    if not at_terminal():
        raise InvalidInput(_without_terminal(found))
    if "table" not in chosen:
        options = {c.table.name: _about(c.table) for c in found[:SHOWN]}
        chosen["table"] = _choose("Which table has the views?", options, {table.name for table in seen.tables})
    given = chosen["table"]
    views = next((table for table in seen.tables if table.name.replace('"', "") == given.replace('"', "")), None)
    if views is None:
        raise InvalidInput(f"There is no table {given} that this role can read. {how_to_write(given)}")
    likely = next((c for c in found if c.table == views), Candidate(views, (), (), (), (), 0))
    kinds = {column.name: column.type for column in views.columns}

    def ask(option: str, question: str, names: Sequence[str], none: str | None = None, default: int = 1) -> None:
        if option not in chosen and (names or none is None):
            chosen[option] = _choose(question, {name: kinds[name] for name in names}, set(kinds), none, default)

    ask("user", "Which column is the user's id?", likely.users or list(kinds))
    ask("item", "Which column is the item's id?", [c for c in likely.items or list(kinds) if c != chosen["user"]])
    numbers = dict.fromkeys((*likely.values, *(column.name for column in views.columns if column.may_be_count)))
    values = [name for name in numbers if name not in (chosen["user"], chosen["item"])]
    ask("value", "Which column counts the views?", values, "none: every row counts 1", int(likely.counts))
    ask("last_at", "Which column is the time of the last view?", likely.times, "none of them")
    of_items = [
        (table, key)
        for table in discovery.tables_of_items(seen.tables, views, chosen["item"])
        if (key := table.column(chosen["item"]) or table.key())
    ]
    titles = {f"{table.name}:{key.name}:{title}": "" for table, key in of_items for title in discovery.titles_of(table)}
    if titles and "titles" not in chosen:
        chosen["titles"] = _choose("Which column names an item to people?", titles, none="none of them")
    names = ("candidates_table", "candidates_column", "candidates_condition")
    limits = {
        f"{table.name} WHERE {condition}": dict(zip(names, (table.name, key.name, condition), strict=True))
        for table, key in of_items
        for condition in discovery.conditions_of(table)
    }
    if limits and not {"candidates_table", "candidates_condition"} & chosen.keys():
        question = "Recommend only some items, looked up live?"
        chosen |= limits.get(_choose(question, dict.fromkeys(limits, ""), none="no, all of them", default=0), {})


def _about(table: Table) -> str:
    rows = "a view" if table.is_view else f"about {table.rows:,} rows"
    return f"{rows}: {', '.join(column.name for column in table.columns)}"


def _choose(
    question: str,
    options: Mapping[str, str],
    others: Collection[str] = (),
    none: str | None = None,
    default: int = 1,
) -> str:
    """Ask until the answer is a number or name of {name: meaning}, or one of `others`; return "none" for no choice."""
    say(f"\n{question}")
    width = max(map(len, options), default=0)
    for number, (name, meaning) in enumerate(options.items(), 1):
        say(f"  {number:>2}  {name:<{width}}  {meaning}".rstrip())
    if none is not None:
        say(f"   0  {none}")
    while True:
        answer = str(typer.prompt("Number or name", default=str(default if options else 0))).strip()
        if answer == "0" and none is not None:
            return "none"
        if answer.isdecimal() and 1 <= int(answer) <= len(options):
            return list(options)[int(answer) - 1]
        if answer in options or answer in others:
            return answer
        say(f"There is no {answer!r} to choose.")
