"""A recommender over a table of its own, made to be measured and taken away again.

What the published functions return for a part of the interactions can only be asked of a recommender that was trained on
that part. Its name has a random part, so several live side by side; a session lock shows that somebody is at work on it, and
whoever makes the next one removes those whose lock is free.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from recstore import registry
from recstore.config import Settings
from recstore.definition import Candidates, Definition, Filters, Gate, Publication, Schedule, Source
from recstore.errors import RecommenderNotFound, RecstoreError, SchemaNameTaken
from recstore.model.interactions import Interactions
from recstore.operations import jobs
from recstore.postgres.connection import Connection, connect, plain_errors
from recstore.postgres.names import quoted
from recstore.publication import loading
from recstore.runs import Reporter, Silent
from recstore.sql import queries
from recstore.sql.objects import Registered
from recstore.types import IdType

LOCK_NAMESPACE = 0x72656378
"""First key of the session lock of whoever works with a scratch recommender; the second is the name's random part."""

MARK = (
    "Scratch data of recstore: safe to drop, along with the recommender of this name, when no recstore works with it."
)
"""The comment on its schema; nothing without it is ever removed."""


@contextmanager
def scratch(
    url: str,
    settings: Settings,
    interactions: Interactions,
    user_type: IdType,
    item_type: IdType,
    definition: Definition,
    *,
    keep: str | None = None,
    reporter: Reporter | None = None,
) -> Iterator[Registered]:
    """A recommender, not yet trained, whose source is exactly `interactions`; removed when the context ends, however that
    is. With `keep` it has that name, and stays unless an error ends the context.

    Of `definition` hold the confidence, the hyperparameters, the storage, how searches are answered and where seen items are
    looked up; there are no candidates, no filters, no gate and no schedule. Raises PermissionDenied, RecommenderExists, ..
    """
    reporter = reporter or Silent()
    with plain_errors("making a scratch recommender"):
        guard = connect(url, "recstore:scratch")
    with guard:  # and with its end the lock is free
        for left in remove_leftovers(guard, settings):
            reporter.warn(f"Removed {left}, which an evaluation left that was killed.")
        name = keep or f"scratch_{secrets.token_hex(4)}"
        check_name(guard, name)
        if not keep:
            guard.execute("SELECT pg_advisory_lock(%s, %s)", _lock(name))
        try:
            with plain_errors(f"making {name!r}", guard):
                table = _load(guard, name, interactions, user_type, item_type, kept=keep is not None)
            recommender = jobs.create(guard, settings, name, _definition(definition, table))
            yield recommender
        except BaseException:
            _take_away(url, settings, name, reporter)
            raise
        if not keep:
            _take_away(url, settings, name, reporter)


def check_name(connection: Connection, keep: str | None) -> None:
    """Raises InvalidName, RecommenderExists or SchemaNameTaken unless a recommender may be kept under this name, with its
    data beside it."""
    if keep is None:
        return
    registry.check_name(connection, keep)
    taken = connection.execute("SELECT FROM pg_namespace n WHERE n.nspname = %s", [f"{keep}_data"]).fetchone()
    if taken is not None:
        raise SchemaNameTaken(name=f"{keep}_data")


def remove_leftovers(connection: Connection, settings: Settings) -> list[str]:
    """Removes the scratch recommenders that nobody works with any more; returns their names."""
    removed = []
    for row in connection.execute(queries.query("scratch_schemas"), {"mark": MARK}).fetchall():
        name = row["name"]
        locked = connection.execute("SELECT pg_try_advisory_lock(%s, %s) AS locked", _lock(name)).fetchone()
        if not (locked and locked["locked"]):
            continue
        try:
            with suppress(RecstoreError):  # a run of it ends yet, or a reader holds it: the next one removes it
                _remove(connection, settings, name)
                removed.append(name)
        finally:
            connection.execute("SELECT pg_advisory_unlock(%s, %s)", _lock(name))
    return removed


def _definition(definition: Definition, table: str) -> Definition:
    source = Source(table=table, value="value", seen=definition.source.seen)
    searches = definition.publication.model_dump(include={"search", "ann_recall"})
    return definition.model_copy(
        update={
            "source": source,
            "candidates": Candidates(),
            "filters": Filters(),
            "publication": Publication(keep=1, **searches),
            "gate": Gate(held_out=0, max_fall=1),
            "schedule": Schedule(),
            "titles": None,
        }
    )


def _load(
    connection: Connection, name: str, interactions: Interactions, user_type: IdType, item_type: IdType, *, kept: bool
) -> str:
    """Makes the table that is the source, and returns its name."""
    schema = f"{name}_data"
    table, kind = f"{quoted(schema)}.pairs", "" if kept else "UNLOGGED"
    with connection.transaction():
        connection.execute(f"CREATE SCHEMA {quoted(schema)}")
        if not kept:
            connection.execute(f"COMMENT ON SCHEMA {quoted(schema)} IS '{MARK}'")
        connection.execute(
            f"CREATE {kind} TABLE {table} (user_id {user_type.value} NOT NULL, item_id {item_type.value} NOT NULL,"
            " value double precision NOT NULL)"
        )
        columns: dict[str, loading.Column] = {
            "user_id": loading.Ids(interactions.users.ids, user_type, interactions.user_index),
            "item_id": loading.Ids(interactions.items.ids, item_type, interactions.item_index),
            "value": loading.Scalars(interactions.values, ">f8"),
        }
        loading.copy(connection, table, columns, len(interactions))
        connection.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (user_id, item_id)")
    connection.execute(f"ANALYZE {table}")
    return table


def _take_away(url: str, settings: Settings, name: str, reporter: Reporter) -> None:
    """On a connection of its own: the caller's may be what broke. What can not be removed now, the next one removes."""
    try:
        with connect(url, "recstore:scratch") as connection:
            _remove(connection, settings, name)
    except (RecstoreError, psycopg.Error) as error:
        reporter.warn(f"{name} could not be removed; the next evaluation does it: {error}")


def _remove(connection: Connection, settings: Settings, name: str) -> None:
    with plain_errors(f"removing {name!r}", connection):
        with suppress(RecommenderNotFound):
            jobs.drop(connection, settings, registry.get(connection, name))
        connection.execute(f"DROP SCHEMA IF EXISTS {quoted(name + '_data')} CASCADE")


def _lock(name: str) -> list[int]:
    number = int(name.removeprefix("scratch_"), 16)
    return [LOCK_NAMESPACE, number - (1 << 32 if number >= 1 << 31 else 0)]
