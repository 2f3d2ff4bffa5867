"""The second reading of a file: its good lines by COPY into the table, all in one transaction."""

import re
import time
from collections.abc import Iterator, Sequence

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import errors as pg
from psycopg import sql

from recstore.errors import InvalidInput, LoadInterrupted, LoadRefused, TableExists
from recstore.files.load.bad_lines import BadLines
from recstore.files.load.batches import Batch
from recstore.files.load.examining import Plan, PlannedColumn, Watch, without_nulls
from recstore.files.load.target import Target
from recstore.postgres.connection import Connection, one_line
from recstore.postgres.names import quoted

LOCK_SECONDS = 10
"""Seconds that replacing waits for those who write to the table just now, and statistics for those who alter it."""

OF_THE_DATA = ("22", "23", "44", "P0")
"""Classes of SQLSTATE that speak of a row: data, constraints, check options, triggers."""

SHOWN_KEYS = 10


def write(connection: Connection, plan: Plan, watch: Watch) -> int:
    """Loads the plan's good lines and returns their number. Commits all of it or nothing; then the table is analyzed,
    and where that is cut short a warning says so.

    Replacing deletes the rows and adds the new ones in one transaction: readers wait for nothing and see the old rows until
    they see the new. Raises LoadRefused, LoadInterrupted, TableExists, InvalidInput.
    """
    began, target = time.monotonic(), plan.target
    if plan.good == 0:
        raise InvalidInput(f"{plan.file.name} has no row to load, so nothing was written.")
    try:
        with connection.transaction():
            _prepare(connection, plan)
            rows, copied = _copy(connection, plan, watch)
            if rows != plan.good:
                raise InvalidInput(
                    f"{plan.file.name} has changed while it was read, so nothing was written. Load it again."
                )
            _check_all_arrived(plan, rows, copied, watch)
            if target.mode == "create" and plan.primary_key:
                _add_key(connection, plan)
    except KeyboardInterrupt:
        raise LoadInterrupted(table=target) from None
    except pg.DuplicateTable:
        raise TableExists(table=target) from None
    except psycopg.DatabaseError as error:
        if not (error.sqlstate or "").startswith(OF_THE_DATA):
            raise
        raise LoadRefused(table=target, reason=_told(plan, error), remedy=_remedy(error)) from None
    watch.stage("load", time.monotonic() - began, {"told": f"{rows:,} rows into {target}"})
    _gather_statistics(connection, target, rows, watch)
    _tell_sequences(plan, watch)
    return rows


def _check_all_arrived(plan: Plan, rows: int, copied: int, watch: Watch) -> None:
    """A table's own trigger may keep rows out, or put them elsewhere, as old ways of partitioning do."""
    if copied == rows:
        return
    reason = f"of {rows:,} rows it took {copied:,}: a trigger of its own kept the others out, or put them elsewhere"
    if plan.target.mode == "replace":
        raise LoadRefused(table=plan.target, reason=reason, remedy="Use --append, or load into another table.")
    watch.warn(f"{plan.target}: {reason}.")


def _tell_sequences(plan: Plan, watch: Watch) -> None:
    """A sequence does not see the values that came from a file, and would give them again."""
    filled = {column.match.name for column in plan.columns}
    for column in plan.target.columns:
        if column.sequence and column.name in filled:
            mended = f"SELECT setval('{column.sequence}', max({quoted(column.name)})) FROM {plan.target};"  # noqa: S608
            watch.warn(
                f"{plan.target} takes its next {column.name} from a sequence that has not seen the file's. So that it gives none"
                f" of them again, run: {mended}"
            )


def _gather_statistics(connection: Connection, target: Target, rows: int, watch: Watch) -> None:
    """After the commit, so whatever goes wrong here is no failure of the load: it is told as a warning."""
    began = time.monotonic()
    vacuum = "VACUUM (ANALYZE) {}" if target.mode == "replace" else "ANALYZE {}"
    try:
        connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
        try:
            connection.execute(sql.SQL(vacuum).format(target.identifier))
        finally:
            connection.execute("RESET lock_timeout")
    except (KeyboardInterrupt, psycopg.Error) as error:
        why = one_line(error) if isinstance(error, psycopg.Error) else "interrupted"
        watch.warn(
            f"The {rows:,} rows are in {target}; gathering statistics was cut short ({why}). Do not load them again;"
            f" run: ANALYZE {target};"
        )
    else:
        watch.stage("analyze", time.monotonic() - began, {"told": "statistics for the planner"})


def _prepare(connection: Connection, plan: Plan) -> None:
    statements = [statement for statement in plan.statements() if not statement.startswith("COPY")]
    if plan.target.mode == "create":
        connection.execute(statements[0])  # made of quoted names and known types
    elif plan.target.mode == "replace":
        lock, delete = statements
        connection.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
        try:
            connection.execute(lock)
        except pg.LockNotAvailable:
            raise LoadRefused(
                table=plan.target,
                reason=f"others have been writing to it for {LOCK_SECONDS} s",
                remedy="Try again when they have ended.",
            ) from None
        connection.execute("SET LOCAL lock_timeout = 0")
        connection.execute(delete)
        if connection.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(plan.target.identifier)).fetchone() is not None:
            raise LoadRefused(
                table=plan.target,
                reason="a trigger or a rule of its own keeps rows from being deleted",
                remedy="Use --append, or load into another table.",
            )


