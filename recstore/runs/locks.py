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
    row = connection.execute(queries.query("lock_run"), lock_keys(recommender, namespace)).fetchone()
    if row and row["locked"]:
        return
    holder = connection.execute(queries.query("lock_holder"), lock_keys(recommender, namespace)).fetchone()
    who = "it has just ended, try again"
    if holder:
        who = f"{holder['application_name'] or 'another role'}, server process {holder['pid']}"
        who += f", connected {holder['backend_start']:%Y-%m-%d %H:%M:%S %Z}" if holder["backend_start"] else ""
    raise RunInProgress(name=recommender.name, who=who)


def give_lock(connection: Connection, recommender: Registered, namespace: int = LOCK_NAMESPACE) -> None:
    """Release the recommender's session lock."""
    connection.execute(queries.query("unlock_run"), lock_keys(recommender, namespace))


def lock_keys(recommender: Registered, namespace: int = LOCK_NAMESPACE) -> dict[str, int]:
    return {"namespace": namespace, "recommender_id": recommender.id}
