"""The session advisory locks of runs: one job of a recommender at a time."""

from recstore.errors import RunInProgress
from recstore.postgres.connection import Connection
from recstore.sql import queries
from recstore.sql.objects import Registered

LOCK_NAMESPACE = 0x72656373
"""First key of recstore's advisory locks ("recs"); the second is the recommender's id."""

LISTS_NAMESPACE = 0x7265636C
"""First key of the locks of runs that write lists ("recl"); they run next to any other job of the recommender."""

BUILD_LOCK = -2
"""Second key of the lock that lets one index build at a time run in a database."""


def take_lock(connection: Connection, recommender: Registered, namespace: int = LOCK_NAMESPACE) -> None:
    """Take the recommender's session lock. Raises RunInProgress, naming the holder."""
    row = queries.row(connection, "lock_run", **lock_keys(recommender, namespace))
    if row and row["locked"]:
        return
    who = lock_holder(connection, recommender, namespace) or "it has just ended, try again"
    raise RunInProgress(name=recommender.name, who=who)


def lock_holder(connection: Connection, recommender: Registered, namespace: int = LOCK_NAMESPACE) -> str | None:
    """Describe the session that holds the recommender's lock; None if none does."""
    holder = queries.row(connection, "lock_holder", **lock_keys(recommender, namespace))
    if holder is None:
        return None
    since = f", connected {holder['backend_start']:%Y-%m-%d %H:%M:%S %Z}" if holder["backend_start"] else ""
    return f"{holder['application_name'] or 'another role'}, server process {holder['pid']}{since}"


def give_lock(connection: Connection, recommender: Registered, namespace: int = LOCK_NAMESPACE) -> None:
    """Release the recommender's session lock, unless the session has ended."""
    if not connection.closed:
        queries.run(connection, "unlock_run", **lock_keys(recommender, namespace))


def lock_keys(recommender: Registered, namespace: int = LOCK_NAMESPACE) -> dict[str, int]:
    return {"namespace": namespace, "recommender_id": recommender.id}
