"""What several tests share: waiting with a deadline, stopping a run at a stage, generations whose answers NumPy knows."""

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pytest
from conftest import Database, planted_views, superuser
from numpy.typing import NDArray
from psycopg.rows import dict_row

from recstore import pipeline
from recstore.config import Settings
from recstore.model import vectors
from recstore.model.interactions import IdMap, Interactions
from recstore.operations import jobs
from recstore.publication import building
from recstore.runs import Reporter, Run

USERS, ITEMS, FACTORS = 240, 120, 16


def until(condition: Callable[[], Any], seconds: float = 30, message: Callable[[], str] | None = None) -> Any:
    """Asks again and again until the answer is true, and returns it."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, message() if message else "it did not happen in time"
        time.sleep(0.01)
    return answer


def free_port() -> int:
    """A TCP port of this machine that is free, very likely still when it is used."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def lacking(package: str, what: str, remedy: str = "", *, module: bool = False) -> NoReturn:
    """Skips a test, or the module that is being imported, that wants a package, Debian's unless a remedy is given, which is not
    here; a failure where all of them should be (`.ci/run`)."""
    told = f"NO {package.upper()} HERE: {what} was not tested ({remedy or f'Debian: apt install {package}'})"
    if os.environ.get("RECSTORE_TEST_EVERYTHING"):
        pytest.fail(told)
    pytest.skip(told, allow_module_level=module)


def look(database: Database, statement: str, *parameters: object) -> list[dict[str, Any]]:
    """What a superuser sees, who is in nobody's way."""
    with superuser(database.server, database.name) as connection:
        return connection.cursor(row_factory=dict_row).execute(statement, parameters or None).fetchall()


FULL_DISK = """
    CREATE FUNCTION public.full_disk() RETURNS event_trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE 'No space left on device' USING ERRCODE = 'disk_full'; END $$;
    CREATE EVENT TRIGGER full_disk ON ddl_command_start WHEN TAG IN ('CREATE INDEX', 'REINDEX')
    EXECUTE FUNCTION public.full_disk()
"""
FREE_DISK = "DROP EVENT TRIGGER full_disk; DROP FUNCTION public.full_disk()"


@contextmanager
def full_disk(database: Database) -> Iterator[None]:
    """Without room for an index."""
    with superuser(database.server, database.name) as connection:
        connection.execute(FULL_DISK)
        try:
            yield
        finally:
            connection.execute(FREE_DISK)


@dataclass
class Hook:
    """A reporter that calls back at the end of a stage and within one; remembers stages and warnings."""

    on_stage: Callable[[str], None] = lambda _: None
    on_progress: Callable[[str], None] = lambda _: None
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def stage(self, name: str, _seconds: float, details: dict[str, Any]) -> None:
        self.stages[name] = details
        self.on_stage(name)

    def progress(self, name: str, _done: int, _total: int, _note: str = "") -> None:
        self.on_progress(name)

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)


