"""Dry runs: return what a change would execute, as SQL that is ready to run, and leave the database as it was.

The code of the change itself runs in a transaction that is rolled back, on a stand-in for the connection that records its
statements. What is removed is listed and not executed: that would lock out readers, and can take long. Statements come in the
order of execution, with BEGIN and COMMIT; a line that begins with -- is a remark. What a run writes about itself is not shown.
Callers pass settings with one attempt at each lock, so that its holder is reported at once.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from psycopg import errors as pg
from psycopg import sql

from recstore import registry
from recstore.config import Settings
from recstore.definition import Definition
from recstore.operations import jobs, schema
from recstore.postgres.connection import Connection, plain_errors
from recstore.publication import flipping, generations
from recstore.runs import lock_holder
from recstore.sql import queries, schema_revision
from recstore.sql.objects import Registered

LOCK_TIMEOUT = 500
"""Milliseconds to wait for a lock, where the change itself sets no limit."""

SEQUENCES = ("recommenders_id_seq", "generations_generation_seq", "flips_flip_seq")

_READ = re.compile(r"SELECT|SHOW|EXPLAIN")
"""Command tags of statements that change nothing."""

_REMOVAL = re.compile(r"(?:\s|--[^\n]*\n)*(?:DELETE |DROP (?:TABLE|SCHEMA) |ALTER TABLE \S+ DETACH )")


class Recorder:
    """Take the place of a `Connection`: execute statements, and record those that change something."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.statements: list[str] = []
        self._depth = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    @contextmanager
    def transaction(self, *, force_rollback: bool = False) -> Iterator[None]:
        """Open a savepoint, recorded as a transaction if it is the outermost; forget what is rolled back."""
        begun = len(self.statements)
        self._depth += 1
        try:
            with self.connection.transaction(force_rollback=force_rollback):
                yield
        except BaseException:
            del self.statements[begun:]
            raise
        finally:
            self._depth -= 1
        if force_rollback:
            del self.statements[begun:]
        elif self._depth == 0 and len(self.statements) > begun:
            self.statements[begun:] = ["BEGIN;", *self.statements[begun:], "COMMIT;"]

    def execute(self, query: str | sql.Composable, params: Any = None, **options: Any) -> Any:
        """Execute a statement unless it removes something. Raises what the server raises."""
        text = query if isinstance(query, str) else query.as_string(self.connection)
        if _REMOVAL.match(text):
            cursor = self.connection.cursor()
        else:
            cursor = self.connection.execute(text, params, **options)
            if _READ.match(cursor.statusmessage or "") or text.startswith("SET TRANSACTION"):
                return cursor
        plain = text if params is None else psycopg.ClientCursor(self.connection).mogrify(text, params)
        self.statements.append(plain.strip().removesuffix(";") + ";")
        return cursor


@contextmanager
def rehearsing(connection: Connection, doing: str = "rehearsing") -> Iterator[tuple[Connection, list[str]]]:
    """Yield a stand-in for the connection and the list that its statements go to; nothing done on it lasts."""
    with plain_errors(doing, connection), connection.transaction(force_rollback=True):
        connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}")
        for sequence in SEQUENCES:  # a sequence that was altered in this transaction is rolled back with it
            connection.execute(f"ALTER SEQUENCE recstore_private.{sequence} INCREMENT BY 1")
        recorder = Recorder(connection)
        yield cast(Connection, recorder), recorder.statements


def create(connection: Connection, settings: Settings, name: str, definition: Definition) -> list[str]:
    """Return the SQL that makes a recommender with its first, empty generation."""
    with rehearsing(connection) as (stand_in, statements):
        jobs.create(stand_in, settings, name, definition)
    return statements


def alter(
    connection: Connection,
    settings: Settings,
    recommender: Registered,
    definition: Definition,
    *,
    readers_may_fail: bool = False,
) -> list[str]:
    """Return the SQL that stores another definition, after a resize if it has more factors than there is room for."""
    factors = definition.hyperparameters.factors or 0
    with rehearsing(connection) as (stand_in, statements):
        if factors > recommender.dimensions:
            registry.check_definition(stand_in, recommender, definition)
            generations.abandon_unfinished(stand_in, recommender)
            _prune(stand_in, statements, settings, recommender)
            storage = registry.storage_for(recommender.definition, factors, fixed=False)
            generations.resize(stand_in, settings, recommender, *storage)
            recommender = registry.get(stand_in, recommender.name)
            generations.next_of(stand_in, settings, recommender)
        registry.alter(stand_in, settings, recommender, definition, readers_may_fail=readers_may_fail)
    return statements


