"""Write the staged rows into the target, all in one transaction."""

import time

import psycopg
from psycopg import errors as pg
from psycopg import sql

from recstore.errors import InvalidInput, LoadInterrupted, LoadRefused, TableExists
from recstore.files.load.examining import Plan, Watch
from recstore.files.load.staging import TABLE
from recstore.files.load.target import Target
from recstore.postgres.connection import Connection, one_line
from recstore.postgres.names import quoted

LOCK_SECONDS = 10
"""Seconds to wait for other writers before replacing, and for changes of the table before gathering statistics."""

OF_THE_DATA = ("22", "23", "44", "P0")
"""Classes of SQLSTATE that concern a row: data, constraints, check options, triggers."""

SHOWN_KEYS = 10


def write(connection: Connection, plan: Plan, watch: Watch) -> int:
    """Load the plan's good rows and return their number. Commit all of it or nothing, then analyze the table.

    Replacing deletes the rows and adds the new ones in one transaction: readers wait for nothing and see the old rows until
    they see the new. Raises LoadRefused, LoadInterrupted, TableExists, InvalidInput.
    """
    began, target, rows = time.monotonic(), plan.target, plan.good
    if rows == 0:
        raise InvalidInput(f"{plan.file.name} has no row to load, so nothing was written.")
    try:
        with connection.transaction():
            _prepare(connection, plan)
            _check_all_arrived(plan, rows, _insert(connection, plan, watch), watch)
            if target.mode == "create" and plan.primary_key:
                _add_key(connection, plan)
    except KeyboardInterrupt:
        raise LoadInterrupted(table=target) from None
    except pg.DuplicateTable:
        raise TableExists(table=target) from None
    except psycopg.DatabaseError as error:  # of deferred constraints, too
        if not (error.sqlstate or "").startswith(OF_THE_DATA):
            raise
        raise LoadRefused(table=target, reason=_reason(error), remedy=_remedy(error)) from None
    watch.stage("load", time.monotonic() - began, {"summary": f"{rows:,} rows into {target}"})
    _gather_statistics(connection, target, rows, watch)
    _warn_of_sequences(plan, watch)
    return rows


def _check_all_arrived(plan: Plan, rows: int, arrived: int, watch: Watch) -> None:
    """Refuse to replace, or warn, if the table's own triggers or rules kept rows out or moved them elsewhere."""
    if arrived == rows:
        return
    reason = f"of {rows:,} rows it took {arrived:,}: a trigger or a rule of its own kept the others out or moved them elsewhere"
    if plan.target.mode == "replace":
        raise LoadRefused(table=plan.target, reason=reason, remedy="Use --append, or load into another table.")
    watch.warn(f"{plan.target}: {reason}.")


def _warn_of_sequences(plan: Plan, watch: Watch) -> None:
    """Warn that a sequence does not see the values that came from a file, and would return them again."""
    filled = {column.match.name for column in plan.columns}
    for column in plan.target.columns:
        if column.sequence and column.name in filled:
            fix = f"SELECT setval('{column.sequence}', max({quoted(column.name)})) FROM {plan.target};"  # noqa: S608
            watch.warn(
                f"{plan.target} takes its next {column.name} from a sequence that has not seen the file's values. To keep it"
                f" from returning one of them, run: {fix}"
            )


def _gather_statistics(connection: Connection, target: Target, rows: int, watch: Watch) -> None:
    """Analyze the table after the commit: an error here is a warning, since the rows are there."""
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
        watch.stage("analyze", time.monotonic() - began, {"summary": "statistics for the planner"})


def _prepare(connection: Connection, plan: Plan) -> None:
    """Create the table, or delete its rows. Raises LoadRefused if other writers or the table's own rules prevent it."""
    first, *more = plan.statements()
    if plan.target.mode == "create":
        connection.execute(first)  # made of quoted names and known types
    elif plan.target.mode == "replace":
        connection.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
        try:
            connection.execute(first)
        except pg.LockNotAvailable:
            raise LoadRefused(
                table=plan.target,
                reason=f"other sessions have been writing to it for {LOCK_SECONDS} s",
                remedy="Try again when they have ended.",
            ) from None
        connection.execute("SET LOCAL lock_timeout = 0")
        connection.execute(more[0])
        if connection.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(plan.target.identifier)).fetchone() is not None:
            raise LoadRefused(
                table=plan.target,
                reason="a trigger or a rule of its own keeps rows from being deleted",
                remedy="Use --append, or load into another table.",
            )


def _insert(connection: Connection, plan: Plan, watch: Watch) -> int:
    """Fill the table from the staged rows; return how many it took. Raises LoadRefused with the line it does not take."""
    watch.progress("load", 0, plan.good)
    try:
        with connection.transaction():
            arrived = connection.execute(plan.insert()).rowcount
    except psycopg.DatabaseError as error:
        if not (error.sqlstate or "").startswith(OF_THE_DATA):
            raise
        line, error = _first_refused(connection, plan, error)
        reason = f"{plan.reader.unit} {line:,} of {plan.file.name}: {_reason(error)}"
        raise LoadRefused(table=plan.target, reason=reason, remedy=_remedy(error)) from None
    watch.progress("load", plan.good, plan.good)
    return arrived


def _first_refused(
    connection: Connection, plan: Plan, error: psycopg.DatabaseError
) -> tuple[int, psycopg.DatabaseError]:
    """Return the first line that the table does not take after those before it, by halving, and its error."""
    last = connection.execute(f"SELECT max(line) AS line FROM {TABLE}").fetchone()  # noqa: S608
    assert last is not None
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


def _add_key(connection: Connection, plan: Plan) -> None:
    """Add the primary key to the loaded rows. Raises LoadRefused with the keys that occur more than once."""
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
        keys_shown = [f"({', '.join(str(row[key]) for key in plan.primary_key)}) {row['times']} times" for row in shown]
        more = ", and others" if shown[0]["keys"] > len(shown) else ""
        names = ", ".join(plan.primary_key)
        raise LoadRefused(
            table=plan.target,
            reason=f"{shown[0]['keys']:,} keys ({names}) occur more than once: {'; '.join(keys_shown)}{more}",
            remedy="Leave out --primary-key, or the duplicate lines.",
        ) from None


def _reason(error: psycopg.DatabaseError) -> str:
    reason = one_line(error)
    return f"{reason} ({error.diag.message_detail.rstrip('.')})" if error.diag.message_detail else reason


def _remedy(error: psycopg.DatabaseError) -> str:
    if isinstance(error, pg.UniqueViolation):
        return "The table takes each of these keys once: leave out what it has, or use --replace."
    if isinstance(error, pg.ForeignKeyViolation):
        if "still referenced" in (error.diag.message_detail or ""):
            return (
                "Other rows refer to those that would be deleted: use --append, or load those other tables again too."
            )
        return "Load the table that it refers to first."
    return "Fix the file, or change the table's rule."
