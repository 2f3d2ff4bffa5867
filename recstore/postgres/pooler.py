"""Detect a connection pooler between recstore and its database, and its kind.

A run holds a session's advisory lock and settings until it ends. A pooler that assigns a server session to each transaction
would pass both on to another client.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import psycopg
from psycopg import errors as pg
from psycopg.conninfo import make_conninfo

PATIENCE = 3
"""Seconds for connecting, and for each statement."""


@dataclass(frozen=True)
class Observed:
    """Server processes of two connections, the first of which stays open throughout."""

    announced: int
    """Process announced to the first connection when it opened. A pooler invents a number."""

    first: tuple[int, ...]
    """Process of each of its transactions."""

    second: tuple[int, ...]
    """Process of each transaction of the second connection."""

    transactions: bool = True
    """False if the pooler refuses transactions."""


def kind_of(observed: Observed) -> Literal["none", "session", "transaction"]:
    """Return the kind of pooler. Unless processes are lent by the transaction, two open connections have two processes, each
    always the same."""
    if not observed.transactions or len(set(observed.first)) > 1 or set(observed.first) & set(observed.second):
        return "transaction"
    return "session" if observed.announced not in observed.first else "none"


def observe(target: str) -> Observed:
    """Observe the server processes of two connections. Sets nothing in a session, which another client may get next."""

    def connected() -> psycopg.Connection[tuple[int]]:
        opened = psycopg.connect(target, connect_timeout=PATIENCE, prepare_threshold=None)
        stack.callback(opened.close)
        stack.enter_context(cut_off_after(3 * PATIENCE, opened))
        return opened

    def process(connection: psycopg.Connection[tuple[int]]) -> int:
        connection.execute(f"SET LOCAL statement_timeout = {1000 * PATIENCE}")
        row = connection.execute("SELECT pg_catalog.pg_backend_pid()").fetchone()
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


def in_transaction_mode(connection: psycopg.Connection[Any], target: str) -> bool:
    """Return True behind a pooler in transaction mode. A direct connection costs one message, which sets nothing in a session."""
    answer = connection.execute(
        f"BEGIN NOT DEFERRABLE; SET LOCAL statement_timeout = {1000 * PATIENCE}; SELECT pg_catalog.pg_backend_pid(); COMMIT"
    )
    answer.nextset()
    answer.nextset()
    assert answer.pgresult is not None
    process = int(answer.pgresult.get_value(0, 0) or 0)
    if process == connection.info.backend_pid:
        return False
    return _in_transaction_mode(make_conninfo(target, application_name="recstore"))  # cached by this string


@cache
def _in_transaction_mode(target: str) -> bool:
    with suppress(psycopg.Error):  # a pool of sessions may have no more than those that are in use
        return kind_of(observe(target)) == "transaction"
    return False


@contextmanager
def cut_off_after(seconds: float, connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Shut the connection's socket down if the block takes longer: what waits for a frozen server reads its end."""

    def cut_off() -> None:
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut_off)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
