"""A run that is doubled, overtaken, cut off, interrupted or killed: what was live serves on, and the next run cleans up."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import Database, superuser
from support import Hook, assert_nothing_left, look, states, until

import recstore
from recstore import pipeline, registry
from recstore.definition import Publication, Source
from recstore.errors import (
    ConnectionLost,
    LostLock,
    RecstoreError,
    RunCancelled,
    RunEnded,
    RunInProgress,
    RunNotFound,
    TrainingDiverged,
)
from recstore.model import trainers
from recstore.operations import jobs
from recstore.postgres.connection import Connection
from recstore.publication import building, flipping
from recstore.runs import run
from recstore.sql.generation import Generation

STAGES = ["prepare", "read", "filter", "hold out", "read live", "weigh", "train", "solve users", "vectors", "barrier"]
STAGES += ["load", "index", "calibrate", "check", "flip", "tidy"]


def generation(database: Database) -> int:
    """The live generation, which must answer completely."""
    with database.connect() as connection:
        rows = connection.execute("SELECT retail.generation() AS g, r.* FROM retail.recommend(1, 10) r").fetchall()
        assert len(rows) == 10
        views = connection.execute("SELECT count(*) AS n FROM retail.item_vectors").fetchone()
        assert views == {"n": 120}
        return int(rows[0]["g"])


def on(stage: str, action: Callable[[], Any]) -> Hook:
    """A reporter that acts when this stage has ended."""
    return Hook(lambda ended: action() if ended == stage else None)


def next_succeeds(database: Database) -> None:
    """The next run goes live and leaves nothing of former ones."""
    before = generation(database)

    def attempt() -> Any:
        try:
            return database.retrain()
        except RunInProgress:  # the server has not noticed yet that a killed process is gone
            return None

    outcome = until(attempt)
    assert outcome.live
    assert outcome.generation > before
    assert generation(database) == outcome.generation
    assert_nothing_left(database)


def last_run(database: Database) -> dict[str, Any]:
    return look(database, "SELECT state, error, generation FROM recstore.runs ORDER BY run DESC LIMIT 1")[0]


def test_a_run_gives_its_lock_back_before_the_server_notices_that_it_has_gone(
    trained: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_still = []
    really = run.connect

    def connect(*arguments: Any) -> Connection:
        connection = really(*arguments)
        monkeypatch.setattr(connection, "close", lambda: open_still.append(connection))
        return connection

    monkeypatch.setattr(run, "connect", connect)
    for _ in range(2):
        jobs.prune(trained.url, trained.settings, "retail")
    monkeypatch.undo()
    for connection in open_still:
        connection.close()
    assert len(open_still) == 2


@pytest.mark.contract
def test_a_second_run_is_refused_and_told_of_the_first(trained: Database) -> None:
    refused: list[RunInProgress] = []

    def second() -> None:
        for job in (pipeline.retrain, jobs.publish, jobs.prune):
            with pytest.raises(RunInProgress) as caught:
                job(trained.url, trained.settings, "retail")
            refused.append(caught.value)

    assert trained.retrain(reporter=on("train", second)).live
    number = look(trained, "SELECT max(run) AS run FROM recstore.runs")[0]["run"]
    assert [f"recstore:run:{number}," in error.message for error in refused] == [True] * 3
    assert_nothing_left(trained)


def test_recommenders_do_not_exclude_each_other(trained: Database) -> None:
    trained.create("other")
    outcomes = []
    assert trained.retrain(reporter=on("train", lambda: outcomes.append(trained.retrain("other")))).live
    assert outcomes[0].live
    assert_nothing_left(trained)
    assert_nothing_left(trained, "other")


@pytest.mark.parametrize("stage", ["prepare", "train", "load", "calibrate", "check"])
def test_a_run_that_is_cut_off_publishes_nothing(trained: Database, stage: str) -> None:
    def cut() -> None:
        ended = look(
            trained,
            "SELECT pg_terminate_backend(pid, 10000) AS ended FROM pg_stat_activity"
            " WHERE datname = %s AND application_name LIKE 'recstore:run:%%'",
            trained.name,
        )
        assert ended == [{"ended": True}]

    with pytest.raises(ConnectionLost):
        trained.retrain(reporter=on(stage, cut))
    assert generation(trained) == 1
    assert last_run(trained)["state"] == "failed"
    next_succeeds(trained)


TAKE_FENCE = """
    WITH newer AS (
        INSERT INTO recstore_private.runs (recommender_id, job) SELECT id, 'test' FROM recstore_private.recommenders RETURNING run
    )
    UPDATE recstore_private.pointers p SET fence = newer.run FROM newer
