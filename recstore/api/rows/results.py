"""Results of methods that read no view."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recstore.errors import RecstoreError

if TYPE_CHECKING:
    from recstore.experiments.tuning.trials import SearchResult, TrialResult

Json = dict[str, Any]

PYTHON_ONLY = {"json": False}
"""Metadata of fields that --json does not print."""

Id = Any
"""The application's id type: int, uuid.UUID or str."""


@dataclass(frozen=True)
class Statements:
    """SQL in order of execution, or of a rehearsal; a line that begins with -- is a remark."""

    statements: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.statements)


@dataclass(frozen=True)
class Initialized:
    """Tables that may have the views, the likeliest first; or the written file, and the definition in it."""

    candidates: list[Json]
    written: str | None
    definition: Json | None


@dataclass(frozen=True)
class Dropped:
    """The dropped recommender, and the objects that were dropped with it."""

    dropped: str
    with_: list[str]


@dataclass(frozen=True)
class RolledBack:
    """The generation that was live, and the one that is."""

    was_live: int
    live: int


@dataclass(frozen=True)
class Pruned:
    """Removed generations; those still in use, with their sessions; those within the retention, with the seconds left."""

    pruned: list[int]
    postponed: dict[int, list[str]]
    retained: dict[int, int]


@dataclass(frozen=True)
class Upgraded:
    """Changes made by an upgrade, a sentence each; the database's revision; recommenders whose objects are still missing."""

    done: list[str]
    revision: str | None
    missing: list[str] = field(metadata=PYTHON_ONLY)


@dataclass(frozen=True)
class Revision:
    """The database's revision, None before the first upgrade, and the one this version needs."""

    revision: str | None
    needed: str


@dataclass(frozen=True)
class Recommended:
    """An item for a user: its title where the definition names a lookup table, the predicted preference, and why it is in the
    list ("trained", or "popular" for an unknown user)."""

    item_id: Id
    score: float
    reason: str
    title: str | None = None


@dataclass(frozen=True)
class Similar:
    """An item with its cosine similarity."""

    item_id: Id
    score: float
    title: str | None = None


@dataclass(frozen=True)
class Popular:
    """An item with its distinct users and total views."""

    item_id: Id
    users: int
    views: float
    title: str | None = None


@dataclass(frozen=True)
class Loaded:
    """A file that was loaded, or with `dry_run` examined: its columns, bad lines with the first reasons, the SQL.

    `unit` is what it counts, line or row; `refused` is the error for too many bad lines.
    """

    file: str
    what: str
    table: str
    mode: str
    rows: int
    columns: list[Json]
    bad: int
    bad_allowed: int
    bad_lines: list[int]
    reasons: list[Json]
    complete: bool
    statements: list[str]
    written: int
    dry_run: bool
    unit: str = field(metadata=PYTHON_ONLY)
    refused: RecstoreError | None = field(metadata=PYTHON_ONLY)


@dataclass(frozen=True)
class Tuned:
    """A search, with `found` None while the workers run it. `altered` is False where its best settings were those in use."""

    study: int
    state: str
    outcome: str | None
    adopted: bool
    altered: bool
    found: "SearchResult | None"

    @property
    def winner(self) -> "TrialResult | None":
        """The best trial."""
        return self.found.winner if self.found else None


@dataclass(frozen=True)
class EmbeddedServer:
    """The embedded PostgreSQL: where it is and where its data are."""

    url: str
    pid: int
    version: int
    data: str
