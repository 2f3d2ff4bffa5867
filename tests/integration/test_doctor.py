"""Doctor in a database in good order, and with one problem: it finds exactly that, and its remedies fix it."""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import (
    VERSION,
    Command,
    Database,
    copy_of,
    database_from,
    drop_database,
    make_database,
    make_template,
    superuser,
)
from support import free_port, lacking, look, until

from recstore import Recstore, cli, doctor, embedded, errors
from recstore.config import Settings
from recstore.definition import Candidates, Lists
from recstore.doctor import examination
from recstore.doctor.check_sessions import noticed_after
from recstore.doctor.findings import CHECKS, LEVELS, Check, Finding, ok
from recstore.doctor.subject import Subject
from recstore.embedded import Server
from recstore.errors import RecommenderNotFound
from recstore.model.trainers import als
from recstore.operations import readers
from recstore.postgres.connection import connect, plain_errors
from recstore.postgres.pooler import Observed, kind_of
from recstore.runs import LISTS_NAMESPACE, LOCK_NAMESPACE
from recstore.source import inspection
from recstore.source.plans import compared, index_statement
from recstore.sql.schema_revision import head


def worse_than_ok(findings: list[Finding]) -> dict[str, str]:
    """Check -> the worst level it found, of those that are not well."""
    return {f.check: f.level for f in sorted(findings, key=lambda f: LEVELS.index(f.level)) if f.level != "ok"}


USUAL = {"read-all-stats": "note", "dispatch": "note"}
"""Of a good database whose worker has no more rights than it needs, before there are workers."""


@pytest.fixture(scope="module")
def template(server: Server, shop_template: str) -> str:
    """A trained recommender with candidates, and the role `shopper` that may use it."""
    with superuser(server) as connection:
        connection.execute("CREATE ROLE shopper LOGIN")
    database = make_database(server, shop_template)
    candidates = Candidates(table="shop.products", condition="visible")
    with database.connect("application") as connection:
        connection.execute("CREATE SCHEMA made; GRANT USAGE, CREATE ON SCHEMA made TO worker")
    recommender = database.create(candidates=candidates, lists=Lists(similar_into="made.similar"))
    database.retrain()
    with database.connect() as connection:
        readers.grant_reader(connection, recommender, "shopper", people=True)
    with database.connect("application") as connection:
        connection.execute("GRANT USAGE ON SCHEMA shop TO shopper")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA shop TO shopper")
    return make_template(database, "template_doctor")


@pytest.fixture(scope="module")
def kept() -> list[Database]:
    """The database that the last test left in good order."""
    return []


@pytest.fixture
def good(server: Server, template: str, kept: list[Database], request: pytest.FixtureRequest) -> Iterator[Database]:
    """For a test that puts something in the way and removes it: if it passes, the next one gets the same database."""
    database = kept.pop() if kept else make_database(server, template)
    failed = request.session.testsfailed
    yield database
    if request.session.testsfailed == failed:
        kept.append(database)
    else:
        drop_database(database)


spoiled = copy_of("template")
"""For a test that leaves something behind, or needs what an earlier one removed."""


def settings_of(database: Database, role: str = "worker", **more: Any) -> Settings:
    given = {"device": "cpu", "retention": 0, "home": Path("/nonexistent")} | more
    return Settings(database_url=database.url_of(role), **given)


def examined(database: Database, role: str = "worker", name: str | None = None, **settings: Any) -> list[Finding]:
    return doctor.examine(settings_of(database, role, **settings), name)


@dataclass(frozen=True)
class Problem:
    """Something in the way: what a superuser does to put it there, and what doctor then finds besides the usual."""

    plant: str
    found: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)
    undo: str = ""
    """Where no remedy can be carried out here, or it leaves something."""
    fix: bool = True
    fixed: dict[str, str] = field(default_factory=dict)
    """What is found after the remedies, besides the usual."""


LISTS_AGAIN = (
    "UPDATE recstore_private.recommenders"
    """ SET definition = jsonb_set(definition, '{{lists,similar_into}}', '"made.similar"')"""
)