"""


def overtake(database: Database) -> None:
    with database.connect() as connection:
        connection.execute(TAKE_FENCE)


def test_an_overtaken_run_stops_at_its_next_stage(trained: Database) -> None:
    for stage, stops_before in list(itertools.pairwise(STAGES))[:-1]:
        hook = on(stage, lambda: overtake(trained))
        with pytest.raises(LostLock) as caught:
            trained.retrain(reporter=hook)
        assert (caught.value.stage, list(hook.stages)[-1]) == (stops_before, stage)  # type: ignore[attr-defined]
        assert generation(trained) == 1
    next_succeeds(trained)


@pytest.mark.contract
def test_a_run_that_is_overtaken_while_it_waits_for_the_flip_does_not_flip(trained: Database) -> None:
    with trained.connect() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM retail.item_vectors")
        assert trained.retrain().generation == 2  # 3 is attached, and waits for the reader

        def while_waiting(stage: str) -> None:
            if stage == "flip":
                overtake(trained)
                reader.execute("COMMIT")

        hook = Hook(on_progress=while_waiting)
        with pytest.raises(LostLock) as caught:
            trained.retrain(reporter=hook)
    assert caught.value.stage == "the flip"  # type: ignore[attr-defined]
    assert generation(trained) == 2
    assert states(trained)[3] == "ready"
    next_succeeds(trained)


@pytest.mark.parametrize("stage", ["read", "load"])
def test_interrupted_in_the_middle_of_a_stage(trained: Database, stage: str) -> None:
    def interrupt(running: str) -> None:
        if running == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained.retrain(reporter=Hook(on_progress=interrupt))
    assert generation(trained) == 1
    assert (last_run(trained)["state"], last_run(trained)["error"]) == ("failed", "Interrupted.")
    next_succeeds(trained)


def test_a_training_that_raises(trained: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(_: str) -> None:
        raise TrainingDiverged(what="all of them")

    with monkeypatch.context() as patched:
        patched.setattr(trainers, "trainer", diverge)
        with pytest.raises(TrainingDiverged):
            trained.retrain()
    assert generation(trained) == 1
    assert "diverged" in last_run(trained)["error"]
    next_succeeds(trained)


def running(database: Database, stage: str) -> int | None:
    """The number of the run in this stage."""
    at = "SELECT run FROM recstore.runs WHERE state = 'running' AND stages -> -1 ->> 'stage' = %s"
    return next((row["run"] for row in look(database, at, stage)), None)


def cancelled(database: Database, stage: str, cancel: Callable[[int], object]) -> RunCancelled:
    """The error of a retrain that is cancelled in this stage."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(lambda: cancel(until(lambda: running(database, stage))))
        with pytest.raises(RunCancelled) as caught:
            database.retrain(reporter=Hook(on_progress=lambda _: time.sleep(1.1)))
        done.result()
    return caught.value


