"""Every list at once is what the functions return one by one; a table is replaced whole, a file is there whole, or not at all."""

import csv
import fcntl
import gc
import gzip
import io
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from conftest import Command, Database, copy_of, make_database, make_template, superuser
from pyarrow import parquet
from support import Hook, look, until
from support_sql import Rows, repeating, rows, value

from recstore import errors, lists, pipeline, registry
from recstore.atomic import replacing
from recstore.background import dispatch
from recstore.definition import Candidates, Exclusions, Lists, Refresh, Source, Storage
from recstore.embedded import Server
from recstore.lists import output
from recstore.operations import jobs

TOLERANCE = 2e-5
K = 7
MADE = "SELECT * FROM made.recommendations"


@pytest.fixture(scope="module")
def template(server: Server, trained_template: str) -> str:
    """The small shop, trained, with a schema for tables of lists; and what is rare in it. User 1 has seen nearly everything,
    user 9 nothing any more; user 5 and item 7 have no vector, item 4 has that of item 3."""
    database = make_database(server, trained_template)
    mixed = Source(
        query="SELECT 'ñ' || v.user_id AS user_id, md5(v.product_id::text)::uuid AS item_id, v.view_count AS value"
        " FROM shop.views v",
        seen="published",
    )
    database.create("mixed", source=mixed, storage=Storage(vector_type="halfvec"))
    database.retrain("mixed")
    with database.connect("application") as application:
        application.execute("CREATE SCHEMA made")
        application.execute("GRANT ALL ON SCHEMA made TO worker")
        application.execute(
            "INSERT INTO shop.views SELECT 1, p.product_id, 1 FROM shop.products p WHERE p.product_id < 115"
            " ON CONFLICT DO NOTHING"
        )
        application.execute("DELETE FROM shop.views WHERE user_id IN (5, 9)")
        application.execute("INSERT INTO shop.views VALUES (888, 1, 2), (888, 3, 1), (999, 777, 1)")
    with database.connect() as worker:
        worker.execute("UPDATE retail._users_1 SET preference = NULL WHERE user_id = 5")
        worker.execute("UPDATE retail._items_1 SET embedding = NULL, preference = NULL WHERE item_id = 7")
        worker.execute(
            "UPDATE retail._items_1 i SET (embedding, preference) = (t.embedding, t.preference) FROM retail._items_1 t"
            " WHERE t.item_id = 3 AND i.item_id = 4"
        )
    return make_template(database, "template_lists")


trained = copy_of("template")


def recommend(database: Database, into: str = "made.recommendations", name: str = "retail", **more: Any) -> lists.Made:
    return lists.recommend_all(database.url, database.settings, name, into, **({"k": K} | more))


def similar(database: Database, into: str = "made.similar", name: str = "retail", **more: Any) -> lists.Made:
    return lists.similar_all(database.url, database.settings, name, into, **({"k": K} | more))


def assert_same(made: Rows, asked: Rows, owner: str, item: str) -> None:
    """The same lists; two items may change places where their scores differ in the last digits of single precision."""
    found, expected = by_owner(made, owner), by_owner(asked, owner)
    assert found.keys() == expected.keys()
    largest = max(abs(row["score"]) for row in asked)
    for key, right in expected.items():
        given = found[key]
        assert [row["rank"] for row in given] == list(range(1, len(right) + 1))
        assert [row["score"] for row in given] == pytest.approx(
            [row["score"] for row in right], abs=TOLERANCE * largest
        )
        assert [row.get("reason") for row in given] == [row.get("reason") for row in right]
        scores = {row[item]: row["score"] for row in right}
        for mine, theirs in zip(given, right, strict=True):
            near = scores.get(mine[item], right[-1]["score"])
            assert mine[item] == theirs[item] or abs(near - theirs["score"]) < 2 * TOLERANCE * largest


def by_owner(found: Rows, owner: str) -> dict[Any, Rows]:
    result: dict[Any, Rows] = {}
    for row in sorted(found, key=lambda row: (str(row[owner]), row["rank"])):
        result.setdefault(row[owner], []).append(row)
    return result


