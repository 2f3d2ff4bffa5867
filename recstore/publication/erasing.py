"""Keep erased users out of what readers see.

`forget_user` removes a user from what is complete, in a transaction of the application's. Whatever becomes readable later, from
a source that was read before that transaction was committed, is completed here: in one transaction that waits for those that
erase, removes whom they erased, and shows the rest.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import errors as pg
from psycopg.errors import Diagnostic

from recstore.config import LONGEST
from recstore.postgres.connection import Connection, plain_errors
from recstore.publication import barriers, generations
from recstore.publication.barriers import Blocker
from recstore.runs import Run
from recstore.sql import queries
from recstore.sql.objects import FORGET, Registered
from recstore.wording import counted


@dataclass(frozen=True)
class Forgotten:
    """The number of rows that were removed of a user, from generations and lists, and warnings."""

    rows: int
    warnings: tuple[str, ...]


def forget(connection: Connection, recommender: Registered, user: object) -> Forgotten:
    """Erase a user, in the caller's transaction if there is one. Raises PermissionDenied."""
    warnings: list[str] = []

    def warned(notice: Diagnostic) -> None:
        warnings.append(". ".join(part for part in (notice.message_primary, notice.message_hint) if part))

    connection.add_notice_handler(warned)
    try:
        with plain_errors(f"erasing a user of {recommender.name!r}", connection):
            (row,) = connection.execute(f"SELECT {recommender.relation(FORGET)}(%s) AS rows", [user])
    finally:
        connection.remove_notice_handler(warned)
    return Forgotten(row["rows"], tuple(warnings))


def erased_since(connection: Connection, recommender: Registered, snapshot: str | None) -> list[str]:
    """Return, as texts, the ids of the users whose erasure this snapshot does not show; None: of all."""
    rows = queries.rows(connection, "erased_since", recommender_id=recommender.id, snapshot=snapshot)
    return [row["user_id"] for row in rows]


def erase(connection: Connection, relation: str, recommender: Registered, users: list[str]) -> list[str]:
    """Remove these users from a table with a column user_id; return those that it had."""
    if not users:
        return []
    ids = f"%s::{recommender.user_type.parameter_sql}[]"
    statement = f"DELETE FROM {relation} t WHERE t.user_id = ANY ({ids}) RETURNING t.user_id::text"  # noqa: S608
    return list({row["user_id"] for row in connection.execute(statement, [users])})


def remain_in_file(connection: Connection, recommender: Registered, snapshot: str) -> str | None:
    """Return a warning if users were erased since the snapshot that a file of people was written from."""
    users = len(erased_since(connection, recommender, snapshot))
    if not users:
        return None
    have = "user was" if users == 1 else "users were"
    return (
        f"{users:,} {have} erased from {recommender.name} while the file was written, and may be in it. Write it again."
    )


@contextmanager
def completing(run: Run, read_in: str | None = None) -> Iterator[None]:
    """Open the transaction that completes the run's generation, or that refreshes it from what was `read_in` a snapshot; at its
    end, remove the users erased since the source was read.

    It waits for transactions that erase as long as they take: what a training computed is worth that. Cancelling ends it."""
    connection, generation = run.connection, run.generation

    def erasing() -> list[Blocker]:
        try:
            with connection.transaction():
                queries.run(connection, "try_completions", **generation.keys)
        except pg.LockNotAvailable:
            return barriers.still_open(connection, barriers.lock_holders(connection, ["recstore_private.completions"]))
        return []

    barriers.wait(erasing, LONGEST, lambda who: run.reporter.progress("flip", 0, 1, f"waits for {barriers.named(who)}"))
    with connection.transaction():
        queries.run(connection, "lock_completions", **generation.keys)
        row = queries.one(connection, "source_of_generation", **generation.keys)
        yield
        users = erased_since(connection, run.recommender, read_in or row["snapshot"])
        tables = [generation.users] + [generation.seen] * row["seen_published"]
        tables += [generation.refreshed] * generations.has_marks(connection, generation)
        gone = sorted({user for table in tables for user in erase(connection, table, run.recommender, users)})
        queries.run(connection, "note_erasures", **generation.keys, users=gone)
    if gone and not read_in and row["snapshot"] is None:
        run.warn(f"{counted(len(gone), 'user')} of the file were erased here, and left out.")
