"""`--dry-run`: it prints the SQL, that SQL does the job, and until then nothing is changed and no session waits."""

import re
from typing import Any

import pytest
from conftest import Command, Database, copy_of, superuser
from support import Generations, look, states

from recstore import registry
from recstore.operations.dry_run import Recorder
from recstore.runs import take_lock

CREATE = "create retail --table shop.views --item product_id --value view_count --factors 16 --search exact"

OBJECTS = """
SELECT 'relation ' || c.oid::regclass || ' ' || c.relkind::text || ' ' || coalesce(c.relacl::text, '') || ' '
    || coalesce(pg_get_viewdef(CASE WHEN c.relkind = 'v' THEN c.oid END), '') || ' '
    || coalesce((SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attstorage), ', ' ORDER BY
        a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '') AS object
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_(toast|catalog)|information_schema'
UNION ALL
SELECT 'schema ' || n.nspname || ' ' || coalesce(n.nspacl::text, '') FROM pg_namespace n WHERE n.nspname !~ '^pg_t'
UNION ALL
SELECT 'function ' || p.oid::regprocedure || ' ' || coalesce(p.proacl::text, '') || ' ' || p.prosrc
FROM pg_proc p WHERE p.pronamespace::regnamespace::text !~ 'pg_catalog|information_schema'
UNION ALL
SELECT 'inherits ' || i.inhrelid::regclass || ' ' || i.inhparent::regclass FROM pg_inherits i
UNION ALL
SELECT 'sequence ' || s.schemaname || '.' || s.sequencename || ' ' || coalesce(s.last_value, 0) FROM pg_sequences s
ORDER BY 1
"""


def digest(database: Database) -> list[str]:
    """Everything of the database that a change could change: objects, grants, sequences, and recstore's own rows."""
    tables = "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = to_regnamespace('recstore_private') AND relkind = 'r'"
    with superuser(database.server, database.name) as connection:
        found = [str(row[0]) for row in connection.execute(OBJECTS)]
        for (table,) in connection.execute(tables).fetchall():
            found += [f"{table}: {row[0]}" for row in connection.execute(f"SELECT t::text FROM {table} t ORDER BY 1")]
    return found


def effect(database: Database) -> list[str]:
    """`digest` without moments, random keys, and what runs write about themselves."""
    varying = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[.\d]*\+\d\d|[0-9a-f]{8}-[0-9a-f-]{27}|\"\"milliseconds\"\": [\d.]+"
    varying += r"|(?<=pointers: \(1,\d,)\d+|(?<=\[\],)\d+"  # the fence of a run, the number of a transaction
    own = ("recstore_private.runs: ", "sequence recstore_private.runs_")
    return [re.sub(varying, "..", line) for line in digest(database) if not line.startswith(own)]


twin = copy_of("shop_template")
"""Another such shop."""


def rehearse(recstore: Command, database: Database, line: str) -> list[str]:
    """The statements of a dry run, which leaves everything as it was."""
    before = digest(database)
    answer = recstore(f"{line} --dry-run --json", url=database.url).expect(0)
    assert digest(database) == before
    assert set(answer.json) == {"statements"}
    statements: list[str] = answer.json["statements"]
    return statements


def execute(database: Database, statements: list[str]) -> None:
    """As psql would: each as it is, without parameters."""
    connection = database.connect()
    for statement in statements:
        connection.execute(statement)  # type: ignore[call-overload]


def test_what_is_printed_does_what_the_command_does(recstore: Command, shop: Database, twin: Database) -> None:
    def same(line: str) -> str:
        """Executes on the one what a dry run prints, on the other the command; both have the same effect."""
        statements = rehearse(recstore, twin, line)
        execute(twin, statements)
        assert recstore(line + " --yes" * line.startswith("drop")).code == 0
        assert effect(twin) == effect(shop), line
        return "\n".join(statements)

    same(CREATE + " --keep 3")
    assert "SELECT v.view_count" not in same("alter retail --alpha 3 --value none")
    for line in ("grant retail application --people", "db grant application", "db revoke application"):
        same(line)
    for database in (twin, shop):
        database.connect("application").execute(
            "CREATE TABLE shop.heap AS SELECT generate_series(1, 20000) AS product_id;"
            " GRANT SELECT ON shop.products, shop.heap TO worker"
        )
        made = Generations(database)
        for _ in range(3):
            made.publish()
    assert "pointers" in same("rollback retail")
    same("rollback retail --to 3")
    of = "--candidates-column product_id --candidates-table"
    chosen = same(f"alter retail {of} shop.products --candidates-condition visible")
    assert ".candidates" in chosen
    assert "recommend_ef = NULL" not in chosen
    assert "recommend_ef = NULL" in same(f"alter retail {of} shop.heap --candidates-condition none")
    same("alter retail --keep 2")
    resized = same("alter retail --factors 1000 --resize")
    assert "\nDROP TABLE IF EXISTS" in resized  # of what is old
    assert "\nDROP VIEW" in resized  # another type: not replaced in place
    same("prune retail --keep 1 --yes")
    same("drop retail --cascade")