def recommended(database: Database, users: str, name: str = "retail", k: int = K) -> Rows:
    return rows(
        database.connect(),
        f"SELECT u.user_id, r.* FROM ({users}) u (user_id), {name}.recommend(u.user_id, {k})"
        " WITH ORDINALITY r (item_id, score, reason, rank)",
    )


def alike(database: Database, name: str = "retail", min_users: int = 3) -> Rows:
    return rows(
        database.connect(),
        f"SELECT i.item_id, r.* FROM {name}.item_vectors i, {name}.similar_items(i.item_id, {K}, {min_users})"
        " WITH ORDINALITY r (similar_item_id, score, rank)",
    )


EVERYONE = "SELECT user_id FROM {}.user_vectors"


@pytest.mark.contract
@pytest.mark.parametrize(
    ("candidates", "fresh"),
    [(None, False), ("SELECT product_id AS item_id FROM shop.products WHERE product_id % 3 > 0", True)],
)
def test_the_lists_are_those_of_the_functions(trained: Database, candidates: str | None, fresh: bool) -> None:
    if candidates:
        hidden = Exclusions(
            query="SELECT u AS user_id, (u + n * 7) % 120 + 1 AS item_id FROM generate_series(2, 300) u,"
            " generate_series(1, 9) n UNION ALL SELECT 3, NULL UNION ALL SELECT 3, 5000000000"
        )
        trained.alter(candidates=Candidates(query=candidates), exclusions=hidden)
    trained.alter(refresh=Refresh(fresh=fresh))
    made = recommend(trained)
    found = rows(trained.connect(), MADE)
    assert_same(found, recommended(trained, EVERYONE.format("retail") + " UNION SELECT 888"), "user_id", "item_id")
    lists_of = by_owner(found, "user_id")
    assert (made.lists, made.rows, made.generation) == (len(lists_of), len(found), 1)
    assert {row["generation"] for row in found} == {1}
    assert {row["reason"] for row in lists_of[5]} == {"popular"}
    assert {row["reason"] for row in lists_of[888]} == {"fold_in"}
    assert {row["reason"] for row in lists_of[1]} == {"fold_in" if fresh else "trained"}
    assert len(lists_of[1]) == (6 if candidates is None else 4)
    assert len(lists_of[9]) == K

    assert similar(trained).lists == 119
    for min_users in (3, 30):
        similar(trained, min_users=min_users)
        found = rows(trained.connect(), "SELECT * FROM made.similar")
        assert_same(found, alike(trained, min_users=min_users), "item_id", "similar_item_id")


@pytest.mark.contract
def test_users_that_a_query_names_known_or_not(trained: Database) -> None:
    users = "SELECT n FROM (VALUES (1), (5), (9), (9), (240), (777777), (NULL)) v (n)"
    made = recommend(trained, users=f"{users};")
    found = rows(trained.connect(), MADE)
    assert made.lists == 5
    assert_same(
        found, recommended(trained, f"SELECT DISTINCT n FROM ({users}) v WHERE n IS NOT NULL"), "user_id", "item_id"
    )
    assert {row["reason"] for row in found if row["user_id"] == 777777} == {"popular"}
    for query, complaint in (
        ("SELECT 1; DROP TABLE shop.products", "multiple commands"),
        ("DELETE FROM shop.views RETURNING user_id", "--users cannot be read"),
        ("SELECT true", "cannot cast type boolean to bigint"),
        ("SELECT id FROM shop.nothing", 'relation "shop.nothing" does not exist'),
    ):
        with pytest.raises(errors.InvalidInput, match=complaint):
            recommend(trained, users=query)
    with pytest.raises(errors.RecstoreError, match=r"SELECT of --users failed: bigint out of range\. Try"):
        recommend(trained, users="SELECT user_id * 1e30 FROM shop.views")
    trained.connect("application").execute("REVOKE SELECT ON shop.views FROM worker")
    with pytest.raises(
        errors.PermissionDenied, match=r"The role worker is not allowed to do this: .* table views\. Ask the owner"
    ):
        recommend(trained)
    assert rows(trained.connect(), MADE) == found


