"""The first reading of a file: all of it is looked at, and nothing is written. What comes of it is a `Plan`."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recstore.errors import InvalidInput
from recstore.files.load.bad_lines import MOST, Allowed, BadLines, as_text
from recstore.files.load.batches import Reader, TextReader
from recstore.files.load.fitting import misfits
from recstore.files.load.kinds import Kind, Tally
from recstore.files.load.layout import Given, sniff
from recstore.files.load.opening import OpenedFile, found_encoding, text_pieces
from recstore.files.load.parquet import ParquetReader
from recstore.files.load.target import Match, Mode, Target, find_target, match
from recstore.postgres.connection import Connection

EXAMPLES = 3


class Watch(Protocol):
    """Who is told how far it is: a `StageReporter`."""

    def stage(self, name: str, seconds: float, details: dict[str, Any]) -> None: ...

    def progress(self, name: str, done: int, total: int, note: str = "") -> None: ...

    def warn(self, sentence: str) -> None: ...


@dataclass(frozen=True)
class Wanted:
    """What the person wants of the load."""

    table: str
    mode: Mode = "create"
    given: Given = field(default_factory=Given)
    columns: Sequence[str] | None = None
    nulls: Sequence[str] = ("",)
    types: dict[str, str] = field(default_factory=dict)
    primary_key: Sequence[str] = ()
    allowed: Allowed = field(default_factory=Allowed)
    keep_bad: bool = False


def wanted_of(
    table: str,
    append: bool,
    replace: bool,
    text: Given,
    columns: Sequence[str] | None,
    type: Mapping[str, str] | None,
    null: Sequence[str] | None,
    primary_key: Sequence[str],
    max_bad: float | str,
    bad: str | Path | None,
) -> Wanted:
    """What `load` is asked for. Raises InvalidInput."""
    if append and replace:
        raise InvalidInput("--append and --replace exclude each other.")
    return Wanted(
        table=table,
        mode="append" if append else "replace" if replace else "create",
        given=text,
        columns=columns,
        nulls=tuple(null or [""]),
        types=dict(type or {}),
        primary_key=primary_key,
        allowed=Allowed.parse(str(max_bad)),
        keep_bad=bad is not None,
    )


@dataclass
class PlannedColumn:
    """A column of the file, where it goes, and what its values were; with a `tally` while its type is being found."""

    match: Match
    type: str
    null_texts: Sequence[str]
    nulls: int = 0
    empty: int = 0
    examples: list[str] = field(default_factory=list)
    note: str = ""
    tally: Tally | None = None

    @property
    def textual(self) -> bool:
        """Whether an empty text is a value."""
        return self.type == "text" if self.match.type is None else self.match.textual and self.type != "uuid"

    def look(self, connection: Connection, values: pa.Array, lines: NDArray[np.int64]) -> dict[int, str]:
        """Counts one batch; row -> what is wrong with its value."""
        finding = self.tally is not None
        given = values if self.match.textual and not finding else without_nulls(values, self.null_texts)
        self.nulls += values.null_count
        self.empty += given.null_count - values.null_count
        present = given.drop_null()
        if len(self.examples) < EXAMPLES:
            fresh = [one for one in pc.unique(present[:1000]).to_pylist()[:EXAMPLES] if one not in self.examples]
            self.examples = (self.examples + fresh)[:EXAMPLES]
        wrong: dict[int, str] = {}
        places = None
        if given.null_count:
            valid = given.is_valid().to_numpy(zero_copy_only=False)
            places = np.flatnonzero(valid)
            if self.match.required:
                wrong = dict.fromkeys(np.flatnonzero(~valid).tolist(), f"{self.match.name} is empty")
        if self.tally is not None:
            self.tally.add(present, lines if places is None else lines[places])
            return wrong
        for row, reason in misfits(connection, present, self.type).items():
            wrong[row if places is None else int(places[row])] = f"{self.match.name}: {reason}"
        return wrong

    def decide(self, bad: BadLines, only_uuid: bool, unit: str) -> None:
        """The type, if it was to be found; values that then do not fit make their lines bad. NULLs are counted right."""
        name, tally = self.match.name, self.tally
        if tally is not None and only_uuid:
            self.type = "uuid" if tally.counts and set(+tally.counts) == {Kind.UUID} else "text"
        elif tally is not None:
            self.type = tally.narrowest()
            if self.type != "text":
                misfitting = {value for _, value in tally.texts}
                self.examples = [one for one in self.examples if one not in misfitting]
                for line, value in tally.texts:
                    bad.add(line, f"{name}: {shortened(value)} is no {self.type}")
            elif nearly := tally.nearly():
                line, value = tally.texts[0]
                self.note = (
                    f"{name} is text because of {tally.misfits:,} of {tally.counts.total():,} values, the first"
                    f" {shortened(value)} on {unit} {line:,}. To call those {unit}s bad instead: --type {name}={nearly}"
                )
            elif meant := tally.meant():
                kind, why = meant
                self.note = f"{name} is text because of {why}. To have it otherwise: --type {name}={kind}"
            elif not tally.counts:
                self.note = f"{name} has no values at all: text, unless you say --type {name}=TYPE"
        if not self.textual:
            self.nulls, self.empty = self.nulls + self.empty, 0


def shortened(value: str, most: int = 40) -> str:
    return repr(value if len(value) <= most else value[: most - 2] + "..")


@dataclass(frozen=True)
class Plan:
    """What a load would do: `rows` counts the bad lines too; `stopped` where so many were bad that reading was given up."""

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

    @property
    def refused(self) -> bool:
        return self.stopped or len(self.bad) > self.allowed

    def statements(self) -> list[str]:
        """The SQL that changes something, as `write` runs it."""
        table, plain = str(self.target), self.target.plain
        names = ", ".join(plain(column.match.name) for column in self.columns)
        copy = f"COPY {table} ({names}) FROM STDIN;"
        if self.target.mode == "append":
            return [copy]
        if self.target.mode == "replace":
            return [f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE;", f"DELETE FROM {table};", copy]  # noqa: S608
        columns = ",\n".join(f"    {plain(column.match.name)} {column.type}" for column in self.columns)
        create = f"CREATE TABLE {table} (\n{columns}\n);"
        keys = ", ".join(map(plain, self.primary_key))
        return [create, copy] + [f"ALTER TABLE {table} ADD PRIMARY KEY ({keys});"] * bool(keys)


def open_reader(file: OpenedFile, wanted: Wanted, target: Target) -> Reader:
    """The file as what it is. Raises InvalidInput."""
    if file.parquet:
        if wanted.given != Given():
            raise InvalidInput("A Parquet file says itself what it is: leave out the options of text files.")
        return ParquetReader(file)
    encoding = wanted.given.encoding
    if encoding is None:
        with file.reading() as stream:
            encoding = found_encoding(stream.read(4))
    known = [column.name for column in target.columns]
    layout = sniff(file.name, text_pieces(file, encoding), wanted.given, encoding, known)
    return TextReader(file, layout, wanted.nulls)


def examine(connection: Connection, file: OpenedFile, wanted: Wanted, watch: Watch) -> Plan:
    """Reads the whole file: types found where none are given, bad lines counted. No transaction stays open.

    Raises InvalidInput, TableExists, PermissionDenied.
    """
    began = time.monotonic()
    target = find_target(connection, wanted.table, wanted.mode)
    reader = open_reader(file, wanted, target)
    matches = match(connection, target, reader.columns, reader.named, wanted.columns, wanted.types, wanted.primary_key)
    bad = BadLines(wanted.keep_bad, max(MOST, wanted.allowed.lines, file.size * (wanted.allowed.share > 0)))
    columns = [PlannedColumn(one, one.type or "", reader.nulls) for one in matches]
    for column in columns:
        own_text = file.parquet and target.mode == "create" and column.match.name not in wanted.types
        if column.match.type is None or (own_text and column.type == "text"):
            column.tally = Tally()
    rows = 0
    for batch in reader.batches([one.position for one in matches], bad):
        for column, values in zip(columns, batch.columns, strict=True):
            for row, reason in column.look(connection, values, batch.lines).items():
                bad.add(int(batch.lines[row]), reason, batch.text(row))
        rows += len(batch)
        watch.progress("look", *file.progress(), f"MB, {rows:,} rows")
        if bad.too_many:
            break
    for column in columns:
        column.decide(bad, only_uuid=file.parquet, unit=reader.unit)
    rows += bad.unmade
    plan = Plan(reader, file, target, columns, wanted.primary_key, rows, bad, wanted.allowed.of(rows), bad.too_many)
    if wanted.keep_bad:
        _fetch_texts(plan)
    watch.stage("look", time.monotonic() - began, {"told": f"{rows:,} {reader.unit}s, {len(bad):,} bad"})
    return plan


def _fetch_texts(plan: Plan) -> None:
    """The text of lines whose badness was seen only when the types were known."""
    missing = np.array(sorted(plan.bad.reasons.keys() - plan.bad.texts.keys()), np.int64)
    if plan.file.parquet or not len(missing):
        return
    for batch in plan.reader.batches([0], BadLines()):
        for row in np.flatnonzero(np.isin(batch.lines, missing)).tolist():
            line = int(batch.lines[row])
            plan.bad.texts[line] = as_text(batch.text(row))


def without_nulls(values: pa.Array, nulls: Sequence[str]) -> pa.Array:
    """In a column that is no text, quoted texts that stand for NULL are NULL, too, and so is an empty one."""
    empty = pc.is_in(values, pa.array([*nulls, ""], pa.string()))
    return pc.if_else(empty, pa.scalar(None, pa.string()), values) if pc.any(empty).as_py() else values