@dataclass
class Generations:
    """Publishes generations of random factors over the shop's interactions, and knows what is right in each."""

    database: Database
    name: str = "retail"
    items: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    users: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = planted_views()
        self.interactions = Interactions(
            IdMap(pa.array(range(1, USERS + 1), pa.int64())),
            IdMap(pa.array(range(1, ITEMS + 1), pa.int32())),
            (rows[:, 0] - 1).astype(np.int32),
            (rows[:, 1] - 1).astype(np.int32),
            rows[:, 2].astype(np.float64),
        )
        self.seen = np.zeros((USERS, ITEMS), dtype=np.bool_)
        self.seen[self.interactions.user_index, self.interactions.item_index] = True

    def publish(self, settings: Settings | None = None, reporter: Reporter | None = None) -> jobs.Outcome:
        """Everything that a retrain does but reading and training."""
        settings = settings or self.database.settings
        with Run(self.database.url, settings, self.name, "retrain", reporter) as run:
            run.stage("prepare", jobs.prepare, run)
            return pipeline.publish(
                run, self._content(run.generation.number, run.recommender.dimensions), release=False
            )

    def know(self, generation: int) -> None:
        random = np.random.default_rng(generation)
        self.items[generation] = random.normal(size=(ITEMS, FACTORS)).astype(np.float32)
        self.users[generation] = random.normal(size=(USERS, FACTORS)).astype(np.float32)

    def _content(self, generation: int, dimensions: int) -> building.Content:
        self.know(generation)
        return building.Content(
            population=building.Population.of(self.interactions),
            pulled=self.interactions,
            items=vectors.item_vectors(self.items[generation], dimensions),
            users=vectors.user_vectors(self.users[generation], dimensions),
            factors=FACTORS,
            snapshot={},
            filters=[],
            confidence={},
            training={},
        )

    def recommended(self, generation: int, user: int, ids: Sequence[int], scores: Sequence[float], k: int = 10) -> bool:
        """Whether this is the list of `recommend` in that generation: unseen items by predicted preference."""
        right = self.items[generation].astype(np.float64) @ self.users[generation][user - 1].astype(np.float64)
        return _is_top(right, ~self.seen[user - 1], ids, scores, k)

    def ranked(self, generation: int, user: int, ids: Sequence[int], scores: Sequence[float], k: int = 10) -> bool:
        """Whether this is the list of the direct query: all items by the inner product of the published vectors."""
        items, person = self.items[generation].astype(np.float64), self.users[generation][user - 1].astype(np.float64)
        right = items @ person / np.linalg.norm(person) / np.linalg.norm(items, axis=1).max()
        return _is_top(right, np.ones(ITEMS, dtype=np.bool_), ids, scores, k)

    def similar(self, generation: int, item: int, ids: Sequence[int], scores: Sequence[float], k: int = 10) -> bool:
        """Whether this is the list of similar items by cosine."""
        items = self.items[generation].astype(np.float64)
        unit = items / np.linalg.norm(items, axis=1)[:, None]
        allowed = (self.seen.sum(axis=0) >= 3) & (np.arange(ITEMS) != item - 1)
        return _is_top(unit @ unit[item - 1], allowed, ids, scores, k)


def _is_top(
    right: NDArray[np.float64], allowed: NDArray[np.bool_], ids: Sequence[int], scores: Sequence[float], k: int
) -> bool:
    if len(ids) != k or len(set(ids)) != k:
        return False
    index = np.array(ids) - 1
    best = np.sort(right[allowed])[::-1][:k]
    tolerance = 1e-4 * np.abs(right).max()
    return bool(
        allowed[index].all()
        and np.abs(right[index] - np.array(scores)).max() < tolerance
        and np.abs(best - np.array(scores)).max() < tolerance
    )


def states(database: Database, name: str = "retail") -> dict[int, str]:
    """Generation -> state as operators see it, without those that are gone."""
    rows = look(
        database,
        "SELECT generation, state FROM recstore.generations WHERE recommender = %s AND state <> 'pruned'",
        name,
    )
    return {row["generation"]: row["state"] for row in rows}


def assert_nothing_left(database: Database, name: str = "retail") -> None:
    """Only the next, the live and the previous generation; no table, index build, lock, transaction or run beside them."""
    rows = look(
        database,
        "SELECT generation, state FROM recstore.generations WHERE recommender = %s AND state <> 'pruned' ORDER BY 1",
        name,
    )
    assert {row["state"] for row in rows} <= {"live", "previous", "next"}, rows
    numbers = {row["generation"] for row in rows}
    tables = look(
        database,
        "SELECT c.relname AS name, i.inhdetachpending AS pending FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid"
        " WHERE c.relnamespace = %s::regnamespace AND c.relkind = 'r'",
        name,
    )
    of_each = {kind: {f"_{kind}_{number}" for number in numbers} for kind in ("items", "users", "fold_in", "basis")}
    partitions = [row for row in tables if row["name"] not in of_each["fold_in"] | of_each["basis"]]
    assert {row["name"] for row in partitions} == of_each["items"] | of_each["users"]
    assert [row["name"] for row in partitions if row["pending"] is not False] == []
    assert look(database, "SELECT * FROM recstore.runs WHERE state = 'running'") == []
    invalid = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
    assert look(database, invalid) == []
    locks = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = %s)"
    assert look(database, locks, database.name) == []
    backends = "SELECT application_name FROM pg_stat_activity WHERE datname = %s AND application_name LIKE 'recstore%%'"
    until(lambda: look(database, backends, database.name) == [])
