"""Pulling: from the source's view to interactions, the first step of the flow.

One READ ONLY, REPEATABLE READ transaction with a timeout, over Arrow; nothing here writes.
"""

import re
from collections.abc import Callable
from typing import Any

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc
from adbc_driver_manager._reader import AdbcRecordBatchReader

from recstore.config import Settings
from recstore.database import conninfo
from recstore.definition import Source
from recstore.errors import ConnectionLost, PermissionDenied, RecstoreError, SourceInvalid, SourceTimeout
from recstore.interactions import Interactions, InteractionsBuilder, SourceReport
from recstore.types import IdType

OnRows = Callable[[int, int], None]
"""Called with (rows read so far, rows the planner expects)."""


def read(
    url: str,
    settings: Settings,
    name: str,
    source: Source,
    user_type: IdType,
    item_type: IdType,
    *,
    application_name: str,
    has_last_at: bool,
    with_times: bool = False,
    expected: int = 0,
    on_rows: OnRows | None = None,
) -> tuple[Interactions, SourceReport, dict[str, Any]]:
    """Reads the whole source of recommender `name` in one snapshot, in bulk; `with_times` with each pair's time, if there is
    a last_at.

    Returns the interactions (rows dropped and merged as `source` says), the counts, and the snapshot's time, number and
    digest.
    The transaction is closed before this returns. Raises SourceTimeout, TooManyNulls, SourceEmpty, PermissionDenied,
    ConnectionLost.
    """
    view = f'"{name}".interactions'
    last_at = ", i.last_at::timestamptz AS last_at" if has_last_at else ""
    select = f"SELECT i.user_id, i.item_id, i.value::float8 AS value{last_at} FROM {view} i"  # noqa: S608
    builder = InteractionsBuilder(
        user_type, item_type, source.duplicates, source.max_nulls, name, with_times=with_times
    )
    role = "of this connection"
    try:
        with adbc.connect(conninfo(url, application_name)) as connection, connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor.execute(f"SET LOCAL statement_timeout = {int(settings.source_timeout * 1000)}")
            cursor.execute("SELECT now()::text, pg_current_snapshot()::text, current_user::text")
            taken_at, snapshot, role = cursor.fetchone()
            cursor.execute(select)
            rows = 0
            # not fetch_record_batch(), whose errors have no SQLSTATE: a timeout would be any other OSError
            stream = cursor.fetch_arrow()
            for batch in AdbcRecordBatchReader._import_from_c(stream.address):
                builder.add(batch)
                rows += batch.num_rows
                if on_rows:
                    on_rows(rows, max(rows, expected))
            connection.rollback()
    except adbc_driver_manager.Error as error:
        raise _source_error(error, name, role, settings) from error
    interactions, report = builder.build()
    return interactions, report, {"taken_at": taken_at, "snapshot": snapshot, "digest": interactions.digest()}


def _source_error(error: adbc_driver_manager.Error, name: str, role: str, settings: Settings) -> RecstoreError:
    text = " ".join(str(error).split())
    match = re.search(r"(?:ERROR|FATAL):\s*(.+?)(?: Query was:| SQLSTATE:|$)", text)
    message = (match[1] if match else text).strip().rstrip(".")
    state = getattr(error, "sqlstate", None)
    if state == "57014":
        return SourceTimeout(name=name, seconds=f"{settings.source_timeout:g}")
    if state == "42501":
        remedy = f"Grant it SELECT on the source's tables. The live generation of {name!r} stays."
        return PermissionDenied(role=role, reason=message, remedy=remedy)
    if state is None or state.startswith(("57P", "08")):
        return ConnectionLost(doing=f"reading the source of {name!r}", reason=message)
    return SourceInvalid(reason=message, remedy=f"The live generation of {name!r} stays; mend the source and retrain.")
