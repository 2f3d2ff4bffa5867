"""Files of (user, item) pairs in the forms they are published in; ids stay text.

Pairs with or without a value and a time, lines of a user and items, or NCF's lines of sampled negatives. A bad line is refused
with its number. Pure: files in, columns out; `split_files` makes interactions of them.
"""

import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recstore.errors import InvalidInput
from recstore.files.delimited import (
    ITEM_NAMES,
    SEPARATORS,
    SNIFFED,
    TIME_NAMES,
    USER_NAMES,
    Dialect,
    read_records,
    sniff,
)
from recstore.files.opening import TextDecoding, is_text, opened

Format = Literal["auto", "pairs", "lists"]

BLOCK = 100_000
"""Rows that are read before they become columns."""


@dataclass(frozen=True)
class Layout:
    """The form of a file. Of pairs: the places of its columns, `value` and `time` None if it has none."""

    kind: Literal["pairs", "lists", "negatives"]
    separator: str = " "
    header: bool = False
    fields: int = 0
    user: int = 0
    item: int = 1
    value: int | None = None
    time: int | None = None

    def __str__(self) -> str:
        if self.kind == "lists":
            return "lines of a user and items"
        if self.kind == "negatives":
            return "lines of (user,item) and items"
        parts = ["user", "item"] + ["value"] * (self.value is not None) + ["time"] * (self.time is not None)
        header = ", with a header" if self.header else ""
        return f"pairs ({', '.join(parts)}) separated by {SEPARATORS[self.separator]}{header}"


@dataclass(frozen=True, eq=False)
class Pairs:
    """The rows of one file in its order: ids as text, values, and times in microseconds since 1970 UTC, or None."""

    path: Path | str
    layout: Layout
    users: pa.Array
    items: pa.Array
    values: NDArray[np.float64] | None
    times: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.users)


def read_pairs(path: Path, format: Format = "auto") -> Pairs:
    """Read one file of pairs or of lists, plain or compressed. Raises InvalidInput with the line of a mistake."""
    with opened(str(path)) as file:
        text = TextDecoding.of(file, "utf-8")
        layout = _layout(text, format)
        if layout.kind == "negatives":
            raise InvalidInput(
                f"{path} begins with a bracket, as a file of sampled negatives does: give it as --negatives."
            )
        if layout.kind == "lists":
            return _read_lists(path, text, layout)
        with closing(_records(text, layout.separator)) as rows:
            return _read_columns(path, rows, layout)


def read_negatives(path: Path) -> Pairs:
    """Read sampled negatives: NCF's lines `(user,item)` and items, or lines of a user and items.

    The item in the brackets is the test's own and left out. Raises InvalidInput.
    """
    with opened(str(path)) as file:
        text = TextDecoding.of(file, "utf-8")
        return _read_lists(path, text, Layout("negatives" if _first_line(text).startswith("(") else "lists"))


def check(path: Path) -> None:
    """Raise InvalidInput if the file is missing or unreadable, before the work instead of after it. Standard input, which can be
    read once, is left."""
    if str(path) != "-":
        with opened(str(path)):
            pass


def _first_line(text: TextDecoding) -> str:
    """Return the first line that is not blank. Raises InvalidInput for an empty file."""
    found = next((stripped for line in text.lines() if (stripped := line.strip())), None)
    if found is None:
        raise InvalidInput(f"{text.file.name} is empty.")
    return found


def _records(text: TextDecoding, separator: str) -> Generator[tuple[int, list[str]], None, None]:
    """Yield line and fields of each record. Raises InvalidInput for one that is broken."""
    if separator == " ":  # any number of blanks
        found = read_records((" ".join(line.split()) for line in text.lines()), Dialect(" ", None))
    else:
        found = read_records(text.lines(), Dialect(separator, None if separator == "::" else '"'))
    with closing(found) as records:  # the file too, although an error holds this frame
        for number, line, fields in records:
            if not (line.isascii() or is_text(line)):
                raise InvalidInput(f"{text.file.name}, line {number}: it is not UTF-8 text.")
            if isinstance(fields, str):
                raise InvalidInput(f"{text.file.name}, line {number}: {fields}.")
            if line.strip():
                yield number, fields


def _layout(text: TextDecoding, format: Format) -> Layout:
    """Return the form of a file, from its first lines.

    Lists are lines of differing length, separated by blanks, each with another first field; `format` decides where that is
    ambiguous. A first line is a header if its first field begins with "user", or a count or a time in it is no number.
    """
    if _first_line(text).startswith("(") and format == "auto":
        return Layout("negatives")
    if format == "lists":
        return Layout("lists")
    form = sniff("the file", text.lines())
    between, share = max(form.parted.items(), key=lambda one: one[1])
    separator = form.dialect.delimiter if form.fields > 1 else between if share > 0.5 else " "
    split = [fields for _, fields in islice(_records(text, separator), SNIFFED)]
    if format == "auto" and separator in " \t":
        users, lengths = {fields[0] for fields in split}, {len(fields) for fields in split}
        if len(users) == len(split) and (len(lengths) > 1 or lengths.pop() > 4):
            return Layout("lists")
    return _columns_of(split, separator)


