"""What an operator's screens are made of: times in words, states in colours, tables that fit the terminal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from recstore import schedule
from recstore.cli.context import say, state, told
from recstore.registry import next_retrain
from recstore.wording import age

STYLES = {
    "running": "cyan",
    "succeeded": "green",
    "skipped": "green",
    "ready": "yellow",
    "failed": "red",
    "abandoned": "red",
    "cancelled": "dim",
}
"""Of the states of runs and requests."""

LEAST = ((30, 16), (10, 10))
"""Characters that the sentence in the last column of a table and a name keep at a terminal; less if that is too wide."""


def ago(moment: datetime, now: datetime) -> str:
    return f"{age(now - moment)} ago"


def when(moment: datetime, now: datetime) -> str:
    """For a table: how long ago at a terminal, the time elsewhere, where it may be read much later."""
    return ago(moment, now) if state.output.is_terminal else stamp(moment)


def stamp(moment: datetime) -> str:
    """In this machine's time zone, which is named."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def planned(row: dict[str, Any], now: datetime | None = None) -> str:
    """The schedule of a row of recstore.status in words, with the next time."""
    return _planned(row["schedule"], row["timezone"], next_retrain(row), now or datetime.now(UTC))


def planned_lists(row: dict[str, Any], now: datetime) -> str:
    """That of its lists."""
    return _planned(row["lists_schedule"], row["timezone"], row["next_lists"], now)


def _planned(cron: str, timezone: str, due: datetime | None, now: datetime) -> str:
    words = schedule.words(cron, timezone)
    words = words[0].lower() + words[1:]
    if due is None:
        return f"{words}, never again"
    time = f"{due:%a %d %b %H:%M}" + (f":{due:%S}" if due.second else "") + f" {due:%Z}"
    if due <= now:
        return f"{words}, due now (since {time})"
    return f"{words}, next {time} (in {age(due - now)})"


def one_line(value: Any) -> str:
    """As text without line breaks, which a server's message may have."""
    return "" if value is None else " ".join(str(value).split())


@dataclass(frozen=True)
class Column:
    """Of a table: its head, the text of a row in it, and what it is."""

    head: str
    cell: Callable[[dict[str, Any]], Any]
    kind: Literal["text", "number", "state", "name"] = "text"


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[Column], empty: str) -> None:
    """A row per line, or whole rows with --json. At a terminal the last column, a sentence, is cut to what room there is,
    and names if that is too little; elsewhere nothing is cut."""
    if told(rows, empty):
        return
    cells = [[one_line(column.cell(row)) for column in columns] for row in rows]
    widths = [max(len(column.head), *(len(row[n]) for row in cells)) for n, column in enumerate(columns)]
    if not state.output.is_terminal:
        for row in [[column.head for column in columns], *cells]:
            padded = (
                cell.rjust(width) if column.kind == "number" else cell.ljust(width)
                for cell, width, column in zip(row, widths, columns, strict=True)
            )
            say("  ".join(padded).rstrip())
        return
    room = state.output.width - 2 * (len(widths) - 1)
    names = [n for n, column in enumerate(columns) if column.kind == "name"]
    for least_sentence, least_name in LEAST:
        for n in [len(columns) - 1, *names]:
            least = max(len(columns[n].head), least_name if n in names else least_sentence)
            widths[n] = max(min(widths[n], room - sum(widths) + widths[n]), min(widths[n], least))
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    overflow: Literal["ellipsis", "crop"] = "ellipsis" if state.output.encoding.startswith("utf") else "crop"
    for column, width in zip(columns, widths, strict=True):
        justify: Literal["left", "right"] = "right" if column.kind == "number" else "left"
        table.add_column(column.head, justify=justify, no_wrap=True, overflow=overflow, max_width=width)
    for row in cells:
        styles = [STYLES.get(cell, "") if c.kind == "state" else "" for c, cell in zip(columns, row, strict=True)]
        table.add_row(*map(Text, row, styles))
    state.output.print(table)
