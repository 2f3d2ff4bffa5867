"""Whether a connection pooler stands between recstore and its database, and of which kind.

A run holds a session's advisory lock and settings for as long as it lives; behind a pooler that gives a server session to
each transaction, both end up in somebody else's hands.
"""

import os
import socket
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import psycopg
from psycopg import errors as pg
from psycopg.conninfo import make_conninfo

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


def observe(target: str) -> Observed:
    """Looks at the server processes of two connections by libpq's connection string. Sets nothing in a session: behind a
    pooler it may be another's."""

    def connected() -> psycopg.Connection[tuple[int]]:
        opened = psycopg.connect(target, connect_timeout=PATIENCE, prepare_threshold=None)
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


def lends_by_the_transaction(connection: psycopg.Connection[Any], target: str) -> bool:
    """Whether that connection, by that connection string, has another server process for each transaction. Costs a direct
    connection one statement."""
    answer = connection.execute("SELECT pg_backend_pid()").pgresult
    assert answer is not None
    process = int(answer.get_value(0, 0) or 0)
    if process == connection.info.backend_pid:
        return False
    return _lends_by_the_transaction(make_conninfo(target, application_name="recstore"))  # asked once, whoever connects


@cache
def _lends_by_the_transaction(target: str) -> bool:
    with suppress(psycopg.Error):  # a pool of sessions may have no more than those that are in use
        return kind_of(observe(target)) == "transaction"
    return False


def cut_off(connection: psycopg.Connection[Any]) -> None:
    """Ends the connection under whoever waits for it: they read its end."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.shutdown(socket.SHUT_RDWR)
