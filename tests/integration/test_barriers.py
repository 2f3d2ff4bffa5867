"""The sessions that a flip and a pruning wait for, with a real pg_dump: none is killed, none gets a wrong answer."""

import struct
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import VERSION, Database, copy_of, superuser
from psycopg import errors as pg
from support import Generations, Hook, look, states, until

from recstore import registry
from recstore.config import Settings
from recstore.definition import Publication
from recstore.embedded import tool_path
from recstore.errors import NothingReady
from recstore.operations import jobs
from recstore.postgres.connection import Connection
from recstore.publication import barriers, generations
from recstore.sql.generation import Generation

FUNCTIONS = "SELECT retail.generation() AS g, r.item_id, r.score FROM retail.recommend(1, 10) r"
VIEWS = """
    SELECT retail.generation() AS g, v.item_id, -(v.preference <#> u.preference) AS score
    FROM retail.user_vectors u CROSS JOIN retail.item_vectors v
    WHERE u.user_id = 1 ORDER BY v.preference <#> u.preference, v.item_id LIMIT 10
"""
ROLES = ["worker", "application"]


shop = copy_of("published_template")
fresh = copy_of("shop_template")


@pytest.fixture
def made(shop: Database) -> Generations:
    """Generation 1 is live, 2 is attached; both roles may read."""
    made = Generations(shop)
    made.know(1)
    return made


@pytest.fixture
def quick(shop: Database) -> Settings:
    """Settings that wait for no session."""
    return shop.settings.model_copy(update={"flip_wait": 0, "prune_wait": 0})


def served(made: Generations, connection: Connection, generation: int) -> bool:
    """Whether functions and views both give this connection the complete lists of that generation."""
    return all(
        {row["g"] for row in rows} == {generation}
        and check(generation, 1, [row["item_id"] for row in rows], [row["score"] for row in rows])
        for rows, check in (
            (connection.execute(FUNCTIONS).fetchall(), made.recommended),
            (connection.execute(VIEWS).fetchall(), made.ranked),
        )
    )


def idle(database: Database, role: str, *statements: str) -> Connection:
    """A session that did this in a transaction and then forgot it."""
    connection = database.connect(role)
    connection.execute("BEGIN")
    for statement in statements:
        connection.execute(statement)
    return connection


def waits_for(database: Database) -> dict[str, Any]:
    return look(database, "SELECT ready_generation, waits_for FROM recstore.status")[0]


@pytest.mark.contract
@pytest.mark.parametrize("role", ROLES)
def test_an_idle_transaction_holds_up_the_flip_until_it_ends(
    shop: Database, made: Generations, quick: Settings, role: str
) -> None:
    session = idle(shop, role, VIEWS)
    assert made.publish(quick).live  # 2 was attached before; now 3 is attached
    outcome = made.publish(quick)
    assert (outcome.generation, outcome.live) == (3, False)
    assert states(shop) == {1: "previous", 2: "live", 3: "ready", 4: "next"}
    assert look(shop, "SELECT state FROM recstore.runs ORDER BY run DESC LIMIT 1") == [{"state": "ready"}]
    (blocker,) = outcome.blockers
    assert blocker.startswith(f"process {session.info.backend_pid} (test, role {role})")
    assert ("in a transaction since" in blocker) == (role == "worker")  # of another role that is hidden
    assert waits_for(shop) == {"ready_generation": 3, "waits_for": f"waits for {blocker}"}
    assert any(blocker in warning for warning in outcome.warnings)

    assert served(made, session, 2)
    again = jobs.publish(shop.url, quick, "retail")
    assert (again.live, again.blockers) == (False, outcome.blockers)
    assert served(made, session, 2)
    session.execute("COMMIT")
    assert jobs.publish(shop.url, shop.settings, "retail").live
    assert waits_for(shop) == {"ready_generation": None, "waits_for": None}
    assert served(made, session, 3)
    with pytest.raises(NothingReady):
        jobs.publish(shop.url, quick, "retail")


