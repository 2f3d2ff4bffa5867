"""Read delimited text for a load: find its form, and yield its records as CSV for the staging table."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from recstore.errors import InvalidInput
from recstore.files.delimited import NAMED, SEPARATORS, VALUE, Dialect, TextForm, read_records, sniff
from recstore.files.load.bad_lines import BadLines, printable
from recstore.files.opening import OpenedFile, TextDecoding, is_text

BATCH = 5000
"""Records sent to the server at once."""

BETWEEN = re.compile(r"\s|::|[\x01^~]")
"""Marks between fields in files without one of the usual delimiters."""

TABLES = re.compile(r"\.(csv|tsv|tab|psv)(\.|$)", re.IGNORECASE)
"""Names of files that hold tables."""


@dataclass(frozen=True)
class TextOptions:
    """The form of a text file as the user gives it; None is guessed. An empty quote or escape means that there is none."""

    delimiter: str | None = None
    quote: str | None = None
    escape: str | None = None
    encoding: str | None = None
    header: bool | None = None


@dataclass(frozen=True)
class FileColumn:
    """A column of the file: its name there, and its type where the file itself has one."""

    name: str
    type: str | None = None


Batch = tuple[int, bytes]
"""The number of records, and the records as CSV: line, then the wanted fields; an unquoted empty field is NULL."""


@dataclass
class TextReader:
    """A delimited text. Its `nulls` are unquoted texts that are NULL."""

    file: OpenedFile
    decoding: TextDecoding
    form: TextForm
    nulls: Sequence[str]
    unit: str = "line"
    columns: list[FileColumn] = field(init=False)

    def __post_init__(self) -> None:
        names = self.form.names or [f"column_{n + 1}" for n in range(self.form.fields)]
        self.columns = [FileColumn(name.strip()) for name in names]

    @property
    def named(self) -> bool:
        """True if the columns have the file's own names."""
        return self.form.names is not None

    @property
    def delimiter(self) -> str:
        return self.form.dialect.delimiter

    @property
    def what(self) -> str:
        """The form of the file, in words."""
        dialect = self.form.dialect
        between = SEPARATORS.get(dialect.delimiter, repr(dialect.delimiter))
        parts = [f"separated by {between}" if self.form.fields > 1 else "one column"]
        parts.append("no quotes" if dialect.quote is None else f"quote {dialect.quote}")
        parts += [f"escape {dialect.escape}"] if dialect.escape else []
        parts.append("with a header" if self.named else "no header")
        return ", ".join([*parts, self.decoding.encoding, *filter(None, [self.file.packed])])

    def batches(self, wanted: Sequence[int], bad: BadLines) -> Iterator[Batch]:
        """Yield the columns `wanted`, by position. Records that make no row go to `bad`; stop if these are too many."""
        rows = self._rows(wanted, bad)
        while batch := list(islice(rows, BATCH)):
            yield len(batch), "".join(batch).encode()

    def _rows(self, wanted: Sequence[int], bad: BadLines) -> Iterator[str]:
        header, count = self.form.names, self.form.fields
        # with the marks of COPY's own CSV a well-formed record goes to the server as it is
        verbatim = self.form.dialect == Dialect() and [*wanted] == [*range(count)] and [*self.nulls] == [""]
        for line, text, fields in read_records(self.decoding.lines(), self.form.dialect):
            if line < self.form.first:
                continue
            if header and header in (tuple(fields), (*fields, "")):
                header = None
            elif reason := self._wrong(text, fields):
                bad.add(line, reason)
                if bad.too_many:
                    return
            elif verbatim:
                bare = text.rstrip("\r\n")
                yield f"{line},{bare}\n"
            else:
                yield f"{line},{','.join(self._fields(text, fields, wanted))}\n"

    def _wrong(self, text: str, fields: list[str] | str) -> str | None:
        """Return why a record makes no row."""
        if isinstance(fields, str):
            return fields
        if len(fields) != self.form.fields:
            lines = text.rstrip().count("\n") + 1
            plural, more = "s" * (len(fields) != 1), f", on {lines} lines" if lines > 1 else ""
            return f"{len(fields)} field{plural} instead of {self.form.fields}{more}"
        if "\0" in text:
            return "a zero byte"
        return None if text.isascii() or is_text(text) else f"not {self.decoding.encoding} text"

    def _fields(self, text: str, fields: Sequence[str], wanted: Sequence[int]) -> Iterator[str]:
        """Yield the wanted fields as COPY takes them: quoted, but for NULL."""
        quote, quoted = self.form.dialect.quote, None
        if quote and quote in text and not set(fields).isdisjoint(self.nulls):
            quoted = self.form.dialect.quoted(text)
        for n in wanted:
            null = fields[n] in self.nulls and not (quoted and quoted[n])
            yield "" if null else '"' + fields[n].replace('"', '""') + '"'

    def texts(self, lines: set[int]) -> dict[int, str]:
        """Return these lines as they stand in the file."""
        records = read_records(self.decoding.lines(), self.form.dialect)
        return {line: printable(text) for line, text, _ in records if line in lines}


def open_text(file: OpenedFile, options: TextOptions, nulls: Sequence[str], known: Sequence[str]) -> TextReader:
    """Find the form of a text that goes into a table with the columns `known`. Raises InvalidInput."""
    decoding = TextDecoding.of(file, options.encoding)
    marks = {"delimiter": options.delimiter, "quote": options.quote, "escape": options.escape}
    form = sniff(file.name, decoding.lines(), **marks, header=options.header, known=known)
    if not is_text("".join(form.names or ())):
        raise InvalidInput(
            f"The header of {file.name} is not {decoding.encoding} text: name its encoding, for instance --encoding latin-1."
        )
    if form.fields == 1 and options.delimiter is None:
        _refuse_several(file.name, form)
    return TextReader(file, decoding, form, nulls)


def _refuse_several(name: str, form: TextForm) -> None:
    """Raise InvalidInput if most lines of a single column seem to hold several values.

    They hold a delimiter, but not equally often, or numbers with something between them. In a file named as a table any
    two words count, and a fifth of the lines with a delimiter is enough.
    """
    table = TABLES.search(name) is not None
    between, share = max(form.parted.items(), key=lambda one: one[1])
    what = SEPARATORS[between]
    if share <= (0.2 if table else 0.5):
        what = "several values"
        texts = [text.strip() for text in form.texts if not text.startswith('"')]
        several = [text for text in texts if not VALUE.fullmatch(text) and _several(text, table)]
        if len(several) <= len(form.texts) / 2:
            return
        found = BETWEEN.search(several[0])
        between = found[0] if found else " "
    written = {character: word for word, character in reversed(NAMED.items())}.get(between, repr(between))
    unused = next((one for one in "|;~^" if not any(one in text for text in form.texts)), "^")
    raise InvalidInput(
        f"{name} would be one column, but many of its lines hold {what}. Name what is between the fields, for instance"
        f" --delimiter {written}. If each line is one value, name a character that no line has: --delimiter {unused!r}"
    )


def _several(text: str, table: bool) -> bool:
    parts = BETWEEN.split(text)
    return len(parts) > 1 and (table or all(re.fullmatch(r"[+-]?[0-9.]+|", part) for part in parts))
