"""Print for commands: sentences and tables for people, JSON for programs; times in words, states in colours."""

import dataclasses
import json
import textwrap
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from recstore import schedule
from recstore.background.watching import progress_of
from recstore.cli.context import state
from recstore.wording import age, printable

STYLES = {
    "running": "cyan",
    "succeeded": "green",
    "skipped": "green",
    "ready": "yellow",
    "failed": "red",
    "abandoned": "red",
    "cancelled": "dim",
}
"""Colours of the states of runs and requests."""

NAMES = ("recommender", "by")
SENTENCES = ("outcome", "settings")
"""Columns of a table that are cut at a narrow terminal: a sentence, which is the last, before names."""

LEAST = ((30, 16), (10, 10))
"""Least widths of a sentence and of a name at a terminal, in characters; the second pair where the first is too wide."""


def say(what: RenderableType) -> None:
    """Print a line for people; nothing with --json, whose output is the data."""
    if not state.json:
        state.output.print(what)


def say_wrapped(text: str) -> None:
    """Print a line for people that a terminal wraps at words, later lines indented by two more."""
    if state.output.is_terminal:
        indent = " " * (len(text) - len(text.lstrip()) + 2)
        text = textwrap.fill(
            text, state.output.width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
    say(text)


def warn(sentence: object) -> None:
    """Print a warning on standard error."""
    state.errors.print(f"Warning: {sentence}")


def show(value: Any) -> None:
    """Print data for programs."""
    state.output.print(as_json(value))


def as_json(value: Any) -> str:
    """Return the JSON of data and of the rows of `recstore.rows`."""
    unicode = state.output.encoding.startswith("utf")
    return json.dumps(value, default=_plain, ensure_ascii=not unicode, indent=2)


def _plain(value: Any) -> object:
    if hasattr(value, "as_dict"):
        return value.as_dict()
    if dataclasses.is_dataclass(value):
        shown = [field.name for field in dataclasses.fields(value) if field.metadata.get("json", True)]
        return {name.rstrip("_"): getattr(value, name) for name in shown}
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return float(value) if isinstance(value, Decimal) else str(value)


def ago(moment: datetime, now: datetime) -> str:
    """Return the age of a moment in words."""
    return f"{age(now - moment)} ago"


def when(moment: datetime, now: datetime | None = None) -> str:
    """Return the age of a moment at a terminal; elsewhere the time, since it may be read much later."""
    return ago(moment, now or datetime.now(UTC)) if state.output.is_terminal else stamp(moment)


def stamp(moment: datetime) -> str:
    """Return a time in this machine's time zone, which is named."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def planned(cron: str, timezone: str, due: datetime | None, now: datetime | None = None) -> str:
    """Return a schedule in words, with the next time."""
    now = now or datetime.now(UTC)
    words = schedule.words(cron, timezone)
    words = words[0].lower() + words[1:]
    if due is None:
        return f"{words}, never again"
    time = f"{due:%a %d %b %H:%M}" + (f":{due:%S}" if due.second else "") + f" {due:%Z}"
    if due <= now:
        return f"{words}, due now (since {time})"
    return f"{words}, next {time} (in {age(due - now)})"


def share_of(progress: dict[str, Any] | None) -> float | None:
    """Return the finished part of a stage, if it has more than one step."""
    return float(min(progress["done"] / progress["total"], 1.0)) if progress and progress["total"] > 1 else None


def where(stage: str | None, progress: dict[str, Any] | None) -> str:
    """Return the stage at work and how far it is, in words; empty between two stages."""
    at = progress_of(stage, progress)
    share = share_of(at)
    words = (stage or "") + ("" if share is None else f" {100 * share:.0f} %")
    return words + (f", {at['note']}" if at and at["note"] else "")


def one_line(value: Any) -> str:
    """Return text without line breaks and control characters, which a server's message and an application's data may have."""
    return "" if value is None else printable(" ".join(str(value).split()))


def rounded(value: float | None, digits: int) -> Decimal | None:
    """Return a number with fixed digits, which a table aligns to the right."""
    return None if value is None else Decimal(f"{value:.{digits}f}")


def picked(rows: Sequence[Any], names: str) -> list[dict[str, Any]]:
    """Return some attributes of rows, for `table`."""
    return [{name: getattr(row, name) for name in names.split()} for row in rows]


def table(rows: Sequence[dict[str, Any]], empty: str = "Nothing to show.") -> None:
    """Print a table of {head: value}, or the sentence `empty`.

    At a terminal that is too narrow, sentences and names are cut; a table without a sentence becomes a block per row.
    """
    if state.json or not rows:
        say(empty)
        return
    heads = [head.replace("_", " ") for head in rows[0]]
    cells = [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    columns = zip(*(row.values() for row in rows), strict=True)
    right = [all(isinstance(value, int | float | Decimal | None) for value in column) for column in columns]
    if not state.output.is_terminal:
        for row in [heads, *cells]:
            places = zip(row, widths, right, strict=True)
            say("  ".join(cell.rjust(width) if r else cell.ljust(width) for cell, width, r in places).rstrip())
    elif heads[-1] in SENTENCES:
        _print(cells, heads, right, _cut(heads, widths))
    elif sum(widths) + 2 * len(widths) > state.output.width:  # like psql's \x
        for row in cells:
            for head, cell in zip(heads, row, strict=True):
                say(Text.assemble((f"{head:<{max(map(len, heads))}}  ", "bold"), cell))
            say("")
    else:
        _print(cells, heads, right, widths)


def _cut(heads: list[str], widths: list[int]) -> list[int]:
    """Return widths that fit the terminal, if they can."""
    room = state.output.width - 2 * (len(widths) - 1)
    names = [n for n, head in enumerate(heads) if head in NAMES]
    for least_sentence, least_name in LEAST:
        for n in [len(heads) - 1, *names]:
            least = max(len(heads[n]), least_name if n in names else least_sentence)
            widths[n] = max(min(widths[n], room - sum(widths) + widths[n]), min(widths[n], least))
    return widths


def _print(cells: list[list[str]], heads: list[str], right: list[bool], widths: list[int]) -> None:
    drawn = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    overflow: Literal["ellipsis", "crop"] = "ellipsis" if state.output.encoding.startswith("utf") else "crop"
    for head, r, width in zip(heads, right, widths, strict=True):
        justify: Literal["right", "left"] = "right" if r else "left"
        drawn.add_column(head, justify=justify, no_wrap=True, overflow=overflow, max_width=width)
    for row in cells:
        styles = [STYLES.get(cell, "") if head == "state" else "" for head, cell in zip(heads, row, strict=True)]
        drawn.add_row(*map(Text, row, styles))
    say(drawn)


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return stamp(value)
    if isinstance(value, float):
        return f"{value:.3f}".removesuffix(".000")
    if value is None or isinstance(value, UUID | str | int | Decimal):
        return one_line(value)
    return json.dumps(value, default=str, ensure_ascii=False)
