"""Write the staged rows into the target, all in one transaction."""

import time

import psycopg
from psycopg import errors as pg

from recstore.errors import InvalidInput, LoadInterrupted, LoadRefused, TableExists
from recstore.files.load.examining import Plan
from recstore.files.load.staging import TABLE
from recstore.postgres.connection import Connection, application_path, one_line
from recstore.postgres.names import quoted
from recstore.runs import Reporter

LOCK_SECONDS = 10
"""Seconds to wait for other writers before replacing, and for changes of the table before gathering statistics."""

OF_THE_DATA = ("22", "23", "44", "P0")
"""Classes of SQLSTATE that concern a row: data, constraints, check options, triggers."""

SHOWN_KEYS = 10


def write(connection: Connection, plan: Plan, watch: Reporter) -> int:
    """Load the plan's good rows and return their number. Commit all of it or nothing, then analyze the table.

    Replacing deletes the rows and adds the new ones in one transaction: readers wait for nothing and see the old rows until
    they see the new. Raises LoadRefused, LoadInterrupted, TableExists, InvalidInput.
    """
    began, target, rows = time.monotonic(), plan.target, plan.good
    if rows == 0:
        raise InvalidInput(f"{plan.reader.file.name} has no row to load, so nothing was written.")
    try:
        with connection.transaction():
            if target.mode == "create":
                connection.execute(plan.statements()[0])
            elif target.mode == "replace":
                _delete(connection, plan)
            watch.progress("load", 0, rows)
            arrived = _insert(connection, plan)
            watch.progress("load", rows, rows)
            if arrived != rows:
                _warn_of_kept_rows(plan, arrived, watch)
            if target.mode == "create" and plan.primary_key:
                _add_key(connection, plan)
    except KeyboardInterrupt:
        raise LoadInterrupted(table=target) from None
    except pg.DuplicateTable:
        raise TableExists(table=target) from None
    except psycopg.DatabaseError as error:  # of deferred constraints, too
        raise _refused(plan, error) from None
    watch.stage("load", time.monotonic() - began, {"summary": f"{rows:,} rows into {target}"})
    _gather_statistics(connection, plan, watch)
    _warn_of_sequences(plan, watch)
    return rows


def _delete(connection: Connection, plan: Plan) -> None:
    """Delete the rows of the table. Raises LoadRefused if other writers or the table's own rules prevent it."""
    lock, delete, _ = plan.statements()
    connection.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
    try:
        connection.execute(lock)
    except pg.LockNotAvailable:
        raise LoadRefused(
            table=plan.target,
            reason=f"other sessions have been writing to it for {LOCK_SECONDS} s",
            remedy="Try again when they have ended.",
        ) from None
    connection.execute("SET LOCAL lock_timeout = 0")
    connection.execute(delete)
    if connection.execute(f"SELECT FROM {plan.target} LIMIT 1").fetchone() is not None:
        raise LoadRefused(
            table=plan.target,
            reason="a trigger or a rule of its own keeps rows from being deleted",
            remedy="Use --append, or load into another table.",
        )


def _insert(connection: Connection, plan: Plan) -> int:
    """Fill the table from the staged rows; return how many it took. Raises LoadRefused with the line it does not take."""
    try:
        with connection.transaction(), application_path(connection):  # for the table's triggers and defaults
            return connection.execute(plan.insert()).rowcount
    except psycopg.DatabaseError as error:
        if not _of_the_data(error):
            raise
        line, error = _first_refused(connection, plan, error)
        raise _refused(plan, error, f"{plan.reader.unit} {line:,} of {plan.reader.file.name}: ") from None


def _first_refused(
    connection: Connection, plan: Plan, error: psycopg.DatabaseError
) -> tuple[int, psycopg.DatabaseError]:
    """Return the first line that the table does not take after those before it, by halving, and its error."""
    (last,) = connection.execute(f"SELECT max(line) AS line FROM {TABLE}")  # noqa: S608
    low, high = 0, last["line"]
    while high - low > 1:
        middle = (low + high) // 2
        try:
            with connection.transaction():
                connection.execute(plan.insert(f" WHERE line > {low} AND line <= {middle}"))
            low = middle
        except psycopg.DatabaseError as found:
            high, error = middle, found
    return high, error


