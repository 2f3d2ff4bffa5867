"""Delimited text: records with their physical line numbers, and a guess at delimiter, quotes and header.

Pure: takes lines of text, knows no file and no database.
"""

import csv
import re
from collections import Counter, deque
from collections.abc import Collection, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any

from recstore.errors import InvalidInput

LONGEST = 1 << 24
"""Characters a field may have. A quote that is still open then counts as never closed."""

SNIFFED = 1000
"""Records that decide the form of a file."""

SAMPLE = 1 << 16
"""Characters that hold those records."""

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars", "::": "'::'", " ": "spaces"}
NAMED = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "bar": "|", "pipe": "|", "space": " "}
BY_ENDING = {"csv": ",", "tsv": "\t", "tab": "\t", "psv": "|"}

USER_NAMES, ITEM_NAMES = ("user", "uid"), ("item", "iid", "movie", "product", "book", "track", "artist")
TIME_NAMES = ("time", "date", "last_at")
HEADER_WORDS = (
    *(USER_NAMES + ITEM_NAMES + TIME_NAMES),
    *("id", "name", "title", "value", "count", "view", "rating", "visitor"),
)

VALUE = re.compile(
    r"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)(e[+-]?[0-9]+)?|[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:.*)?|true|false|t|f"
    r"|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    re.IGNORECASE,
)
"""Numbers, dates, times, booleans and UUIDs, as opposed to plain text."""

Record = tuple[int, str, list[str] | str]
"""The line a record begins on, its text, and its fields or the reason why it has none."""


@dataclass(frozen=True)
class Dialect:
    """Marks around and between fields, one ASCII character each, or `::` between fields.

    The character after `escape` stands for itself, inside quotes and outside.
    """

    delimiter: str = ","
    quote: str | None = '"'
    escape: str | None = None

    @cached_property
    def field(self) -> re.Pattern[str]:
        """A field, as group 1 if it is quoted, with the delimiter or the end of the record after it."""
        quote, between = re.escape(self.quote or ""), re.escape(self.delimiter)
        escaped = f"{re.escape(self.escape)}.|" if self.escape else ""
        exempt = re.escape((self.escape or "") + (self.quote or ""))
        quoted = f"({quote}(?:{escaped}{quote}{quote}|[^{exempt}])*{quote})|" if quote else "(?!)()|"
        return re.compile(f"(?:{quoted}(?:{escaped}(?!{between})[^{exempt}\r\n])*)({between}|\r?\n?\\Z)", re.DOTALL)

    def quoted(self, text: str) -> list[bool] | None:
        """Return which fields of a record are quoted, or None if a quote stands in the middle of a field."""
        found, position = [], 0
        while match := self.field.match(text, position):
            found.append(match[1] is not None)
            position = match.end()
            if match[2] != self.delimiter:
                return found
        return None

    def reader(self, lines: Iterator[str]) -> Any:
        between = "\x1f" if self.delimiter == "::" else self.delimiter
        quoting: Any = csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE
        return csv.reader(
            lines, delimiter=between, quotechar=self.quote, escapechar=self.escape, quoting=quoting, strict=True
        )


def read_records(lines: Iterable[str], dialect: Dialect) -> Generator[Record, None, None]:
    """Yield the records of a text, blank lines left out. After an error, go on with the line after the record's first."""
    csv.field_size_limit(LONGEST)
    source, again, held = iter(lines), deque[str](), list[str]()
    colons, quote = dialect.delimiter == "::", dialect.quote

    def feed() -> Iterator[str]:
        while (line := again.popleft() if again else next(source, None)) is not None:
            held.append(line)
            yield line.replace("::", "\x1f") if colons else line

    line, reader = 1, dialect.reader(feed())
    marks = (dialect.quote or "\r", dialect.escape or "\r")
    while True:
        if not again:  # a line without quotes and escapes needs no csv
            for text in source:
                bare = text.rstrip("\r\n")
                if marks[0] in bare or marks[1] in bare or "\r" in bare:
                    again.append(text)
                    break
                if bare:
                    yield line, text, bare.split(dialect.delimiter)
                line += 1
        fields: list[str] | str
        try:
            fields = next(reader)
            text = held[0] if len(held) == 1 else "".join(held)
            if quote and quote in text and quote in "".join(fields) and dialect.quoted(text) is None:
                raise csv.Error
        except StopIteration:
            return
        except csv.Error as error:
            again.extendleft(reversed(held[1:]))
            fields, text = _reason(str(error), len(held)), held[0]
            del held[1:]
            reader = dialect.reader(feed())
        if fields:
            yield line, text, fields
        line += len(held)
        held.clear()


def _reason(error: str, lines: int) -> str:
    if "new-line character" in error:
        return "a carriage return in the middle"
    if lines > 1 or "unexpected end" in error or "field limit" in error:
        return "a quote that is not closed"
    return "a quote in the middle of a field"


@dataclass(frozen=True)
class TextForm:
    """The form of a text, and what its first records are by it. Shares are of all these records, broken ones included."""

    dialect: Dialect
    records: list[list[str]]
    texts: list[str]
    fields: int
    """The usual number of fields."""

    share: float
    """Records with the usual number of fields."""

    made: float
    """Records that are not broken."""

    several: float
    """Records with more than one field."""

    names: tuple[str, ...] | None = None
    """The header: the first record with the usual number of fields."""

    first: int = 1
    """The line the data begin on: 2 if the first is Excel's `sep=;`."""

    parted: dict[str, float] = field(default_factory=dict)
    """`several` by each delimiter that was tried."""

    @classmethod
    def at(cls, sample: list[str], dialect: Dialect) -> "TextForm":
        """Read the first lines of a text by a dialect."""
        found = list(islice(read_records(sample, dialect), SNIFFED))
        good = [(fields, text) for _, text, fields in found if isinstance(fields, list)]
        counts = Counter(len(fields) for fields, _ in good)
        (fields, most), *_ = counts.most_common(1) or [(0, 0)]
        share, made, several = (number / max(len(found), 1) for number in (most, len(good), len(good) - counts[1]))
        records, texts = [fields for fields, _ in good], [text for _, text in good]
        return cls(dialect, records, texts, fields, share, made, several)