def test_text_and_uuid_ids_half_precision_and_published_seen_items(trained: Database, tmp_path: Path) -> None:
    recommend(trained, name="mixed", into="made.mixed")
    asked = recommended(trained, EVERYONE.format("mixed"), "mixed")
    assert_same(rows(trained.connect(), "SELECT * FROM made.mixed"), asked, "user_id", "item_id")
    similar(trained, name="mixed", into=str(tmp_path / "similar.parquet"))
    found = [row | {"reason": None} for row in parquet.read_table(tmp_path / "similar.parquet").to_pylist()]
    asked = [
        row | {"item_id": str(row["item_id"]), "similar_item_id": str(row["similar_item_id"])}
        for row in alike(trained, "mixed")
    ]
    assert_same(found, asked, "item_id", "similar_item_id")


def test_files_hold_what_the_table_holds(trained: Database, tmp_path: Path) -> None:
    recommend(trained)
    table = rows(trained.connect(), f"{MADE} ORDER BY user_id, rank")
    for name in ("lists.csv", "lists.csv.gz", "lists.parquet"):
        assert recommend(trained, into=str(tmp_path / name)).rows == len(table)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lists.csv", "lists.csv.gz", "lists.parquet"]
    key = lambda row: (row["user_id"], row["rank"])  # noqa: E731
    assert sorted(parquet.read_table(tmp_path / "lists.parquet").to_pylist(), key=key) == table
    plain = (tmp_path / "lists.csv").read_text()
    assert gzip.decompress((tmp_path / "lists.csv.gz").read_bytes()).decode() == plain
    kinds: dict[str, Callable[[str], Any]] = {"score": float, "reason": str}
    read = [
        {name: kinds.get(name, int)(text) for name, text in row.items()} for row in csv.DictReader(io.StringIO(plain))
    ]
    assert sorted(read, key=key) == table


def test_a_reader_sees_the_old_lists_or_the_new_ones_whole(trained: Database) -> None:
    recommend(trained)
    whole = value(trained.connect(), "SELECT count(*) FROM made.recommendations")
    trained.connect().execute("GRANT SELECT ON made.recommendations TO application")
    application = trained.connect("application")
    application.execute("GRANT USAGE ON SCHEMA made TO worker")
    count, seen = "SELECT count(*) FROM made.recommendations", list[int]()
    with (
        repeating(lambda: seen.append(value(application, count))),
        trained.connect() as old,
        old.transaction(),
    ):
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT FROM shop.products")  # its snapshot is of before
        for _ in range(3):
            recommend(trained)
        assert value(old, count) == whole
    assert len(seen) > 3
    assert set(seen) == {whole}


def test_grants_indexes_and_the_name_of_the_generation_go_over(trained: Database) -> None:
    recommend(trained)
    connection = trained.connect()
    connection.execute("GRANT SELECT ON made.recommendations TO application")
    connection.execute("GRANT INSERT (score) ON made.recommendations TO application WITH GRANT OPTION")
    connection.execute(
        'CREATE INDEX "by Item USING it" ON made.recommendations USING btree (item_id, score DESC) WHERE rank = 1'
    )
    connection.execute("COMMENT ON COLUMN made.recommendations.score IS 'It''s the best'")
    key = "SELECT conname FROM pg_constraint WHERE conrelid = 'made.recommendations'::regclass AND contype = 'p'"
    connection.execute(f'ALTER TABLE made.recommendations RENAME CONSTRAINT {value(connection, key)} TO "my pkey"')
    described = (
        "SELECT c.relacl::text, (SELECT string_agg(a.attacl::text, '') FROM pg_attribute a WHERE a.attrelid = c.oid) AS columns,"
        " ARRAY(SELECT x.indexdef FROM pg_indexes x WHERE x.tablename = c.relname AND x.indexname NOT LIKE '%%pkey' ORDER BY 1)"
        " AS indexes, obj_description(c.oid) AS comment,"
        " col_description(c.oid, 4) AS score FROM pg_class c WHERE c.oid = 'made.recommendations'::regclass"
    )
    before = rows(connection, described)
    assert len(before[0]["indexes"]) == 1
    trained.retrain()
    recommend(trained)
    comment = before[0]["comment"].replace("generation 1,", "generation 2,")
    assert "Made by recstore: recommend-all of retail, generation 2, k 7." in comment
    assert rows(connection, described) == [before[0] | {"comment": comment}]
    key = "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'made.recommendations'::regclass AND indisprimary"
    assert value(connection, key).endswith('"my pkey" ON made.recommendations USING btree (user_id, rank)')
    assert before[0]["score"] == "It's the best"
    assert {row["generation"] for row in rows(connection, MADE)} == {2}


