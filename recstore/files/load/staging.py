"""Stage a file in a temporary table before its target: every field as text, with the line it comes from.

PostgreSQL decides here which types the columns have and which values a type takes. Knows neither file formats nor the target.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from recstore.errors import InvalidInput, PermissionDenied
from recstore.files.load.text import Batch
from recstore.postgres.connection import Connection, one_line, role_of
from recstore.postgres.names import quoted
from recstore.sql.queries import fill, query

TABLE = "pg_temp.recstore_load"

MISFITS = 0.05
"""The share of values that may be plain text in a column that otherwise has one type: their lines are then bad."""

NEARLY = 0.2
"""The share up to which a note suggests that type for a text column."""

SOFT_ERRORS = 160000
"""The first server version that checks a value without raising an error."""

HOLDS = {
    "integer": {"integer"},
    "bigint": {"integer", "bigint"},
    "double precision": {"integer", "bigint", "numeric"},
    "boolean": {"boolean"},
    "date": {"date"},
    "timestamp": {"date", "timestamp"},
    "timestamptz": {"timestamptz"},
    "uuid": {"uuid"},
}
"""Kinds that each type holds, narrow types first. No type holds times with a zone next to times without one."""


PLAIN = {
    "integer": "{c}::integer::text = {c}",
    "bigint": "{c}::bigint::text = {c}",
    "numeric": "CASE WHEN {c} LIKE '%.%' THEN {c}::numeric ELSE {c}::bigint END::text = {c}",
    "date": "length({c}) = 10 AND {c}::date::text = {c}",
    "timestamp": "{c} LIKE '____-__-__ %' AND {c}::timestamp::text = {c}",
    "uuid": "{c}::uuid::text = {c}",
}
"""Conditions on values in the form in which PostgreSQL writes a type. They find most types in a tenth of the time."""


@dataclass(frozen=True)
class Check:
    """A condition on the values of a column: SQL that is true for a bad row, and SQL of the reason with a text before it."""

    prefix: str
    bad: str
    reason: str


@dataclass
class Staging:
    """The staged rows. Columns are c1, c2 and so on."""

    connection: Connection
    width: int
    misfits: dict[str, str] = field(default_factory=dict)
    """Functions that return what is wrong with a value, by type, where the server cannot do it by itself."""

    def __post_init__(self) -> None:
        self.soft = self.connection.info.server_version >= SOFT_ERRORS
        self.columns = [f"c{n}" for n in range(1, self.width + 1)]
        texts = "".join(f", {column} text" for column in self.columns)
        try:
            self.connection.execute(f"DROP TABLE IF EXISTS {TABLE}")
            self.connection.execute(f"CREATE TEMPORARY TABLE recstore_load (line bigint{texts})")
        except pg.InsufficientPrivilege:
            role, database = role_of(self.connection), self.connection.info.dbname
            raise PermissionDenied(
                role=role,
                reason=f"it may not make temporary tables in {database}",
                remedy=f"Have the owner run: GRANT TEMPORARY ON DATABASE {quoted(database)} TO {quoted(role)};",
            ) from None

    def fill(self, batches: Iterator[Batch]) -> Iterator[int]:
        """Copy batches into the table; yield the number of rows after each. Raises InvalidInput."""
        rows = 0
        try:
            with self.connection.cursor().copy(f"COPY {TABLE} FROM STDIN (FORMAT csv, ENCODING 'UTF8')") as copy:
                for count, text in batches:
                    copy.write(text)
                    rows += count
                    yield rows
        except (pg.ProgramLimitExceeded, psycopg.DataError) as error:
            raise InvalidInput(f"PostgreSQL does not take the file's text: {one_line(error)}.") from None

    def sample(self, number: int) -> list[list[str | None]]:
        """Return the first rows, without their lines."""
        found = self.connection.execute(f"SELECT {', '.join(self.columns)} FROM {TABLE} LIMIT {number}")  # noqa: S608
        return [list(row.values()) for row in found]

    def absent(self, column: str, texts: Sequence[str]) -> tuple[int, int]:
        """Return how many values are NULL, and how many are one of some texts."""
        listed = ", ".join(map(quoted_text, texts))
        row = self._one(f"count(*) - count({column}) AS nulls, count(*) FILTER (WHERE {column} IN ({listed})) AS texts")
        return row["nulls"], row["texts"]

    def kinds(self, column: str, value: str) -> tuple[dict[str, int], bool]:
        """Count the values of each kind; true if PostgreSQL writes all exactly so. `value` is the column without its NULLs."""
        for kind, plain in PLAIN.items():
            try:
                row = self._one(f'count({column}), bool_and({plain.format(c=column)} COLLATE "C") AS plain')
            except psycopg.DataError:
                continue
            if row["plain"]:
                return {kind: row["count"]}, True
        statement = fill(query("staged_kinds"), {"kind": self._kind(), "value": value})
        return {row["kind"]: row["count"] for row in self.connection.execute(statement)}, False

    def numbers(self, value: str) -> dict[str, bool]:
        """Return what a column's numbers have in common: see the query."""
        statement = fill(query("staged_numbers"), {"value": value, "is_number": self._takes("numeric", value)})
        return self.connection.execute(statement).fetchall()[0]

    def only_uuids(self, column: str) -> bool:
        """Return whether every value of a column is written as a UUID."""
        return bool(self._one(f"bool_and(length({column}) = 36 AND {self._takes('uuid', column)}) AS yes")["yes"])

    def plain_text(self, prefix: str, value: str, type: str) -> Check:
        """Return the check that finds plain text in a column of another type."""
        kind = f"(SELECT {self._kind()} FROM (SELECT btrim({value}) AS v) AS one)"  # noqa: S608
        return Check(prefix, f"{kind} = 'text'", f"format('''%s'' is no {type}', left({value}, 40))")

    def fits(self, prefix: str, value: str, type: str) -> Check:
        """Return the check that finds values which `type` does not take."""
        return Check(prefix, f"NOT {self._takes(type, value)}", self._message(type, value))

    def misfitting(self, checks: Sequence[Check], most: int) -> Iterator[tuple[int, str]]:
        """Yield line and reason for the first rows that fail a check."""
        if not checks:
            return
        reasons = ", ".join(
            f"CASE WHEN {one.bad} THEN {quoted_text(one.prefix)} || {one.reason} END AS r{n}"
            for n, one in enumerate(checks)
        )
        bad = " OR ".join(one.bad for one in checks)
        found = self.connection.execute(
            f"SELECT line, {reasons} FROM {TABLE} WHERE {bad} ORDER BY line LIMIT {most}"  # noqa: S608
        )
        for row in found:
            line, *why = row.values()
            yield from ((line, reason) for reason in why if reason)

    def remove(self, lines: Sequence[int]) -> None:
        if lines:
            self.connection.execute(f"DELETE FROM {TABLE} WHERE line = ANY (%s)", [lines])  # noqa: S608

    def _one(self, expressions: str) -> dict[str, Any]:
        (row,) = self.connection.execute(f"SELECT {expressions} FROM {TABLE}")  # noqa: S608
        return row

    def _kind(self) -> str:
        types = ("integer", "bigint", "numeric", "date", "timestamp", "timestamptz", "uuid")
        return fill(query("kind"), {f"is_{type}": self._takes(type, "v") for type in types})

    def _takes(self, type: str, value: str) -> str:
        if self.soft:
            return f"pg_input_is_valid({value}, {quoted_text(type)})"
        return f"{self._message(type, value)} IS NULL"

    def _message(self, type: str, value: str) -> str:
        """Return the SQL of what the server says about a value; NULL if the type takes it."""
        if self.soft:
            return f"(pg_input_error_info({value}, {quoted_text(type)})).message"
        if type not in self.misfits:
            self.misfits[type] = f"pg_temp.recstore_misfit_{len(self.misfits)}"
            self.connection.execute(fill(query("misfit"), {"function": self.misfits[type], "type": type}))
        return f"{self.misfits[type]}({value})"


def absent_is_null(value: str, texts: Sequence[str]) -> str:
    """Return SQL for a value that is NULL if it is one of some texts."""
    if len(texts) < 2:
        return f"nullif({value}, {quoted_text(texts[0])})" if texts else value
    return f"CASE WHEN {value} NOT IN ({', '.join(map(quoted_text, texts))}) THEN {value} END"


def quoted_text(text: str) -> str:
    return sql.Literal(text).as_string(None)


def type_of(kinds: dict[str, int], strays: float = MISFITS) -> str:
    """Return the type of a column, text if no other holds its values. A share of them may be stray plain text."""
    names = kinds.keys() - {"text"}
    if not names or kinds.get("text", 0) > strays * sum(kinds.values()):
        return "text"
    return next((type for type, held in HOLDS.items() if names <= held), "text")
