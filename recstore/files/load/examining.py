"""Stage and examine a file without touching the target: from its options to a `Plan`."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from recstore.errors import BadLinesFound, InvalidInput
from recstore.files.load.bad_lines import MOST, Allowed, BadLines
from recstore.files.load.layout import Reader, TextOptions, open_text
from recstore.files.load.parquet import ParquetReader
from recstore.files.load.staging import TABLE, Check, Staging, absent_is_null, narrowest, nearly
from recstore.files.load.target import Match, Mode, Target, find_target, match
from recstore.files.opening import OpenedFile
from recstore.postgres.connection import Connection

EXAMPLES = 3

SHOWN_BAD = 10
"""Bad lines that are printed with their reason."""


class Watch(Protocol):
    """The receiver of a load's progress: a `StageReporter`."""

    def stage(self, name: str, seconds: float, details: dict[str, Any]) -> None: ...

    def progress(self, name: str, done: int, total: int, note: str = "") -> None: ...

    def warn(self, sentence: str) -> None: ...


@dataclass(frozen=True)
class Wanted:
    """The options of a load."""

    table: str
    mode: Mode = "create"
    text: TextOptions = field(default_factory=TextOptions)
    columns: Sequence[str] | None = None
    nulls: Sequence[str] = ("",)
    types: dict[str, str] = field(default_factory=dict)
    primary_key: Sequence[str] = ()
    allowed: Allowed = field(default_factory=Allowed)
    keep_bad: bool = False


@dataclass
class PlannedColumn:
    """A column of the file, the one it goes to, and what its values are. `staged` is its number in the staging table."""

    match: Match
    type: str
    staged: int
    absent: Sequence[str]
    """Texts that are NULL, even in quotes, in a column that is no text."""

    nulls: int = 0
    examples: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def textual(self) -> bool:
        """True if an empty text is a value."""
        return self.type == "text" if self.match.type is None else self.match.textual and self.type != "uuid"

    @property
    def value(self) -> str:
        """The SQL of a value, before the cast."""
        return f"c{self.staged}" if self.textual else absent_is_null(f"c{self.staged}", self.absent)

    @property
    def cast(self) -> str:
        return self.value if self.type == "text" else f"{self.value}::{self.type}"

    def decide(self, staging: Staging, rows: int, reader: Reader, delimiter: str, trusted: bool) -> Iterator[Check]:
        """Find the type if none is chosen; yield what makes a row bad. The types of a file that is `trusted` hold."""
        name, fixed, kinds, exact = self.match.name, self.match.type, dict[str, int](), False
        if fixed is None:
            kinds, exact = staging.kinds(self.staged, self.absent)
            self.type = narrowest(kinds)
            self.note = self._note(staging, kinds, reader.unit)
            if self.type == "double precision":
                numbers = staging.numbers(self.staged, self.absent)
                self.type = "numeric" if numbers["exact"] else self.type
                self.note = self._note_of(numbers, delimiter)
        else:
            self.type = "uuid" if trusted and fixed == "text" and staging.only_uuids(self.staged) else fixed
        if exact:
            texts, self.nulls = 0, rows - sum(kinds.values())
        else:
            self.nulls, texts = staging.absent(self.staged, self.absent)
        self.nulls += 0 if self.textual else texts
        self.absent = self.absent if texts else []
        if "text" in kinds and self.type != "text":
            yield staging.plain_text(f"{name}: ", self.staged, self.absent, self.type)
        if fixed not in (None, "text") and not trusted:
            yield staging.fits(f"{name}: ", self.value, self.type)
        if self.match.required:
            yield Check(f"{name} is empty", f"{self.value} IS NULL", "''")

    def _note(self, staging: Staging, kinds: dict[str, int], unit: str) -> str:
        name = self.match.name
        if not kinds:
            return f"{name} has no values at all: text, unless you give --type {name}=TYPE"
        if self.type == "text" and (type := nearly(kinds)):
            check = staging.plain_text("", self.staged, self.absent, type)
            ((line, reason),) = staging.misfitting([check], 1)
            return (
                f"{name} is text because of {kinds['text']:,} of {sum(kinds.values()):,} values, the"
                f" first on {unit} {line:,}: {reason}. To make those {unit}s bad instead: --type {name}={type}"
            )
        if "big" in kinds and kinds.keys() <= {"integer", "bigint", "big", "numeric"}:
            return (
                f"{name} is text because of whole numbers beyond bigint. To keep them as numbers: --type {name}=numeric"
            )
        return ""

    def _note_of(self, numbers: dict[str, bool], delimiter: str) -> str:
        instead = f"--type {self.match.name}=text"
        if delimiter == ";" and numbers["thousands"]:
            return (
                f"{self.match.name} is {self.type}, though each of its numbers has three digits after the point. If the points"
                f" are for thousands: {instead}"
            )
        if numbers["whole"]:
            return (
                f"{self.match.name} is {self.type}, though all its numbers are whole. Ids that went through a spreadsheet or"
                f" a data frame may have lost digits. To keep them as they are written: {instead}"
            )
        return ""


