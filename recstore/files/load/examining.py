"""Stage and examine a file without touching the target: from its options to a `Plan`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from recstore.errors import BadLinesFound, InvalidInput
from recstore.files.load.bad_lines import MOST, BadLines
from recstore.files.load.columns import FilledColumn, Reader, match
from recstore.files.load.parquet import ParquetReader
from recstore.files.load.staging import TABLE, Check, Staging
from recstore.files.load.target import Mode, Target, find_target
from recstore.files.load.text import TextOptions, open_text
from recstore.files.opening import OpenedFile
from recstore.postgres.connection import Connection
from recstore.runs import Reporter

EXAMPLES = 3

SHOWN_BAD = 10
"""Bad lines that are printed with their reason."""


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
    max_bad: int | float = 0
    """Bad lines to leave out: a number, or as a float a share of all lines."""
    keep_bad: bool = False


@dataclass(frozen=True)
class Plan:
    """A load to be written: `rows` includes the bad lines; `stopped` if so many were bad that reading ended there."""

    reader: Reader
    target: Target
    columns: list[FilledColumn]
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
        names = ", ".join(self.target.plain(column.name) for column in self.columns)
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
        columns = ",\n".join(f"    {plain(column.name)} {column.type}" for column in self.columns)
        create = f"CREATE TABLE {table} (\n{columns}\n);"
        keys = ", ".join(map(plain, self.primary_key))
        return [create, self.insert()] + [f"ALTER TABLE {table} ADD PRIMARY KEY ({keys});"] * bool(keys)

    def as_dict(self) -> dict[str, Any]:
        """Return the plan, ready for JSON."""
        return {
            "file": self.reader.file.name,
            "what": self.reader.what,
            "table": str(self.target),
            "mode": self.target.mode,
            "rows": self.rows,
            "columns": [
                {
                    "name": column.name,
                    "in_the_file": column.file_name,
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
        unit, file = self.reader.unit, self.reader.file.name
        data: dict[str, Any] = {
            "bad": len(self.bad),
            "rows": self.rows,
            "unit": unit,
            "file": file,
            "allowed": self.allowed,
        }
        message = BadLinesFound(**data).message
        if self.stopped:
            message = (
                f"Nothing was written: of the first {self.rows:,} {unit}s of {file} more than {self.bad.most:,} are bad, so"
                f" the rest was not read. It was read as: {self.reader.what}. Describe it with --delimiter, --quote,"
                " --escape, --encoding and --no-header."
            )
        if any("-8 text" in reason for reason in self.bad.reasons.values()):
            message += " Some are not UTF-8: name the file's encoding, for instance --encoding latin-1."
        return BadLinesFound(message, **data)


def examine(connection: Connection, file: OpenedFile, wanted: Wanted, watch: Reporter) -> Plan:
    """Stage the whole file, find types where none are chosen, count bad lines. No transaction stays open.

    Raises InvalidInput, TableExists, PermissionDenied.
    """
    began = time.monotonic()
    target = find_target(connection, wanted.table, wanted.mode)
    reader = _reader(file, wanted, target)
    columns = match(connection, target, reader, wanted.columns, wanted.types, wanted.primary_key)
    share = isinstance(wanted.max_bad, float)
    bad = BadLines(max(MOST, file.size if share else int(wanted.max_bad)))
    staging, rows = Staging(connection, len(columns)), 0
    for rows in staging.fill(reader.batches([column.position for column in columns], bad)):
        watch.progress("look", file.position() >> 20, max(file.size >> 20, 1), f"MB, {rows:,} rows")
    checks = list[Check]()
    for column in columns:
        trusted = file.parquet and target.mode == "create" and column.name not in wanted.types
        checks += column.decide(staging, rows, reader, trusted)
    rows += len(bad)
    for line, reason in staging.misfitting(checks, bad.most + 1 - len(bad)):
        bad.add(line, reason)
    staging.remove(bad.lines())
    for values, column in zip(zip(*staging.sample(1000), strict=True), columns, strict=False):
        known = [value for value in dict.fromkeys(values) if value is not None and (value or column.textual)]
        column.examples = known[:EXAMPLES]
    if wanted.keep_bad:
        bad.texts = reader.texts(set(bad.reasons))
    watch.stage("look", time.monotonic() - began, {"summary": f"{rows:,} {reader.unit}s, {len(bad):,} bad"})
    allowed = int(wanted.max_bad * rows) if share else int(wanted.max_bad)
    return Plan(reader, target, columns, wanted.primary_key, rows, bad, allowed, bad.too_many)


def _reader(file: OpenedFile, wanted: Wanted, target: Target) -> Reader:
    """Return the file as the kind it is. Raises InvalidInput."""
    if not file.parquet:
        return open_text(file, wanted.text, wanted.nulls, [column.name for column in target.columns])
    if wanted.text != TextOptions():
        raise InvalidInput("A Parquet file describes itself: leave out the options of text files.")
    return ParquetReader(file)