def test_a_migration_is_printed_up_and_down(recstore: Command, empty: Database) -> None:
    for line in ("db upgrade", "db downgrade 0003", "db upgrade", "db downgrade base"):
        before = digest(empty)
        answer = recstore(f"{line} --dry-run", url=empty.url)
        assert (answer.code, digest(empty)) == (0, before)
        execute(empty, [answer.out])
        assert recstore("db check", url=empty.url).code == (0 if line == "db upgrade" else 1)
    assert recstore("db upgrade", url=empty.url).code == 0
    assert recstore("db downgrade 0815 --dry-run", url=empty.url).code != 0
    assert recstore("db upgrade --dry-run", url=empty.url).out == "-- nothing to do\n"


def test_a_dry_run_blocks_no_session_and_reports_obstacles(
    recstore: Command, shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    recstore(CREATE)
    made = Generations(shop)
    for _ in range(3):
        made.publish()
    strong = (
        "SELECT l.relation::regclass::text AS name, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
        " JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_stat_activity a ON a.pid = l.pid"
        " WHERE n.nspname IN ('retail', 'shop') AND l.mode <> 'AccessShareLock' AND a.backend_type = 'client backend'"
    )
    execute, seen = Recorder.execute, []

    def executed(self: Recorder, *arguments: Any) -> Any:
        cursor = execute(self, *arguments)
        seen.append(look(shop, strong))
        return cursor

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "execute", executed)
        for line in ("drop retail", "rollback retail --to 2", "prune retail --keep 1 --yes"):
            assert recstore(line + " --dry-run").out.startswith("BEGIN;")
    assert len(seen) > 12
    assert not any(seen)
    reader = shop.connect("application")
    reader.execute("BEGIN; SELECT * FROM shop.views LIMIT 1")
    assert re.search(
        r"-- generation \d stays until process \d+ .*has ended", recstore("prune retail --keep 1 --yes --dry-run").out
    )
    monkeypatch.setenv("RECSTORE_RETENTION", "3600")
    assert "s more (RECSTORE_RETENTION)" in recstore("prune retail --keep 1 --yes --dry-run").out
    with shop.connect() as other:
        take_lock(other, registry.get(other, "retail"))
        assert recstore("drop retail --dry-run").out.startswith("-- refused for now: another run of 'retail'")
    wrong = "drop nix", "rollback retail --to 99", "publish retail", "alter retail --factors 1000", "grant retail nix"
    for line in wrong:
        assert recstore(line + " --dry-run").code in (1, 2)


def test_a_dry_run_names_who_holds_a_lock_at_once(
    recstore: Command, shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    recstore(CREATE)
    monkeypatch.setenv("RECSTORE_LOCK_TIMEOUT", "0.01")
    with shop.connect() as other:
        other.execute("BEGIN; SELECT FROM recstore_private.recommenders FOR UPDATE")
        assert "in 1 attempts" in recstore("alter retail --alpha 3 --dry-run").err
    reader = shop.connect()
    reader.execute("BEGIN; SELECT FROM retail.interactions LIMIT 1")
    refused = recstore("alter retail --value none --dry-run")
    assert refused.code == 1
    assert str(reader.info.backend_pid) in refused.err


def test_what_waits_to_go_live_is_said(recstore: Command, shop: Database) -> None:
    recstore(CREATE)
    made = Generations(shop)
    reader = shop.connect("worker")
    reader.execute("BEGIN; SELECT count(*) FROM retail.item_vectors")
    made.publish()
    made.publish(shop.settings.model_copy(update={"flip_wait": 0}))
    assert states(shop)[2] == "ready"
    waits = rehearse(recstore, shop, "publish retail")
    assert len(waits) == 1
    assert waits[0].startswith("-- generation 2 waits for process")
    now = rehearse(recstore, shop, "publish retail --now")
    assert now[0] == waits[0]
    assert any("pointers" in statement for statement in now)
    reader.execute("ROLLBACK")
    recstore("alter retail --keep 1")
    execute(shop, rehearse(recstore, shop, "publish retail"))
    assert {number: state for number, state in states(shop).items() if state != "pruned"} == {2: "live", 3: "next"}
    assert look(shop, "SELECT FROM pg_class WHERE relname = '_items_1'") == []
    assert len(shop.connect().execute("SELECT * FROM retail.recommend(1, 10)").fetchall()) == 10
