"""Whether a connection pooler stands between recstore and its database, and of which kind.

A run holds a session's advisory lock and settings for as long as it lives; behind a pooler that gives a server session to
each transaction, both end up in somebody else's hands.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import errors as pg

from recstore.database import conninfo
from recstore.doctor.checks import check
from recstore.doctor.findings import Finding, error, note, ok
from recstore.doctor.subject import Subject
from recstore.health import cut_off

PATIENCE = 3
"""Seconds that connecting, and each statement, may take."""


@dataclass(frozen=True)
class Observed:
    """Of two connections, the first of which stays open throughout."""

    announced: int
    """The server process of the first connection, as it was told at the beginning. A pooler makes a number up."""

    first: tuple[int, ...]
    """Its server process as each of its transactions saw it."""

    second: tuple[int, ...]
    """The server process of the second connection's transactions, while the first connection was open."""

    transactions: bool = True
    """Whether a transaction could be begun at all."""


def kind_of(observed: Observed) -> Literal["none", "session", "transaction"]:
    """What kind of pooler that is. Two connections that are open at the same time have two server processes, each always
    the same one, unless processes are lent by the transaction."""
    if not observed.transactions or len(set(observed.first)) > 1 or set(observed.first) & set(observed.second):
        return "transaction"
    return "session" if observed.announced not in observed.first else "none"


def observe(url: str) -> Observed:
    """Looks at the server processes of two connections. Sets nothing in a session: behind a pooler it may be another's."""

    def connected() -> psycopg.Connection[tuple[int]]:
        opened = psycopg.connect(conninfo(url, "recstore:doctor"), connect_timeout=PATIENCE, prepare_threshold=None)
        stack.callback(opened.close)
        cut = threading.Timer(3 * PATIENCE, cut_off, [opened])  # from a server that is frozen
        cut.daemon = True
        cut.start()
        stack.callback(cut.cancel)
        return opened

    def process(connection: psycopg.Connection[tuple[int]]) -> int:
        connection.execute(f"SET LOCAL statement_timeout = {1000 * PATIENCE}")
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        return row[0]

    with ExitStack() as stack:
        one = connected()
        announced = one.info.backend_pid
        try:
            first, second = [process(one)], []
            one.rollback()
            two = connected()
            for _ in range(3):
                second.append(process(two))  # in a transaction, so that it keeps whatever it was lent
                two.rollback()
                first.append(process(one))
                one.rollback()
        except pg.Error as problem:
            if "statement pooling" in str(problem):
                return Observed(announced, (), (), transactions=False)
            raise
    return Observed(announced, tuple(first), tuple(second))


@check("pooler", "sessions")
def pooler(subject: Subject) -> Iterator[Finding]:
    kind = kind_of(observe(subject.url))
    if kind == "transaction":
        yield error(
            "the URL leads through a pooler that lends server sessions by the transaction (PgBouncer's pool_mode"
            " transaction, or the like)",
            "Applications may use it, since nothing they need of recstore outlives a transaction. Workers and commands may not:"
            " their locks and settings belong to a session, and would be lost, or left to others. Give them the server's"
            " own address and port, or a pool in session mode.",
            "RECSTORE_DATABASE_URL=postgresql://ROLE:PASSWORD@THE-SERVER-ITSELF:5432/" + subject.database,
        )
    elif kind == "session":
        yield note(
            "the URL leads through a pooler that lends a server session to each connection",
            "That works. But the server notices a killed worker only when the pooler does, and keeps its lock until then; a"
            " direct connection is better.",
        )
    else:
        yield ok("a direct connection: no pooler in between")