def mark(text: str, option: str) -> str:
    """Return a delimiter, quote or escape as it may be written at a command line. Raises InvalidInput."""
    found = NAMED.get(text, text)
    if option == "--delimiter" and found == "::":
        return found
    if len(found) != 1 or not found.isascii() or found in "\r\n\0":
        raise InvalidInput(f"{option} is {text!r}: give one ASCII character, for instance ';', or tab.")
    return found


def sniff(
    name: str,
    lines: Iterable[str],
    *,
    delimiter: str | None = None,
    quote: str | None = None,
    escape: str | None = None,
    header: bool | None = None,
    known: Collection[str] = (),
) -> TextForm:
    """Return the form of a text, from its first lines.

    An argument that is None is guessed; an empty quote or escape means that there is none. `name` is the file's, whose
    ending counts; `known` are names that make a header. Raises InvalidInput if no line can be split into fields.
    """
    sample, size = list[str](), 0
    for line in lines:
        sample.append(line)
        size += len(line)
        if size > SAMPLE:
            break
    first = 1
    if sample and (said := re.fullmatch(r'"?sep=(.)"?\r?\n', sample[0])):
        first, delimiter = 2, delimiter or said[1]
        del sample[0]
    forms = [TextForm.at(sample, dialect) for dialect in _dialects(name, sample, delimiter, quote, escape)]
    if not (forms := [form for form in forms if form.fields]):
        raise InvalidInput(f"{name} has no line that can be split into fields.")
    # commas and semicolons come without quotes only if hardly any line can be split with them
    made = {form.dialect.delimiter for form in forms if form.dialect.quote and form.made >= 0.2} - {"\t", "|"}
    forms = [form for form in forms if form.dialect.quote or quote or form.dialect.delimiter not in made]
    form = _likeliest(forms, name, "".join(sample))
    begin, rows = form.records[0], [fields for fields in form.records if len(fields) == form.fields]
    if len(begin) == form.fields - 1 and not any(row[-1] for row in rows):
        begin.append("")  # a delimiter ends each line, but the header
        rows.insert(0, begin)
    if header and len(begin) != form.fields:
        raise InvalidInput(f"{name}: the header has {len(begin)} fields, most lines have {form.fields}.")
    headed = header is not False and (header or _has_header(rows, known))
    parted = {one.dialect.delimiter: one.several for one in forms}
    return replace(form, names=tuple(rows[0]) if headed else None, first=first, parted=parted)


def _likeliest(forms: list[TextForm], name: str, text: str) -> TextForm:
    ending = next((BY_ENDING[part] for part in name.lower().split(".")[:0:-1] if part in BY_ENDING), None)
    decimal_commas = "," in text and not re.search(r"[^0-9],|,[^0-9]", text)

    def rank(form: TextForm) -> tuple[float | bool, ...]:
        agree, several, between = form.share >= 0.8, form.fields > 1, form.dialect.delimiter
        return (
            agree and several,
            several and form.made >= 0.2 and form.share >= 0.8 * form.made,
            several and form.share > 0.5,
            agree and several and between == ";" and decimal_commas,
            agree and between == ending,
            form.share,
            form.fields if agree and between != "::" else 0,
        )

    return max(forms, key=rank)


def _dialects(
    name: str, sample: list[str], delimiter: str | None, quote: str | None, escape: str | None
) -> Iterator[Dialect]:
    """Yield those to try, likelier ones first."""
    text = "".join(sample)
    options = {"--quote": quote, "--escape": escape}
    marks = {
        option: None if one in ("", "none") else mark(one, option) for option, one in options.items() if one is not None
    }
    likely = [",", "\t", ";", "|", *(["::"] if "::" in text else [])]
    for between in [mark(delimiter, "--delimiter")] if delimiter else likely:
        for around in [marks["--quote"]] if quote is not None else ['"', None] if '"' in text else ['"']:
            escapes: list[str | None] = [None, "\\"] if around and "\\" + around in text else [None]
            if escape is not None:
                escapes = [None if marks["--escape"] == around else marks["--escape"]]
            for one in escapes:
                if between in (around, one):
                    raise InvalidInput(f"{name}: the delimiter, the quote and the escape character must differ.")
                yield Dialect(between, around, one)


def _has_header(rows: list[list[str]], known: Collection[str]) -> bool:
    """Return whether the first row holds `known` names, text above values, or words that do not occur below them."""
    names, columns = rows[0], list(zip(*rows[1:], strict=True)) or [()] * len(rows[0])
    if known and set(names) <= set(known):
        return True
    if any(VALUE.fullmatch(name) for name in names):
        return False
    if any(not name and any(column) for name, column in list(zip(names, columns, strict=True))[1:]):
        return False
    for column in columns:
        values = [bool(VALUE.fullmatch(value)) for value in column if value]
        if values and sum(values) > len(values) / 2:
            return True
    if len(set(names)) < len(names):
        return False
    plain = all(re.fullmatch(r"[A-Za-z][\w .-]{0,62}|", name) for name in names)
    fresh = all(name not in column for name, column in zip(names, columns, strict=True))
    worded = any(part.startswith(HEADER_WORDS) for name in names for part in re.split(r"[\W_]+", name.lower()))
    return plain and fresh and worded