def test_what_is_refused_before_any_work(trained: Database, tmp_path: Path) -> None:
    connection, application = trained.connect(), trained.connect("application")
    connection.execute("CREATE TABLE made.mine (n int)")
    connection.execute("CREATE VIEW made.seen AS SELECT 1 AS n")
    application.execute("CREATE SCHEMA closed")
    recommend(trained)
    similar(trained)
    there = look(trained, "SELECT oid::text FROM pg_class ORDER BY 1"), list(tmp_path.iterdir())

    def refused(into: str, error: type[errors.RecstoreError], words: str, **more: Any) -> None:
        with pytest.raises(error, match=words):
            recommend(trained, into=into, **more)

    refused("made.mine", errors.ListTableRefused, "that is not recommend-all of 'retail'")
    refused("made.seen", errors.ListTableRefused, "that is not recommend-all")
    refused("made.similar", errors.ListTableRefused, "that is not recommend-all")
    refused("made.recommendations", errors.ListTableRefused, "not recommend-all of 'mixed'", name="mixed")
    refused("closed.lists", errors.PermissionDenied, 'GRANT USAGE, CREATE ON SCHEMA "closed" TO "worker"')
    refused("made.re commend", errors.InvalidInput, "neither a table nor a file")
    assert (look(trained, "SELECT oid::text FROM pg_class ORDER BY 1"), list(tmp_path.iterdir())) == there
    assert rows(connection, "SELECT state FROM recstore.runs WHERE job = 'lists' AND state = 'running'") == []

    for makes, drops, words in (
        ("CREATE VIEW made.best AS SELECT * FROM made.recommendations", "DROP VIEW made.best", "view made.best"),
        ("CREATE POLICY p ON made.recommendations", "DROP POLICY p ON made.recommendations", "policy p"),
        ("CREATE FUNCTION made.f() RETURNS made.recommendations[] LANGUAGE sql AS 'SELECT NULL::made.recommendations[]'",
         "DROP FUNCTION made.f", "function made.f"),
        ("ALTER TABLE made.recommendations ADD CONSTRAINT c CHECK (rank < 99)",
         "ALTER TABLE made.recommendations DROP CONSTRAINT c", "constraint c"),
    ):  # fmt: skip
        connection.execute(makes)
        refused("made.recommendations", errors.ListTableRefused, f"dropping it would also drop .*{words}")
        connection.execute(drops)
    for makes, undoes, words in (
        ("ADD COLUMN note text", "DROP COLUMN note", 'the column "note" text'),
        ("RENAME COLUMN reason TO why", "RENAME COLUMN why TO reason", 'the column "why" text, no column "reason"'),
        ("ALTER score TYPE real", "ALTER score TYPE double precision", 'the column "score" real'),
        ('ALTER reason TYPE text COLLATE "C"', "ALTER reason TYPE text", 'the column "reason" text COLLATE "C"'),
        ("SET UNLOGGED", "SET LOGGED", "the option UNLOGGED"),
        ("SET (fillfactor = 70)", "RESET (fillfactor)", "the option fillfactor=70"),
        ("REPLICA IDENTITY FULL", "REPLICA IDENTITY DEFAULT", "a REPLICA IDENTITY of its own"),
    ):
        connection.execute(f"ALTER TABLE made.recommendations {makes}")
        refused("made.recommendations", errors.ListTableRefused, words)
        connection.execute(f"ALTER TABLE made.recommendations {undoes}")
    connection.execute("CREATE TYPE made.taken AS ENUM ('a')")
    refused("made.taken", errors.ListTableRefused, "something of that name exists")
    connection.execute("ALTER TABLE made.recommendations ENABLE ROW LEVEL SECURITY")
    refused("made.recommendations", errors.ListTableRefused, "has row-level security, .*DISABLE ROW LEVEL SECURITY")
    connection.execute(
        "ALTER TABLE made.recommendations DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY"
    )  # as it says
    with superuser(trained.server, trained.name) as other:
        other.execute("ALTER TABLE made.recommendations OWNER TO pg_monitor")
        other.execute("GRANT pg_monitor TO worker")
        refused("made.recommendations", errors.ListTableRefused, "its owner is 'pg_monitor'")
        other.execute("REVOKE pg_monitor FROM worker")
        other.execute("ALTER TABLE made.recommendations OWNER TO worker")
        for published in ("TABLES IN SCHEMA shop, TABLES IN SCHEMA made", "ALL TABLES"):
            other.execute(f"CREATE PUBLICATION everywhere FOR {published}")
            refused("made.recommendations", errors.ListTableRefused, 'publication "everywhere" replicates new tables')
            refused("made.new", errors.ListTableRefused, "in a schema that is not published, or a file")
            other.execute("DROP PUBLICATION everywhere")
        other.execute("CREATE PUBLICATION elsewhere FOR TABLES IN SCHEMA shop")
    recommend(trained)


