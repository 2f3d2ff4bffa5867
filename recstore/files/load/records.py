"""Delimited text into records, with the physical line on which each begins. NumPy finds the marks, Arrow takes the quotes off.

A newline ends a record where the number of quotes before it is even. A quote may stand only where a field begins or ends, or
doubled inside one; where that is broken, the record's first line is bad and reading goes on with the next line.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
from numpy.typing import NDArray

from recstore.files.load.opening import PIECE

Positions = NDArray[np.int64]

AFTER_BROKEN = 1 << 16
"""Bytes looked at first after a broken quote, so that many of them do not cost a whole piece each."""

LONGEST = 1 << 24
"""Bytes that a record may have: a quote that is still open then is broken."""

NEWLINE, RETURN = 10, 13


@dataclass(frozen=True)
class Dialect:
    """How fields are separated and quoted; each mark is one ASCII character. The character after `escape` stands for itself,
    anywhere."""

    delimiter: str = ","
    quote: str | None = '"'
    escape: str | None = None


@dataclass(frozen=True, eq=False)
class Records:
    """Complete records of a piece of text: where each begins and ends (its newline left out), the line it begins on, its
    number of fields, whether a carriage return stands in the middle of it, and of those with broken quotes (each a line by
    itself) why."""

    data: bytes
    starts: Positions
    ends: Positions
    lines: Positions
    fields: Positions
    stray: NDArray[np.bool_]
    broken: dict[int, str]

    def __len__(self) -> int:
        return len(self.starts)

    def text(self, index: int) -> bytes:
        return self.data[self.starts[index] : self.ends[index]]

    @property
    def blank(self) -> NDArray[np.bool_]:
        length = self.ends - self.starts
        alone = np.frombuffer(self.data, np.uint8)[np.minimum(self.starts, max(len(self.data) - 1, 0))] == RETURN
        return np.asarray((length == 0) | ((length == 1) & alone))

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Neither blank nor broken."""
        keep = ~self.blank
        keep[list(self.broken)] = False
        return keep

    def take(self, keep: NDArray[np.bool_]) -> bytes:
        """The text of some of the records."""
        if keep.all():
            return self.data[self.starts[0] : self.ends[-1] + 1]
        chosen = np.flatnonzero(keep)
        return b"".join(self.data[self.starts[n] : self.ends[n]] + b"\n" for n in chosen)


@dataclass(frozen=True)
class TooLong:
    """A record that is longer than can be looked at, by its first line."""

    line: int
    reason: str
    text: bytes


def read_records(pieces: Iterator[bytes], dialect: Dialect) -> Iterator[Records | TooLong]:
    """All records of a text that comes in pieces, in order, in bounded memory."""
    data, line, ended, window = b"", 1, False, PIECE

    def more() -> bool:
        nonlocal data, ended
        piece = None if ended else next(pieces, None)
        ended = piece is None
        data += piece or b""
        return not ended

    while True:
        while len(data) < window and more():
            pass
        if not data:
            return
        records, consumed = scan(data[:window], dialect, ended and len(data) <= window, line)
        if len(records):
            yield records
            window = AFTER_BROKEN if records.broken else min(window * 4, PIECE)
        elif window < LONGEST:
            window *= 4
        else:
            while (stop := data.find(b"\n")) < 0 and more():
                pass
            stop = len(data) if stop < 0 else stop
            open_quote = dialect.quote and dialect.quote.encode() in data[:LONGEST]
            reason = "a quote that is not closed" if open_quote else f"longer than {LONGEST >> 20} MB"
            yield TooLong(line, reason, data[: min(stop, PIECE)])
            consumed, window = stop + 1, PIECE
        line += data.count(b"\n", 0, consumed)
        data = data[consumed:]


def scan(data: bytes, dialect: Dialect, whole: bool, line: int) -> tuple[Records, int]:
    """The records of `data`, which begins a record on `line`, and how many bytes they are.

    Where not `whole`, more text follows, and a last record without its newline is left for then.
    """
    marks, size = np.frombuffer(data, np.uint8), len(data)
    newlines = np.flatnonzero(marks == NEWLINE)
    escaped = _escaped(marks, dialect.escape)
    plain = newlines if escaped is None else newlines[~escaped[newlines]]
    quotes, ends, reasons = np.zeros(0, np.int64), np.zeros(0, np.int64), list[str]()
    settled = size
    if dialect.quote and dialect.quote.encode() in data:
        quotes = _unescaped(marks, ord(dialect.quote), escaped)
        found = _set_right(marks, newlines, plain, quotes, escaped, ord(dialect.delimiter), whole)
        quotes, ends, reasons, settled = found
    breaks = _outside(plain, quotes)
    breaks = np.union1d(breaks[breaks < settled], ends) if len(ends) or settled < size else breaks
    if whole and (not len(breaks) or breaks[-1] < size - 1):
        breaks = np.append(breaks, size)
    starts = np.concatenate([[0], breaks[:-1] + 1]).astype(np.int64) if len(breaks) else np.zeros(0, np.int64)
    delimiters = _outside(_unescaped(marks, ord(dialect.delimiter), escaped), quotes)
    fields = np.searchsorted(delimiters, breaks) - np.searchsorted(delimiters, starts) + 1
    stray = np.zeros(len(breaks), np.bool_)
    if len(breaks) and b"\r" in data:
        returns = _outside(_unescaped(marks, RETURN, escaped), quotes)
        returns = returns[(returns < breaks[-1]) & (returns + 1 < size)]
        stray[np.searchsorted(breaks, returns[marks[returns + 1] != NEWLINE])] = True
    broken = dict(zip(np.searchsorted(breaks, ends).tolist(), reasons, strict=True))
    if whole and escaped is not None and escaped[size]:
        broken[len(breaks) - 1] = "an escape character with nothing after it"
    lines = line + np.searchsorted(newlines, starts)
    return Records(data, starts, breaks, lines, fields, stray, broken), min(int(breaks[-1]) + 1, size) if len(
        breaks
    ) else 0


