"""Index builds that run out of memory are tried again serially with less; what cannot be built fails the run, not the store."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from conftest import Database
from psycopg import errors as pg
from support import Hook

from recstore.definition import Publication
from recstore.errors import PublicationFailed, RecstoreError
from recstore.publication import indexes
from recstore.runs import Run, Silent

pytestmark = pytest.mark.usefixtures("calibrated")


@pytest.fixture
def starved(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Exception], int], list[str]]:
    """Makes CREATE INDEX .. USING hnsw fail so many times; returns the settings that each attempt ran with."""

    def install(error: type[Exception], times: int) -> list[str]:
        attempts: list[str] = []
        enter = Run.__enter__

        def entered(run: Run) -> Run:
            enter(run)
            execute = run.connection.execute

            def execute_or_fail(query: Any, *more: Any, **options: Any) -> Any:
                if "USING hnsw" in str(query):
                    row = execute(
                        "SELECT current_setting('maintenance_work_mem') || ', workers '"
                        " || current_setting('max_parallel_maintenance_workers') AS s"
                    ).fetchone()
                    assert row
                    attempts.append(row["s"])
                    if len(attempts) <= times:
                        raise error("no room for shared memory")
                return execute(query, *more, **options)

            monkeypatch.setattr(run.connection, "execute", execute_or_fail)
            return run

        monkeypatch.setattr(Run, "__enter__", entered)
        return attempts

    return install


@pytest.mark.parametrize("error", [pg.OutOfMemory, pg.DiskFull])
def test_out_of_memory_or_shared_memory_is_tried_again_serially_with_less(
    shop: Database, starved: Callable[..., list[str]], error: type[Exception]
) -> None:
    shop.create(publication=Publication(search="hnsw"))
    attempts = starved(error, 1)
    outcome = shop.retrain()
    assert outcome.live
    assert attempts[:2] == ["64MB, workers 2", "32MB, workers 0"]
    assert any("32 MB" in warning for warning in outcome.warnings)


def test_a_build_that_never_succeeds_costs_nothing(trained: Database, starved: Callable[..., list[str]]) -> None:
    with trained.connect() as connection:
        connection.execute(
            "UPDATE recstore_private.recommenders SET definition = jsonb_set(definition, '{publication,search}', '\"hnsw\"')"
        )
    attempts = starved(pg.OutOfMemory, 99)
    with pytest.raises(RecstoreError, match="calibrate"):
        trained.retrain()
    assert attempts[-1] == "16MB, workers 0"
    assert trained.connect().execute("SELECT retail.generation() AS g").fetchone() == {"g": 1}


def test_one_build_at_a_time(shop: Database) -> None:
    """A second build waits for the first one's lock, holding no snapshot meanwhile."""
    connection, other = shop.connect(), shop.connect()
    keys = [indexes.LOCK_NAMESPACE, indexes.BUILD_LOCK]
    other.execute("SELECT pg_advisory_lock(%s, %s)", keys)
    waited = 0

    def release(_seconds: float) -> None:
        nonlocal waited
        waited += 1
        row = other.execute(
            "SELECT state, backend_xmin IS NULL AS no_snapshot FROM pg_stat_activity WHERE pid = %s",
            [connection.info.backend_pid],
        ).fetchone()
        assert row == {"state": "idle", "no_snapshot": True}
        other.execute("SELECT pg_advisory_unlock(%s, %s)", keys)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexes.time, "sleep", release)
        run = cast(Run, SimpleNamespace(connection=connection, reporter=Silent()))
        with indexes._one_build(run, "index"):
            pass
    assert waited == 1


def test_a_generation_without_one_of_its_indexes_does_not_go_live(shop: Database) -> None:
    shop.create(publication=Publication(search="hnsw"))
    live = shop.retrain().generation

    def lose(stage: str) -> None:
        if stage == "calibrate":
            shop.connect().execute(f"DROP INDEX retail._items_{live + 1}_embedding_hnsw")

    with pytest.raises(PublicationFailed, match="_embedding_hnsw is missing or not valid"):
        shop.retrain(reporter=Hook(on_stage=lose))
    assert shop.connect().execute("SELECT retail.generation() AS g").fetchone() == {"g": live}
