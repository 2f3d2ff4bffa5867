"""Files of (user, item) pairs, as they are published: found out what they are, and read; ids stay text.

Pairs with or without a value and a time, lines of a user and items, or NCF's lines of sampled negatives; plain or gzip. A bad
line is refused with its number. Pure: files in, columns out; `split_files` makes interactions of them.
"""

import csv
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
from numpy.typing import NDArray

from recstore.errors import InvalidInput

Format = Literal["auto", "pairs", "lists"]

SNIFFED = 1000
"""Lines that decide what a file is."""

SEPARATORS = {"::": "'::'", "\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars", " ": "spaces"}
"""In the order in which they are looked for, with their names for people."""

USER_NAMES, ITEM_NAMES = ("user", "uid"), ("item", "iid", "movie", "product", "book", "track", "artist")
TIME_NAMES = ("time", "date", "last_at")


@dataclass(frozen=True)
class Layout:
    """What a file was found to be. Of pairs: where its columns are, `value` and `time` None where it has none."""

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
    """The rows of one file in its order: ids as text, values (float64) and times (int64, microseconds since 1970 UTC) or
    None."""

    path: Path | str
    layout: Layout
    users: pa.Array
    items: pa.Array
    values: NDArray[np.float64] | None
    times: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.users)

    def without_values(self) -> "Pairs":
        """Every pair counts 1."""
        return replace(self, values=None)


def read_pairs(path: Path, format: Format = "auto") -> Pairs:
    """Reads one file of pairs or of lists, plain or compressed by gzip. Raises InvalidInput with the line of a mistake."""
    data = _read(path)
    layout = sniff(data, format)
    if layout.kind == "negatives":
        raise InvalidInput(
            f"{path} begins with a bracket, as a file of sampled negatives does: give it as --negatives."
        )
    if layout.kind == "lists":
        return _read_lists(path, data, layout)
    return _read_columns(path, data, layout)


def read_negatives(path: Path) -> Pairs:
    """Reads sampled negatives: NCF's lines `(user,item)` and items, or lines of a user and items; the item in the brackets
    is the test's own and left out. Raises InvalidInput."""
    data = _read(path)
    kind: Literal["lists", "negatives"] = "negatives" if data.lstrip()[:1] == b"(" else "lists"
    return _read_lists(path, data, Layout(kind))


def sniff(data: bytes, format: Format = "auto") -> Layout:
    """What a file is, from its first lines.

    Lists are lines of differing length, separated by blanks, each with another first field; `format` says so where one
    can not tell. A first line is a header where its first field begins with "user", or where a count or a time ought to be
    and is no number.
    """
    rows = [text for _, (_, text) in zip(range(SNIFFED), _lines(data), strict=False)]
    if rows[0].startswith("(") and format == "auto":
        return Layout("negatives")
    separator = next((mark for mark in SEPARATORS if mark in rows[0]), " ")
    split = [_fields(row, separator) for row in rows]
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
        time = None  # written as a date: a split that is given has no use for it
    return Layout("pairs", separator, header, fields, user, item, value, time)


def check(path: Path) -> None:
    """Raises InvalidInput where there is no such file, or this user may not read it; better before the work than after it."""
    with _plain_errors(path), path.open("rb"):
        pass


@contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise InvalidInput(f"There is no file {path}.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"{path} can not be read: {getattr(error, 'strerror', None) or error}.") from None


def _read(path: Path) -> bytes:
    with _plain_errors(path):
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidInput(f"{path}, line {line}: it is not UTF-8 text.") from None
    if not data.strip():
        raise InvalidInput(f"{path} is empty.")
    return data


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of each line that is not blank."""
    start, number = 0, 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        number += 1
        if text := data[start:end].decode().strip():
            yield number, text
        start = end + 1


def _fields(line: str, separator: str) -> list[str]:
    if separator == " ":
        return line.split()
    if separator == "::":
        return [field.strip() for field in line.split("::")]
    return [field.strip() for field in next(csv.reader([line], delimiter=separator))]


def _is_number(field: str) -> bool:
    try:
        return bool(np.isfinite(float(field)))
    except ValueError:
        return False


def _read_lists(path: Path, data: bytes, layout: Layout) -> Pairs:
    users: list[str] = []
    lists: list[list[str]] = []
    for number, line in _lines(data):
        first, *items = line.split()
        if layout.kind == "negatives":
            match = re.fullmatch(r"\(([^,()]+),([^,()]+)\)", first)
            if match is None:
                raise InvalidInput(f"{path}, line {number}: {first!r} ought to be (user,item), as on the first line.")
            first = match[1].strip()
        users.append(first)
        lists.append(items)
    lengths = np.array([len(items) for items in lists])
    owners = pa.array(users, pa.string()).take(pa.array(np.repeat(np.arange(len(users)), lengths)))
    return Pairs(path, layout, owners, pa.array(list(chain.from_iterable(lists)), pa.string()), None, None)


def _read_columns(path: Path, data: bytes, layout: Layout) -> Pairs:
    """By Arrow where every line is right; the first wrong one is then looked for line by line."""
    if layout.fields < 2:
        raise InvalidInput(
            f"{path}, line {next(_lines(data))[0]}: it has one field only; a user and an item are separated by blanks, tabs,"
            " commas, semicolons, bars or '::'."
        )
    wanted = [n for n in (layout.user, layout.item, layout.value, layout.time) if n is not None]
    names = [f"f{n}" for n in range(layout.fields)]
    text = [f"f{layout.user}", f"f{layout.item}"]
    kinds = {f"f{n}": pa.string() if f"f{n}" in text else pa.float64() for n in wanted}
    body = data.split(b"\n", 1)[1] if layout.header and b"\n" in data else (b"" if layout.header else data)
    separator = layout.separator
    if separator == "::":
        body, separator = body.replace(b"::", b"\x1f"), "\x1f"
    elif separator == " ":
        body = re.sub(rb"(?m)^[ \t]+|[ \t\r]+$", b"", body)
        body = re.sub(rb"[ \t]+", b" ", body)
    if not body.strip():
        raise InvalidInput(f"{path} has a header and no pairs.")
    try:
        table = arrow_csv.read_csv(
            pa.py_buffer(body),
            arrow_csv.ReadOptions(column_names=names, block_size=1 << 24),
            arrow_csv.ParseOptions(delimiter=separator, quote_char=False if separator in "\x1f " else '"'),
            arrow_csv.ConvertOptions(column_types=kinds, include_columns=list(kinds), null_values=[]),
        )
    except pa.ArrowInvalid as error:
        _blame(path, data, layout)
        raise InvalidInput(f"{path} can not be read: {' '.join(str(error).split())}.") from None
    users, items = (pc.utf8_trim_whitespace(table[name].combine_chunks()) for name in text)
    values = None if layout.value is None else table[f"f{layout.value}"].to_numpy()
    times = None if layout.time is None else _microseconds(table[f"f{layout.time}"].to_numpy())
    empty = pc.any(pc.equal(users, "")).as_py() or pc.any(pc.equal(items, "")).as_py()
    if empty or (values is not None and not np.isfinite(values).all()):
        _blame(path, data, layout)
    return Pairs(path, layout, users, items, values, times)


def _blame(path: Path, data: bytes, layout: Layout) -> None:
    """Raises InvalidInput about the first line that is wrong."""
    rows = _lines(data)
    if layout.header:
        next(rows)
    for number, line in rows:
        fields = _fields(line, layout.separator)
        where = f"{path}, line {number}"
        if len(fields) != layout.fields:
            raise InvalidInput(
                f"{where}: it has {len(fields)} fields separated by {SEPARATORS[layout.separator]}, the first line has"
                f" {layout.fields}."
            )
        if not fields[layout.user] or not fields[layout.item]:
            raise InvalidInput(f"{where}: an id is empty.")
        for n in (layout.value, layout.time):
            if n is not None and not _is_number(fields[n]):
                raise InvalidInput(f"{where}: {fields[n]!r} is not a number.")


def _microseconds(times: NDArray[np.float64]) -> NDArray[np.int64]:
    """Of times as numbers: seconds since 1970, or milliseconds where that would lie thousands of years ahead."""
    scale = 1e3 if np.max(times, initial=0) > 1e11 else 1e6
    return (times * scale).astype(np.int64)
