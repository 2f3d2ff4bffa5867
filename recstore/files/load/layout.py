"""What a text file looks like: its dialect, whether it has a header, its columns' names. Found out from its first lines."""

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from recstore.errors import InvalidInput
from recstore.evaluation.pair_files import ITEM_NAMES, SEPARATORS, TIME_NAMES, USER_NAMES
from recstore.files.load.kinds import Kind, classify
from recstore.files.load.records import Dialect, Records, TooLong, read_records, to_columns

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
BETWEEN = re.compile(r"\s|::|[\x01^~]")
"""What stands between fields in files that have none of the usual delimiters."""

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
    """What a text file was found to be; `names` are its header's, or None. The header is the first record of so many fields."""

    dialect: Dialect
    encoding: str
    fields: int
    names: tuple[str, ...] | None
    begins: int = 1
    """The first line of the data: 2 where the first is Excel's `sep=;`."""

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
    it goes to. Raises InvalidInput for a text without a line, or one that is several values a line with no delimiter found."""
    sample = b"".join(itertools.islice(pieces, 2))
    if len(sample) > SAMPLE:
        sample = sample[: sample.rfind(b"\n", 0, SAMPLE) + 1] or sample
    begins = 1
    if said := re.match(rb'"?sep=(.)"?\r?\n', sample):
        sample, begins = sample[said.end() :], 2
        given = replace(given, delimiter=given.delimiter or said[1].decode("latin-1"))
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
            one[1].share > 0.5 and one[1].fields > 1,
            one[1].agreeing and one[1].fields > 1 and one[0].delimiter == ";" and decimal_commas,
            one[1].agreeing and one[0].delimiter == ending,
            one[1].share,
            one[1].fields if one[1].agreeing else 0,
        ),
    )
    if given.header and look.first != look.fields:
        raise InvalidInput(f"{name}: the header has {look.first} fields, most lines have {look.fields}.")
    if look.fields == 1 and given.delimiter is None:
        _refuse_several(name, [(one.delimiter, look.parted) for one, look in tried], look, ending is not None)
    rows = look.table(dialect)
    header = given.header is not False and rows and (given.header or _has_header(rows, known))
    names = rows[0] if header else None
    if names and "\ufffd" in "".join(names):
        raise InvalidInput(
            f"The header of {name} is not {encoding} text: say what it is with --encoding, for instance --encoding latin-1."
        )
    return Layout(dialect, encoding, look.fields, tuple(names) if names else None, begins)


def _refuse_several(name: str, parted: list[tuple[str, float]], look: "_Look", table: bool) -> None:
    """Raises InvalidInput where most lines of one column seem to be several values: they hold a delimiter, though not the same
    number of times, or what is between numbers; in a file that calls itself a `table`, what is between anything, and a fifth
    of the lines with a delimiter is enough."""
    between, share = max(parted, key=lambda one: one[1])
    what = SEPARATORS[between]
    if share <= (0.2 if table else 0.5):
        what, quote = "several values", b'"'
        texts = [text.decode("utf-8", "replace").strip() for text in look.texts() if not text.startswith(quote)]
        kinds = classify(pa.array(texts, pa.string()))
        several = [text for text, kind in zip(texts, kinds, strict=True) if kind == Kind.TEXT and _several(text, table)]
        if len(several) <= look.rows / 2:
            return
        found = BETWEEN.search(several[0])
        between = found[0][0] if found else " "
    written = {character: word for word, character in reversed(NAMED.items())}.get(between, repr(between))
    unused = next((one for one in "|;~^" if not any(one.encode() in records.data for records in look.found)), "^")
    raise InvalidInput(
        f"{name} would be one column, but many of its lines hold {what}. Say what is between fields, as with --delimiter"
        f" {written}; if each line is one value, a character that lines do not have: --delimiter {unused!r}"
    )


def _several(text: str, table: bool) -> bool:
    parts = BETWEEN.split(text)
    return len(parts) > 1 and (table or all(re.fullmatch(r"[+-]?[0-9.]+|", part) for part in parts))


@dataclass(frozen=True)
class _Look:
    """A sample under one dialect: its records by piece, how many, the usual number of fields, the share of all that has it,
    the share that is not broken, and the share that has more than one field."""

    found: list[Records]
    rows: int
    fields: int
    share: float
    made: float
    parted: float

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

    def texts(self) -> list[bytes]:
        """The records as they stand in the file."""
        return [records.text(int(n)) for records in self.found for n in np.flatnonzero(records.usable)]

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
    made, rows = counts.total(), max(counts.total() + broken, 1)
    return _Look(found, made, fields, most / rows, made / rows, (made - counts[1]) / rows)


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
    if not all(first[1:]):
        return False
    if (classify(pa.array(first, pa.string())) != Kind.TEXT).any():
        return False
    for column in zip(*rest, strict=True):
        values = [value for value in column if value]
        if values and (classify(pa.array(values, pa.string())) != Kind.TEXT).mean() > 0.5:
            return True
    if len(set(first)) < len(first):
        return False
    named = all(re.fullmatch(r"[A-Za-z][\w .-]{0,62}|", name) for name in first)
    fresh = all(name not in column for name, column in zip(first, zip(*rest, strict=True), strict=False))
    worded = any(part.startswith(HEADER_WORDS) for name in first for part in re.split(r"[\W_]+", name.lower()))
    return named and fresh and worded
