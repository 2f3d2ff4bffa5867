"""Results of `Recstore`'s methods: frozen rows with the names of the command's --json (a Python keyword ends with an underscore).

Times are datetimes with a time zone, lengths of time timedeltas, JSON columns dicts and lists.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Self

from recstore.errors import RecstoreError
from recstore.source.inspection import Lookup

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
class Released:
    """The answer to a release: if publications were held, and the generation that can go live now."""

    was_held: bool
    ready: int | None


@dataclass(frozen=True)
class Pruned:
    """Removed generations; those still in use, with their sessions; those within the retention, with the seconds left."""

    pruned: list[int]
    postponed: dict[int, list[str]]
    retained: dict[int, int]


@dataclass(frozen=True)
class ComparedItem:
    """An item, and in how many lists of each of two generations it is."""

    item_id: Id
    lists_a: int
    lists_b: int
    title: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Two generations for a sample of users: the mean and quantiles of the share of common items in their lists, the users
    whose first item differs, and the items that are in more or fewer lists, the largest change first."""

    users: int
    overlap: float | None
    overlap_p10: float | None
    overlap_p50: float | None
    overlap_p90: float | None
    first_changed: int
    items: list[ComparedItem]


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
    list ("trained", "fold_in" for a user who came after the training or a basket, or a step of the fallback). Both are None for
    an unknown one of given items."""

    item_id: Id
    score: float | None
    reason: str | None
    title: str | None = None


@dataclass(frozen=True)
class Similar:
    """An item with its cosine similarity."""

    item_id: Id
    score: float
    title: str | None = None


@dataclass(frozen=True)
class Explained:
    """An item that the user has interacted with, the value of that, and its part of the predicted preference."""

    item_id: Id
    value: float
    contribution: float
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


class Row:
    """A row of a view of recstore."""

    @classmethod
    def of(cls, row: Mapping[str, Any], **more: Any) -> Self:
        """Return a row from a result's columns, by the fields' names."""
        found = {**row, **more}
        return cls(**{field.name: found[field.name] for field in fields(cls)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Generation(Row):
    """One training's complete result. `state`: live, previous, ready, next, .. ; `*_ef` None: an exact scan."""

    recommender: str
    generation: int
    state: str
    run: int | None
    factors: int | None
    users: int | None
    items: int | None
    collapsed_items: int | None
    recommend_ef: int | None
    similar_ef: int | None
    users_ef: int | None
    snapshot: Json | None
    filters: list[Json] | None
    confidence: Json | None
    training: Json | None
    calibration: Json | None
    reason: str | None
    created_at: datetime
    ready_at: datetime | None
    last_live_at: datetime | None
    metrics: Json | None
    erased: int
    """Users whose rows were erased from it."""


@dataclass(frozen=True)
class Request(Row):
    """A request to the workers and its result. `state`: waiting, sent, running, succeeded, ready, skipped, failed or
    cancelled."""

    request: int
    recommender: str
    job: str
    state: str
    origin: str
    requested_by: str
    application_name: str | None
    requested_at: datetime
    not_before: datetime | None
    sent_at: datetime | None
    attempts: int
    run: int | None
    generation: int | None
    outcome: str | None
    finished_at: datetime | None
    force: bool


@dataclass(frozen=True)
class Run(Row):
    """One attempt at a job. `state`: running, succeeded, ready, skipped, failed, abandoned or cancelled; `stages` are those
    begun so far, with their seconds once they have ended."""

    run: int
    recommender: str
    job: str
    state: str
    generation: int | None
    started_at: datetime
    duration: timedelta
    finished_at: datetime | None
    stages: list[Json]
    warnings: list[str]
    device: str | None
    versions: Json | None
    host: str | None
    pid: int | None
    error: str | None
    trace: str | None
    outcome: str | None
    progress: Json | None
    wal_bytes: int | None
    deadline: datetime | None