def drop(connection: Connection, settings: Settings, recommender: Registered, *, cascade: bool = False) -> list[str]:
    """Return the SQL that removes a recommender, with a remark for each object outside that goes along."""
    with rehearsing(connection) as (stand_in, statements):
        along = registry.drop(stand_in, settings, recommender, cascade=cascade)
    return [*_running(connection, recommender), *(f"-- drops {what} too" for what in along), *statements]


def grant_reader(connection: Connection, recommender: Registered, role: str, *, people: bool = False) -> list[str]:
    """Return the SQL that lets a role read."""
    with rehearsing(connection) as (stand_in, _):
        return registry.grant_reader(stand_in, recommender, role, people=people)


def roll_back(connection: Connection, recommender: Registered, to: int | None = None) -> list[str]:
    """Return the SQL that makes an earlier generation live again."""
    with rehearsing(connection, f"rolling back {recommender.name!r}") as (stand_in, statements):
        flipping.roll_back(stand_in, recommender, to)
    return statements


def publish(connection: Connection, settings: Settings, recommender: Registered, *, now: bool = False) -> list[str]:
    """Return the SQL that makes the ready generation live, attaches the next and removes old ones.

    Without `now`, only remarks if sessions hold it up.
    """
    with rehearsing(connection, f"publishing {recommender.name!r}") as (stand_in, statements):
        generation = flipping.ready_generation(stand_in, recommender)
        waits = [f"-- {generation} waits for {who}" for who in flipping.look_again(stand_in, recommender)]
        if waits and not now:
            return waits
        flipping.flip(stand_in, generation, "publish", None)
        generations.next_of(stand_in, settings, recommender)
        _prune(stand_in, statements, settings, recommender)
    return _running(connection, recommender) + waits + statements


def prune(connection: Connection, settings: Settings, recommender: Registered, keep: int | None = None) -> list[str]:
    """Return the SQL that removes old generations, with a remark for each that stays for now."""
    running = _running(connection, recommender)
    with rehearsing(connection, f"pruning {recommender.name!r}") as (stand_in, statements):
        if not running:
            generations.abandon_unfinished(stand_in, recommender)
        _prune(stand_in, statements, settings, recommender, keep)
    return running + statements


def _prune(
    stand_in: Connection,
    statements: list[str],
    settings: Settings,
    recommender: Registered,
    keep: int | None = None,
) -> None:
    keep = keep or recommender.definition.publication.keep
    done = generations.prune(stand_in, settings, recommender, keep, 0).details()
    statements += [f"-- generation {words}" for words in generations.left_words(done)]


def upgrade(connection: Connection, settings: Settings) -> list[str]:
    """Return the SQL that brings the database to this version: the migrations, then each recommender's objects."""
    with plain_errors("upgrading", connection):
        extension = queries.row(connection, "vector_extension")
        statements = [] if extension else ["CREATE EXTENSION IF NOT EXISTS vector;"]
        statements += filter(None, [schema.statements(connection, "head")])
        try:
            recommenders = registry.all_registered(connection) if schema_revision.current(connection) else []
        except pg.UndefinedColumn:
            return [*statements, "-- then the functions and views of each recommender, where this version's differ"]
    for recommender in recommenders:
        with rehearsing(connection, "upgrading") as (stand_in, changes):
            schema.upgrade_objects(stand_in, settings, recommender)
        statements += changes
    return statements


def downgrade(connection: Connection, revision: str) -> list[str]:
    """Return the SQL that goes back to an earlier revision of recstore's own schema."""
    with plain_errors("downgrading", connection):
        return list(filter(None, [schema.statements(connection, revision, down=True)]))


def _running(connection: Connection, recommender: Registered) -> list[str]:
    """Return a remark if a run is in progress, which would refuse the change for now."""
    who = lock_holder(connection, recommender)
    return [f"-- refused for now: another run of {recommender.name!r} is in progress ({who})"] if who else []
