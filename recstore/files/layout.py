"""What a text file looks like: its dialect, whether it has a header, its columns' names. Found out from its first lines."""

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recstore.errors import InvalidInput
from recstore.evaluation.pair_files import ITEM_NAMES, SEPARATORS, TIME_NAMES, USER_NAMES
from recstore.files.kinds import Kind, classify
from recstore.files.records import Dialect, Records, TooLong, read_records, to_columns

SNIFFED = 1000
"""Records that decide what a file is."""

SAMPLE = 1 << 16
"""Bytes that they are looked for in."""

BY_ENDING = {"csv": ",", "tsv": "\t", "tab": "\t", "psv": "|"}
HEADER_WORDS = (
    *USER_NAMES,
    *ITEM_NAMES,
    *TIME_NAMES,
    "id",
    "name",
    "title",
    "value",
    "count",
    "view",
    "rating",
    "visitor",
)
NAMED = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "bar": "|", "pipe": "|", "space": " "}


@dataclass(frozen=True)
class Given:
    """What the person said of the file; None is found out. An empty quote or escape: there is none."""

    delimiter: str | None = None
    quote: str | None = None
    escape: str | None = None
    encoding: str | None = None
    header: bool | None = None


@dataclass(frozen=True)
class Layout:
    """What a text file was found to be; `names` are its header's, or None."""

    dialect: Dialect
    encoding: str
    fields: int
    names: tuple[str, ...] | None

    def __str__(self) -> str:
        dialect = self.dialect
        between = SEPARATORS.get(dialect.delimiter, repr(dialect.delimiter))
        parts = [f"separated by {between}" if self.fields > 1 else "one column"]
        parts.append("no quotes" if dialect.quote is None else f"quote {dialect.quote}")
        parts += [f"escape {dialect.escape}"] if dialect.escape else []
        parts.append("with a header" if self.names else "no header")
        return ", ".join([*parts, self.encoding])


def mark(text: str, option: str) -> str:
    """A delimiter, quote or escape as it may be written at a command line. Raises InvalidInput."""
    found = NAMED.get(text, text)
    if len(found) != 1 or not found.isascii() or found in "\r\n\0":
        raise InvalidInput(f"{option} is {text!r}: give one ASCII character, for instance ';', or tab.")
    return found


def sniff(name: str, pieces: Iterator[bytes], given: Given, encoding: str, known: Collection[str] = ()) -> Layout:
    """What the text is, from its beginning; `name` is the file's, whose ending counts, `known` are columns of the table that
    it goes to. Raises InvalidInput for a text without a line."""
    sample = b"".join(itertools.islice(pieces, 2))
    if len(sample) > SAMPLE:
        sample = sample[: sample.rfind(b"\n", 0, SAMPLE) + 1] or sample
    tried = [(dialect, _look(sample, dialect)) for dialect in _dialects(name, sample, given)]
    if not (tried := [(dialect, look) for dialect, look in tried if look.rows]):
        raise InvalidInput(f"{name} has no line that can be made out as fields.")
    ending = next((BY_ENDING[part] for part in name.lower().split(".")[:0:-1] if part in BY_ENDING), None)
    # a comma's or semicolon's file has no quotes only if next to no line can be made out with them
    quoted = {dialect.delimiter: look for dialect, look in tried if dialect.quote and look.made >= 0.2}
    tried = [
        (one, look)
        for one, look in tried
        if one.quote or given.quote or one.delimiter in "\t|" or one.delimiter not in quoted
    ]
    decimal_commas = b"," in sample and not re.search(rb"[^0-9],|,[^0-9]", sample)
    dialect, look = max(
        tried,
        key=lambda one: (
            one[1].agreeing and one[1].fields > 1,
            one[1].mostly and one[1].fields > 1,
            one[1].agreeing and one[1].fields > 1 and one[0].delimiter == ";" and decimal_commas,
            one[1].agreeing and one[0].delimiter == ending,
            one[1].share,
            one[1].fields if one[1].agreeing else 0,
        ),
    )
    if given.header and look.first != look.fields:
        raise InvalidInput(f"{name}: the header has {look.first} fields, most lines have {look.fields}.")
    rows = look.table(dialect)
    names = (
        rows[0]
        if given.header or (given.header is None and look.first == look.fields and _has_header(rows, known))
        else None
    )
    return Layout(dialect, encoding, look.fields, tuple(names) if names else None)