def test_a_right_that_was_revoked_does_not_come_back_by_default(trained: Database) -> None:
    connection = trained.connect()
    connection.execute("ALTER DEFAULT PRIVILEGES IN SCHEMA made GRANT SELECT, INSERT ON TABLES TO PUBLIC")
    recommend(trained)
    rights = "SELECT relacl::text FROM pg_class WHERE oid = 'made.recommendations'::regclass"
    assert "=ar/worker" in value(connection, rights)
    connection.execute("REVOKE ALL ON made.recommendations FROM PUBLIC")
    connection.execute("GRANT SELECT ON made.recommendations TO application")
    before = value(connection, rights)
    recommend(trained)
    assert value(connection, rights) == before


def test_indexes_that_come_and_go_while_lists_are_made(trained: Database) -> None:
    recommend(trained)
    connection = trained.connect()
    for name, how in (("a_lost", "(score)"), ("b_kept", "(item_id)"), ("c_lost", "(reason)")):
        connection.execute(f"CREATE INDEX {name} ON made.recommendations {how}")

    def meanwhile(stage: str) -> None:
        if stage == "recommend-all":
            connection.execute("DROP INDEX made.a_lost, made.c_lost")
            connection.execute("ALTER INDEX made.b_kept RENAME TO z_kept")
            connection.execute("CREATE UNIQUE INDEX made ON made.recommendations (item_id, user_id)")

    recommend(trained, reporter=Hook(on_stage=meanwhile))
    indexes = (
        "SELECT indexdef FROM pg_indexes WHERE tablename = 'recommendations' AND indexname NOT LIKE '%%pkey' ORDER BY 1"
    )
    assert [row["indexdef"] for row in rows(connection, indexes)] == [
        "CREATE INDEX z_kept ON made.recommendations USING btree (item_id)",
        "CREATE UNIQUE INDEX made ON made.recommendations USING btree (item_id, user_id)",
    ]


