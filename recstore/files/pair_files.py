"""Files of (user, item) pairs in the forms they are published in; ids stay text.

Pairs with or without a value and a time, lines of a user and items, or NCF's lines of sampled negatives; plain or gzip. A bad
line is refused with its number. Pure: files in, columns out; `split_files` makes interactions of them.
"""

import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recstore.errors import InvalidInput
from recstore.files.delimited import ITEM_NAMES, SEPARATORS, SNIFFED, TIME_NAMES, USER_NAMES, Dialect, read_records
from recstore.files.delimited import sniff as sniff_text

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
    """Read one file of pairs or of lists, plain or compressed by gzip. Raises InvalidInput with the line of a mistake."""
    text = _read(path)
    layout = sniff(text, format)
    if layout.kind == "negatives":
        raise InvalidInput(
            f"{path} begins with a bracket, as a file of sampled negatives does: give it as --negatives."
        )
    return _read_lists(path, text, layout) if layout.kind == "lists" else _read_columns(path, text, layout)


def read_negatives(path: Path) -> Pairs:
    """Read sampled negatives: NCF's lines `(user,item)` and items, or lines of a user and items.

    The item in the brackets is the test's own and left out. Raises InvalidInput.
    """
    text = _read(path)
    return _read_lists(path, text, Layout("negatives" if text.lstrip()[:1] == "(" else "lists"))


def sniff(text: str, format: Format = "auto") -> Layout:
    """Return the form of a file, from its first lines.

    Lists are lines of differing length, separated by blanks, each with another first field; `format` decides where that is
    ambiguous. A first line is a header if its first field begins with "user", or a count or a time in it is no number.
    """
    if text.lstrip().startswith("(") and format == "auto":
        return Layout("negatives")
    form = sniff_text("the file", io.StringIO(text, newline="\n"))
    between, share = max(form.parted.items(), key=lambda one: one[1])
    separator = form.dialect.delimiter if form.fields > 1 else between if share > 0.5 else " "
    split = [fields for _, fields in islice(_records(text, separator), SNIFFED) if isinstance(fields, list)]
    if format == "lists" or (format == "auto" and separator in " \t" and _are_lists(split)):
        return Layout("lists")
    return _columns_of(split, separator)


def _are_lists(split: Sequence[Sequence[str]]) -> bool:
    first = [fields[0] for fields in split]
    lengths = {len(fields) for fields in split}
    return len(set(first)) == len(first) and (len(lengths) > 1 or lengths.pop() > 4)


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
        rest = [n for n in range(fields) if n not in (user, item, time)]
        value = rest[0] if rest else None
    sample = next(iter(split[1:]), None) if header else split[0]
    if time is not None and not (sample and len(sample) > time and _is_number(sample[time])):
        time = None  # written as a date, which a published split does not need
    return Layout("pairs", separator, header, fields, user, item, value, time)


def check(path: Path) -> None:
    """Raise InvalidInput if the file is missing or unreadable, before the work instead of after it."""
    with _plain_errors(path), path.open("rb"):
        pass


@contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise InvalidInput(f"There is no file {path}.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def _read(path: Path) -> str:
    with _plain_errors(path):
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidInput(f"{path}, line {line}: it is not UTF-8 text.") from None
    if not text.strip():
        raise InvalidInput(f"{path} is empty.")
    return text


def _records(text: str, separator: str) -> Iterator[tuple[int, list[str] | str]]:
    """Yield the line and the fields of each record, or the reason why it has none."""
    lines = io.StringIO(text, newline="\n")
    if separator == " ":
        yield from ((number, fields) for number, line in enumerate(lines, 1) if (fields := line.split()))
    else:
        dialect = Dialect(separator, None if separator == "::" else '"')
        yield from ((number, fields) for number, line, fields in read_records(lines, dialect) if line.strip())


def _is_number(field: str) -> bool:
    try:
        return bool(np.isfinite(float(field)))
    except ValueError:
        return False


def _read_lists(path: Path, text: str, layout: Layout) -> Pairs:
    users: list[str] = []
    lists: list[list[str]] = []
    for number, line in enumerate(io.StringIO(text, newline="\n"), 1):
        if not line.strip():
            continue
        first, *items = line.split()
        if layout.kind == "negatives":
            match = re.fullmatch(r"\(([^,()]+),([^,()]+)\)", first)
            if match is None:
                raise InvalidInput(f"{path}, line {number}: {first!r} should be (user,item), as on the first line.")
            first = match[1].strip()
        users.append(first)
        lists.append(items)
    lengths = np.array([len(items) for items in lists])
    owners = pa.array(users, pa.string()).take(pa.array(np.repeat(np.arange(len(users)), lengths)))
    return Pairs(path, layout, owners, pa.array(list(chain.from_iterable(lists)), pa.string()), None, None)


def _read_columns(path: Path, text: str, layout: Layout) -> Pairs:
    rows = _records(text, layout.separator)
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
            if isinstance(fields, str):
                raise InvalidInput(f"{path}, line {number}: {fields}.")
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
    found_columns = dict(zip(places[2:], map(np.concatenate, numbers), strict=True))
    times = None if layout.time is None else _microseconds(found_columns[layout.time])
    return Pairs(path, layout, users, items, None if layout.value is None else found_columns[layout.value], times)


def _numbers(path: Path, column: pa.Array, lines: Sequence[int]) -> NDArray[np.float64]:
    try:
        found: NDArray[np.float64] = pc.cast(column, pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        found = np.array([np.nan])
    if not np.isfinite(found).all():
        line, text = next(
            (line, text) for line, text in zip(lines, column.to_pylist(), strict=True) if not _is_number(text)
        )
        raise InvalidInput(f"{path}, line {line}: {text!r} is not a number.")
    return found


def _microseconds(times: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return times in microseconds: seconds since 1970, or milliseconds if that would be thousands of years ahead."""
    scale = 1e3 if np.max(times, initial=0) > 1e11 else 1e6
    return (times * scale).astype(np.int64)
