"""The background worker, in two forms: Celery's (`celery`), and one process that needs no broker (`process`).

The queue itself is the table of requests in Postgres. Celery's messages only wake a worker, so a message that is lost,
delivered twice or late is harmless; the other form listens to Postgres. Both may serve one database. `errands` is what both do.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """Import Celery only where its app is used: `celery -A recstore.worker`, `from recstore.worker import app`."""
    if name == "app":
        from .celery import app

        return app
    raise AttributeError(name)