def test_the_second_lists_are_of_the_recommender_as_it_is_by_then(trained: Database) -> None:
    trained.alter(lists=Lists(recommend_into="made.recommendations", similar_into="made.similar", k=K))

    def meanwhile(stage: str) -> None:
        if stage == "swap" and not changed:
            changed.append(trained.alter(candidates=Candidates(query="SELECT 3 AS item_id")))

    changed: list[None] = []
    lists.write_defined(trained.url, trained.settings, "retail", reporter=Hook(on_stage=meanwhile))
    assert rows(trained.connect(), "SELECT DISTINCT similar_item_id AS item FROM made.similar") == [{"item": 3}]


def test_candidates_that_are_empty_for_a_moment_empty_no_list(trained: Database) -> None:
    connection = trained.connect()
    trained.connect("application").execute(
        "CREATE TABLE shop.stock AS SELECT 3 AS item_id; GRANT SELECT ON shop.stock TO worker"
    )
    trained.alter(candidates=Candidates(query="SELECT item_id FROM shop.stock"))
    recommend(trained)
    before = rows(connection, "SELECT * FROM made.recommendations ORDER BY 1, 2")
    trained.connect("application").execute("DELETE FROM shop.stock")
    with pytest.raises(errors.NoCandidates):
        recommend(trained)
    assert rows(connection, "SELECT * FROM made.recommendations ORDER BY 1, 2") == before != []


@pytest.mark.parametrize("name", ["lists.csv.gz", "lists.parquet"])
def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path, name: str) -> None:
    file, schema = tmp_path / name, pa.schema({"n": pa.int64()})
    for mode in (None, 0o600, 0o664):
        if mode is not None:
            file.chmod(mode)
        with output.writing(file, schema) as write:
            write(pa.record_batch([pa.array([1])], schema=schema))
            (partial,) = set(tmp_path.iterdir()) - {file}
            assert mode is None or partial.stat().st_mode & 0o777 == mode
        assert mode is None or file.stat().st_mode & 0o777 == mode


def test_what_a_killed_process_left_goes_and_a_link_stays(tmp_path: Path) -> None:
    target, link = tmp_path / "lists.csv", tmp_path / "link.csv"
    link.symlink_to(target.name)
    others = [tmp_path / name for name in (".lists.csv.2.part", ".lists.csv.mine.part", ".other.csv.1.part")]
    for path in (tmp_path / ".lists.csv.1.part", *others):
        path.touch()
    with others[0].open() as at_work:
        fcntl.flock(at_work, fcntl.LOCK_EX)
        for path in (link, target):  # which is not there, and is
            with replacing(path, errors.ListsNotWritten) as partial:
                partial.write_text(path.name)
            assert (link.readlink(), target.read_text()) == (Path(target.name), path.name)
    assert set(tmp_path.iterdir()) == {target, link, *others}
    link.unlink()
    link.symlink_to("nowhere/lists.csv")
    with pytest.raises(errors.ListsNotWritten, match=r"nowhere: there is no such folder"):
        output.check_place(str(link))


