"""The background worker: a Celery app over recstore's jobs, run by `celery -A recstore.worker worker`, or `beat`.

The queue itself is the table of requests in Postgres. Messages on Redis only wake a worker, so a message that is lost,
delivered twice or late is harmless.
"""

from .app import app
from .lifecycle import connect_signals

__all__ = ["app"]

connect_signals()
