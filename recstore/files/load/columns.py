"""Match the columns of a file with those of its table, and find the types of those that have none yet."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import psycopg

from recstore.errors import InvalidInput
from recstore.files.load.parquet import ParquetReader
from recstore.files.load.staging import NEARLY, Check, Staging, absent_is_null, type_of
from recstore.files.load.target import LONGEST_NAME, Target
from recstore.files.load.text import FileColumn, TextReader
from recstore.postgres.connection import Connection, read_only
from recstore.sql import queries

MOST_COLUMNS = 1599
"""Columns a PostgreSQL table may have, less the line of the staging table."""

SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})

Reader = TextReader | ParquetReader


@dataclass
class FilledColumn:
    """A column of the file, by its position there, and the one it goes to. `decide` completes it."""

    position: int
    file_name: str
    name: str
    type: str
    """The type in the table; empty until it is found."""
    textual: bool
    """True if an empty text is a value."""
    required: bool
    staged: str = ""
    """The column of the staging table."""
    absent: Sequence[str] = ()
    """Texts that are NULL, even in quotes, in a column that is no text."""
    nulls: int = 0
    examples: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def value(self) -> str:
        """The SQL of a value, before the cast."""
        return self.staged if self.textual else absent_is_null(self.staged, self.absent)

    @property
    def cast(self) -> str:
        return self.value if self.type == "text" else f"{self.value}::{self.type}"

    def decide(self, staging: Staging, rows: int, reader: Reader, trusted: bool) -> Iterator[Check]:
        """Find the type if none is chosen; yield what makes a row bad. The types of a file that is `trusted` hold."""
        self.absent = sorted({*reader.nulls, ""})
        fixed, kinds, exact = self.type, dict[str, int](), False
        if not fixed:
            kinds, exact = staging.kinds(self.staged, self.value)
            self.type = type_of(kinds)
            self.note = self._note(staging, kinds, reader.unit)
            if self.type == "double precision":
                numbers = staging.numbers(self.value)
                self.type = "numeric" if numbers["exact"] else self.type
                self.note = self._note_of(numbers, reader.delimiter)
            self.textual = self.type == "text"
        elif trusted and fixed == "text" and staging.only_uuids(self.staged):
            self.type, self.textual = "uuid", False
        if exact:
            texts, self.nulls = 0, rows - sum(kinds.values())
        else:
            self.nulls, texts = staging.absent(self.staged, self.absent)
        self.nulls += 0 if self.textual else texts
        self.absent = self.absent if texts else []
        if "text" in kinds and self.type != "text":
            yield staging.plain_text(f"{self.name}: ", self.value, self.type)
        if fixed not in ("", "text") and not trusted:
            yield staging.fits(f"{self.name}: ", self.value, self.type)
        if self.required:
            yield Check(f"{self.name} is empty", f"{self.value} IS NULL", "''")

    def _note(self, staging: Staging, kinds: dict[str, int], unit: str) -> str:
        name = self.name
        if not kinds:
            return f"{name} has no values at all: text, unless you give --type {name}=TYPE"
        if self.type == "text" and (type := type_of(kinds, NEARLY)) != "text":
            check = staging.plain_text("", self.value, type)
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
        instead = f"--type {self.name}=text"
        if delimiter == ";" and numbers["thousands"]:
            return (
                f"{self.name} is {self.type}, though each of its numbers has three digits after the point. If the points"
                f" are for thousands: {instead}"
            )
        if numbers["whole"]:
            return (
                f"{self.name} is {self.type}, though all its numbers are whole. Ids that went through a spreadsheet or"
                f" a data frame may have lost digits. To keep them as they are written: {instead}"
            )
        return ""


def match(
    connection: Connection,
    target: Target,
    reader: Reader,
    chosen: Sequence[str] | None,
    types: dict[str, str],
    primary_key: Sequence[str],
) -> list[FilledColumn]:
    """Match the columns of the file with the table's. Raises InvalidInput for missing, repeated or unknown names."""
    picked = _pick(reader, chosen)
    if target.mode == "create":
        columns = _new_columns(connection, picked, types, primary_key)
    elif types or primary_key:
        option = "--type" if types else "--primary-key"
        raise InvalidInput(f"{option} is for a table that is made; {target} exists and keeps its own.")
    else:
        columns = _existing_columns(target, picked, reader.named or chosen is not None)
    for n, column in enumerate(columns, 1):
        column.staged = f"c{n}"
    return columns


