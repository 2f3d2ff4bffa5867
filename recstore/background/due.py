"""Due errands: they wait in the database, and are taken for a worker that does them.

The main process of a worker without a broker imports this and no job, so it stays small.
"""

from collections.abc import Sequence
from typing import Any, Literal

from recstore import requests
from recstore.config import Settings
from recstore.postgres.connection import Connection
from recstore.sql import queries

MARGIN = 60
"""Seconds between the limit that ends a run with an error and the one that kills its process."""

Errand = requests.Job | Literal["trial"]

QUEUES: dict[str, list[requests.Job]] = {
    "train": ["retrain"],
    "default": ["refresh", "reindex", "prune", "lists"],
}
"""The jobs of each queue; trials belong to `train`, too."""


def take_trials(
    connection: Connection, settings: Settings, limit: int | None = None, but: Sequence[int] = ()
) -> list[dict[str, Any]]:
    """Mark trials of studies as sent, all that are missing or at most `limit`, and none of the studies `but`; return {study,
    messages} of each study."""
    keys = {"resend": settings.resend, "limit": limit, "except": list(but)}
    return connection.execute(queries.query("take_due_trials"), keys).fetchall()


def unsend_trials(connection: Connection, study: int, messages: int = 1) -> None:
    """Let trials be sent again whose messages were lost."""
    connection.execute(queries.query("unsend_trials"), {"study": study, "messages": messages})


def take_one(connection: Connection, settings: Settings, queue: str, but: Sequence[int]) -> tuple[Errand, str] | None:
    """Take one errand of a queue that is due, but no trial of the studies `but`, for a worker that is free to do it now."""
    for row in requests.take_due(connection, settings, QUEUES[queue], limit=1):
        return row["job"], row["recommender"]
    for row in take_trials(connection, settings, 1, but) if queue == "train" else []:
        return "trial", str(row["study"])
    return None


def give_back(connection: Connection, errand: Errand, name: str) -> None:
    """Let an errand be taken again that was not begun."""
    if errand == "trial":
        unsend_trials(connection, int(name))
    else:
        requests.unsend(connection, name, errand)
