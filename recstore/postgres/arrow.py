"""Read in bulk as Arrow, in one READ ONLY, REPEATABLE READ transaction with the session settings of `connection`.

A separate thread waits for the driver, so that Ctrl-C acts at once. Errors keep the server's SQLSTATE, which the driver's own
`fetch_record_batch()` loses.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc
import numpy as np
import pyarrow as pa
from adbc_driver_manager._reader import AdbcRecordBatchReader
from numpy.typing import NDArray
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from recstore.errors import ConnectionLost, RecstoreError
from recstore.postgres.connection import SESSION_GONE, conninfo
from recstore.postgres.session import OWNER, SEARCH_PATH, SETTINGS, STARTUP

Refused = Callable[[str, str], RecstoreError]
"""Maps the SQLSTATE and message of a server error to the error to raise."""


class Reading:
    """Run statements in the transaction of `reading`, one after the other."""

    def __init__(self, cursor: Any, thread: ThreadPoolExecutor) -> None:
        self._cursor, self._thread = cursor, thread
        self._ahead: Future[Any] | None = None

    def execute(self, statement: str) -> None:
        """Execute a statement without rows."""
        self._interruptible(self._cursor.execute, statement)

    def row(self, select: str) -> tuple[Any, ...] | None:
        """Return the first row, or None."""
        self.execute(select)
        row: tuple[Any, ...] | None = self._cursor.fetchone()
        return row

    def table(self, select: str) -> pa.Table:
        """Return all rows."""
        self.execute(select)
        return self._interruptible(self._cursor.fetch_arrow_table)

    def batches(self, select: str) -> Iterator[pa.RecordBatch]:
        """Yield the rows as they arrive, while the next ones are read. Two or three batches are in memory."""
        self.execute(select)
        stream = self._cursor.fetch_arrow()  # referenced until its rows are read
        batches = iter(AdbcRecordBatchReader._import_from_c(stream.address))
        self._ahead = self._thread.submit(next, batches, None)
        while (batch := self._result(self._ahead)) is not None:
            self._ahead = self._thread.submit(next, batches, None)
            yield batch

    def abandon(self) -> None:
        """Cancel what is read ahead."""
        if self._ahead and not self._ahead.done():
            self._cursor.adbc_cancel()

    def _interruptible(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return self._result(self._thread.submit(call, *arguments))

    def _result(self, future: Future[Any]) -> Any:
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
    application_path: str | None = None,
) -> Iterator[Reading]:
    """Open the transaction for the block. Raises ConnectionLost, and the errors that `refused` returns.

    `timeout`: seconds for each statement, 0 for none; `snapshot`: the name of an exported snapshot; `application_path`: the
    `inherited_path`, to read the application's relations under; `doing`: as in "reading the source".
    """
    options = {"adbc.postgresql.batch_size_hint_bytes": str(batch_bytes)} if batch_bytes else None
    try:
        with (
            _connected(url, application_name) as connection,
            connection.cursor(adbc_stmt_kwargs=options) as cursor,
            ThreadPoolExecutor(1) as thread,  # innermost: it ends before what it reads from is closed
        ):
            cursor.execute(f"SET search_path = {SEARCH_PATH}")  # a pooler may have ignored it
            for statement in (SETTINGS, OWNER):
                cursor.execute(statement)
                cursor.fetchall()
            connection.commit()
            with suppress(adbc_driver_manager.Error):  # a server on a platform without the check
                cursor.execute("SET client_connection_check_interval = '2s'")
            connection.commit()
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            if snapshot:
                cursor.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
            if application_path is not None:
                cursor.execute("SET LOCAL TimeZone TO DEFAULT")
                path = application_path.replace("'", "''")
                cursor.execute(f"SELECT pg_catalog.set_config('search_path', '{path}', true)")
                cursor.fetchall()
            if timeout:
                cursor.execute(f"SET LOCAL statement_timeout = {int(timeout * 1000)}")
            read = Reading(cursor, thread)
            try:
                yield read
            finally:
                read.abandon()
            connection.rollback()
    except adbc_driver_manager.Error as error:
        # "ERROR:" in any language: libpq writes two spaces behind it
        match = re.search(r"[^\W\d_]{4,}:  (.+?)(?:\s+Query was:|\s+SQLSTATE:|$)", str(error), re.DOTALL)
        reason = " ".join((match[1] if match else str(error)).split()).rstrip(" .")
        state = getattr(error, "sqlstate", None)
        if state is None or state.startswith(SESSION_GONE):
            raise ConnectionLost(doing=doing, reason=reason) from error
        if refused is None:
            raise RecstoreError(f"PostgreSQL refused, {doing}: {reason}.") from error
        raise refused(state, reason) from error


def decoded_vectors(sent: pa.Array, vector_type: str) -> NDArray[np.float32]:
    """Decode pgvector's binary form (two 2-byte numbers, then the elements) of at least one vector: float32 (rows, dimensions).

    This takes a third of the time of reading arrays of reals."""
    element = np.dtype(">f4" if vector_type == "vector" else ">f2")
    sent = sent.cast(pa.large_binary())
    starts = np.frombuffer(sent.buffers()[1], np.int64)[sent.offset : sent.offset + 2]
    dimensions = (int(starts[1] - starts[0]) - 4) // element.itemsize
    record = np.dtype([("head", "V4"), ("elements", element, (dimensions,))])
    records = np.frombuffer(sent.buffers()[2], record, count=len(sent), offset=int(starts[0]))
    return records["elements"].astype(np.float32)


def _connected(url: str, application_name: str) -> adbc.Connection:
    """Connect with the settings that the driver's own first statements need. A pooler that refuses them gets none."""
    target = conninfo(url, application_name)
    given = conninfo_to_dict(target).get("options") or ""
    options = " ".join(f"-c {name}={value}" for name, value in STARTUP.items())
    try:
        return adbc.connect(make_conninfo(target, options=f"{options} {given}"))
    except adbc_driver_manager.Error as error:
        if "unsupported startup parameter" not in str(error):
            raise
        return adbc.connect(target)