def _pick(reader: Reader, chosen: Sequence[str] | None) -> list[tuple[int, FileColumn]]:
    """Return columns of the file with their positions, chosen by the header's names or renamed ("-" leaves one out)."""
    columns = reader.columns
    if chosen is None:
        return list(enumerate(columns))
    have = [column.name for column in columns]
    if reader.named and all(name in have for name in chosen):
        _once([name for name in have if name in chosen], "Two columns of the file are named")
        return [(have.index(name), columns[have.index(name)]) for name in chosen]
    if len(chosen) != len(columns):
        names = f", its header's names are {', '.join(have)}" if reader.named else ""
        raise InvalidInput(
            f"--columns has {len(chosen)} names, the file {len(columns)} columns{names}. Choose some of the header's names, or"
            " give a name for every column, - for one that is left out."
        )
    renamed = (FileColumn(new, old.type) for new, old in zip(chosen, columns, strict=True))
    return [(n, column) for n, column in enumerate(renamed) if column.name != "-"]


def _new_columns(
    connection: Connection, picked: list[tuple[int, FileColumn]], types: dict[str, str], primary_key: Sequence[str]
) -> list[FilledColumn]:
    names = [simple_name(column.name, position) for position, column in picked]
    _once(names, "Two columns of the file are named")
    if len(names) > MOST_COLUMNS:
        raise InvalidInput(
            f"The file has {len(names):,} columns; a table has at most {MOST_COLUMNS:,}. Choose with --columns."
        )
    for name in SYSTEM_COLUMNS.intersection(names):
        raise InvalidInput(f"PostgreSQL keeps the column name {name!r} for itself. Name the columns with --columns.")
    for option, wanted in (("--type", types), ("--primary-key", primary_key)):
        for name in wanted:
            if name not in names:
                raise InvalidInput(f"{option} names {name!r}; the columns are {', '.join(names)}.")
    columns = []
    for (position, column), name in zip(picked, names, strict=True):
        type = column.type or ""
        textual = type == "text"
        if name in types:
            type, textual = _known_type(connection, name, types[name])
        columns.append(FilledColumn(position, column.name, name, type, textual, name in primary_key))
    return columns


def _known_type(connection: Connection, column: str, text: str) -> tuple[str, bool]:
    """Return a type as PostgreSQL names it, and whether it is a kind of text. Raises InvalidInput.

    A type with a length or precision stays as it is written, for instance timestamp(3) with time zone.
    """
    try:
        with read_only(connection, search_path="DEFAULT"):
            (named,) = connection.execute("SELECT pg_catalog.to_regtype(%s)::pg_catalog.oid AS oid", [text])
        row = queries.row(connection, "known_type", oid=named["oid"])
    except psycopg.DatabaseError:
        row = None
    if row is None:
        raise InvalidInput(f"--type {column}={text}: PostgreSQL knows no type {text!r} here.")
    return text.strip() if "(" in text else str(row["type"]), bool(row["textual"])


def _existing_columns(target: Target, picked: list[tuple[int, FileColumn]], named: bool) -> list[FilledColumn]:
    have = {column.name: column for column in target.columns}
    own = [column for column in target.columns if not column.generated]
    if not named and len(picked) != len(own):
        raise InvalidInput(
            f"The file has {len(picked)} columns without names, {target} has {len(own)} ({', '.join(have)}). Name them:"
            " --columns"
        )
    columns = []
    for n, (position, column) in enumerate(picked):
        name = own[n].name if not named else column.name
        name = name if name in have else simple_name(name, position)
        if name not in have or have[name].generated:
            why = "computes that column itself" if name in have else "has no such column"
            raise InvalidInput(
                f"The file has a column {column.name!r}; {target} {why} (it has {', '.join(have)}). Choose or name the"
                " file's columns with --columns."
            )
        found = have[name]
        columns.append(FilledColumn(position, column.name, name, found.type, found.textual, found.required))
    filled = [column.name for column in columns]
    _once(filled, "Two columns of the file go to")
    for left in own:
        if left.required and not left.has_default and left.name not in filled:
            raise InvalidInput(f"{target} needs a value of {left.name} in every row, and the file has no such column.")
    return columns


def _once(names: Sequence[str], what: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f"{what} {name}. Name the columns with --columns.")


def simple_name(text: str, position: int) -> str:
    """Return a header's name in lower case, with underscores for everything but letters and digits."""
    name = re.sub(r"\W+", "_", text.strip().lower()).strip("_") or f"column_{position + 1}"
    name = name.encode()[:LONGEST_NAME].decode("utf-8", "ignore")
    return f"_{name}" if name[0].isdigit() else name