@dataclass(frozen=True)
class Plan:
    """A load to be written: `rows` includes the bad lines; `stopped` if so many were bad that reading ended there."""

    reader: Reader
    file: OpenedFile
    target: Target
    columns: list[PlannedColumn]
    primary_key: Sequence[str]
    rows: int
    bad: BadLines
    allowed: int
    stopped: bool

    @property
    def good(self) -> int:
        """Rows to be written."""
        return self.rows - len(self.bad)

    def insert(self, rows: str = "") -> str:
        """Return the statement that fills the table, from all staged rows or from some."""
        names = ", ".join(self.target.plain(column.match.name) for column in self.columns)
        values = ", ".join(column.cast for column in self.columns)
        over = "" if self.target.mode == "create" else " OVERRIDING SYSTEM VALUE"
        return f"INSERT INTO {self.target} ({names}){over} SELECT {values} FROM {TABLE}{rows};"  # noqa: S608

    def statements(self) -> list[str]:
        """Return the SQL that changes the target, as `write` runs it."""
        table, plain = str(self.target), self.target.plain
        if self.target.mode == "append":
            return [self.insert()]
        if self.target.mode == "replace":
            return [f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE;", f"DELETE FROM {table};", self.insert()]  # noqa: S608
        columns = ",\n".join(f"    {plain(column.match.name)} {column.type}" for column in self.columns)
        create = f"CREATE TABLE {table} (\n{columns}\n);"
        keys = ", ".join(map(plain, self.primary_key))
        return [create, self.insert()] + [f"ALTER TABLE {table} ADD PRIMARY KEY ({keys});"] * bool(keys)

    def as_dict(self) -> dict[str, Any]:
        """Return the plan, ready for JSON."""
        return {
            "file": self.file.name,
            "what": self.reader.what,
            "table": str(self.target),
            "mode": self.target.mode,
            "rows": self.rows,
            "columns": [
                {
                    "name": column.match.name,
                    "in_the_file": column.match.file_name,
                    "type": column.type,
                    "nulls": column.nulls,
                    "examples": column.examples,
                    "note": column.note,
                }
                for column in self.columns
            ],
            "bad": len(self.bad),
            "bad_allowed": self.allowed,
            "bad_lines": self.bad.lines(),
            "reasons": [{self.reader.unit: line, "reason": reason} for line, reason in self.bad.first(SHOWN_BAD)],
            "complete": not self.stopped,
            "statements": self.statements(),
        }

    def refusal(self) -> BadLinesFound | None:
        """Return the error of a load with too many bad lines."""
        if not self.stopped and len(self.bad) <= self.allowed:
            return None
        unit, bad = self.reader.unit, self.bad
        given_up = (
            f"Nothing was written: of the first {self.rows:,} {unit}s of {self.file.name} more than {bad.most:,} are bad, so"
            f" the rest was not read. It was read as: {self.reader.what}. Describe it with --delimiter, --quote, --escape,"
            " --encoding and --no-header."
        )
        data: dict[str, Any] = {
            "bad": len(bad),
            "rows": self.rows,
            "unit": unit,
            "file": self.file.name,
            "allowed": self.allowed,
        }
        message = given_up if self.stopped else BadLinesFound(**data).message
        if any("-8 text" in reason for reason in bad.reasons.values()):
            message += " Some are not UTF-8: name the file's encoding, for instance --encoding latin-1."
        return BadLinesFound(message, **data)


def examine(connection: Connection, file: OpenedFile, wanted: Wanted, watch: Watch) -> Plan:
    """Stage the whole file, find types where none are chosen, count bad lines. No transaction stays open.

    Raises InvalidInput, TableExists, PermissionDenied.
    """
    began = time.monotonic()
    target = find_target(connection, wanted.table, wanted.mode)
    reader, delimiter = _reader(file, wanted, target)
    matches = match(connection, target, reader.columns, reader.named, wanted.columns, wanted.types, wanted.primary_key)
    bad = BadLines(max(MOST, wanted.allowed.lines, file.size * (wanted.allowed.share > 0)))
    staging, rows = Staging(connection, len(matches)), 0
    for rows in staging.fill(reader.batches([one.position for one in matches], bad)):
        watch.progress("look", *file.progress(), f"MB, {rows:,} rows")
    columns = [PlannedColumn(one, "", n, sorted({*reader.nulls, ""})) for n, one in enumerate(matches, 1)]
    checks = list[Check]()
    for column in columns:
        trusted = file.parquet and target.mode == "create" and column.match.name not in wanted.types
        checks += column.decide(staging, rows, reader, delimiter, trusted)
    rows += len(bad)
    for line, reason in staging.misfitting(checks, bad.most + 1 - len(bad)):
        bad.add(line, reason)
    staging.remove(bad.lines())
    for values, column in zip(zip(*staging.sample(1000), strict=True), columns, strict=False):
        known = [value for value in dict.fromkeys(values) if value is not None and (value or column.textual)]
        column.examples = known[:EXAMPLES]
    plan = Plan(reader, file, target, columns, wanted.primary_key, rows, bad, wanted.allowed.of(rows), bad.too_many)
    if wanted.keep_bad:
        bad.texts = reader.texts(set(bad.reasons))
    watch.stage("look", time.monotonic() - began, {"summary": f"{rows:,} {reader.unit}s, {len(bad):,} bad"})
    return plan


def _reader(file: OpenedFile, wanted: Wanted, target: Target) -> tuple[Reader, str]:
    """Return the file as the kind it is, and its delimiter. Raises InvalidInput."""
    if file.parquet:
        if wanted.text != TextOptions():
            raise InvalidInput("A Parquet file describes itself: leave out the options of text files.")
        return ParquetReader(file), ""
    reader = open_text(file, wanted.text, wanted.nulls, [column.name for column in target.columns])
    return reader, reader.form.dialect.delimiter


def shortened(value: str, most: int = 40) -> str:
    return repr(value if len(value) <= most else value[: most - 2] + "..")
