"""A stand-in for a connection, on which a change is rehearsed: it notes the SQL and leaves the database as it was.

What a dry run prints comes from the code that would do it, so the two can not differ. Everything happens in a transaction
that is rolled back, in which nothing is done that a reader could wait for:

- what is only read is asked;
- rows of recstore's own tables are inserted and updated, since later statements read them (with the numbers that their
  sequences give next: a sequence would not be rolled back); not deleted, which can take long;
- functions are replaced, which nobody waits for, to see whether they can be; a schema that is made is new to everybody, so
  whatever is made in it is made;
- what the change itself takes back, to find something out, is done, taken back, and not noted;
- every other change of objects is noted alone. Where a view could not be replaced in place, that is found out from its
  columns.

Knows nothing of recommenders.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from psycopg import errors as pg
from psycopg import sql

from recstore.postgres.connection import Connection

LOCK_TIMEOUT = 100
"""Milliseconds that a rehearsal waits for a row that somebody is changing."""

READS = ("SELECT", "WITH", "SHOW", "EXPLAIN", "VALUES", "TABLE", "SET TRANSACTION")
MADE = ("INSERT", "UPDATE", "CREATE SCHEMA")
TRIED = ("CREATE OR REPLACE FUNCTION", "CREATE FUNCTION", "DROP FUNCTION")

_LEADING = re.compile(r"^(?:\s+|--[^\n]*\n)*")
_INSERT = re.compile(r"(INSERT INTO (recstore_private\.\w+)\s*)\(([^)]*)\)(\s*VALUES\s*)\(")
_RENAME = re.compile(r"ALTER TABLE ((\S+)\.\S+) RENAME TO (\S+)$")
_VIEW = re.compile(
    r"CREATE OR REPLACE VIEW (\S+)(?: WITH \([^)]*\))? AS\n(.*?);?\s*(?:\nCOMMENT ON VIEW .*)?$", re.DOTALL
)


class Rehearsal:
    """Takes the place of a `Connection` where statements are executed; `statements` is what it was asked to change."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.statements: list[str] = []
        self._unfit: set[str] = set()
        self._dropped: set[str] = set()
        self._depth = self._questions = 0
        self._own_schema = False
        self._renamed: dict[str, str] = {}
        self._numbers: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    @contextmanager
    def transaction(self, *, force_rollback: bool = False) -> Iterator[None]:
        """As that of the connection; what is noted in one that fails is forgotten. One that is rolled back anyway is a
        question: what is executed in it is executed, and not noted."""
        noted = len(self.statements)
        self._depth += 1
        self._questions += force_rollback
        try:
            with self.connection.transaction(force_rollback=force_rollback):
                yield
        except BaseException:
            del self.statements[noted:]
            raise
        finally:
            self._depth -= 1
            self._questions -= force_rollback
        if self._depth == 0 and len(self.statements) > noted:
            self.statements.insert(noted, "BEGIN;")
            self.statements.append("COMMIT;")

    def execute(self, query: str | sql.Composable, params: Any = None, **options: Any) -> Any:
        """Asks, or notes. Raises as the server would, as far as that is known without disturbing anybody."""
        text = query if isinstance(query, str) else query.as_string(self.connection)
        if self._questions:
            return self.connection.execute(text, params, **options)
        plain = _LEADING.sub("", text, count=1)
        if plain.startswith(READS):
            params = self._as_before(params)
            return self.connection.execute(text, params, **options)
        cursor = None
        if self._own_schema or plain.startswith(MADE):
            cursor = self._make(text, params)
            self._own_schema |= plain.startswith("CREATE SCHEMA")
        elif plain.startswith(TRIED):
            self._try(text)
        elif plain.startswith("CREATE OR REPLACE VIEW"):
            self._check_view(plain)
        elif plain.startswith("DROP VIEW "):
            self._dropped.add(_plain(plain.removeprefix("DROP VIEW ")))
        elif renamed := _RENAME.match(plain):
            self._renamed[_plain(f"{renamed[2]}.{renamed[3]}")] = renamed[1]
        noted = text if params is None else psycopg.ClientCursor(self.connection).mogrify(text, params)
        self.note(noted.strip())
        return cursor or self.connection.cursor()

    @property
    def dropped(self) -> frozenset[str]:
        """Views that are there still, but would not be, for instance "view candidates"."""
        return frozenset(f"view {relation.rpartition('.')[2]}" for relation in self._dropped)

    def expect_unfit(self, relation: str) -> None:
        """A view that could not be replaced in place, though its present columns do not show it."""
        self._unfit.add(_plain(relation))

    def note(self, text: str) -> None:
        last = text.rpartition("\n")[2]
        self.statements.append(text if text.endswith(";") or last.startswith("--") else text + ";")

    def _as_before(self, params: Any) -> Any:
        """What was renamed is still there under its old name."""
        if isinstance(params, dict):
            return {key: self._renamed.get(_plain(str(value)), value) for key, value in params.items()}
        return params and [self._renamed.get(_plain(str(value)), value) for value in params]

    def _make(self, text: str, params: Any) -> Any:
        """Executes a statement; what an INSERT would number gets the number that its sequence gives next."""
        insert = _INSERT.search(text)
        if insert is None:
            if "INSERT INTO recstore_private" in text:
                raise NotImplementedError(f"an INSERT that can not be rehearsed: {text}")
            return self.connection.execute(text, params)
        row = self.connection.execute(
            "SELECT quote_ident(a.attname) AS name, pg_get_serial_sequence(%(table)s, a.attname) AS sequence FROM pg_attribute a"
            " WHERE a.attrelid = %(table)s::regclass AND a.attidentity <> '' AND NOT a.attisdropped",
            {"table": insert[2]},
        ).fetchone()
        if row is None:
            return self.connection.execute(text, params)
        number = self._next(row["sequence"])
        numbered = _INSERT.sub(
            lambda found: f"{found[1]}({row['name']}, {found[3]}) OVERRIDING SYSTEM VALUE{found[4]}({number}, ",
            text,
        )
        return self.connection.execute(numbered, params)

    def _next(self, sequence: str) -> int:
        if sequence not in self._numbers:
            row = self.connection.execute(f"SELECT last_value - 1 + is_called::int AS last FROM {sequence}").fetchone()  # noqa: S608
            assert row is not None
            self._numbers[sequence] = row["last"]
        self._numbers[sequence] += 1
        return self._numbers[sequence]

    def _try(self, text: str) -> None:
        """Changes a function, to see whether it can be. What it needs may be noted alone and not be there."""
        try:
            with self.connection.transaction():
                self.connection.execute(text)
        except (pg.InvalidFunctionDefinition, pg.DependentObjectsStillExist):
            raise
        except psycopg.DatabaseError:
            if self.connection.closed:
                raise

    def _check_view(self, text: str) -> None:
        """Raises psycopg's InvalidTableDefinition, as the server would, where the view's columns would become others."""
        found = _VIEW.match(text)
        if found is None:
            raise NotImplementedError(f"a view that can not be rehearsed: {text}")
        relation, select = found[1], found[2]
        if _plain(relation) in self._dropped:
            return
        fits = _plain(relation) not in self._unfit
        if fits:
            try:
                with self.connection.transaction():
                    before, after = self._columns(f"SELECT * FROM {relation}"), self._columns(select)  # noqa: S608
                fits = after[: len(before)] == before
            except psycopg.DatabaseError:  # it is not there yet, or reads what is not there yet
                if self.connection.closed:
                    raise
        if not fits:
            raise pg.InvalidTableDefinition(f"the columns of {relation} would become others")

    def _columns(self, select: str) -> list[tuple[str, str]]:
        cursor = self.connection.execute(f"SELECT * FROM (\n{select}\n) s LIMIT 0")  # noqa: S608
        return [(column.name, column.type_display) for column in cursor.description or ()]


def _plain(relation: str) -> str:
    """One way to write it, quoted or not."""
    return relation.replace('"', "")


@contextmanager
def rehearsing(connection: Connection) -> Iterator[tuple[Connection, Rehearsal]]:
    """The stand-in, as what it stands in for and as itself, while nothing that is done on it lasts. The connection is in
    autocommit mode, outside of any transaction."""
    with connection.transaction(force_rollback=True):
        connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}")
        stand_in = Rehearsal(connection)
        yield cast(Connection, stand_in), stand_in