def _warn_of_kept_rows(plan: Plan, arrived: int, watch: Reporter) -> None:
    """Refuse to replace, or warn, if the table's own triggers or rules kept rows out or moved them elsewhere."""
    reason = (
        f"of {plan.good:,} rows it took {arrived:,}: a trigger or a rule of its own kept the others out or moved them"
        " elsewhere"
    )
    if plan.target.mode == "replace":
        raise LoadRefused(table=plan.target, reason=reason, remedy="Use --append, or load into another table.")
    watch.warn(f"{plan.target}: {reason}.")


def _add_key(connection: Connection, plan: Plan) -> None:
    """Add the primary key to the loaded rows. Raises LoadRefused with the keys that occur more than once."""
    try:
        with connection.transaction():
            connection.execute(plan.statements()[-1])
    except pg.UniqueViolation:
        keys = ", ".join(map(quoted, plan.primary_key))
        shown = connection.execute(
            f"SELECT {keys}, count(*) AS times, count(*) OVER () AS keys FROM {plan.target} GROUP BY {keys}"  # noqa: S608
            f" HAVING count(*) > 1 ORDER BY {keys} LIMIT {SHOWN_KEYS}"
        ).fetchall()
        listed = [f"({', '.join(str(row[key]) for key in plan.primary_key)}) {row['times']} times" for row in shown]
        number, names = shown[0]["keys"], ", ".join(plan.primary_key)
        more = ", and others" if number > len(shown) else ""
        raise LoadRefused(
            table=plan.target,
            reason=f"{number:,} keys ({names}) occur more than once: {'; '.join(listed)}{more}",
            remedy="Leave out --primary-key, or the duplicate lines.",
        ) from None


def _gather_statistics(connection: Connection, plan: Plan, watch: Reporter) -> None:
    """Analyze the table after the commit: an error here is a warning, since the rows are there."""
    began, target = time.monotonic(), plan.target
    try:
        connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
        try:
            connection.execute(f"{'VACUUM (ANALYZE)' if target.mode == 'replace' else 'ANALYZE'} {target}")
        finally:
            connection.execute("SET lock_timeout = 0")
    except (KeyboardInterrupt, psycopg.Error) as error:
        why = one_line(error) if isinstance(error, psycopg.Error) else "interrupted"
        watch.warn(
            f"The {plan.good:,} rows are in {target}; gathering statistics was cut short ({why}). Do not load them again;"
            f" run: ANALYZE {target};"
        )
    else:
        watch.stage("analyze", time.monotonic() - began, {"summary": "statistics for the planner"})


def _warn_of_sequences(plan: Plan, watch: Reporter) -> None:
    """Warn that a sequence does not see the values that came from a file, and would return them again."""
    filled = {column.name for column in plan.columns}
    for column in plan.target.columns:
        if column.sequence and column.name in filled:
            fix = f"SELECT setval('{column.sequence}', max({quoted(column.name)})) FROM {plan.target};"  # noqa: S608
            watch.warn(
                f"{plan.target} takes its next {column.name} from a sequence that has not seen the file's values. To keep it"
                f" from returning one of them, run: {fix}"
            )


def _of_the_data(error: psycopg.DatabaseError) -> bool:
    return (error.sqlstate or "").startswith(OF_THE_DATA)


def _refused(plan: Plan, error: psycopg.DatabaseError, where: str = "") -> psycopg.DatabaseError | LoadRefused:
    """Return the error of a load that the table does not take; any other error as it is."""
    if not _of_the_data(error):
        return error
    detail = error.diag.message_detail
    reason = where + one_line(error) + (f" ({detail.rstrip('.')})" if detail else "")
    remedy = "Fix the file, or change the table's rule."
    if isinstance(error, pg.UniqueViolation):
        remedy = "The table takes each of these keys once: leave out what it has, or use --replace."
    elif isinstance(error, pg.ForeignKeyViolation):
        remedy = "Load the table that it refers to first."
        if "still referenced" in (detail or ""):
            remedy = (
                "Other rows refer to those that would be deleted: use --append, or load those other tables again too."
            )
    return LoadRefused(table=plan.target, reason=reason, remedy=remedy)
