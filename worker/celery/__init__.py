"""The worker as a Celery app over recstore's jobs, run by `celery -A recstore.worker worker`, or `beat`."""

from .app import app
from .lifecycle import connect_signals

__all__ = ["app"]

connect_signals()