def test_a_run_waits_while_it_may_and_flips_when_the_session_ends(
    shop: Database, made: Generations, quick: Settings
) -> None:
    session = idle(shop, "application", VIEWS)
    made.publish(quick)
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(made.publish()))
    thread.start()
    until(lambda: states(shop).get(3) == "ready")
    session.execute("COMMIT")
    thread.join()
    assert outcomes[0].live


@pytest.mark.contract
@pytest.mark.parametrize("role", ROLES)
def test_publish_now_flips_at_once_and_says_whom_it_disturbs(
    shop: Database, made: Generations, quick: Settings, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = idle(shop, role, VIEWS)
    made.publish(quick)
    assert not made.publish(quick).live
    invalidate, invalidated = barriers.invalidate, []

    def noted(connection: Connection, parents: Sequence[str]) -> None:
        invalidated.append((len(parents), states(shop)[3]))
        invalidate(connection, parents)

    monkeypatch.setattr(barriers, "invalidate", noted)
    outcome = jobs.publish(shop.url, quick, "retail", now=True)
    assert invalidated == [(2, "live")]  # plans that missed the attach
    monkeypatch.undo()
    assert (outcome.generation, outcome.live, outcome.blockers) == (3, True, ())
    assert any("Published at once" in w and f"process {session.info.backend_pid} " in w for w in outcome.warnings)
    assert served(made, session, 3)  # alive, and its next statement is planned again
    session.execute("COMMIT")
    assert made.publish().live


@pytest.mark.contract
def test_who_came_after_the_attach_or_holds_no_lock_on_the_parents_delays_nothing(
    shop: Database, made: Generations, quick: Settings
) -> None:
    functions = idle(shop, "worker", FUNCTIONS)  # locks of its own, but none on a parent
    snapshot = idle(shop, "worker", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT retail.generation()")
    writer = idle(shop, "worker", "SELECT pg_current_xact_id()")
    for generation in (2, 3, 4):
        later: list[Connection] = []

        def come(stage: str, later: list[Connection] = later) -> None:
            if stage == "prepare":
                later.append(idle(shop, "application", VIEWS))

        outcome = made.publish(quick, Hook(come))
        assert (outcome.generation, outcome.live) == (generation, True)
        assert served(made, later[0], generation)
        later[0].execute("COMMIT")
    assert served(made, snapshot, 1)
    for session in (functions, snapshot, writer):
        assert session.execute("SELECT 1 AS alive").fetchone() == {"alive": 1}
        session.execute("COMMIT")


def test_who_came_between_the_attach_and_the_invalidation_of_plans_holds_up_the_flip(
    shop: Database, made: Generations, quick: Settings
) -> None:
    """A plan of that time may miss the attach, and is used until its transaction ends."""
    early = idle(shop, "application", VIEWS)
    assert made.publish(quick).live  # 3 is attached, and waits for the session
    late = idle(shop, "application", VIEWS)
    early.execute("COMMIT")
    outcome = made.publish(quick)
    assert not outcome.live
    assert [f"process {late.info.backend_pid} " in blocker for blocker in outcome.blockers] == [True]
    late.execute("COMMIT")
    assert jobs.publish(shop.url, shop.settings, "retail").live


@pytest.mark.parametrize("user", ["postgres", "worker"])
def test_a_running_dump_holds_up_the_flip_and_is_complete(
    shop: Database, made: Generations, quick: Settings, user: str, tmp_path: Path
) -> None:
    options = ["--schema=shop", "--schema=retail"] if user == "worker" else []
    with shop.connect("application") as connection:
        connection.execute("CREATE TABLE shop.held AS SELECT 1")
        connection.execute("GRANT SELECT ON shop.held TO worker")
    gate = idle(shop, "application", "LOCK TABLE shop.held IN ACCESS EXCLUSIVE MODE")
    dump = subprocess.Popen(
        [tool_path(VERSION, "pg_dump"), "--dbname", shop.url_of(user), "--file", tmp_path / "dump.sql", *options],
        stderr=subprocess.PIPE,
    )
    try:
        until(lambda: waiting_for(shop, "shop.held"))
        assert made.publish(quick).live
        outcome = made.publish(quick)
        assert (outcome.generation, outcome.live) == (3, False)
        assert "pg_dump" in outcome.blockers[0]
        assert "pg_dump" in waits_for(shop)["waits_for"]
        kept = jobs.prune(shop.url, quick, "retail", keep=1)
        assert kept["pruned"] == []
        assert "pg_dump" in str(kept["postponed"][1])
        gate.execute("COMMIT")
        assert dump.wait() == 0, dump.stderr and dump.stderr.read()
    finally:
        dump.kill()
        dump.communicate()
    text = (tmp_path / "dump.sql").read_text()
    rows = text[text.index("COPY retail._items_1 ") :].split("\\.\n")[0].count("\n") - 1
    assert rows == 120
    assert jobs.publish(shop.url, shop.settings, "retail").live


def waiting_for(database: Database, relation: str) -> bool:
    return bool(look(database, "SELECT FROM pg_locks WHERE relation = %s::regclass AND NOT granted", relation))


def test_maintenance_of_the_parents_holds_up_the_flip_without_hanging_it(
    shop: Database, made: Generations, quick: Settings
) -> None:
    """ANALYZE, and much else that maintains a table, takes the lock that invalidating takes."""
    with superuser(shop.server, shop.name) as connection:  # a hanging run would end as a failure
        connection.execute(f"ALTER ROLE worker IN DATABASE {shop.name} SET statement_timeout = '20s'")
    session = idle(shop, "application", VIEWS)
    made.publish(quick)  # 3 is attached, and waits for the session
    session.execute("COMMIT")
    maintenance = idle(shop, "worker", "LOCK TABLE ONLY retail._items IN SHARE UPDATE EXCLUSIVE MODE")
    reading = idle(shop, "worker", VIEWS)
    outcome = made.publish(quick.model_copy(update={"lock_attempts": 1}))
    assert not outcome.live
    assert [f"process {maintenance.info.backend_pid} " in blocker for blocker in outcome.blockers] == [True]
    maintenance.execute("COMMIT")
    reading.execute("COMMIT")
    assert jobs.publish(shop.url, shop.settings, "retail").live


@pytest.mark.contract
@pytest.mark.parametrize("careful", [True, False])
@pytest.mark.parametrize("role", ROLES)
def test_a_generation_stays_as_long_as_a_snapshot_sees_it_live(
    shop: Database, made: Generations, quick: Settings, role: str, careful: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = idle(shop, role, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT retail.generation()")
    if not careful:
        monkeypatch.setattr(generations, "_may_see", lambda *_: [])
    made.publish(quick)
    made.publish(quick)
    if not careful:
        assert states(shop) == {2: "previous", 3: "live", 4: "next"}
        assert session.execute(VIEWS).fetchall() == [], "the scenario no longer shows what the postponing is for"
        with pytest.raises(pg.UndefinedTable):
            session.execute(FUNCTIONS)
        return
    assert states(shop) == {1: "pruning", 2: "previous", 3: "live", 4: "next"}
    assert served(made, session, 1)
    answer = jobs.prune(shop.url, quick, "retail", keep=1)
    assert answer["pruned"] == []
    assert list(answer["postponed"]) == [1, 2]
    assert f"process {session.info.backend_pid} (test, role {role})" in str(answer["postponed"][1])
    assert served(made, session, 1)
    session.execute("COMMIT")
    assert jobs.prune(shop.url, shop.settings, "retail", keep=1) == {"pruned": [1, 2]}
    assert states(shop) == {3: "live", 4: "next"}
    assert served(made, session, 3)


@pytest.mark.contract
@pytest.mark.usefixtures("made")
def test_the_oldest_snapshot_of_another_role_is_visible(shop: Database) -> None:
    """Unlike the start of its transaction. So pruning sees every snapshot of this server, without pg_read_all_stats."""
    session = idle(shop, "application", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT retail.generation()")
    with shop.connect() as connection:
        row = connection.execute(
            "SELECT backend_xmin IS NULL AS xmin_hidden, xact_start IS NULL AS start_hidden FROM pg_stat_activity WHERE pid = %s",
            [session.info.backend_pid],
        ).fetchone()
    assert row == {"xmin_hidden": False, "start_hidden": True}
    session.execute("COMMIT")


def test_an_imported_snapshot_counts_after_its_exporter_has_ended(
    shop: Database, made: Generations, quick: Settings
) -> None:
    """As in a parallel dump: the importing transaction begins after the generation was marked."""
    begin = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
    exporter = idle(shop, "application", begin, "SELECT retail.generation()")
    row = exporter.execute("SELECT pg_export_snapshot() AS snapshot").fetchone()
    assert row is not None
    made.publish(quick)
    made.publish(quick)
    assert states(shop)[1] == "pruning"
    importer = idle(shop, "application", begin, f"SET TRANSACTION SNAPSHOT '{row['snapshot']}'")
    exporter.execute("COMMIT")
    answer = jobs.prune(shop.url, quick, "retail")
    assert answer["pruned"] == []
    assert served(made, importer, 1)
    importer.execute("COMMIT")
    assert jobs.prune(shop.url, shop.settings, "retail") == {"pruned": [1]}


def test_a_standby_that_tells_its_oldest_snapshot_through_a_slot_counts(
    shop: Database, made: Generations, quick: Settings
) -> None:
    now = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::int AS xmin, pg_current_wal_flush_lsn()::text AS lsn"
    row = look(shop, now)[0]
    url = shop.url_of("postgres") + "&replication=true"
    standby = psycopg.pq.PGconn.connect(url.encode())
    try:
        standby.exec_(f"CREATE_REPLICATION_SLOT {shop.name} TEMPORARY PHYSICAL".encode())
        started = standby.exec_(f"START_REPLICATION SLOT {shop.name} PHYSICAL {row['lsn']}".encode())
        assert started.status == psycopg.pq.ExecStatus.COPY_BOTH
        standby.put_copy_data(b"h" + struct.pack("!qIIII", 0, row["xmin"], 0, 0, 0))  # hot standby feedback
        standby.flush()
        until(lambda: look(shop, "SELECT FROM pg_replication_slots WHERE xmin IS NOT NULL"))
        made.publish(quick)
        made.publish(quick)
        answer = jobs.prune(shop.url, quick, "retail")
        assert f"replication slot {shop.name}" in str(answer["postponed"][1])
    finally:
        standby.finish()
    until(lambda: not look(shop, "SELECT FROM pg_replication_slots"))
    assert jobs.prune(shop.url, shop.settings, "retail") == {"pruned": [1]}


def test_retention(shop: Database, made: Generations) -> None:
    lasting = shop.settings.model_copy(update={"retention": 3600})
    for _ in range(3):
        assert made.publish(lasting).live
    assert states(shop) == {1: "previous", 2: "previous", 3: "previous", 4: "live", 5: "next"}
    answer = jobs.prune(shop.url, lasting, "retail", keep=1)
    assert (answer["pruned"], set(answer["retained"])) == ([], {1, 2, 3})
    assert jobs.prune(shop.url, shop.settings, "retail", keep=2) == {"pruned": [1, 2]}


@pytest.mark.parametrize("keep", [1, 3])
def test_keep(fresh: Database, keep: int) -> None:
    fresh.create(publication=Publication(search="exact", keep=keep))
    made = Generations(fresh)
    for generation in range(1, 6):
        made.publish()
        previous = range(max(1, generation - keep + 1), generation)
        assert states(fresh) == dict.fromkeys(previous, "previous") | {generation: "live", generation + 1: "next"}
    jobs.prune(fresh.url, fresh.settings, "retail", keep=1)
    assert states(fresh) == {5: "live", 6: "next"}


@pytest.fixture
def pending(made: Generations) -> Callable[[str], None]:
    """Starts a DETACH CONCURRENTLY that a reader outlasts: cancelled, it stays pending."""
    shop = made.database

    def detach(partition: str) -> None:
        reader = idle(shop, "application", VIEWS)
        with shop.connect() as connection:
            connection.execute("SET lock_timeout = 100")
            with pytest.raises(pg.LockNotAvailable):
                connection.execute(f"ALTER TABLE retail._items DETACH PARTITION retail.{partition} CONCURRENTLY")
        reader.execute("COMMIT")
        assert detaching(shop) == [partition]

    return detach


def detaching(database: Database) -> list[str]:
    rows = look(database, "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhdetachpending")
    return [row["name"].removeprefix("retail.") for row in rows]


@pytest.mark.contract
def test_a_cancelled_detach_is_finalized_later_and_holds_up_nothing(
    shop: Database, made: Generations, quick: Settings, pending: Callable[[str], None]
) -> None:
    lasting = quick.model_copy(update={"retention": 3600})
    made.publish(lasting)
    made.publish(lasting)
    pending("_items_1")
    with shop.connect() as connection:
        assert served(made, connection, 3)
    assert made.publish(lasting).live  # attaching works while a detach is pending
    snapshot = idle(shop, "worker", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT retail.generation()")
    outcome = made.publish(quick)
    assert outcome.live
    assert (states(shop)[1], detaching(shop)) == ("pruning", ["_items_1"])
    assert served(made, snapshot, 4)
    snapshot.execute("COMMIT")
    assert made.publish().live
    assert detaching(shop) == []
    assert states(shop) == {5: "previous", 6: "live", 7: "next"}


def test_the_pending_detach_of_another_partition_is_not_waited_for_without_end(
    shop: Database, made: Generations, quick: Settings, pending: Callable[[str], None]
) -> None:
    """Finalizing waits for every older snapshot: here one that came after generation 1 was marked, so that nothing but
    the finalizing itself meets it."""
    lasting = quick.model_copy(update={"retention": 3600})
    for _ in range(3):
        made.publish(lasting)
    pending("_items_2")
    with shop.connect() as connection:
        recommender = registry.get(connection, "retail")
        generations.mark_pruning(connection, Generation(recommender, 1), "test")
        snapshot = idle(shop, "worker", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT retail.generation()")
        connection.execute("SELECT pg_current_xact_id()")
        answers = []
        pruning = threading.Thread(
            target=lambda: answers.append(generations.prune(connection, lasting, recommender, keep=9))
        )
        pruning.start()
        try:
            until(lambda: answers)
            assert served(made, snapshot, 4)
        finally:
            snapshot.execute("COMMIT")
            pruning.join()
        assert answers[0].removed == []
        assert snapshot.info.backend_pid in {blocker.pid for blocker in answers[0].postponed[1]}
    assert jobs.prune(shop.url, shop.settings, "retail", keep=1) == {"pruned": [1, 2, 3]}


def test_an_overtaken_ready_generation_is_never_published(shop: Database, made: Generations, quick: Settings) -> None:
    session = idle(shop, "application", VIEWS)
    made.publish(quick)
    assert not made.publish(quick).live
    session.execute("COMMIT")
    lasting = shop.settings.model_copy(update={"prune_wait": 0})
    assert made.publish(lasting).generation == 4
    with shop.connect() as connection:
        connection.execute("UPDATE recstore_private.generations SET state = 'ready' WHERE generation = 3")
    with pytest.raises(NothingReady):
        jobs.publish(shop.url, shop.settings, "retail")