@pytest.mark.contract
@pytest.mark.parametrize("stage", ["prepare", "train", "load", "check"])
def test_a_cancelled_run_ends_and_what_is_live_stays(
    trained: Database, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between stages, in Python, in a statement."""
    store = recstore.Recstore(trained.url)
    look(trained, "SELECT recstore.request_retrain('retail')")

    def slow(run: Any, *_: Any) -> None:
        run.connection.execute("SELECT pg_sleep(60)")

    def wait(run: Any) -> Any:
        until(lambda: look(trained, "SELECT FROM recstore_private.cancellations"))
        return really(run)

    really = jobs.prepare
    with monkeypatch.context() as patched:
        if stage == "prepare":
            patched.setattr(jobs, "prepare", wait)
        elif stage == "check":
            slow.__name__ = "check"
            patched.setattr(building, "check", slow)
        error = cancelled(trained, stage, store.cancel)
    assert "was cancelled by worker" in error.message
    assert generation(trained) == 1
    last = last_run(trained)
    assert (last["state"], last["error"]) == ("cancelled", error.message)
    (request,) = look(trained, "SELECT state, outcome FROM recstore.requests")
    assert (request["state"], request["outcome"]) == ("cancelled", error.message)
    assert look(trained, "SELECT FROM recstore_private.cancellations") == []
    next_succeeds(trained)


def test_a_run_is_cancelled_while_it_reads(trained: Database) -> None:
    numbers = "SELECT n AS user_id, n % 7 AS item_id, 1 AS value FROM generate_series(1, 1000) n"
    trained.create("slow", source=Source(query=f"{numbers} WHERE pg_sleep(0.1)::text = ''"))
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(lambda: recstore.Recstore(trained.url).cancel(until(lambda: running(trained, "read"))))
        with pytest.raises(RunCancelled):
            pipeline.retrain(trained.url, trained.settings, "slow")
        done.result()
    assert last_run(trained)["state"] == "cancelled"


def test_who_may_only_ask_cancels_in_sql_and_takes_effect_at_commit(trained: Database) -> None:
    with superuser(trained.server, trained.name) as connection:
        connection.execute("GRANT USAGE ON SCHEMA recstore TO application")
        connection.execute("GRANT EXECUTE ON FUNCTION recstore.cancel_run(bigint) TO application")
    call = "SELECT recstore.cancel_run(%s) AS done"

    def cancel(run: int) -> None:
        with trained.connect("application") as asking:
            for taken_back in (True, False):
                with asking.transaction(force_rollback=taken_back):
                    row = asking.execute(call, [run]).fetchone()
                    assert row == {"done": True}

    assert "by application" in cancelled(trained, "train", cancel).message
    assert look(trained, call, 1) == [{"done": False}]  # it has ended
    assert look(trained, call, 4711) == [{"done": False}]
    store = recstore.Recstore(trained.url)
    for number, error in ((1, RunEnded), (4711, RunNotFound)):
        with pytest.raises(error):
            store.cancel(number)


@pytest.mark.parametrize("stage", ["prepare", "train", "check"])
def test_a_rollback_while_a_training_runs(trained: Database, stage: str) -> None:
    assert trained.retrain().generation == 2
    flips = []

    def back() -> None:
        flips.append(jobs.roll_back(trained.url, "retail"))
        assert generation(trained) == 1

    outcome = trained.retrain(reporter=on(stage, back))
    assert (outcome.live, outcome.held) == (False, True)
    assert flips == [(2, 1)]
    assert generation(trained) == 1
    assert jobs.release(trained.url, "retail")
    assert jobs.publish(trained.url, trained.settings, "retail").live
    assert generation(trained) == 3
    assert_nothing_left(trained)


@pytest.mark.contract
def test_a_flip_updates_one_row_and_locks_nothing_of_the_readers(trained: Database) -> None:
    trained.create("other")
    trained.retrain("other")
    trained.retrain()
    with trained.connect() as connection:
        recommender = registry.get(connection, "retail")
        rows = "SELECT recommender_id, ctid::text, xmin::text FROM recstore_private.pointers ORDER BY 1"
        before = connection.execute(rows).fetchall()
        with connection.transaction():
            flipping.flip(connection, Generation(recommender, 1), "rollback", None, release=True)
            changes = connection.execute(
                "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_xact_all_tables"
                " WHERE n_tup_ins + n_tup_upd + n_tup_del > 0"
            ).fetchall()
            locks = connection.execute(
                "SELECT relation::regclass::text AS relation, mode FROM pg_locks"
                " WHERE pid = pg_backend_pid() AND locktype = 'relation'"
            ).fetchall()
        after = connection.execute(rows).fetchall()
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
    assert {row["relname"]: (row["n_tup_ins"], row["n_tup_upd"], row["n_tup_del"]) for row in changes} == {
        "pointers": (0, 1, 0),
        "generations": (0, 1, 0),
        "flips": (1, 0, 0),
    }
    assert {row["mode"] for row in locks} <= {"AccessShareLock", "RowShareLock", "RowExclusiveLock"}
    assert not [row for row in locks if row["relation"].startswith(("retail.", "other."))]


@pytest.mark.contract
@pytest.mark.parametrize(("search", "truncating"), [("exact", False), ("hnsw", False), ("auto", False), ("hnsw", True)])
def test_a_publication_asks_for_no_lock_that_a_reader_has(
    shop: Database, search: str, truncating: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open transaction holds ACCESS SHARE on the parents and on every partition, the next one too, while that is
    loaded, indexed, calibrated and made live: nothing that conflicts with a reader is asked for, or it would be refused.
    """
    shop.create(publication=Publication(search=search, index_users=True))
    assert shop.retrain().live
    if truncating:
        really = building.load

        def load(run: Any, *arguments: Any) -> Any:
            run.connection.execute("TRUNCATE retail._items_2")
            return really(run, *arguments)

        monkeypatch.setattr(building, "load", load)
    reader = shop.connect()

    def read() -> None:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM retail.item_vectors, retail.user_vectors")
        held = "SELECT relation::regclass::text AS name FROM pg_locks WHERE pid = %s AND mode = 'AccessShareLock'"
        names = {row["name"] for row in look(shop, held, reader.info.backend_pid)}
        assert names >= {f"retail._{kind}{number}" for kind in ("items", "users") for number in ("", "_1", "_2")}

    url = shop.url + "&options=-c%20lock_timeout%3D500"
    settings = shop.settings.model_copy(update={"flip_wait": 0, "prune_wait": 0})
    hook = on("prepare", read)
    if truncating:
        with pytest.raises(RecstoreError, match="lock timeout"):
            pipeline.retrain(url, settings, "retail", reporter=hook)
        assert generation(shop) == 1
        return
    outcome = pipeline.retrain(url, settings, "retail", reporter=hook)
    assert outcome.live
    unused = [warning for warning in outcome.warnings if "is left invalid" in warning]  # `auto` waits for no reader
    assert list(outcome.warnings) == (unused if search == "auto" else [])
    assert generation(shop) == 2
    assert jobs.roll_back(url, "retail") == (2, 1)
    assert generation(shop) == 1
    reader.execute("COMMIT")
    jobs.release(url, "retail")
    for _ in range(2):
        shop.retrain()
    assert_nothing_left(shop)


KILLED = """if True:
    import os, signal, sys
    from pathlib import Path
    from recstore import pipeline
    from recstore.config import Settings
    import recstore.model.trainers.als, recstore.publication.building, recstore.source.pulling

    class Stops:
        def __init__(self, at):
            self.at = at
        def stage(self, name, seconds, details):
            self.met(name)
        def progress(self, name, done, total, note=""):
            self.met("in " + name)
        def met(self, place):
            if place == self.at:
                print(os.getpid(), flush=True)
                signal.pause()
        def warn(self, sentence):
            pass

    url = sys.argv[1]
    for place in sys.stdin:  # a child for each: this process itself trains nothing, and so may fork
        child = os.fork()
        if not child:
            settings = Settings(database_url=url, retention=0, home=Path("/nonexistent"))
            pipeline.retrain(url, settings, "retail", reporter=Stops(place.strip()))
            print("ended", flush=True)
            os._exit(0)
        os.waitpid(child, 0)
"""


@pytest.fixture
def victims(trained: Database) -> Iterator[Callable[[str], int]]:
    """Starts a process that trains and stops at a place; returns its id."""
    checkout = str(Path(recstore.__path__[0]).parent)
    command = [sys.executable, "-c", KILLED, trained.url]
    with subprocess.Popen(command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin
        assert parent.stdout

        def start(place: str) -> int:
            parent.stdin.write(place + "\n")  # type: ignore[union-attr]
            parent.stdin.flush()  # type: ignore[union-attr]
            return int(parent.stdout.readline())  # type: ignore[union-attr]

        yield start
        parent.stdin.close()


PLACES = ["prepare", "in train", "in load", "calibrate", "check", "flip"]


@pytest.mark.parametrize(
    "places",
    [PLACES, pytest.param([*STAGES, "in train", "in load", "in calibrate"], marks=pytest.mark.campaign)],
    ids=["some", "all"],
)
def test_killed_at_any_stage(trained: Database, victims: Callable[[str], int], places: list[str]) -> None:
    """By kill -9, at the end of a stage and in the middle of those that report progress."""
    for place in places:
        before = generation(trained)
        pid = victims(place)
        os.kill(pid, signal.SIGKILL)
        assert generation(trained) == before + (place in ("flip", "tidy")), place
        next_succeeds(trained)
        assert look(trained, "SELECT count(*) AS n FROM recstore.runs WHERE state = 'abandoned'")[0]["n"] > 0