def _copy(connection: Connection, plan: Plan, watch: Watch) -> tuple[int, int]:
    """The number of rows that were sent, and of those that the table took."""
    names = sql.SQL(", ").join(sql.Identifier(column.match.name) for column in plan.columns)
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT text, ENCODING 'UTF8')").format(plan.target.identifier, names)
    rows, cursor = 0, connection.cursor()
    with cursor.copy(statement) as copy:
        for batch in good_rows(plan):
            copy.write(as_copy_text(plan.columns, batch.columns, plan.reader.nulls))
            rows += len(batch)
            watch.progress("load", *plan.file.progress(), f"MB, {rows:,} rows")
    return rows, cursor.rowcount


def good_rows(plan: Plan) -> Iterator[Batch]:
    """The file's batches without its bad lines."""
    bad = plan.bad.lines()
    for batch in plan.reader.batches([column.match.position for column in plan.columns], BadLines()):
        keep = ~np.isin(batch.lines, bad) if len(bad) else None
        if keep is None or keep.all():
            yield batch
        elif keep.any():
            chosen = pa.array(keep)
            yield Batch(batch.lines[keep], [column.filter(chosen) for column in batch.columns], batch.text)


def as_copy_text(planned: Sequence[PlannedColumn], columns: Sequence[pa.Array], nulls: Sequence[str]) -> bytes:
    """Rows in COPY's text format, one line each."""
    values = []
    for column, given in zip(planned, columns, strict=True):
        given = given if column.textual else without_nulls(given, nulls)
        plain = column.match.type is None and not column.textual  # found: digits, dates and the like
        values.append(given if plain else _escaped(given))
    rows = pc.binary_join_element_wise(*values, "\t", null_handling="replace", null_replacement="\\N")
    rows = pc.binary_join_element_wise(rows, "", "\n")
    _, offsets, data = rows.buffers()
    bounds = np.frombuffer(offsets, np.int32)[[rows.offset, rows.offset + len(rows)]]
    return bytes(memoryview(data)[bounds[0] : bounds[1]])


def _escaped(values: pa.Array) -> pa.Array:
    if not pc.any(pc.match_substring_regex(values, r"[\\\t\n\r]")).as_py():
        return values
    for mark, written in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        values = pc.replace_substring(values, mark, written)
    return values


def _add_key(connection: Connection, plan: Plan) -> None:
    """The primary key, made after the rows are in. Raises LoadRefused with the keys that are there twice."""
    try:
        with connection.transaction():
            connection.execute(plan.statements()[-1])
    except pg.UniqueViolation:
        keys = sql.SQL(", ").join(map(sql.Identifier, plan.primary_key))
        counted = sql.SQL("SELECT {}, count(*) AS times FROM {} GROUP BY {} HAVING count(*) > 1").format(
            keys, plan.target.identifier, keys
        )
        shown = connection.execute(
            sql.SQL("SELECT d.*, count(*) OVER () AS keys FROM ({}) d ORDER BY {} LIMIT {}").format(
                counted, keys, SHOWN_KEYS
            )
        ).fetchall()
        doubles = [f"({', '.join(str(row[key]) for key in plan.primary_key)}) {row['times']} times" for row in shown]
        more = " .." if shown[0]["keys"] > len(shown) else ""
        names = ", ".join(plan.primary_key)
        raise LoadRefused(
            table=plan.target,
            reason=f"{shown[0]['keys']:,} keys ({names}) are there more than once: {'; '.join(doubles)}{more}",
            remedy="Leave out --primary-key, or the doubles.",
        ) from None


def _told(plan: Plan, error: psycopg.DatabaseError) -> str:
    """What the server said, with the line of the file where it tells the one of the COPY."""
    reason = one_line(error)
    if error.diag.message_detail:
        reason += f" ({error.diag.message_detail.rstrip('.')})"
    found = re.search(r"COPY .*, line (\d+)", error.diag.context or "")
    line = _line_of(plan, int(found[1])) if found else None
    return reason if line is None else f"{plan.reader.unit} {line:,} of {plan.file.name}: {reason}"


def _line_of(plan: Plan, row: int) -> int | None:
    """The line of the row-th good row."""
    for batch in good_rows(plan):
        if row <= len(batch):
            return int(batch.lines[row - 1])
        row -= len(batch)
    return None


def _remedy(error: psycopg.DatabaseError) -> str:
    if isinstance(error, pg.UniqueViolation):
        return "The table takes each of these keys once: leave out what it has, or use --replace."
    if isinstance(error, pg.ForeignKeyViolation):
        if "still referenced" in (error.diag.message_detail or ""):
            return "Other rows refer to those that would go: use --append, or load those others anew too."
        return "Load the table that it refers to first."
    return "Mend the file, or the table's rule."