@pytest.mark.parametrize("name", ["lists.csv", "lists.csv.gz", "lists.parquet"])
def test_a_full_disk_is_one_error(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    schema = pa.schema({"n": pa.int64()})
    with pytest.raises(OSError, match="No space left"), output._writer(Path(name), Path("/dev/full"), schema) as write:
        write(pa.record_batch([pa.array(range(100_000))], schema=schema))
    gc.collect()
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_is_heard_between_the_rows_of_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema, written = pa.schema({"n": pa.int64()}), list[list[int]]()
    monkeypatch.setattr(output, "SLICE", 2)
    monkeypatch.setattr(
        output.csv, "CSVWriter", lambda *_, **__: SimpleNamespace(
            write_batch=lambda batch: written.append(batch["n"].to_pylist()), close=lambda: None
        )
    )  # fmt: skip
    with output.writing(tmp_path / "lists.csv", schema) as write:
        write(pa.record_batch([pa.array(range(5))], schema=schema))
    assert written == [[0, 1], [2, 3], [4]]


def test_ctrl_c_is_heard_while_the_server_has_sent_nothing_yet(trained: Database, recstore: Command) -> None:
    waiting = "SELECT FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"

    def interrupt() -> None:
        until(lambda: look(trained, waiting, trained.name))
        os.kill(os.getpid(), signal.SIGINT)

    with superuser(trained.server, trained.name) as other, other.transaction():
        other.execute("LOCK TABLE retail._items_1 IN ACCESS EXCLUSIVE MODE")
        thread = threading.Thread(target=interrupt)
        thread.start()
        answer = recstore("recommend-all retail --into made.recommendations", url=trained.url)
        thread.join()
    assert (answer.code, "Interrupted" in answer.err) == (130, True), answer.err


@pytest.mark.parametrize("stage", ["recommend-all", "index"])
def test_whatever_ends_the_work_leaves_the_old_lists(trained: Database, tmp_path: Path, stage: str) -> None:
    recommend(trained)
    before = rows(trained.connect(), MADE)
    file = tmp_path / "lists.csv"
    file.write_text("old")

    def stop(name: str) -> None:
        if name == stage:
            raise KeyboardInterrupt

    hook = Hook(on_stage=stop, on_progress=stop)
    for into in ["made.recommendations", str(file)][: 1 if stage == "index" else 2]:
        with pytest.raises(KeyboardInterrupt):
            recommend(trained, into, reporter=hook)
    assert rows(trained.connect(), MADE) == before
    assert (file.read_text(), list(tmp_path.iterdir())) == ("old", [file])
    tables = "SELECT relname FROM pg_class WHERE relnamespace = 'made'::regnamespace AND relkind = 'r'"
    assert look(trained, tables) == [{"relname": "recommendations"}]
    (run,) = rows(trained.connect(), "SELECT error FROM recstore.runs WHERE job = 'lists' ORDER BY run DESC LIMIT 1")
    assert run["error"] == "Interrupted."
    recommend(trained)


def test_a_training_runs_at_the_same_time_and_other_lists_and_a_drop_wait(trained: Database) -> None:
    seen: dict[str, Any] = {}

    def meanwhile(name: str) -> None:
        if name != "recommend-all" or seen:
            return
        seen["running"] = rows(trained.connect(), "SELECT running_job, running_progress FROM recstore.status")
        seen["states"] = rows(trained.connect(), "SELECT job, state FROM recstore.runs ORDER BY run DESC LIMIT 1")
        for _ in range(2):
            settings = trained.settings.model_copy(update={"prune_wait": 0})
            seen["retrain"] = pipeline.retrain(trained.url, settings, "retail")
        with pytest.raises(errors.RunInProgress, match="recstore:run:"):
            similar(trained)
        connection = trained.connect()
        with pytest.raises(errors.RunInProgress):
            jobs.drop(connection, trained.settings, registry.get(connection, "retail"))
        done = dispatch.dispatch(trained.url, trained.settings, lambda *_: None)
        assert done.problems == []

    made = recommend(trained, reporter=Hook(on_progress=meanwhile))
    assert made.generation == 1
    assert seen["retrain"].live
    latest = seen["retrain"].generation
    assert {row["running_job"] for row in seen["running"]} == {"lists", None}
    assert seen["states"] == [{"job": "lists", "state": "running"}]
    assert recommend(trained).generation == latest


@pytest.mark.contract
def test_lists_when_they_are_due_and_when_asked_for(trained: Database) -> None:
    def dispatched() -> tuple[dispatch.Dispatched, list[Any]]:
        sent: list[Any] = []
        return dispatch.dispatch(trained.url, trained.settings, lambda *errand: sent.append(errand)), sent

    with pytest.raises(errors.NoListTable):
        lists.write_defined(trained.url, trained.settings, "retail")
    trained.alter(
        lists=Lists(recommend_into="made.recommendations", similar_into="made.similar", k=3, cron="0 4 * * *")
    )
    assert dispatched()[0].scheduled == []
    look(trained, "UPDATE recstore_private.recommenders SET lists_at = now() - interval '7 days' RETURNING id")
    done, sent = dispatched()
    assert (done.scheduled, sent) == (["retail"], [("lists", "retail")])
    assert dispatched()[0].scheduled == []  # however many times were missed
    look(trained, "SELECT recstore.request_lists('retail')")

    # a worker that died with it: the request waits again
    look(trained, "SELECT setval(pg_get_serial_sequence('recstore_private.runs', 'run'), 100)")
    look(
        trained,
        "WITH dead AS (INSERT INTO recstore_private.runs (recommender_id, job)"
        " SELECT r.id, 'lists' FROM recstore_private.recommenders r WHERE r.name = 'retail' RETURNING run)"
        " UPDATE recstore_private.requests q SET state = 'running', run = dead.run FROM dead WHERE q.origin = 'schedule'"
        " RETURNING q.run",
    )
    dispatched()
    states = "SELECT q.origin, q.state, q.attempts FROM recstore.requests q ORDER BY 1"
    assert rows(trained.connect(), states) == [
        {"origin": "schedule", "state": "waiting", "attempts": 1},
        {"origin": "sql", "state": "sent", "attempts": 0},
    ]
    # lists of one's own are not what was asked for
    similar(trained, "made.others")
    assert {row["state"] for row in rows(trained.connect(), states)} == {"waiting", "sent"}
    made = lists.write_defined(trained.url, trained.settings, "retail", requested=True)
    assert [each.into for each in made] == ["made.recommendations", "made.similar"]
    assert {row["state"] for row in rows(trained.connect(), states)} == {"succeeded"}
    outcome = value(trained.connect(), "SELECT outcome FROM recstore.requests ORDER BY request LIMIT 1")
    assert outcome.startswith("241 lists of generation 1 in made.recommendations. 119 lists")
    assert value(trained.connect(), "SELECT max(rank) FROM made.similar") == 3
    with pytest.raises(errors.NothingRequested):
        lists.write_defined(trained.url, trained.settings, "retail", requested=True)


def test_the_commands(trained: Database, recstore: Command, tmp_path: Path) -> None:
    def run(line: str, *more: str) -> Any:
        return recstore(line, *more, url=trained.url)

    run("recommend-all retail --into made.recommendations --dry-run", "--users", "SELECT 1").expect(
        0,
        'CREATE TABLE "made".recstore_lists_N (user_id bigint NOT NULL, rank integer NOT NULL',
        'RENAME TO "recommendations"',
    )
    plan = run("similar-all retail --into made.similar --dry-run --json").json
    assert (plan["owners"], plan["items"]) == (119, 118)
    assert rows(trained.connect(), "SELECT FROM recstore.runs WHERE job = 'lists'") == []

    made = run("recommend-all retail -k 3 --into made.recommendations --json")
    assert (made.json["rows"], made.json["lists"]) == (723, 241)
    file = str(tmp_path / "lists.csv")
    assert "wrote 241 lists of generation 1, 723 rows, to" in run("recommend-all retail -k 3 --into", file).out
    run("recommend-all retail -k 2 --into", file).expect(2, "--yes")
    assert run("recommend-all retail -k 2 --yes --into", file).code == 0
    assert len(Path(file).read_text().splitlines()) == 483
    assert run("alter retail --similar-into made.similar --lists-k 2 --lists-schedule", "0 4 * * *").code == 0
    run("alter retail --recommend-into lists.csv").expect(2, "the workers write lists to tables")
    assert run("alter retail --recommend-into made.similar").code == 2
    for line in ("alter retail", "alter retail --dry-run", "create books --table shop.views --item product_id"):
        run(f"{line} --recommend-into shop.recommended").expect(1, 'GRANT USAGE, CREATE ON SCHEMA "shop" TO')
    assert run("lists retail --json").json[0]["rows"] == 238
    assert run("request lists retail").out.startswith("request 1: lists of retail")