def _set_right(
    marks: NDArray[np.uint8],
    newlines: Positions,
    plain: Positions,
    quotes: Positions,
    escaped: NDArray[np.bool_] | None,
    delimiter: int,
    whole: bool,
) -> tuple[Positions, Positions, list[str], int]:
    """The quotes without those of lines that break the rule; where these lines end, and why they are broken; and up to where
    all of it holds. `plain` newlines are not escaped."""
    kept, ends, reasons, size, begin = list[Positions](), list[int](), list[str](), len(marks), 0
    while True:
        wrong = _soon_broken(marks, quotes, escaped, delimiter)
        if wrong is None and whole and len(quotes) % 2:
            wrong = size
        if wrong is None:
            settled = size
            break
        before = plain[np.searchsorted(plain, begin) : np.searchsorted(plain, wrong)]
        before = _outside(before, quotes)
        start = int(before[-1]) + 1 if len(before) else begin
        following = int(np.searchsorted(newlines, start))
        if following == len(newlines) and not whole:
            settled = start
            break
        end = int(newlines[following]) if following < len(newlines) else size
        ends.append(end)
        reasons.append("a quote in the middle of a field" if end >= wrong < size else "a quote that is not closed")
        kept.append(quotes[: np.searchsorted(quotes, start)])
        quotes, begin = quotes[np.searchsorted(quotes, end) :], end + 1
    return np.concatenate([*kept, quotes]), np.array(ends, np.int64), reasons, settled


def to_columns(
    text: bytes, dialect: Dialect, fields: int, rows: int, nulls: Sequence[str], wanted: Sequence[int] | None = None
) -> list[pa.Array]:
    """`rows` records of `fields` fields each as columns of strings, quotes and escapes taken off. An unquoted field that is
    one of `nulls` is NULL."""
    names = [str(number) for number in range(fields)]
    chosen = names if wanted is None else [str(number) for number in wanted]
    if not rows:
        return [pa.array([], pa.string()) for _ in chosen]
    table = arrow_csv.read_csv(
        pa.py_buffer(text),
        arrow_csv.ReadOptions(column_names=names, block_size=len(text) + 1, use_threads=False),
        arrow_csv.ParseOptions(
            delimiter=dialect.delimiter,
            quote_char=dialect.quote or False,
            double_quote=True,
            escape_char=dialect.escape or False,
            newlines_in_values=True,
        ),
        arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(chosen, pa.string()),
            include_columns=chosen,
            null_values=list(nulls),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    if table.num_rows != rows:
        raise AssertionError(f"{rows} records became {table.num_rows} rows")
    return [column.combine_chunks() if column.num_chunks != 1 else column.chunk(0) for column in table.columns]


def _escaped(marks: NDArray[np.uint8], escape: str | None) -> NDArray[np.bool_] | None:
    """Which positions (and the one after the end) an escape character stands before; None where there is none."""
    found = np.flatnonzero(marks == ord(escape)) if escape else np.zeros(0, np.int64)
    if not len(found):
        return None
    begins = np.concatenate([[True], np.diff(found) > 1])
    run = np.maximum.accumulate(np.where(begins, np.arange(len(found)), 0))
    active = found[(np.arange(len(found)) - run) % 2 == 0]
    escaped = np.zeros(len(marks) + 1, np.bool_)
    escaped[active + 1] = True
    return escaped


def _unescaped(marks: NDArray[np.uint8], mark: int, escaped: NDArray[np.bool_] | None) -> Positions:
    found = np.flatnonzero(marks == mark)
    return found if escaped is None else found[~escaped[found]]


def _outside(positions: Positions, quotes: Positions) -> Positions:
    return positions[np.searchsorted(quotes, positions) % 2 == 0] if len(quotes) else positions


def _soon_broken(
    marks: NDArray[np.uint8], quotes: Positions, escaped: NDArray[np.bool_] | None, delimiter: int
) -> int | None:
    """`_first_broken`, looked for among a few quotes first, so that thousands of broken lines do not look at all of them."""
    few = 256
    while few < len(quotes):
        wrong = _first_broken(marks, quotes[:few], escaped, delimiter)
        if wrong is not None and wrong < quotes[few - 1]:
            return wrong
        few *= 8
    return _first_broken(marks, quotes, escaped, delimiter)


def _first_broken(
    marks: NDArray[np.uint8], quotes: Positions, escaped: NDArray[np.bool_] | None, delimiter: int
) -> int | None:
    """The first quote that neither begins nor ends a field, nor is doubled."""
    if not len(quotes):
        return None
    last = len(marks) - 1
    opening, closing = quotes[0::2], quotes[1::2]
    doubled = np.diff(quotes) == 1
    before = marks[np.maximum(opening - 1, 0)]
    begins = (opening == 0) | (before == delimiter) | (before == NEWLINE)
    if escaped is not None:
        begins &= (opening == 0) | ~escaped[np.maximum(opening - 1, 0)]
    begins[1:] |= doubled[1::2][: len(begins) - 1]
    after, second = marks[np.minimum(closing + 1, last)], marks[np.minimum(closing + 2, last)]
    ends = (closing == last) | (after == delimiter) | (after == NEWLINE)
    ends |= (after == RETURN) & ((second == NEWLINE) | (closing + 2 > last))
    again = doubled[1::2]
    ends[: len(again)] |= again
    wrong = np.concatenate([opening[~begins], closing[~ends]])
    return int(wrong.min()) if len(wrong) else None
