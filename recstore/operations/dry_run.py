"""Dry runs: return what a change would execute, as SQL that is ready to run, and leave the database as it was.

The code of the change itself runs in a transaction that is rolled back, on a stand-in for the connection that records its
statements. What is removed is listed and not executed: that would lock out readers, and can take long. Statements come in the
order of execution, with BEGIN and COMMIT; a line that begins with -- is a remark. What a run writes about itself is not shown.
Callers pass settings with one attempt at each lock, so that its holder is reported at once.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from psycopg import sql

from recstore.postgres.connection import Connection

LOCK_TIMEOUT = 500
"""Milliseconds to wait for a lock, where the change itself sets no limit."""

SEQUENCES = ("recommenders_id_seq", "generations_generation_seq", "flips_flip_seq")

_READ = re.compile(r"SELECT|SHOW|EXPLAIN")
"""Command tags of statements that change nothing."""

_REMOVAL = re.compile(r"(?:\s|--[^\n]*\n)*(?:DELETE |DROP (?:TABLE|SCHEMA) |ALTER TABLE \S+ DETACH )")


class Recorder:
    """Take the place of a `Connection`: execute statements, and record those that change something."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.statements: list[str] = []
        self._depth = 0

    @property
    def stand_in(self) -> Connection:
        """The recorder, as the functions that take a connection know it."""
        return cast(Connection, self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    @contextmanager
    def transaction(self, *, force_rollback: bool = False) -> Iterator[None]:
        """Open a savepoint, recorded as a transaction if it is the outermost; forget what is rolled back."""
        begun = len(self.statements)
        self._depth += 1
        try:
            with self.connection.transaction(force_rollback=force_rollback):
                yield
        except BaseException:
            del self.statements[begun:]
            raise
        finally:
            self._depth -= 1
        if force_rollback:
            del self.statements[begun:]
        elif self._depth == 0 and len(self.statements) > begun:
            self.statements[begun:] = ["BEGIN;", *self.statements[begun:], "COMMIT;"]

    def execute(self, query: str | sql.Composable, params: Any = None, **options: Any) -> Any:
        """Execute a statement unless it removes something. Raises what the server raises."""
        text = query if isinstance(query, str) else query.as_string(self.connection)
        if _REMOVAL.match(text):
            cursor = self.connection.cursor()
        else:
            cursor = self.connection.execute(text, params, **options)
            if _READ.match(cursor.statusmessage or "") or text.startswith("SET TRANSACTION"):
                return cursor
        plain = text if params is None else psycopg.ClientCursor(self.connection).mogrify(text, params)
        self.statements.append(plain.strip().removesuffix(";") + ";")
        return cursor


@contextmanager
def rehearsing(connection: Connection) -> Iterator[Recorder]:
    """Yield a recorder on the connection; nothing done on it lasts."""
    with connection.transaction(force_rollback=True):
        connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}")
        for sequence in SEQUENCES:  # a sequence that was altered in this transaction is rolled back with it
            connection.execute(f"ALTER SEQUENCE recstore_private.{sequence} INCREMENT BY 1")
        yield Recorder(connection)
