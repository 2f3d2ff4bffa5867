"""What the command line adds to `recstore.watching`: its own connection, how far a run is in words."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from recstore.background import watching as watched
from recstore.background.watching import NoConnection, progress_of
from recstore.cli.context import settings
from recstore.config import Settings
from recstore.embedded.configured import database_url
from recstore.postgres.connection import Connection

T = TypeVar("T")


@contextmanager
def watching() -> Iterator[tuple[Connection, Settings]]:
    """A connection for who looks at views: the schema's revision is checked where the role may see it."""
    given = settings()
    with watched.watching(database_url(given)) as opened:
        yield opened, given


def polled(look: Callable[[Connection], T], every: float = watched.EVERY) -> Iterator[T | NoConnection]:
    """What `look` sees, again and again: see `watching.polled`."""
    return watched.polled(_opening(settings()), look, every)


def followed(number: int) -> Iterator[dict[str, Any] | NoConnection]:
    """The row of a run until it has ended: see `watching.followed`."""
    return watched.followed(_opening(settings()), number)


def _opening(given: Settings) -> Callable[[], AbstractContextManager[Connection]]:
    return lambda: watched.watching(database_url(given))


def share_of(progress: dict[str, Any] | None) -> float | None:
    """The part that is done, where that says anything."""
    return float(min(progress["done"] / progress["total"], 1.0)) if progress and progress["total"] > 1 else None


def where(stage: str | None, progress: dict[str, Any] | None) -> str:
    """The stage at work and how far it is, in words; empty between two stages."""
    at = progress_of(stage, progress)
    share = share_of(at)
    words = (stage or "") + ("" if share is None else f" {100 * share:.0f} %")
    return words + (f", {at['note']}" if at and at["note"] else "")
