"""The background worker: a Celery app over `recstore`'s jobs. `celery -A worker worker` in a checkout, `celery -A
recstore.worker worker` where it is installed; `beat` likewise.

The queue itself is the table of requests in Postgres; messages on Redis only wake a worker, and one that is lost, doubled
or late does no harm.
"""

from .app import app
from .lifecycle import connect_signals

__all__ = ["app"]

connect_signals()
