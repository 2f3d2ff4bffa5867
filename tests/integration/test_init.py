"""`recstore init`: what it finds in somebody's tables, what it asks, and the file that it writes."""

import fcntl
import io
import os
import pty
import re
import subprocess
import sys
import termios
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest
import typer
from conftest import Command, Database

from recstore.api import toml
from recstore.api.options import merge, read_toml
from recstore.cli import init
from recstore.definition import Definition, Hyperparameters, Source, Titles
from recstore.source import discovery

GIVEN = "--table shop.views --user user_id --item product_id --value view_count"

TABLES = """
CREATE SCHEMA "Shop 2";
CREATE TABLE "Shop 2".articles (sku text PRIMARY KEY, "Name" text, in_stock boolean, deleted boolean, price numeric);
CREATE TABLE "Shop 2".customers (id uuid PRIMARY KEY, email text, score real);
CREATE TABLE "Shop 2".clicks (
    click_id bigint PRIMARY KEY, customer_id uuid REFERENCES "Shop 2".customers, sku text REFERENCES "Shop 2".articles,
    clicked_at timestamptz, times smallint);
CREATE TABLE "Shop 2".settings (name text PRIMARY KEY, content text);
CREATE TABLE "Shop 2".secret (user_id int, item_id int);
CREATE TABLE "Shop 2".lists (user_id int, rank int, item_id int, score float8, generation bigint);
COMMENT ON TABLE "Shop 2".lists IS 'Made by recstore: recommend-all of retail, generation 1, k 20.';
CREATE DOMAIN "Shop 2".number AS bigint;
CREATE VIEW "Shop 2".daily AS SELECT 1::"Shop 2".number AS visitor_id, 2 AS page_id, now()::date AS day;
GRANT USAGE ON SCHEMA "Shop 2" TO worker;
GRANT SELECT ON "Shop 2".articles, "Shop 2".customers, "Shop 2".clicks, "Shop 2".settings, "Shop 2".daily, "Shop 2".lists
TO worker;
"""


def test_candidates_are_found_by_columns_types_and_keys(shop: Database) -> None:
    shop.create()
    shop.connect("application").execute(TABLES)
    tables = discovery.readable_tables(shop.connect())
    found = discovery.candidates(tables)
    assert {c.table.name for c in found} == {'"Shop 2".clicks', '"Shop 2".daily', "shop.views"}
    by_name = {c.table.name: c for c in found}
    clicks, views = by_name['"Shop 2".clicks'], by_name["shop.views"]
    assert found[-1].table.name == '"Shop 2".daily'
    assert (clicks.users[0], clicks.items[0], clicks.values, clicks.times) == (
        "customer_id",
        "sku",
        ("times",),
        ("clicked_at",),
    )
    assert (views.users[0], views.items[0], views.values, views.times) == ("user_id", "product_id", ("view_count",), ())
    assert by_name['"Shop 2".daily'].users[0] == "visitor_id"
    assert views.users == ("user_id", "product_id", "view_count")
    articles = discovery.tables_of_items(tables, clicks.table, "sku")
    assert [table.name for table in articles] == ['"Shop 2".articles']
    assert discovery.titles_of(articles[0]) == ("Name",)
    assert discovery.conditions_of(articles[0]) == ("in_stock", "NOT deleted")
    assert [t.name for t in discovery.tables_of_items(tables, views.table, "product_id")] == ["shop.products"]


