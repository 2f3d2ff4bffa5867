"""Make a recommender over a table of its own, to be measured and removed again.

What the published functions return for a part of the interactions can only be asked of a recommender that was trained on
that part. Its name has a random part, so several can exist at once. A session lock shows that it is in use; making the next
one removes those whose lock is free.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from recstore import registry
from recstore.config import Settings
from recstore.definition import Candidates, Definition, Exclusions, Fallback, Filters, Gate, Schedule, Source
from recstore.errors import RecommenderNotFound, RecstoreError, SchemaNameTaken
from recstore.operations import jobs, recommenders
from recstore.postgres.connection import Connection, connect, plain_errors
from recstore.postgres.names import quoted
from recstore.runs import Reporter
from recstore.sql import objects, queries
from recstore.sql.objects import Registered
from recstore.types import IdType

if TYPE_CHECKING:
    from recstore.model.interactions import Interactions

LOCK_NAMESPACE = 0x72656378
"""First key of the session lock of a scratch recommender in use; the second is the name's random part."""

MARK = (
    "Scratch data of recstore: safe to drop, along with the recommender of this name, when no recstore works with it."
)
"""The comment on its schema; nothing without it is ever removed."""

MARKED = {"mark": MARK, "namespace": LOCK_NAMESPACE}
"""Parameters of the query that finds scratch recommenders."""


@dataclass(frozen=True)
class Store:
    """The place of a scratch recommender: the database, its id types, its room for factors; `keep`: a name to stay under."""

    url: str
    user_type: IdType
    item_type: IdType
    dimensions: int | None = None
    keep: str | None = None


@contextmanager
def scratch(
    store: Store, settings: Settings, interactions: "Interactions", definition: Definition, reporter: Reporter
) -> Iterator[Registered]:
    """Make an untrained recommender whose source is exactly `interactions`; remove it when the context ends, however it
    ends. A kept one stays, unless an error ends the context.

    Takes the confidence, the hyperparameters, the storage, the publication and the table of seen items from
    `definition`; it has no candidates, filters, gate or schedule. Raises PermissionDenied, RecommenderExists and others.
    """
    with plain_errors("making a scratch recommender"):
        guard = connect(store.url, "recstore:scratch")
    with guard:  # closing it frees the lock
        for left in remove_leftovers(guard, settings):
            reporter.warn(f"Removed {left}, which a killed evaluation left.")
        name = store.keep or f"scratch_{secrets.token_hex(4)}"
        check_name(guard, name)
        if not store.keep:
            queries.run(guard, "lock_scratch", namespace=LOCK_NAMESPACE, name=name)
        kept = False
        with plain_errors(f"making {name!r}", guard):
            table = _load(guard, name, interactions, store, timed=definition.confidence.half_life is not None)
        try:  # from here on the schema is this one's to remove
            yield recommenders.create(guard, settings, name, _definition(definition, table))
            kept = bool(store.keep)
        finally:
            if not kept:
                _take_away(store.url, settings, name, reporter)


def check_name(connection: Connection, name: str) -> None:
    """Raise InvalidName, RecommenderExists or SchemaNameTaken unless a recommender can have this name, and its data the
    schema NAME_data."""
    registry.check_name(connection, name)
    if connection.execute("SELECT FROM pg_namespace n WHERE n.nspname = %s", [f"{name}_data"]).rowcount:
        raise SchemaNameTaken(name=f"{name}_data")


def remove_leftovers(connection: Connection, settings: Settings) -> list[str]:
    """Remove the scratch recommenders that are no longer in use; return their names."""
    removed = []
    for row in queries.rows(connection, "scratch_schemas", **MARKED):
        if row["abandoned"]:
            with suppress(RecstoreError):  # a run of it has yet to end, or a reader holds it: the next one removes it
                _remove(connection, settings, row["name"])
                removed.append(row["name"])
    return removed


def _definition(definition: Definition, table: str) -> Definition:
    last_at = "last_at" if definition.confidence.half_life is not None else None
    return definition.model_copy(
        update={
            "source": Source(
                table=table,
                value="value",
                last_at=last_at,
                seen=definition.source.seen,
                feedback=definition.source.feedback,
                negative=definition.source.negative,
            ),
            "candidates": Candidates(),
            "exclusions": Exclusions(),
            "fallback": Fallback(),
            "filters": Filters(),
            "gate": Gate(held_out=0, max_fall=1),
            "schedule": Schedule(),
            "titles": None,
        }
    )


def _load(connection: Connection, name: str, interactions: "Interactions", store: Store, *, timed: bool) -> str:
    """Make the table that is the source, with times if it is `timed`, and return its name."""
    schema = quoted(f"{name}_data")
    table = f"{schema}.pairs"
    with connection.transaction():
        connection.execute(f"CREATE SCHEMA {schema}")
        if not store.keep:
            connection.execute(f"COMMENT ON SCHEMA {schema} IS '{MARK}'")
        connection.execute(
            f"CREATE {'' if store.keep else 'UNLOGGED'} TABLE {table} (user_id {store.user_type.value} NOT NULL,"
            f" item_id {store.item_type.value} NOT NULL, value double precision NOT NULL"
            f"{', last_at timestamptz' if timed else ''})"
        )
        objects.revoke_defaults(connection, f"{name}_data")
        from recstore.publication import loading  # NumPy, which doctor does without

        columns: dict[str, loading.Column] = {
            "user_id": loading.Ids(interactions.users.ids, store.user_type, interactions.user_index),
            "item_id": loading.Ids(interactions.items.ids, store.item_type, interactions.item_index),
            "value": loading.Scalars(interactions.values, ">f8"),
        }
        if timed and interactions.times is not None:
            columns["last_at"] = loading.Scalars(loading.since_2000(interactions.times), ">i8")
        loading.copy(connection, table, columns, len(interactions))
        connection.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (user_id, item_id)")
    connection.execute(f"ANALYZE {table}")
    return table


def _take_away(url: str, settings: Settings, name: str, reporter: Reporter) -> None:
    """Remove it on a connection of its own, since the caller's may be broken. The next one removes what this cannot."""
    try:
        with connect(url, "recstore:scratch") as connection:
            _remove(connection, settings, name)
    except (RecstoreError, psycopg.Error) as error:
        reporter.warn(f"{name} could not be removed; the next evaluation removes it: {error}")


def _remove(connection: Connection, settings: Settings, name: str) -> None:
    with plain_errors(f"removing {name!r}", connection):
        with suppress(RecommenderNotFound):
            jobs.drop(connection, settings, registry.get(connection, name))
        connection.execute(f"DROP SCHEMA IF EXISTS {quoted(name + '_data')} CASCADE")
