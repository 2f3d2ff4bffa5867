"""Which servers a process uses: those that are configured, else the embedded ones of its home."""

from recstore import embedded
from recstore.config import Settings
from recstore.errors import ConnectionFailed, EmbeddedUnavailable

DEFAULT_BROKER = "redis://localhost:6379/0"


def database_url(settings: Settings) -> str:
    """The configured database, or the embedded one if it runs. Raises ConnectionFailed."""
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
    """The configured broker, or the embedded one of this home if it runs, else Redis on this machine."""
    return settings.broker_url or embedded.broker_url(settings.home) or DEFAULT_BROKER
