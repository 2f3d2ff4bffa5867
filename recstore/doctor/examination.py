"""Runs the checks, each by itself: what goes wrong with one is a finding, and holds up no other."""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import psycopg
from psycopg import errors as pg
from psycopg.rows import dict_row

from recstore.config import Settings
from recstore.doctor import (
    background,
    build,
    gpu,
    leftovers,
    lists,
    pooler,
    publications,
    readers,
    rights,
    server,
    sessions,
    source,
)
from recstore.doctor.checks import CHECKS, Check, Transaction
from recstore.doctor.findings import Finding, error, warning
from recstore.doctor.subject import Subject, look_around
from recstore.embedded import configured
from recstore.errors import ConnectionFailed, RecstoreError
from recstore.postgres.connection import Connection, conninfo, one_line, why_not
from recstore.postgres.names import quoted
from recstore.postgres.pooler import cut_off

MODULES = (server, rights, source, lists, readers, build, publications, pooler, sessions, leftovers, background, gpu)
"""Importing them puts their checks into the list."""

GROUPS = ("server", "rights", "source", "readers", "load", "sessions", "leftovers", "background", "gpu")
"""In the order in which they are looked at and told."""

PATIENCE = 5
"""Seconds that connecting may take."""

STATEMENT = 5.0
"""Seconds that each statement of a check may take."""

CUT_OFF = 30.0
"""Seconds after which the connection is cut off under a check whose server does not even notice that its time is up."""

APPLICATION_NAME = "recstore:doctor"

CONNECTION = "connection"
"""The check whose failure is that of them all."""


class Unreachable(Exception):
    """No connection could be had; the finding says why."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        super().__init__(finding.found)


def examine(
    settings: Settings,
    name: str | None = None,
    readers: Sequence[str] = (),
    on_check: Callable[[str], None] | None = None,
) -> list[Finding]:
    """Every check, of recommender `name` or of all; changes nothing. `readers` are the roles to look at as applications',
    otherwise those that were granted something on a recommender's schema. `on_check` is told the name of each check as it
    begins. A database that can not be reached is a finding named "connection". Raises RecommenderNotFound, InvalidInput."""
    checks = sorted(CHECKS, key=lambda check: GROUPS.index(check.group))

    def told(check: Check) -> None:
        if on_check:
            on_check(check.name)

    findings = _of_database(
        [check for check in checks if check.scope != "process"], settings, name, tuple(readers), told
    )
    for check in checks:
        if check.scope == "process":
            told(check)
            findings += [_filled(check, finding) for finding in _guarded(partial(_listed, check, settings))]
    return sorted(findings, key=lambda finding: GROUPS.index(finding.group))


def _listed(check: Check, *arguments: object) -> list[Finding]:
    return list(check.look(*arguments))


def _connect(settings: Settings) -> Connection:
    """Sets nothing in the session, which behind a pooler would be another's, too. Raises Unreachable."""
    try:
        url = configured.database_url(settings)
        return psycopg.connect(
            conninfo(url, APPLICATION_NAME),
            connect_timeout=PATIENCE,
            autocommit=True,
            prepare_threshold=None,
            row_factory=dict_row,
        )
    except ConnectionFailed as problem:
        reason = str(problem.reason)
    except psycopg.Error as problem:
        reason = why_not(problem)
    raise Unreachable(_not_reached(f"the database could not be reached: {reason}"))


def _not_reached(found: str) -> Finding:
    means = (
        "Nothing in the database could be looked at. See that the server runs, that this machine may reach its port, and that"
        " role, password and database are right. Without a database of your own, `recstore start` runs one."
    )
    remedy = "RECSTORE_DATABASE_URL=postgresql://ROLE:PASSWORD@HOST:5432/DATABASE"
    if unknown := re.search(r'role "(.+)" does not exist', found):
        means = "Nothing in the database could be looked at. As an administrator, make the role that the URL names:"
        remedy = f"CREATE ROLE {quoted(unknown[1])} LOGIN PASSWORD '...';"
    return replace(error(found, means, remedy), check=CONNECTION, group="server")


def _of_database(
    checks: Sequence[Check],
    settings: Settings,
    name: str | None,
    readers: tuple[str, ...],
    told: Callable[[Check], None],
) -> list[Finding]:
    findings: list[Finding] = []
    subject: Subject | None = None
    connection: Connection | None = None
    try:
        connection = _connect(settings)
        with _looking(connection):
            subject = look_around(connection, configured.database_url(settings), settings, name, readers)
        for check in checks:
            for recommender, reader in _whom(subject, check):
                if connection.closed:
                    connection = subject.connection = _connect(settings)
                told(check)
                whom = [part for part in (recommender, reader) if part is not None]
                for finding in _guarded(partial(_looked, subject, check, whom)):
                    findings.append(replace(_filled(check, finding), recommender=recommender, reader=reader))
    except Unreachable as unreachable:
        findings.append(unreachable.finding)
    except psycopg.Error as problem:
        findings.append(_not_reached(f"the database refused to be looked at: {one_line(problem)}"))
    finally:
        if connection:
            connection.close()
    return findings


def _looked(subject: Subject, check: Check, whom: list[str]) -> list[Finding]:
    with _looking(subject.connection, check.transaction):
        return _listed(check, subject, *whom)


def _whom(subject: Subject, check: Check) -> Iterator[tuple[str | None, str | None]]:
    """(recommender, reader) of each time that a check is run."""
    if check.scope == "process" or (check.own and not subject.own):
        return
    if check.scope == "database":
        yield None, None
        return
    for name in subject.names:
        if check.scope == "recommender":
            yield name, None
        else:
            for reader, _ in subject.readers[name]:
                yield name, reader


@contextmanager
def _looking(connection: Connection, transaction: Transaction = "read only") -> Iterator[None]:
    """The transaction of a check, in which no statement takes long and nothing is waited for. A server that is frozen is cut
    off."""
    cut = threading.Timer(CUT_OFF, cut_off, [connection])
    cut.daemon = True
    cut.start()
    try:
        if transaction == "its own":
            yield
            return
        with connection.transaction(force_rollback=True):
            if transaction == "read only":
                connection.execute("SET TRANSACTION READ ONLY")
            connection.execute(f"SET LOCAL statement_timeout = {int(1000 * STATEMENT)}")
            connection.execute("SET LOCAL lock_timeout = '2s'")
            yield
    finally:
        cut.cancel()


def _guarded(run: Callable[[], list[Finding]]) -> list[Finding]:
    """What a check finds, or that it could not be made."""
    try:
        return run()
    except pg.QueryCanceled:
        reason = f"it took longer than {STATEMENT:g} s, or waited for somebody's lock"
    except RecstoreError as problem:
        reason = problem.message
    except psycopg.Error as problem:
        reason = one_line(problem)
    except Exception as problem:
        reason = f"{type(problem).__name__}: {problem}"
    return [warning(f"this check could not be made: {reason}", "So nothing is known of what it looks at.")]


def _filled(check: Check, finding: Finding) -> Finding:
    return replace(finding, check=check.name, group=check.group)