PROBLEMS = {
    "may create no schemas": Problem("REVOKE CREATE ON DATABASE {database} FROM worker", {"create-schemas": "warning"}),
    "limit of the role": Problem(
        "ALTER ROLE worker IN DATABASE {database} SET temp_file_limit = '1GB';"
        " ALTER ROLE worker IN DATABASE {database} SET statement_timeout = '20s'",
        {"role-settings": "note"},
        undo="ALTER ROLE worker IN DATABASE {database} RESET ALL",
    ),
    "search path": Problem(
        "ALTER ROLE worker IN DATABASE {database} SET search_path = pg_catalog",
        {"search-path": "note"},
        undo="ALTER ROLE worker IN DATABASE {database} RESET ALL",
    ),
    "a schema on the search path that anybody may write": Problem(
        "GRANT CREATE ON SCHEMA public TO PUBLIC, application", {"writable-path": "warning"}
    ),
    "a schema of recstore's first on the search path": Problem(
        "ALTER ROLE worker IN DATABASE {database} SET search_path = recstore, public",
        {"own-path": "warning"},
        undo="ALTER ROLE worker IN DATABASE {database} RESET ALL",
    ),
    "older pgvector": Problem(
        "UPDATE pg_extension SET extversion = '0.8.4' WHERE extname = 'vector'", {"pgvector": "note"}
    ),
    "pgvector with defects": Problem(
        "UPDATE pg_extension SET extversion = '0.8.1' WHERE extname = 'vector'",
        {"pgvector": "note", "pgvector-defects": "note"},
    ),
    "much older pgvector": Problem(
        "UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'",
        {"pgvector": "error", "pgvector-defects": "note"},
        fix=False,
        undo="UPDATE pg_extension SET extversion = '0.8.5' WHERE extname = 'vector'",
    ),
    "a newer schema": Problem(
        "UPDATE recstore_private.alembic_version SET version_num = '9999'",
        {"schema": "error", "dispatch": "ok"},
        fix=False,
        undo=f"UPDATE recstore_private.alembic_version SET version_num = '{head()}'",
    ),
    "older objects": Problem("UPDATE recstore_private.recommenders SET objects_version = 1", {"objects": "error"}),
    "a view is gone": Problem("DROP VIEW retail.interactions", {"objects": "error"}),
    "the source has another name": Problem(
        "ALTER TABLE shop.views RENAME TO seen",
        {"stale-views": "error"},
        fix=False,
        undo="ALTER TABLE shop.seen RENAME TO views",
    ),
    "source not readable": Problem("REVOKE SELECT ON shop.views FROM worker", {"source-readable": "error"}),
    "source in a schema that is closed": Problem(
        "REVOKE USAGE ON SCHEMA shop FROM worker", {"source-readable": "error", "candidates": "error"}
    ),
    "source partly hidden": Problem(
        "ALTER TABLE shop.views ENABLE ROW LEVEL SECURITY;"
        " CREATE POLICY part ON shop.views TO worker USING (user_id < 100);"
        " CREATE POLICY everything ON shop.views TO shopper USING (true)",
        {"source-row-security": "warning"},
        undo="ALTER TABLE shop.views DISABLE ROW LEVEL SECURITY; DROP POLICY part ON shop.views;"
        " DROP POLICY everything ON shop.views; DROP POLICY recstore_worker ON shop.views",
    ),
    "source hidden from the application": Problem(
        "ALTER TABLE shop.views ENABLE ROW LEVEL SECURITY; CREATE POLICY everything ON shop.views TO worker USING (true)",
        {"reader-row-security": "warning"},
        undo="ALTER TABLE shop.views DISABLE ROW LEVEL SECURITY; DROP POLICY everything ON shop.views;"
        " DROP POLICY recstore_shopper ON shop.views",
    ),
    "no index on the user": Problem(
        "ALTER TABLE shop.views DROP CONSTRAINT views_pkey;"
        " INSERT INTO shop.views SELECT 1000 + n / 10, n % 120 + 1, 1 FROM generate_series(1, 30000) n; ANALYZE shop.views",
        {"source-lookup": "warning"},
        undo="DELETE FROM shop.views WHERE user_id >= 1000; DROP INDEX shop.views_user_id_idx;"
        " ALTER TABLE shop.views ADD PRIMARY KEY (user_id, product_id)",
    ),
    "no candidates": Problem(
        "UPDATE shop.products SET visible = false",
        {"candidates": "warning"},
        fix=False,
        undo="UPDATE shop.products SET visible = true",
    ),
    "lists in a schema that is closed": Problem("REVOKE CREATE ON SCHEMA made FROM worker", {"list-tables": "error"}),
    "lists in the place of something else": Problem(
        "CREATE VIEW made.similar AS SELECT 1 AS one",
        {"list-tables": "error"},
        undo="DROP VIEW made.similar; " + LISTS_AGAIN,
    ),
    "reader of an older generation only": Problem(
        "REVOKE SELECT ON retail._items_1, retail.user_vectors FROM shopper", {"reader-objects": "error"}
    ),
    "reader without the source": Problem("REVOKE SELECT ON shop.views FROM shopper", {"reader-source": "error"}),
    "reader without the candidates": Problem("REVOKE SELECT ON shop.products FROM shopper", {"reader-source": "error"}),
    "publication for all tables": Problem(
        "CREATE PUBLICATION everything FOR ALL TABLES",
        {"publications": "warning", "list-tables": "error"},
        undo="DROP PUBLICATION everything; " + LISTS_AGAIN,
    ),
    "publication of the schema": Problem(
        "CREATE PUBLICATION ours FOR TABLE retail._users, TABLES IN SCHEMA recstore_private, TABLES IN SCHEMA shop",
        {"publications": "warning"},
        undo="DROP PUBLICATION ours",
    ),
    "too little memory": Problem(
        "UPDATE recstore_private.generations SET items = 500000 WHERE generation = 1;"
        """ UPDATE recstore_private.recommenders SET definition = jsonb_set(definition, '{{publication,search}}', '"auto"')""",
        {"index-memory": "warning"},
        settings={"index_memory": 64},
        fixed={"shared-memory": "note"},
        undo="UPDATE recstore_private.generations SET items = 120 WHERE generation = 1;"
        """ UPDATE recstore_private.recommenders SET definition = jsonb_set(definition, '{{publication,search}}', '"exact"')""",
    ),
    "too many pairs for this machine": Problem(
        """UPDATE recstore_private.generations SET snapshot = jsonb_set(snapshot, '{{pairs}}', '100000000000')""",
        {"training-memory": "warning"},
        fix=False,
        undo="""UPDATE recstore_private.generations SET snapshot = jsonb_set(snapshot, '{{pairs}}', '600')""",
    ),
    "too few parallel workers": Problem("", {"parallel-workers": "note"}, settings={"index_workers": 100}, fix=False),
    "an abandoned run": Problem(
        "UPDATE recstore_private.runs SET state = 'running' WHERE run = 1", {"runs": "warning"}
    ),
    "a generation that waits": Problem(
        "UPDATE recstore_private.generations SET state = 'ready', ready_at = now() WHERE state = 'attached'",
        {"generations": "warning"},
        fix=False,
        undo="UPDATE recstore_private.generations SET state = 'attached', ready_at = NULL WHERE state = 'ready'",
    ),
    "a generation that is held since a rollback": Problem(
        "UPDATE recstore_private.generations SET state = 'ready', ready_at = now() WHERE state = 'attached';"
        " UPDATE recstore_private.pointers SET held_at = now(), held_by = 'someone'",
        {"generations": "note"},
        fix=False,
        undo="UPDATE recstore_private.pointers SET held_at = NULL, held_by = NULL;"
        " UPDATE recstore_private.generations SET state = 'attached', ready_at = NULL WHERE state = 'ready'",
    ),
    "a generation that an older recstore published": Problem(
        "UPDATE recstore_private.generations SET training = training - 'solved_weight' WHERE generation = 1",
        {"fold-in": "note"},
        fix=False,
        undo="UPDATE recstore_private.generations SET training = training || '{{\"solved_weight\": 1}}' WHERE generation = 1",
    ),
    "a half-built generation": Problem(
        "UPDATE recstore_private.generations SET state = 'building' WHERE state = 'attached'",
        {"generations": "warning"},
    ),
    "a definition of another version": Problem(
        """UPDATE recstore_private.recommenders SET definition = definition || '{{"moods": 1}}'""",
        {"schema": "error", "dispatch": "ok"},  # which is not asked then
        fix=False,
        undo="UPDATE recstore_private.recommenders SET definition = definition - 'moods'",
    ),
    "a slot that is not in use": Problem(
        "SELECT pg_create_physical_replication_slot('forgotten', true)", {"standbys": "note"}
    ),
    "a detach cut short": Problem(
        "CREATE TABLE retail._items_998 (LIKE retail._items); "
        "INSERT INTO recstore_private.generations (generation, recommender_id, vector_type, dimensions, state, barrier)"
        " OVERRIDING SYSTEM VALUE VALUES (998, 1, 'vector', 64, 'pruning', 'pruning');"
        " ALTER TABLE retail._items_998 OWNER TO worker;"
        " ALTER TABLE retail._items ATTACH PARTITION retail._items_998 FOR VALUES IN (998);"
        " UPDATE pg_inherits SET inhdetachpending = true WHERE inhrelid = 'retail._items_998'::regclass",
        {"generations": "warning"},
    ),
    "a table of no generation": Problem(
        "CREATE TABLE retail._items_999 (); ALTER TABLE retail._items_999 OWNER TO worker", {"generations": "note"}
    ),
    "an index is gone": Problem("DROP INDEX retail._items_1_popularity", {"indexes": "error"}),
    "an index is not valid": Problem(
        "CREATE INDEX torn ON retail._items_1 (users);"
        " UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'retail.torn'::regclass",
        {"indexes": "warning"},
    ),
    "a scratch recommender": Problem(
        "CREATE SCHEMA scratch_0123abcd_data AUTHORIZATION worker; COMMENT ON SCHEMA scratch_0123abcd_data IS"
        " 'Scratch data of recstore: safe to drop, along with the recommender of this name, when no recstore works with it.'",
        {"scratch": "note"},
    ),
    "a request that no worker takes": Problem(
        "INSERT INTO recstore_private.requests (recommender, job, origin, requested_at)"
        " VALUES ('retail', 'retrain', 'sql', now() - interval '1 hour')",
        {"requests": "warning", "dispatch": "warning"},
        fix=False,
        undo="DELETE FROM recstore_private.requests",
    ),
    "no dispatch": Problem(
        "INSERT INTO recstore_private.dispatches VALUES ('gone', now() - interval '1 day')",
        {"dispatch": "warning"},
        fix=False,
        undo="DELETE FROM recstore_private.dispatches",
    ),
    "visibility below the time limit": Problem(
        "",
        {"worker-settings": "warning", "broker": "error"},
        settings={"visibility_timeout": 100, "broker_url": "redis://127.0.0.1:1/0"},
        fix=False,
    ),
    "visibility of a broker that is not there": Problem("", {}, settings={"visibility_timeout": 100}),
    "broker down": Problem("", {"broker": "error"}, settings={"broker_url": "redis://127.0.0.1:1/0"}, fix=False),
}


