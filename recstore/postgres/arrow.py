"""Reading in bulk, as Arrow: one READ ONLY, REPEATABLE READ transaction, with a session as `database.connect` gives it.

What C waits for, a thread of its own waits for, so that Ctrl-C is heard before the server's rows come. Errors keep the
server's SQLSTATE: `fetch_record_batch()` of the driver would lose it.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa
from adbc_driver_manager._reader import AdbcRecordBatchReader

from recstore.errors import ConnectionLost, RecstoreError
from recstore.postgres.connection import OWN_SETTINGS, SESSION_GONE, conninfo

Refused = Callable[[str, str], RecstoreError]
"""The error to raise where the server refused something, given its SQLSTATE and its words."""


class Reading:
    """Reads in the transaction of `reading`, one statement after the other."""

    def __init__(self, cursor: Any, thread: ThreadPoolExecutor) -> None:
        self._cursor, self._thread = cursor, thread

    def execute(self, statement: str) -> None:
        """A statement without rows."""
        self._heard(self._cursor.execute, statement)

    def row(self, select: str) -> tuple[Any, ...] | None:
        """The first row, None without one."""
        self.execute(select)
        row: tuple[Any, ...] | None = self._cursor.fetchone()
        return row

    def table(self, select: str) -> pa.Table:
        """All rows."""
        self.execute(select)
        return self._heard(self._cursor.fetch_arrow_table)

    def batches(self, select: str) -> Iterator[pa.RecordBatch]:
        """The rows as they arrive; a batch or two are in memory."""
        self.execute(select)
        stream = self._cursor.fetch_arrow()  # its rows are gone when it is
        batches = iter(AdbcRecordBatchReader._import_from_c(stream.address))
        while (batch := self._heard(next, batches, None)) is not None:
            yield batch

    def _heard(self, call: Callable[..., Any], *arguments: Any) -> Any:
        future = self._thread.submit(call, *arguments)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                self._cursor.adbc_cancel()
            raise


@contextmanager
def reading(
    url: str,
    application_name: str,
    doing: str,
    *,
    refused: Refused | None = None,
    timeout: float = 0.0,
    batch_bytes: int | None = None,
    snapshot: str | None = None,
) -> Iterator[Reading]:
    """A context: the transaction ends with it. `timeout`: seconds for each statement, 0 for none; `snapshot`: one that another
    transaction exported. Raises ConnectionLost (`doing` says what, as in "reading ..") and what `refused` returns."""
    options = {"adbc.postgresql.batch_size_hint_bytes": str(batch_bytes)} if batch_bytes else None
    try:
        with (
            adbc.connect(conninfo(url, application_name)) as connection,
            connection.cursor(adbc_stmt_kwargs=options) as cursor,
            ThreadPoolExecutor(1) as thread,  # innermost: what it reads from is closed after it has ended
        ):
            cursor.execute(OWN_SETTINGS)
            cursor.fetchall()
            connection.commit()
            with suppress(adbc_driver_manager.Error):  # a server on a platform without the check
                cursor.execute("SET client_connection_check_interval = '2s'")
            connection.commit()
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            if snapshot:
                cursor.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
            if timeout:
                cursor.execute(f"SET LOCAL statement_timeout = {int(timeout * 1000)}")
            yield Reading(cursor, thread)
            connection.rollback()
    except adbc_driver_manager.Error as error:
        text = " ".join(str(error).split())
        match = re.search(r"(?:ERROR|FATAL):\s*(.+?)(?: Query was:| SQLSTATE:|$)", text)
        reason = (match[1] if match else text).strip().rstrip(".")
        state = getattr(error, "sqlstate", None)
        if state is None or state.startswith(SESSION_GONE):
            raise ConnectionLost(doing=doing, reason=reason) from error
        if refused is None:
            raise RecstoreError(f"PostgreSQL refused, {doing}: {reason}.") from error
        raise refused(state, reason) from error
