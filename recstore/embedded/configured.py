"""The servers that a process uses: the configured ones, otherwise the embedded PostgreSQL; and the commands of workers."""

import sys

from recstore import embedded
from recstore.config import Settings, environment
from recstore.errors import ConnectionFailed, EmbeddedUnavailable

DEFAULT_BROKER = "redis://localhost:6379/0"


def database_url(settings: Settings) -> str:
    """Return the configured database, or the embedded one if it runs. Raises ConnectionFailed."""
    if settings.database_url:
        return settings.database_url
    try:
        running = embedded.running(settings.home)
    except EmbeddedUnavailable:
        running = None
    if running is None:
        raise ConnectionFailed(
            reason=f"no database is configured, and no embedded server runs in {settings.home.absolute()}"
        )
    return running.url


def broker_url(settings: Settings) -> str:
    """Return Celery's broker: the configured one, or Redis on this machine."""
    return settings.broker_url or DEFAULT_BROKER


def celery(*arguments: str) -> list[str]:
    """Return a command of the worker's Celery app."""
    return [sys.executable, "-m", "celery", "--quiet", "-A", "recstore.worker", *arguments, "--loglevel", "INFO"]


def celery_worker(name: str, queues: str, concurrency: int) -> list[str]:
    """Return the command of a worker."""
    return celery("worker", "-Q", queues, "--concurrency", str(concurrency), "-n", f"{name}@%h")


def own_worker() -> list[str]:
    """Return the command of the worker that needs no broker."""
    return [sys.executable, "-m", "recstore", "worker"]


def celery_environment(**settings: str) -> dict[str, str]:
    """Return this process's environment for Celery, with these settings. Celery's warning about root is switched off: it
    concerns workers that accept pickles, and these accept JSON alone."""
    before = environment().get("PYTHONWARNINGS")
    quiet = ",".join(filter(None, [before, "ignore::UserWarning:celery.platforms"]))
    return environment(**settings, PYTHONWARNINGS=quiet, PYTHONUNBUFFERED="1")