@dataclass(frozen=True)
class RunStory(Run):
    """A run with the requests it served: {request, origin, requested_by} of each."""

    requests: list[Json]


@dataclass(frozen=True)
class Summary(Row):
    """A recommender at a glance: what is live, what waits, how the last training went, what runs."""

    recommender: str
    live_generation: int | None
    live_since: datetime | None
    users: int | None
    items: int | None
    ready_generation: int | None
    waits_for: str | None
    last_retrain: int | None
    last_retrain_state: str | None
    last_retrain_at: datetime | None
    last_error: str | None
    last_retrain_finished_at: datetime | None
    last_success_at: datetime | None
    running: int | None
    running_job: str | None
    running_stage: str | None
    running_progress: Json | None
    requests: int
    schedule: str | None
    timezone: str
    scheduled_at: datetime
    held_since: datetime | None
    held_by: str | None
    refresh_schedule: str | None
    lists_schedule: str | None


@dataclass(frozen=True)
class Listed(Summary):
    """A recommender in `list()`, with its definition as a TOML file has it."""

    definition: Json


@dataclass(frozen=True)
class Watched(Summary):
    """A recommender in `status()`: the start of its run, the next training, lists and refresh, its unfinished requests, and in
    which ways its schema no longer fits the database around it. `ended_..` are of the training before the present one."""

    running_since: datetime | None
    ended_retrain: int | None
    ended_state: str | None
    ended_at: datetime | None
    ended_error: str | None
    withheld_generation: int | None
    next_retrain: datetime | None
    next_lists: datetime | None
    next_refresh: datetime | None
    open_requests: list[Request]
    drift: list[str]


@dataclass(frozen=True)
class Dispatch(Row):
    """A host whose workers dispatched due work, and the age of its last dispatch."""

    host: str
    dispatched_at: datetime
    age: timedelta


@dataclass(frozen=True)
class Status:
    """The output of `recstore status`; `warning` is a sentence where no due work is dispatched."""

    now: datetime
    recommenders: list[Watched]
    dispatches: list[Dispatch]
    warning: str | None


@dataclass(frozen=True)
class Described(Row):
    """A recommender: its types and definition, what is live and what waits to be."""

    name: str
    user_type: str
    item_type: str
    vector_type: str
    dimensions: int
    definition: Json
    live: Generation | None
    last_error: str | None
    next_retrain: datetime | None
    waiting: list[Generation]


@dataclass(frozen=True)
class Created(Described):
    """A new recommender, the lookup of one user's rows in its source, a cost of every recommend(), and what doctor finds."""

    lookup: Lookup
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Altered(Described):
    """An altered recommender, and the sections of its definition that differ from before."""

    changed: tuple[str, ...] = field(metadata=PYTHON_ONLY)


@dataclass(frozen=True)
class Change:
    """A recommender that is created, altered or dropped, and its settings that differ."""

    recommender: str
    action: Literal["create", "alter", "drop"]
    differences: tuple[str, ...]


@dataclass(frozen=True)
class Study(Row):
    """A search for good hyperparameters, with counts of its trials and the best so far."""

    recommender: str
    study: int
    state: str
    kind: str
    metric: str
    trials: int
    complete: int
    pruned: int
    failed: int
    seconds: float
    best: int | None
    best_value: float | None
    best_iterations: int | None
    best_parameters: Json | None
    at_work: int
    parallel: int
    split: str
    options: Json
    snapshot: Json
    evaluation: Json | None
    outcome: str | None
    created_at: datetime
    created_by: str
    finished_at: datetime | None
    adopted_at: datetime | None


@dataclass(frozen=True)
class Trial(Row):
    """One training of a study. `state`: running, complete, pruned or failed."""

    recommender: str
    study: int
    number: int
    stage: str
    state: str
    value: float | None
    iterations: int | None
    parameters: Json
    seconds: float | None
    curve: list[Json]
    attempts: int
    error: str | None
    host: str | None
    pid: int | None
    started_at: datetime
    finished_at: datetime | None