def test_what_is_answered_is_what_is_written_and_created(
    recstore: Command, shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.connect("application").execute(TABLES)
    file = tmp_path / "shop.toml"
    asked: list[str] = []
    answers = iter(["nix", '"Shop 2".clicks', "1", "", "0", "", "1", "2"])

    def prompt(question: str, default: str) -> str:
        asked.append(question)
        return next(answers) or default

    monkeypatch.setattr(init, "at_terminal", lambda: True)
    monkeypatch.setattr("typer.prompt", prompt)
    shown = recstore(f"init {file}").expect(0)
    assert next(answers, None) is None
    assert "There is no 'nix' to choose." in shown.out
    assert "none: every row counts 1" in shown.out
    assert f"recstore create NAME --file {file}" in shown.out
    assert "db upgrade" not in shown.out
    definition = merge({}, read_toml(file, "x"), None)
    assert definition == Definition.model_validate(
        {
            "source": {"table": '"Shop 2".clicks', "user": "customer_id", "item": "sku", "last_at": "clicked_at"},
            "candidates": {"table": '"Shop 2".articles', "column": "sku", "condition": "NOT deleted"},
            "titles": {"table": '"Shop 2".articles', "item": "sku", "title": "Name"},
        }
    )
    assert recstore(f"create clicks --file {file}").code == 0
    assert recstore("show clicks --json").json["definition"] == definition.model_dump(mode="json")


def test_where_nobody_can_be_asked_everything_is_said_or_listed(
    recstore: Command, empty: Database, tmp_path: Path
) -> None:
    file = tmp_path / "shop.toml"
    refused = recstore(f"init {file}")
    assert (refused.code, file.exists()) == (2, False)
    assert "The likeliest: shop.views (ids: user_id, product_id" in refused.err
    listed = recstore(f"init {file} --json").json
    assert listed["written"] is None
    assert listed["candidates"][0]["table"] == "shop.views"
    assert 'GRANT SELECT ON shop.views TO "worker";' in recstore(f"init {file}", url=empty.url).err
    dry = recstore(f"init {file} {GIVEN} --dry-run")
    assert (tomllib.loads(dry.out)["source"]["table"], file.exists()) == ("shop.views", False)
    written = recstore(f"init {file} {GIVEN} --json").json
    assert written["written"] == str(file)
    assert written["definition"]["source"]["value"] == "view_count"
    before = file.read_text()
    assert recstore(f"init {file} --json").json == listed
    again = recstore(f"init {file} {GIVEN} --value none")
    assert (again.code, file.read_text()) == (2, before)
    assert "Add --yes" in again.err
    assert (
        recstore(
            f"init {file} {GIVEN} --value none --candidates-table shop.products --candidates-condition visible --yes"
        ).code
        == 0
    )
    read = read_toml(file, "x")
    assert read["source"] == {"table": "shop.views", "user": "user_id", "item": "product_id"}
    assert read["candidates"] == {"table": "shop.products", "condition": "visible"}
    assert list(tmp_path.iterdir()) == [file]
    for wrong in ("--item nix", "--value title", "--table shop.nix", "--titles nix", "--candidates-table shop.nix"):
        assert recstore(f"init {file} {GIVEN} {wrong} --yes").code == 2
    assert recstore(f"init {tmp_path}/nix/x.toml {GIVEN}").code == 2
    assert recstore(f"create books --file {file}").code == 0


def test_the_file_has_every_setting_and_reads_back_as_the_same() -> None:
    definition = Definition(
        source=Source(query='SELECT "a" AS user_id, \'\\\' AS item_id,\n 1 AS value -- \t "x"'),
        hyperparameters=Hyperparameters(factors=12, options={"power": 2, "kind of": "x"}),
        titles=Titles(table="t", item="i", title='"T"'),
    )
    text = toml.settings_file(definition, "retail.toml")
    assert merge({}, tomllib.loads(text), None) == definition
    every = re.sub(r"^#([a-z_0-9]+ = )", r"\1", text, flags=re.MULTILINE)  # the defaults are the defaults
    assert every != text
    assert merge({}, tomllib.loads(every), None) == definition
    for section, info in Definition.model_fields.items():
        assert f"[{section}]" in text
        model = getattr(definition, section)
        for name in type(model).model_fields:
            assert re.search(rf"^#?{name} =", text, re.MULTILINE), (section, name, info)


def test_at_a_terminal_enter_takes_what_is_in_brackets(shop: Database, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    line = ["-m", "recstore", "--database", shop.url, "init", str(tmp_path / "shop.toml")]
    environment = {"PATH": "/usr/bin:/bin", "TERM": "dumb", "COLUMNS": "200"}
    command = subprocess.Popen(
        [sys.executable, *line], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # the end of a terminal
        while part := os.read(ours, 10_000):
            shown += part
            if part.rstrip().endswith(b"]:"):
                os.write(ours, b"\n")
    os.close(ours)
    assert command.wait() == 0
    assert b"Traceback" not in shown
    read = read_toml(tmp_path / "shop.toml", "x")
    assert read["source"] == {"table": "shop.views", "user": "user_id", "item": "product_id", "value": "view_count"}
    assert read["titles"] == {"table": "shop.products", "item": "product_id", "title": "title"}
    assert read["candidates"] == {}


def test_an_interrupt_leaves_no_file(recstore: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prompt(_question: str, default: str) -> str:
        raise typer.Abort(default)

    monkeypatch.setattr(init, "at_terminal", lambda: True)
    monkeypatch.setattr("typer.prompt", prompt)
    assert recstore(f"init {tmp_path}/shop.toml").code == 1
    monkeypatch.undo()
    monkeypatch.setattr(init, "at_terminal", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO())  # as Ctrl-D, and Ctrl-C
    assert recstore(f"init {tmp_path}/shop.toml").code == 130
    monkeypatch.setattr(Path, "replace", prompt)
    assert recstore(f"init {tmp_path}/shop.toml {GIVEN}").code == 1
    assert list(tmp_path.iterdir()) == []


EVENTS = """
CREATE SCHEMA log;
CREATE TABLE log.identity (id bigint GENERATED ALWAYS AS IDENTITY, user_id int, item_id int, at timestamptz);
CREATE TABLE log.keyed (nr bigint PRIMARY KEY, user_id int, item_id int);
CREATE TABLE log.serial (nr serial, user_id int, item_id int);
CREATE TABLE log.random (event uuid DEFAULT gen_random_uuid(), user_id int, item_id int);
CREATE TABLE log.others (user_id int, item_id int, order_id bigint, "shopId" int, product int REFERENCES shop.products);
CREATE TABLE log.priced (user_id int, item_id int, price numeric);
GRANT USAGE ON SCHEMA log TO worker; GRANT SELECT ON ALL TABLES IN SCHEMA log TO worker;
"""


def test_no_key_counts_views_and_raw_events_are_counted(
    recstore: Command, shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.connect("application").execute(EVENTS)
    found = {c.table.name: c for c in discovery.candidates(discovery.readable_tables(shop.connect()))}
    values = {
        name: found[f"log.{name}"].values for name in ("identity", "keyed", "serial", "random", "others", "priced")
    }
    assert values.pop("priced") == ("price",)
    assert set(values.values()) == {()}
    assert {found[f"log.{name}"].users[0] for name in values} == {"user_id"}
    assert "event" not in found["log.random"].users
    monkeypatch.setattr(init, "at_terminal", lambda: True)
    monkeypatch.setattr("typer.prompt", lambda _question, default: default)
    for name in (*values, "priced"):
        file = tmp_path / f"{name}.toml"
        recstore(f"init {file} --table log.{name} --titles none").expect(0)
        assert "value" not in read_toml(file, "x")["source"]
    said = "given as the value, numbers the rows of log.", "Leave --value out"
    for name, column in (("identity", "id"), ("keyed", "nr"), ("serial", "nr")):
        recstore(f"create events --table log.{name} --value {column}").expect(2, *said)
        recstore(f"init {tmp_path}/no.toml --table log.{name} --user user_id --item item_id --value {column}").expect(
            2, *said
        )
    query = "SELECT * FROM (SELECT user_id, item_id, id AS value FROM log.identity) e"
    recstore("create events --query", query).expect(2, "'id', given as the value, numbers the rows of log.identity")
    shop.connect("application").execute(
        "CREATE VIEW log.named AS SELECT user_id, item_id, id AS n, 2 * id AS twice FROM log.identity;"
        " CREATE VIEW log.outer AS SELECT o.* FROM log.named o JOIN log.priced USING (user_id);"
        " REVOKE ALL ON log.identity FROM worker; GRANT SELECT ON log.named, log.outer TO worker"
    )
    for view in "named", "outer":  # whoever may read the view alone
        recstore(f"create events --table log.{view} --value n").expect(2, "numbers the rows of log.identity")
    recstore("create twice --table log.named --value twice").expect(0)
    recstore("create events --table log.priced --value price").expect(0)
