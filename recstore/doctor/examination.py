"""Run the checks, each on its own: a check that fails is a finding, and the others still run."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import psycopg
from psycopg import errors as pg
from psycopg.rows import dict_row

from recstore.config import Settings
from recstore.doctor import (
    check_background,
    check_gpu,
    check_leftovers,
    check_load,
    check_readers,
    check_rights,
    check_server,
    check_sessions,
    check_source,
)
from recstore.doctor.findings import CHECKS, LEVELS, Check, Finding, error, ok, warning
from recstore.doctor.subject import Subject, look_around
from recstore.embedded import configured
from recstore.errors import ConnectionFailed, RecstoreError
from recstore.postgres.connection import Connection, conninfo, on_standby, one_line, why_not
from recstore.postgres.names import quoted
from recstore.postgres.pooler import cut_off_after
from recstore.postgres.session import LOCAL_OWNER, LOCAL_SETTINGS, SEARCH_PATH
from recstore.runs import Run

MODULES = (
    check_server,
    check_rights,
    check_source,
    check_readers,
    check_load,
    check_sessions,
    check_leftovers,
    check_background,
    check_gpu,
)
"""The groups in the order of their findings; importing a module puts its checks into the list."""

GROUPS = [module.__name__.rpartition(".check_")[2] for module in MODULES]

PATIENCE = 5
"""Seconds that connecting may take."""

STATEMENT = 5.0
"""Seconds that each statement of a check may take."""

CUT_OFF = 30.0
"""Seconds after which the connection of a check is cut off: a frozen server does not notice its own timeouts."""

APPLICATION_NAME = "recstore:doctor"


def examine(
    settings: Settings,
    name: str | None = None,
    readers: Sequence[str] = (),
    on_check: Callable[[str], None] = lambda _: None,
    *,
    quick: bool = False,
) -> list[Finding]:
    """Run every check, of recommender `name` or of all, and change nothing; return the findings, the worst first.

    With `quick`, only the checks of the database that need some milliseconds. `readers` are the application roles to check; by
    default those with grants on a recommender's schema. `on_check` gets the name of each check as it begins. A database that
    cannot be reached is a finding of the check "connection". Raises RecommenderNotFound, InvalidInput.
    """
    checks = sorted((c for c in CHECKS if c.quick or not quick), key=lambda check: GROUPS.index(check.group))
    findings = _in_database(checks, settings, name, readers, on_check)
    for check in checks:
        if check.scope == "process":
            findings += _run(check, on_check, settings)
    return sorted(findings, key=lambda finding: (-LEVELS.index(finding.level), GROUPS.index(finding.group)))


def problems(settings: Settings, name: str | None = None) -> list[str]:
    """Return a sentence for each warning and error of the quick checks, of recommender `name` or of all, the worst first."""
    return [
        str(finding)
        for finding in examine(settings, name, quick=True)
        if LEVELS.index(finding.level) >= LEVELS.index("warning")
    ]


def problems_of(run: Run) -> list[str]:
    """Return the `problems` of a run's recommender."""
    return problems(run.settings, run.name)


def _in_database(
    checks: Iterable[Check],
    settings: Settings,
    name: str | None,
    readers: Sequence[str],
    on_check: Callable[[str], None],
) -> list[Finding]:
    findings: list[Finding] = []
    connection: Connection | None = None
    try:
        connection = _connect(settings)
        with _looking(connection):
            subject = look_around(connection, configured.database_url(settings), settings, name, readers)
        for check in checks:
            for name, reader in _whom(subject, check):
                if connection.closed:
                    connection = subject.connection = _connect(settings)
                findings += _run(check, on_check, replace(subject, name=name, reader=reader))
    except ConnectionFailed as problem:
        findings.append(_unreachable(f"the database could not be reached: {problem.reason}"))
    except psycopg.Error as problem:
        findings.append(_unreachable(f"the database could not be examined: {one_line(problem)}"))
    finally:
        if connection:
            connection.close()
    return findings


def _connect(settings: Settings) -> Connection:
    """Connect, and set nothing in the session, which behind a pooler is shared. Raises ConnectionFailed."""
    try:
        return psycopg.connect(
            conninfo(configured.database_url(settings), APPLICATION_NAME),
            connect_timeout=PATIENCE,
            autocommit=True,
            prepare_threshold=None,
            row_factory=dict_row,
        )
    except psycopg.Error as problem:
        raise ConnectionFailed(reason=why_not(problem)) from None


def _unreachable(found: str) -> Finding:
    means = (
        "No check of the database could run. Check that the server runs, that this machine may reach its port, and that the"
        " role, password and database are right. Without a database of your own, `recstore start` runs one."
    )
    remedy = "RECSTORE_DATABASE_URL=postgresql://ROLE:PASSWORD@HOST:5432/DATABASE"
    if unknown := re.search(r'role "(.+)" does not exist', found):
        means = "No check of the database could run. As an administrator, create the role that the URL names:"
        remedy = f"CREATE ROLE {quoted(unknown[1])} LOGIN PASSWORD '...';"
    return replace(error(found, means, remedy), check="connection", group="server")


def _whom(subject: Subject, check: Check) -> list[tuple[str, str]]:
    """Return the recommender and the reader, as the scope has them, of each time that a check runs."""
    if subject.superuser and check.group == "source":
        return []
    match check.scope:
        case "database":
            return [("", "")]
        case "registry" if subject.own:
            return [("", "")]
        case "recommender" if subject.own:
            return [(name, "") for name in subject.names]
        case "reader":
            return [(name, reader) for name in subject.names for reader in subject.readers[name]]
    return []


def _run(check: Check, on_check: Callable[[str], None], of: Settings | Subject) -> list[Finding]:
    """Return what a check finds, or that it could not run."""
    on_check(check.name)
    try:
        with _looking(of.connection, writes=check.writes) if isinstance(of, Subject) else nullcontext():
            found = list(check.look(of)) or ([ok(check.well)] if check.well else [])
    except Exception as problem:
        match problem:
            case pg.QueryCanceled():
                reason = f"it took longer than {STATEMENT:g} s, or waited for another session's lock"
            case RecstoreError():
                reason = problem.message
            case psycopg.Error():
                reason = one_line(problem)
            case _:
                reason = f"{type(problem).__name__}: {problem}"
        found = [warning(f"this check could not run: {reason}", "The state of what it checks is unknown.")]
    name, reader = (of.name or None, of.reader or None) if isinstance(of, Subject) else (None, None)
    return [replace(one, check=check.name, group=check.group, recommender=name, reader=reader) for one in found]


@contextmanager
def _looking(connection: Connection, *, writes: bool = False) -> Iterator[None]:
    """Open a transaction, READ ONLY unless `writes`, in which no statement takes long or waits long for a lock."""
    with cut_off_after(CUT_OFF, connection), connection.transaction(force_rollback=True):
        mode = "WRITE" if writes and not on_standby(connection) else "ONLY"
        connection.execute(f"SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ {mode}")
        connection.execute(f"SET LOCAL search_path = {SEARCH_PATH}")
        connection.execute(LOCAL_SETTINGS)
        connection.execute(LOCAL_OWNER)
        connection.execute(f"SET LOCAL statement_timeout = {int(1000 * STATEMENT)}")
        connection.execute("SET LOCAL lock_timeout = 2000")
        yield
