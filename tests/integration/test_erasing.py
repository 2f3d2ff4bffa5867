"""People who are erased: gone from whatever is kept, whatever was under way meanwhile, and only a later reading of the source
brings one back."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from conftest import Command, Database, copy_of, make_database, make_template
from psycopg import errors as pg
from support import Hook, look, until
from support_sql import column, rows, value
from test_id_types import make_typed

from recstore import Recommender, lists
from recstore.definition import Gate, Hyperparameters, Lists, Publication, Source
from recstore.embedded import Server
from recstore.files.archive import exporting
from recstore.files.archive.importing import import_generation
from recstore.operations import readers

FORGET = "SELECT retail.forget_user(%s)"
LEAVE = "DELETE FROM shop.views WHERE user_id = %s"
ME = 7


@pytest.fixture(scope="module")
def template(server: Server, shop_template: str) -> str:
    """The shop with a generation that publishes seen items; the application may erase people, and recstore write lists."""
    database = make_database(server, shop_template)
    recommender = database.create(
        source=Source(table="shop.views", item="product_id", value="view_count", seen="published"),
        gate=Gate(held_out=0),
    )
    assert database.retrain().live
    with database.connect("application") as application:
        application.execute("CREATE SCHEMA made; GRANT ALL ON SCHEMA made TO worker")
    with database.connect() as connection:
        readers.grant_reader(connection, recommender, "application", people=True, forget=True)
    return make_template(database, "template_erasing")


shop = copy_of("template")


def kept(database: Database, user: object = ME, name: str = "retail") -> list[str]:
    """The tables of a recommender, and those of lists, that have rows of this user."""
    tables = look(
        database,
        "SELECT c.oid::regclass::text AS name FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " WHERE c.relnamespace IN (to_regnamespace(%s), to_regnamespace('made'))"
        " AND a.attname = 'user_id' AND c.relkind = 'r' ORDER BY 1",
        name,
    )
    return [
        table["name"]
        for table in tables
        if look(database, f"SELECT FROM {table['name']} WHERE user_id::text = %s LIMIT 1", str(user))
    ]


def leave(database: Database, user: int = ME) -> None:
    """Erase a user as the application does: with the rows of the source, in one transaction."""
    with database.connect("application") as application, application.transaction():
        application.execute(LEAVE, [user])
        application.execute(FORGET, [user])


@contextmanager
def leaving(database: Database, user: int = ME) -> Iterator[psycopg.Connection[Any]]:
    """The same, before the commit."""
    application = database.connect("application")
    application.execute("BEGIN")
    application.execute(LEAVE, [user])
    application.execute(FORGET, [user])
    yield application
    application.close()


@pytest.mark.contract
@pytest.mark.parametrize(("user_type", "seen"), [("smallint", "published"), ("text", "published"), ("uuid", "live")])
def test_one_is_removed_from_every_generation_and_list_and_nobody_else(
    shop: Database, user_type: str, seen: str, tmp_path: Path
) -> None:
    users, _ = make_typed(shop, user_type, "bigint")
    me, other = users[6], users[3]
    shop.create(
        "typed",
        source=Source(table="shop.typed", user="customer", item="article", value="value", seen=seen),
        hyperparameters=Hyperparameters(factors=4, iterations=1),
        publication=Publication(search="exact", keep=3),
    )
    for _ in range(2):
        assert shop.retrain("typed", force=True).live
    lists.recommend_all(shop.url, shop.settings, "typed", "made.typed", k=3)
    tables = kept(shop, me, "typed")
    assert len(tables) == (5 if seen == "published" else 3)
    assert tables == kept(shop, other, "typed")
    connection = shop.connect()
    total = sum(value(connection, f"SELECT count(*) FROM {each} WHERE user_id::text = %s", str(me)) for each in tables)

    assert value(connection, "SELECT typed.forget_user(%s)", me) == total
    assert kept(shop, me, "typed") == []
    assert kept(shop, other, "typed") == tables
    found = rows(
        connection, "SELECT state, erased FROM recstore.generations WHERE recommender = 'typed' ORDER BY generation"
    )
    assert [(row["state"], row["erased"]) for row in found] == [("previous", 1), ("live", 1), ("next", 0)]
    exporting.export(shop.url, "typed", tmp_path / "typed.npz")
    with np.load(tmp_path / "typed.npz") as file:
        assert len(file["user_length"]) == 119
    for form in ("%s::text", "%s") if user_type == "uuid" else ("%s",):
        assert value(connection, f"SELECT typed.forget_user({form})", me) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("nobody", [-1, 990001, 2**40, None])
def test_nobody_is_no_error(shop: Database, nobody: int | None) -> None:
    assert value(shop.connect("application"), FORGET, nobody) == 0


def test_a_text_that_is_longer_than_any_id_is_nobody(shop: Database) -> None:
    make_typed(shop, "text", "bigint")
    shop.create("typed", source=Source(table="shop.typed", user="customer", item="article"))
    longest = "".join(chr(33 + n * 7919 % 9000) for n in range(5000))
    assert value(shop.connect(), "SELECT typed.forget_user(%s)", longest) == 0


@pytest.mark.parametrize("stage", ["prepare", "read", "load", "check"])
def test_a_training_that_began_before_brings_nobody_back(shop: Database, stage: str) -> None:
    hook = Hook(on_stage=lambda name: leave(shop) if name == stage else None)
    outcome = shop.retrain(reporter=hook, force=True)
    assert outcome.live
    assert kept(shop) == []
    erased = {
        row["generation"]: row["erased"] for row in look(shop, "SELECT generation, erased FROM recstore.generations")
    }
    assert erased[1] == 1
    assert erased[outcome.generation] == (0 if stage == "prepare" else 1)
    assert value(shop.connect("application"), "SELECT count(*) FROM retail.user_vectors") == 239


@pytest.mark.contract
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_publication_waits_for_the_end_of_a_transaction_that_erases(shop: Database, end: str) -> None:
    """It began before the source was read, and ends when everything else is done."""
    with leaving(shop) as application:
        published = threading.Thread(target=lambda: shop.retrain(force=True))
        published.start()
        progress = "SELECT progress ->> 'note' AS note FROM recstore.runs WHERE state = 'running'"
        (row,) = until(lambda: [row for row in look(shop, progress) if row["note"] and "waits for" in row["note"]])
        assert f"process {application.info.backend_pid} (test, role application)" in row["note"]
        application.execute(end)
        published.join()
    assert value(shop.connect(), "SELECT retail.generation()") == 2
    assert kept(shop) == (
        [] if end == "COMMIT" else ["retail._seen_1", "retail._seen_2", "retail._users_1", "retail._users_2"]
    )


def test_erasing_does_not_wait_for_a_generation_that_is_being_built(shop: Database) -> None:
    """An index build holds a lock that a DELETE waits for; nor do two that erase wait for each other."""
    building = shop.connect()
    building.execute("BEGIN")
    building.execute("LOCK TABLE retail._users_2, retail._items_2 IN SHARE MODE")
    with leaving(shop, 8), shop.connect("application") as application:
        application.execute("SET lock_timeout = '1ms'")
        assert value(application, FORGET, ME) > 0


def test_readers_see_the_person_until_the_commit_and_wait_for_nothing(shop: Database) -> None:
    reader = shop.connect("application")
    reader.execute("SET lock_timeout = '1ms'")
    reason = "SELECT r.reason FROM retail.recommend(%s, 1) r"
    with leaving(shop) as application:
        assert column(application, reason, ME) == ["popular"]
        assert column(reader, reason, ME) == ["trained"]
        assert value(reader, "SELECT count(*) FROM retail.user_vectors") == 240
        application.execute("COMMIT")
    assert column(reader, reason, ME) == ["popular"]


def test_an_older_snapshot_fails_instead_of_missing_a_generation(shop: Database) -> None:
    application = shop.connect("application")
    application.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    application.execute("SELECT FROM shop.views")
    shop.retrain(force=True)
    with pytest.raises(pg.SerializationFailure):
        application.execute(FORGET, [ME])
    application.execute("ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ")
    application.execute(FORGET, [ME])
    application.execute("COMMIT")
    assert kept(shop) == []


def test_a_later_training_follows_the_source(shop: Database) -> None:
    """Who comes back, or whose rows the application keeps, is in the next training."""
    shop.alter(source=Source(table="shop.views", item="product_id", value="view_count"))
    shop.retrain(force=True)
    application = shop.connect("application")
    notices: list[str] = []
    application.add_notice_handler(lambda notice: notices.append(f"{notice.message_primary}: {notice.message_hint}"))
    application.execute(FORGET, [ME])
    (notice,) = notices
    assert notice.startswith("The source of retail still has rows of this user")
    shop.retrain(force=True)
    assert kept(shop) == ["retail._users_3"]

    leave(shop)
    look(shop, "UPDATE recstore_private.erasures SET xid = '999999999' RETURNING 1")  # from the dump of another server
    application.execute("INSERT INTO shop.views VALUES (%s, 3, 1)", [ME])
    shop.retrain(force=True)
    assert kept(shop) == ["retail._users_4"]


def test_no_file_brings_one_back(shop: Database, tmp_path: Path) -> None:
    file = tmp_path / "retail.npz"
    exporting.export(shop.url, "retail", file)
    leave(shop)
    hook = Hook(on_stage=lambda name: leave(shop, 8) if name == "load" else None)
    assert import_generation(shop.url, shop.settings, "retail", file, force=True, reporter=hook).live
    assert kept(shop) == kept(shop, 8) == []
    assert any("2 users of the file were erased here" in warning for warning in hook.warnings)
    assert value(shop.connect("application"), "SELECT count(*) FROM retail.user_vectors") == 238


@pytest.mark.parametrize("into", ["made.lists", "lists.csv"])
def test_lists_that_are_being_written(shop: Database, into: str, tmp_path: Path) -> None:
    place: Any = into if "made" in into else tmp_path / into
    hook = Hook(on_stage=lambda name: leave(shop) if name == "recommend-all" else None)
    made = lists.recommend_all(shop.url, shop.settings, "retail", place, k=3, reporter=hook)
    assert made.lists == 240
    assert kept(shop) == []
    assert (["1 user was erased" in each for each in hook.warnings] == [True]) == (place != into)
    if place == into:
        assert value(shop.connect(), "SELECT count(DISTINCT user_id) FROM made.lists") == 239


def test_an_export_says_that_it_began_before(shop: Database, tmp_path: Path) -> None:
    gone: list[str] = []
    hook = Hook(on_progress=lambda _: None if gone else (gone.append("gone"), leave(shop))[0])  # type: ignore[func-returns-value]
    exporting.export(shop.url, "retail", tmp_path / "retail.npz", reporter=hook)
    assert hook.warnings == [
        "1 user was erased from retail while the file was written, and may be in it. Write it again."
    ]
    again = Hook()
    exporting.export(shop.url, "retail", tmp_path / "retail.npz", reporter=again)
    assert again.warnings == []


def test_only_who_was_granted_it_may_erase(trained: Database, recstore: Command) -> None:
    def may() -> bool:
        try:
            trained.connect("application").execute(FORGET, [ME])
        except pg.InsufficientPrivilege:
            return False
        return True

    trained.connect().execute("GRANT USAGE ON SCHEMA retail TO application")
    assert not may()
    for options, answer in (("--people", False), ("--forget --dry-run", False), ("--forget", True), ("", True)):
        recstore(f"grant retail application {options}").expect(0)
        assert may() == answer
    recstore("doctor retail --reader application").expect(0)


def test_a_table_of_lists_with_a_trigger_calls_nothing_with_the_owner_s_rights(shop: Database) -> None:
    lists.recommend_all(shop.url, shop.settings, "retail", "made.watched", k=3)
    with shop.connect() as worker, shop.connect("application") as application:
        worker.execute("GRANT TRIGGER ON made.watched TO application")
        application.execute(
            "CREATE FUNCTION shop.spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$;"
            " CREATE TRIGGER spy BEFORE DELETE ON made.watched FOR EACH ROW EXECUTE FUNCTION shop.spy()"
        )
        heard: list[str] = []
        application.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
        assert value(application, FORGET, ME) > 0
        assert heard[0] == "The rows of this user in made.watched stay: the table has triggers or rules"


def test_a_table_of_lists_that_lost_its_mark_is_reported(shop: Database) -> None:
    shop.alter(lists=Lists(recommend_into="made.unmarked", k=3))
    lists.write_defined(shop.url, shop.settings, "retail")
    with shop.connect() as worker:
        heard: list[str] = []
        worker.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
        worker.execute("COMMENT ON TABLE made.unmarked IS 'Newsletter'")
        assert value(worker, FORGET, ME) > 0
        assert (
            heard[0] == "The rows of this user in made.unmarked stay: its comment no longer says that recstore wrote it"
        )
        shop.alter(lists=Lists())


def test_the_source_s_functions_write_nothing_with_the_owner_s_rights(trained: Database) -> None:
    """Which forget_user() calls, to warn of rows that are left."""
    application, worker = trained.connect("application"), trained.connect()
    application.execute(
        "CREATE TABLE shop.log (); GRANT ALL ON shop.log TO worker;"
        " CREATE FUNCTION shop.spy(bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO shop.log DEFAULT VALUES; RETURN true; EXCEPTION WHEN read_only_sql_transaction THEN RETURN true; END $$;"
        " ALTER TABLE shop.views RENAME TO all_views; CREATE VIEW shop.views AS SELECT * FROM shop.all_views"
        " WHERE shop.spy(user_id); GRANT SELECT ON shop.views TO worker"
    )
    worker.execute(
        "CREATE OR REPLACE VIEW retail.interactions WITH (security_invoker) AS"
        " SELECT user_id, product_id AS item_id, view_count AS value FROM shop.views"
    )
    heard: list[str] = []
    worker.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
    assert value(worker, FORGET, ME) > 0
    assert "still has rows of this user" in heard[0]
    assert rows(application, "SELECT FROM shop.log") == []
    worker.execute("INSERT INTO shop.log DEFAULT VALUES")
    application.execute(
        "CREATE OR REPLACE FUNCTION shop.spy(bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$"
    )
    assert value(worker, FORGET, 8) > 0  # whoever owns the source keeps nobody in
    assert heard[1] == "The source of retail could not be asked whether it still has rows of this user: never"


def test_the_command_asks_and_shows(trained: Database, recstore: Command) -> None:
    recstore(f"forget retail --user {ME}").expect(2, "Remove user 7 from every generation")
    assert f'"forget_user"({ME});\n-- removes 1 row' in recstore(f"forget retail --user {ME} --dry-run").out
    assert kept(trained) == ["retail._users_1"]
    done = recstore(f"forget retail --user {ME} --yes").expect(0, "removed 1 row of user 7 from retail")
    assert "Warning: The source of retail still has rows of this user" in done.err
    assert kept(trained) == []
    assert "erased: 1 user since the training" in recstore("show retail").out
    recstore("forget retail --user abc --yes").expect(2, "'abc' is not a valid user id")
    assert recstore("forget retail --user 8 --yes --json").json["rows"] == 1


@pytest.mark.contract
def test_the_documented_trigger(shop: Database) -> None:
    """By the application's role; the customer's rows are deleted by a foreign key, and a rollback undoes everything."""
    page = (Path(__file__).parents[2] / "docs/operating.md").read_text()
    by_hand, trigger = re.findall(
        r"```sql\n(.*?)```", page.partition("## Erase a person")[2].partition("\n## ")[0], re.DOTALL
    )
    shop.alter(source=Source(table="shop.views", item="product_id", value="view_count"))
    shop.retrain(force=True)
    application = shop.connect("application")
    application.execute(
        "CREATE TABLE shop.customers AS SELECT DISTINCT user_id AS customer_id FROM shop.views;"
        " ALTER TABLE shop.customers ADD PRIMARY KEY (customer_id);"
        " ALTER TABLE shop.views ADD FOREIGN KEY (user_id) REFERENCES shop.customers ON DELETE CASCADE"
    )
    notices: list[object] = []
    application.add_notice_handler(notices.append)
    application.execute(trigger)
    before = kept(shop)
    assert len(before) == 3
    application.execute("BEGIN")
    application.execute("DELETE FROM shop.customers WHERE customer_id IN (7, 8)")
    assert value(application, "SELECT count(*) FROM retail.user_vectors") == 238
    application.execute("ROLLBACK")
    assert kept(shop) == before
    application.execute("DELETE FROM shop.customers WHERE customer_id IN (7, 8)")
    assert kept(shop) == kept(shop, 8) == []
    assert kept(shop, 42) == before
    application.execute(by_hand)
    assert kept(shop, 42) == notices == []


def test_an_application_in_python(shop: Database) -> None:
    import sqlalchemy as sa

    engine = sa.create_engine(shop.url_of("application").replace("postgresql", "postgresql+psycopg"))
    with engine.connect() as connection:
        assert Recommender(connection, "retail").forget_user(ME) > 1
    assert len(kept(shop)) == 2  # without a commit
    assert Recommender(engine, "retail").forget_user(ME) > 1
    assert kept(shop) == []
    engine.dispose()