def _columns_of(split: Sequence[Sequence[str]], separator: str) -> Layout:
    first = [field.lower() for field in split[0]]
    fields = len(first)
    header = first[0].startswith(USER_NAMES) or any(not _is_number(field) for field in first[2:4])
    user, item, value, time = 0, 1, 2 if fields > 2 else None, 3 if fields > 3 else None
    if header:
        user = next((n for n, name in enumerate(first) if name.startswith(USER_NAMES)), 0)
        item = next(
            (n for n, name in enumerate(first) if name.startswith(ITEM_NAMES) and n != user), 1 if user == 0 else 0
        )
        time = next((n for n, name in enumerate(first) if name.startswith(TIME_NAMES)), None)
        value = next((n for n in range(fields) if n not in (user, item, time)), None)
    sample = split[header] if len(split) > header else []
    if time is not None and not (len(sample) > time and _is_number(sample[time])):
        time = None  # written as a date, which a published split does not need
    return Layout("pairs", separator, header, fields, user, item, value, time)


def _is_number(field: str) -> bool:
    try:
        return bool(np.isfinite(float(field)))
    except ValueError:
        return False


def _read_lists(path: Path, text: TextDecoding, layout: Layout) -> Pairs:
    users: list[str] = []
    lists: list[list[str]] = []
    for number, (first, *items) in _records(text, " "):
        match = re.fullmatch(r"\(([^,()]+),([^,()]+)\)", first) if layout.kind == "negatives" else None
        if layout.kind == "negatives" and match is None:
            raise InvalidInput(f"{path}, line {number}: {first!r} should be (user,item), as on the first line.")
        users.append(match[1] if match else first)
        lists.append(items)
    owners = np.repeat(np.arange(len(users)), [len(items) for items in lists])
    ids = pa.array(users, pa.string()).take(pa.array(owners)), pa.array(list(chain.from_iterable(lists)), pa.string())
    return Pairs(path, layout, *ids, None, None)


def _read_columns(path: Path, rows: Iterator[tuple[int, list[str]]], layout: Layout) -> Pairs:
    if layout.fields < 2:
        raise InvalidInput(
            f"{path}, line {next(rows)[0]}: it has one field only; a user and an item are separated by blanks, tabs,"
            " commas, semicolons, bars or '::'."
        )
    if layout.header:
        next(rows)
    places = [layout.user, layout.item, *(n for n in (layout.value, layout.time) if n is not None)]
    ids: list[list[pa.Array]] = [[], []]
    numbers: list[list[NDArray[np.float64]]] = [[] for _ in places[2:]]
    while block := list(islice(rows, BLOCK)):
        for number, fields in block:
            if len(fields) != layout.fields:
                raise InvalidInput(
                    f"{path}, line {number}: it has {len(fields)} fields separated by {SEPARATORS[layout.separator]}, the first"
                    f" line has {layout.fields}."
                )
        columns = [pc.utf8_trim_whitespace(pa.array([fields[n] for _, fields in block], pa.string())) for n in places]
        for column, parts in zip(columns, ids, strict=False):
            if (empty := pc.index(column, "").as_py()) >= 0:
                raise InvalidInput(f"{path}, line {block[empty][0]}: an id is empty.")
            parts.append(column)
        for column, found_numbers in zip(columns[2:], numbers, strict=True):
            found_numbers.append(_numbers(path, column, [number for number, _ in block]))
    if not ids[0]:
        raise InvalidInput(f"{path} has a header and no pairs.")
    users, items = (pa.concat_arrays(parts) for parts in ids)
    found = dict(zip(places[2:], map(np.concatenate, numbers), strict=True))
    values, times = (None if place is None else found[place] for place in (layout.value, layout.time))
    return Pairs(path, layout, users, items, values, None if times is None else _microseconds(times))


def _numbers(path: Path, column: pa.Array, lines: Sequence[int]) -> NDArray[np.float64]:
    try:
        found: NDArray[np.float64] = pc.cast(column, pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        found = np.array([np.nan])
    if not np.isfinite(found).all():
        texts = zip(lines, column.to_pylist(), strict=True)
        line, text = next((line, text) for line, text in texts if not _is_number(text))
        raise InvalidInput(f"{path}, line {line}: {text!r} is not a number.")
    return found


def _microseconds(times: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return times in microseconds: seconds since 1970, or milliseconds if that would be thousands of years ahead."""
    scale = 1e3 if np.max(times, initial=0) > 1e11 else 1e6
    return (times * scale).astype(np.int64)