@dataclass(frozen=True)
class _Look:
    """A sample under one dialect: its records by piece, how many, the usual number of fields, the share of all that has it,
    and the share that is not broken."""

    found: list[Records]
    rows: int
    fields: int
    share: float
    made: float

    @property
    def agreeing(self) -> bool:
        return self.share >= 0.8

    @property
    def mostly(self) -> bool:
        """Agreeing, but for broken lines."""
        return self.made >= 0.2 and self.share >= 0.8 * self.made

    @property
    def first(self) -> int:
        """The number of fields of the first record."""
        return next(int(records.fields[records.usable][0]) for records in self.found if records.usable.any())

    def table(self, dialect: Dialect) -> list[list[str]]:
        """The first records that have the usual number of fields, as strings."""
        fields, rows = self.fields, list[list[str]]()
        for records in self.found:
            keep = records.usable & (records.fields == fields) & ~records.stray
            keep &= np.cumsum(keep) <= SNIFFED - len(rows)
            if keep.any():
                text = records.take(keep).decode("utf-8", "replace").encode()
                columns = to_columns(text, dialect, fields, int(keep.sum()), [])
                rows += map(list, zip(*(column.to_pylist() for column in columns), strict=True))
        return rows


def _look(sample: bytes, dialect: Dialect) -> _Look:
    found, broken, counts = [], 0, Counter[int]()
    for records in read_records(iter([sample]), dialect):
        if isinstance(records, TooLong):
            broken += 1
            continue
        found.append(records)
        broken += len(records.broken)
        counts.update(records.fields[records.usable].tolist())
        if counts.total() + broken >= SNIFFED:
            break
    (fields, most), *_ = counts.most_common(1) or [(0, 0)]
    rows = max(counts.total() + broken, 1)
    return _Look(found, counts.total(), fields, most / rows, counts.total() / rows)


def _dialects(name: str, sample: bytes, given: Given) -> Iterator[Dialect]:
    """Those to try, what is likelier first."""
    delimiters = [mark(given.delimiter, "--delimiter")] if given.delimiter else [",", "\t", ";", "|"]
    for delimiter in delimiters:
        if given.quote is not None:
            quotes = [mark(given.quote, "--quote") if given.quote not in ("", "none") else None]
        else:
            quotes = ['"', None] if b'"' in sample else ['"']
        for quote in quotes:
            escapes: list[str | None] = [None]
            if given.escape is not None:
                escapes = [mark(given.escape, "--escape") if given.escape not in ("", "none") else None]
                escapes = [None if escapes[0] == quote else escapes[0]]
            elif quote and b"\\" + quote.encode() in sample:
                escapes = [None, "\\"]
            for escape in escapes:
                if delimiter in (quote, escape):
                    raise InvalidInput(f"{name}: the delimiter, the quote and the escape character must differ.")
                yield Dialect(delimiter, quote, escape)


def _has_header(rows: list[list[str]], known: Collection[str]) -> bool:
    """Whether the first row is `known` names, or plain text above values that are not; or, above text, words that are not
    values there."""
    first, rest = rows[0], rows[1:]
    if known and set(first) <= set(known):
        return True
    if len(set(first)) < len(first) or not all(first[1:]):
        return False
    if (classify(pa.array(first, pa.string())) != Kind.TEXT).any():
        return False
    for column in zip(*rest, strict=True):
        values = [value for value in column if value]
        if values and (classify(pa.array(values, pa.string())) != Kind.TEXT).mean() > 0.5:
            return True
    named = all(re.fullmatch(r"[A-Za-z][\w .-]{0,62}|", name) for name in first)
    fresh = all(name not in column for name, column in zip(first, zip(*rest, strict=True), strict=False))
    worded = any(part.startswith(HEADER_WORDS) for name in first for part in re.split(r"[\W_]+", name.lower()))
    return named and fresh and worded