@pytest.mark.parametrize("what", PROBLEMS)
def test_each_problem_is_found_and_its_remedy_fixes_it(
    what: str, good: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = PROBLEMS[what]

    def run(statements: str) -> None:
        for statement in filter(str.strip, statements.format(database=good.name).split(";")):
            as_superuser(good, statement)

    run(problem.plant)
    found = examined(good, **problem.settings)
    expected = USUAL | problem.found
    assert worse_than_ok(found) == {check: level for check, level in expected.items() if level != "ok"}
    settings = dict(problem.settings)
    for finding in found if problem.fix else ():
        if finding.level == "ok" or finding.check not in problem.found:
            continue
        assert finding.remedies, finding
        for remedy in finding.remedies:
            if remedy.startswith("recstore "):
                assert cli.run(["--database", good.url, *shlex.split(remedy)[1:]]) == 0, capsys.readouterr()
            elif remedy.startswith("RECSTORE_"):
                name, _, value = remedy.partition("=")
                settings[name.removeprefix("RECSTORE_").lower()] = value
            else:
                as_superuser(good, remedy)
    if problem.fix:
        assert worse_than_ok(examined(good, **settings)) == USUAL | problem.fixed
    run(problem.undo)
    assert all(finding.means for finding in found if finding.level != "ok")


def as_superuser(database: Database, statement: str) -> None:
    with superuser(database.server, database.name) as connection:
        connection.execute(statement)  # type: ignore[call-overload]


def test_a_good_database_has_nothing_worse_than_notes(good: Database) -> None:
    found = examined(good)
    assert worse_than_ok(found) == USUAL
    assert {finding.reader for finding in found} == {None, "shopper"}
    checked = {finding.check for finding in found}
    assert {check.name for check in CHECKS} - checked == {"gpu-room"}  # runs with a GPU only


def test_a_database_without_schema(empty: Database, recstore: Command) -> None:
    assert worse_than_ok(examined(empty)) == {"schema": "warning", "read-all-stats": "note"}
    answer = recstore("doctor", url=empty.url)
    assert answer.code == 6, answer
    assert "\n      recstore db upgrade\n" in answer.out
    found = recstore("doctor retail --json --nagios", url=empty.url).json
    assert (found["worst"], found["exit_code"]) == ("warning", 1)
    levels = [finding["level"] for finding in found["findings"]]
    assert levels == sorted(levels, key=LEVELS.index, reverse=True)
    for line in "db upgrade", "db downgrade base --yes":
        assert recstore(line, url=empty.url).code == 0
    assert worse_than_ok(examined(empty))["schema"] == "warning"  # as before


def test_a_database_without_pgvector(server: Server, recstore: Command) -> None:
    """Whether the role may install it is tried, and nothing of it stays."""
    with database_from(server, "template0") as bare:
        as_superuser(bare, f"REVOKE CREATE ON DATABASE {bare.name} FROM worker")
        found = worse_than_ok(examined(bare))
        assert (found["create-extension"], found["create-schemas"]) == ("error", "error")
        assert worse_than_ok(examined(bare, "postgres"))["create-extension"] == "note"
        assert look(bare, "SELECT FROM pg_extension WHERE extname = 'vector'") == []
        as_superuser(bare, "CREATE EXTENSION vector")
        recstore("db upgrade", url=bare.url).expect(1, f'GRANT CREATE ON DATABASE "{bare.name}" TO "worker";')


def test_no_connection_is_a_finding(good: Database, recstore: Command) -> None:
    gone = f"postgresql://worker@/no_such_database?host={good.server.sockets}"
    answer = recstore("doctor", url=gone).expect(
        3, "the database could not be reached: connection to server", "no_such_database"
    )
    assert {"connection", "gpu", "broker"} <= {
        finding["check"] for finding in recstore("doctor --json", url=gone).json["findings"]
    }
    assert answer.out.startswith("ERROR: connection: ")
    assert "\n3 checks: 1 error" in answer.out
    assert recstore("doctor --nagios", url=gone).code == 2
    nobody = recstore("doctor", url=good.url_of("nobody"))
    assert (nobody.code, """\n      CREATE ROLE "nobody" LOGIN PASSWORD '...';\n""" in nobody.out) == (3, True)
    assert recstore("doctor", url="mysql://localhost/x").code == 3


def test_a_standby_is_one_error(tmp_path: Path, recstore: Command) -> None:
    """A server that recovers and has no primary."""
    home = tmp_path / "home"
    try:
        first = embedded.start(home)
        Recstore(first.url).db.upgrade()
        embedded.stop(home)
        (first.data / "standby.signal").touch()
        standby = embedded.start(home).url
        found = doctor.examine(Settings(database_url=standby, device="cpu", home=tmp_path))
        for line in ("db upgrade", "db check"):
            recstore(line, url=standby).expect(3, "The server is a standby, and takes no changes.")
        with connect(standby) as connection, pytest.raises(errors.StandbyServer), plain_errors("trying", connection):
            connection.execute("CREATE TABLE made ()")
    finally:
        embedded.stop(home)
    assert {check: level for check, level in worse_than_ok(found).items() if level != "note"} == {
        "server-role": "error"
    }


def test_create_and_retrain_warn_of_what_the_quick_checks_find(spoiled: Database, recstore: Command) -> None:
    as_superuser(spoiled, "GRANT CREATE ON SCHEMA public TO PUBLIC")
    as_superuser(spoiled, "REVOKE SELECT ON shop.views FROM shopper")
    path = "writable-path: PUBLIC may create objects in the schema public, which is on this role's search path."
    path += " Remedy: REVOKE CREATE ON SCHEMA public FROM PUBLIC;"
    made = recstore("create other --table shop.views --item product_id --value view_count", url=spoiled.url)
    assert [line for line in made.err.splitlines() if line.startswith("Warning")] == [f"Warning: {path}"]
    assert recstore("drop other --yes", url=spoiled.url).code == 0
    assert recstore("retrain retail --force", url=spoiled.url).code == 0
    (run,) = look(spoiled, "SELECT r.warnings FROM recstore.runs r ORDER BY r.run DESC LIMIT 1")
    source = "reader-source of retail for shopper: the role shopper may not use shop.views, which the view interactions needs."
    assert run["warnings"] == [f"{source} Remedy: GRANT SELECT ON shop.views TO shopper;", path]


def test_a_role_that_may_nothing(good: Database) -> None:
    """It sees what the catalogs show to every role, and its own rights."""
    found = examined(good, "shopper")
    noted = ("schema", "owner", "create-schemas", "read-all-stats")
    assert worse_than_ok(found) == dict.fromkeys(noted, "note")
    assert {finding.level for finding in found if finding.check.startswith("reader-")} == {"ok"}


def test_readers_are_those_asked_for_or_those_with_grants(good: Database, recstore: Command) -> None:
    as_superuser(good, "GRANT USAGE ON SCHEMA retail TO application")  # nothing of people, so not asked of it
    found = {(f.reader, f.check): f for f in examined(good) if f.reader}
    assert found["shopper", "reader-source"].level == "ok"
    assert found["application", "reader-objects"].found.startswith("may not use: _basis_1, _fold_in_1, _generation")
    assert "user_vectors" not in found["application", "reader-objects"].found
    as_superuser(good, "REVOKE USAGE ON SCHEMA retail FROM application")
    recstore("doctor retail --reader application --reader shopper", url=good.url).expect(
        1,
        "ERROR: reader-objects of retail for application: may not use: _basis_1, _fallback, _fold_in_1,",
        "\n      recstore grant retail application --people\n",
    )
    assert recstore("doctor --reader nobody_here", url=good.url).code == 2
    assert recstore("doctor nothing", url=good.url).code == 2
    with pytest.raises(RecommenderNotFound):
        examined(good, name="nothing")


def test_who_holds_a_flip_is_named(spoiled: Database) -> None:
    spoiled.retrain()  # so that the next generation is attached
    reading = spoiled.connect("shopper")
    reading.execute("BEGIN")
    reading.execute("SELECT FROM retail.item_vectors LIMIT 1")
    barrier = "UPDATE recstore_private.generations SET barrier = {}, barrier_transactions = {} WHERE state = 'attached'"
    for stands in (("'cleared'", "'[]'"), ("'invalidated'", "'[\"99/99\"]'")):  # no flip waits for it
        as_superuser(spoiled, barrier.format(*stands))
        assert "flip-holders" not in worse_than_ok(examined(spoiled, "postgres", flip_wait=0))
    as_superuser(spoiled, barrier.format("'attached'", "NULL"))
    found = [f for f in examined(spoiled, "postgres", flip_wait=0) if f.level == "warning"]
    assert [f.check for f in found] == ["flip-holders"]
    assert f"process {reading.info.backend_pid} (test, role shopper), in a transaction since 20" in found[0].found
    unseen = {f.check: f for f in examined(spoiled, flip_wait=0) if f.level != "ok"}
    assert "not see" in unseen["flip-holders"].means  # as the worker, which has not pg_read_all_stats
    assert unseen["flip-holders"].level == "note"
    as_superuser(spoiled, found[0].remedies[0])
    assert "flip-holders" not in worse_than_ok(examined(spoiled, flip_wait=0))


def test_recstore_s_own_long_transactions_are_its_own_business(good: Database) -> None:
    with psycopg.connect(good.url, application_name="recstore:run:7") as reading:
        reading.execute("SELECT FROM shop.views LIMIT 1")
        assert worse_than_ok(examined(good, flip_wait=0)) == USUAL


def test_a_publication_keeps_its_options_and_gets_no_recommender_s_tables(spoiled: Database) -> None:
    spoiled.create("books")
    options = "publish = 'insert, delete', publish_via_partition_root = true"
    options += ", publish_generated_columns = stored" if VERSION >= 18 else ""
    as_superuser(spoiled, f"CREATE PUBLICATION everything FOR ALL TABLES WITH ({options})")
    kinds = "SELECT to_jsonb(p) - '{oid,puballtables}'::text[] AS options FROM pg_publication p"
    before = look(spoiled, kinds)
    (found,) = [finding for finding in examined(spoiled, name="retail") if finding.check == "publications"]
    for remedy in found.remedies:
        as_superuser(spoiled, remedy)
    assert look(spoiled, kinds) == before
    published = "SELECT DISTINCT t.schemaname::text AS name FROM pg_publication_tables t"
    assert {row["name"] for row in look(spoiled, published)} == {"shop"}


def test_a_lookup_that_fails_is_a_warning(good: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = inspection.Lookup(indexed=False, milliseconds=None, problem="division by zero")
    monkeypatch.setattr(inspection, "check_lookup", lambda *_: failed)
    found = examined(good)
    assert worse_than_ok(found) == USUAL | {"source-lookup": "warning"}


@pytest.mark.parametrize("namespace", [LOCK_NAMESPACE, LISTS_NAMESPACE])
def test_a_dead_session_that_holds_a_lock_is_named(namespace: int, good: Database) -> None:
    with psycopg.connect(good.url, application_name="somebody", autocommit=True) as dead:
        dead.execute("SELECT pg_advisory_lock(%s, 1)", [namespace])
        (found,) = until(lambda: [f for f in examined(good) if f.level == "warning"])
        assert found.check == "runs"
        assert f"the session {dead.info.backend_pid} of somebody holds" in found.found
        as_superuser(good, found.remedies[0])
    assert worse_than_ok(examined(good)) == USUAL


def test_a_check_that_fails_hangs_or_writes_is_a_finding(good: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def asking(statement: str) -> Callable[[Subject], Iterator[Finding]]:
        def look(subject: Subject) -> Iterator[Finding]:
            subject.connection.execute(statement)  # type: ignore[call-overload]
            yield ok("it could")

        return look

    def freezing(subject: Subject) -> Iterator[Finding]:
        """Freeze its server process, timeouts included."""
        frozen.append(subject.connection.info.backend_pid)
        os.kill(frozen[0], signal.SIGSTOP)
        subject.connection.execute("SELECT")
        yield ok("it could")

    frozen: list[int] = []
    statements = {
        "writes": "CREATE TABLE shop.doctor ()",
        "fails": "SELECT 1 / 0",
        "hangs": "SELECT pg_sleep(60)",
        "dies": "SELECT pg_terminate_backend(pg_backend_pid())",
    }
    extra = [Check(name, "server", "database", asking(text)) for name, text in statements.items()]
    extra.append(Check("freezes", "server", "database", freezing))
    monkeypatch.setattr(examination, "CHECKS", [*extra, *CHECKS])
    monkeypatch.setattr(examination, "STATEMENT", 0.5)
    monkeypatch.setattr(examination, "CUT_OFF", 1.5)
    try:
        found = examined(good)
    finally:
        for process in frozen:
            os.kill(process, signal.SIGCONT)
    ours = {check.name for check in extra}
    words = {f.check: f.found.removeprefix("this check could not run: ") for f in found if f.check in ours}
    assert "closed the connection" in words.pop("freezes")
    assert words == {
        "writes": "cannot execute CREATE TABLE in a read-only transaction",
        "fails": "division by zero",
        "hangs": "it took longer than 0.5 s, or waited for another session's lock",
        "dies": "terminating connection due to administrator command",
    }
    assert worse_than_ok([f for f in found if f.check not in ours]) == USUAL


def test_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    (check,) = [check for check in CHECKS if check.name == "gpu"]
    # with RECSTORE_DEVICE=cpu `well` says so
    for problem, expected in (None, ([], ["ok"], ["ok"])), ("there is none", ([], ["note"], ["error"])):
        monkeypatch.setattr(als, "gpu_problem", lambda problem=problem: problem)
        levels = [[f.level for f in check.look(Settings(device=device))] for device in ("cpu", "auto", "gpu")]
        assert levels == list(expected)


INDEXABLE = [
    ("SELECT customer AS user_id, item AS item_id, 1 AS value FROM shop.big", "big", "(customer)"),
    (
        "SELECT b.customer::text AS user_id, item AS item_id, count(*) AS value FROM shop.big b WHERE item > 0 GROUP BY 1, 2",
        "big",
        "(((customer)::text))",
    ),
    (
        'SELECT lower(v."E mail") AS user_id, item AS item_id, 1 AS value FROM shop.big_view v',
        "big",
        '((lower("E mail")))',
    ),
    ("SELECT mail::text AS user_id, item AS item_id, 1 AS value FROM shop.big", "big", "(mail)"),
    (
        'SELECT mail::text COLLATE "C" AS user_id, item AS item_id, 1 AS value FROM shop.big',
        "big",
        '(mail COLLATE "C")',
    ),
    (
        'SELECT lower(mail COLLATE "C") AS user_id, item AS item_id, 1 AS value FROM shop.big',
        "",
        "",
    ),
    ('SELECT "it.em""%"::text AS user_id, item AS item_id, 1 AS value FROM shop.big', "big", '("it.em""%")'),
    ("SELECT customer AS user_id, item AS item_id, 1 AS value FROM shop.parted", "parted", "(customer)"),
    ("SELECT customer AS user_id, item AS item_id, 1 AS value FROM shop.hashed", "hashed", "(customer)"),
    (
        "SELECT * FROM (SELECT customer AS user_id, item AS item_id, rank() OVER (ORDER BY item) AS value FROM shop.big) s",
        "",
        "",
    ),
]


def test_the_index_that_a_source_lacks(application: psycopg.Connection[dict[str, Any]]) -> None:
    application.execute(
        'CREATE TABLE shop.big AS SELECT n % 1000 AS customer, n % 97 AS item, n::text AS "E mail", n::varchar AS mail,'
        ' n::varchar AS "it.em""%"'
        " FROM generate_series(1, 20000) n"
    )
    application.execute("CREATE VIEW shop.big_view AS SELECT * FROM shop.big")
    application.execute("CREATE TABLE shop.parted (customer int, item int) PARTITION BY HASH (item)")
    application.execute("CREATE TABLE shop.part PARTITION OF shop.parted FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
    application.execute("CREATE TABLE shop.hashed (customer int, item int) PARTITION BY HASH (customer)")
    for n in range(2):
        application.execute(
            f"CREATE TABLE shop.hashed{n} PARTITION OF shop.hashed FOR VALUES WITH (MODULUS 2, REMAINDER {n})"
        )
    application.execute("INSERT INTO shop.parted SELECT customer, item FROM shop.big")
    application.execute("INSERT INTO shop.hashed SELECT customer, item FROM shop.big")
    for number, (query, table, columns) in enumerate(INDEXABLE):
        application.execute(f"CREATE SCHEMA source_{number}")  # type: ignore[call-overload]
        application.execute(f"CREATE VIEW source_{number}.interactions AS {query}")  # type: ignore[call-overload]
        application.execute("ANALYZE shop.big, shop.parted, shop.hashed")
        assert not inspection.check_lookup(application, f"source_{number}").indexed
        found = index_statement(application, f"source_{number}", "interactions", "user_id")
        concurrently = "CONCURRENTLY " if table == "big" else ""
        assert found == (f"CREATE INDEX {concurrently}ON shop.{table} {columns};" if table else None)
        if found:
            application.execute(found)  # type: ignore[call-overload]
            application.execute("ANALYZE shop.big, shop.parted, shop.hashed")
            assert inspection.check_lookup(application, f"source_{number}").indexed


@pytest.mark.parametrize(
    ("condition", "alias", "expression"),
    [
        ("(v.user_id = $1)", "v", "user_id"),
        ("((v.b > 1) AND ((v.a)::text = $1))", "v", "(a)::text"),
        ('("V w".a = $1)', "V w", "a"),
        ("(lower((v.a || ' = $1)'::text)) = $1)", "v", "lower((a || ' = $1)'::text))"),
        ("(v.a > $1)", "v", None),
        ("", "v", None),
    ],
)
def test_what_a_filter_compares(condition: str, alias: str, expression: str | None) -> None:
    assert compared(condition, alias) == expression


@pytest.mark.parametrize(
    ("url", "seconds"),
    [
        ("postgresql://h/x", 60),
        ("postgresql://h/x?keepalives=0", None),
        ("postgresql://h/x?keepalives_idle=600", 630),
        ("postgresql://h/x?keepalives_idle=0&keepalives_count=0", 7200 + 90),
    ],
)
def test_when_a_dead_connection_is_noticed(url: str, seconds: int | None) -> None:
    assert noticed_after(url) == seconds


@pytest.mark.parametrize(
    ("observed", "kind"),
    [
        (Observed(7, (7, 7), (8, 8)), "none"),
        (Observed(-99, (7, 7), (8, 8)), "session"),
        (Observed(-99, (7, 7), (7, 8)), "transaction"),
        (Observed(-99, (7, 8), (9, 9)), "transaction"),
        (Observed(-99, (), (), transactions=False), "transaction"),
    ],
)
def test_kinds_of_poolers(observed: Observed, kind: str) -> None:
    assert kind_of(observed) == kind


@pytest.mark.parametrize("mode", ["transaction", "session", "statement"])
def test_pgbouncer_is_recognized(mode: str, good: Database, tmp_path: Path) -> None:
    """Debian's package pgbouncer, in front of the test server."""
    unused_port = free_port()
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        lacking("pgbouncer", "that doctor recognizes one")
    (tmp_path / "ini").write_text(
        f"[databases]\n{good.name} = host={good.server.sockets} user=worker\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {unused_port}\nauth_type = any\npool_mode = {mode}\nunix_socket_dir =\n"
    )
    # it refuses to run as root
    as_somebody = ["unshare", "--user", "--map-user=65534"] if os.geteuid() == 0 else []
    command = ["setpriv", "--pdeathsig", "TERM", *as_somebody, program, str(tmp_path / "ini")]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stderr=log) as bouncer:
        try:
            url = f"postgresql://worker@127.0.0.1:{unused_port}/{good.name}"
            until(lambda: "process up" in (tmp_path / "log").read_text())
            found = doctor.examine(settings_of(good).model_copy(update={"database_url": url}))
            code = cli.run(["--database", url, "similar-all", "retail", "--into", str(tmp_path / "similar.csv")])
            if mode == "transaction":  # the next client of a pooled session finds it as it was
                cli.run(["--database", url, "health"])
                with psycopg.connect(url, prepare_threshold=None) as application:
                    own = "SELECT name FROM pg_settings WHERE source = 'session' AND name <> 'application_name'"
                    assert application.execute(own).fetchall() == []
        finally:
            bouncer.terminate()
    expected = {
        "transaction": USUAL | {"pooler": "error"},
        "session": USUAL | {"pooler": "note"},
        "statement": {"connection": "error"},
    }
    assert worse_than_ok(found) == expected[mode]
    assert code == (0 if mode == "session" else 3)  # no lock is left behind
    assert not look(good, "SELECT FROM pg_locks WHERE locktype = 'advisory'")
    if mode == "statement":
        assert "statement pooling" in found[0].found


def test_the_page_has_every_check() -> None:
    page = (Path(__file__).parents[2] / "docs/doctor.md").read_text()
    for check in CHECKS:
        assert f"`{check.name}`" in page, f"missing in docs/doctor.md: {check.name}"
    names = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert names == {check.name for check in CHECKS}
    quick = page.partition("The quick checks are")[2].partition(". A worker")[0].split(".\n")[0]
    assert set(quick.split("`")[1::2]) == {check.name for check in CHECKS if check.quick}
