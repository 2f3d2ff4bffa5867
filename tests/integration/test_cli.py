"""The command line, as a person uses it: output, exit codes, and one plain sentence for every mistake."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, Database, make_views
from support import look, until
from support_sql import rows, value

from recstore import cli
from recstore.cli.context import Screen
from recstore.definition import Hyperparameters, Source

TRAINING = 'SELECT FROM recstore.runs WHERE stages @> \'[{"stage": "weigh"}]\''
SLEEPING = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
VIEWS = Source(table="shop.views", item="product_id", value="view_count")
ENDLESS = Source(query="SELECT 1 AS user_id, 1 AS item_id, 1 AS value FROM pg_sleep(1000)")
CREATE = "create retail --table shop.views --item product_id --value view_count --factors 16 --search exact"


def test_from_nothing_to_recommendations(recstore: Command) -> None:
    recstore(CREATE + " --titles shop.products:product_id:title").expect(
        0, "bigint users, integer items, vector of 64 dimensions"
    )
    trained = recstore("retrain retail --loss").expect(0)
    assert trained.out == "generation 1 of retail is live\n"
    assert "240 users" in trained.err
    assert "loss" in trained.err
    assert "product " in recstore("similar retail 1 -k 3").out
    listed = recstore("recommend retail 1 -k 3 --json").json
    assert isinstance(listed, list)
    assert [set(row) for row in listed] == [{"item_id", "title", "score", "reason"}] * 3
    assert len(recstore("popular retail -k 4 --json").json) == 4  # type: ignore[arg-type]
    shown = recstore("show retail").out
    assert "live: generation 1 with 240 users, 120 items, 16 factors" in shown
    assert "recommend: exact scan" in shown
    assert "16" in recstore("generations retail").out
    assert "retail" in recstore("list").out


def test_the_sql_that_is_printed_is_the_sql_that_runs(recstore: Command, shop: Database) -> None:
    recstore(CREATE + " --titles shop.products:product_id:title")
    recstore("retrain retail")
    for line in ("similar retail 1 -k 3", "recommend retail 1 -k 3", "popular retail -k 3"):
        printed = recstore(line + " --sql").out
        statement = printed[: printed.index(";") + 1]
        given = rows(shop.connect(), statement)
        assert [row["item_id"] for row in given] == [row["item_id"] for row in recstore(line + " --json").json]  # type: ignore[attr-defined]


@pytest.mark.usefixtures("trained")
def test_rollback_and_back_again(recstore: Command) -> None:
    recstore("retrain retail")
    assert recstore("rollback retail --json").json == {"was_live": 2, "live": 1}
    assert recstore("rollback retail --to 2 --json").json == {"was_live": 1, "live": 2}
    recstore("prune retail --keep 1").expect(2, "None can be rolled back to then")
    assert recstore("prune retail --keep 1 --yes --json").json == {"pruned": [1]}
    assert "no earlier generation" in recstore("rollback retail").err


def test_from_a_toml_file(recstore: Command, tmp_path: Path) -> None:
    file = tmp_path / "retail.toml"
    file.write_text(
        '[source]\nquery = """SELECT user_id, product_id AS item_id, view_count AS value FROM shop.views;"""\n'
        '[filters]\nmin_users_per_item = 2\n[hyperparameters]\nfactors = 8\n[publication]\nsearch = "exact"\n'
    )
    assert recstore(f"create retail --file {file} --alpha 20").code == 0
    definition = recstore("show retail --json").json["definition"]  # type: ignore[index]
    assert definition["filters"]["min_users_per_item"] == 2
    assert definition["hyperparameters"]["alpha"] == 20
    assert recstore("retrain retail").code == 0


def test_drop_asks_lists_dependents_and_leaves_nothing(recstore: Command, shop: Database) -> None:
    recstore(CREATE)
    assert "--yes" in recstore("drop retail").err
    shop.connect().execute("CREATE SCHEMA web; CREATE VIEW web.vectors AS SELECT * FROM retail.item_vectors")
    recstore("drop retail --yes").expect(1, "web.vectors")
    dropped = recstore("drop retail --yes --cascade --json")
    assert dropped.json == {"dropped": "retail", "with": ["view web.vectors"]}
    assert recstore("list").out.startswith("There is no recommender yet")


def test_a_slow_lookup_is_told_with_its_remedies(recstore: Command, shop: Database) -> None:
    application = shop.connect("application")
    application.execute("CREATE TABLE shop.log AS SELECT v.* FROM shop.views v CROSS JOIN generate_series(1, 20)")
    application.execute("GRANT SELECT ON shop.log TO worker; ANALYZE shop.log")
    created = recstore("create slow --table shop.log --item product_id --value view_count --factors 8")
    assert "no index" in created.out
    assert "\n  CREATE INDEX CONCURRENTLY ON shop.log (user_id);\n" in created.out
    assert "recstore alter slow --seen published" in created.out


def test_alter_keeps_the_rest_and_none_unsets(recstore: Command, tmp_path: Path) -> None:
    recstore(CREATE + " --min-item-views 2")
    assert recstore("alter retail --factors none --min-item-views none --regularization 7").code == 0
    assert recstore("retrain retail").code == 0
    shown = recstore("show retail --json").json
    assert (shown["live"]["factors"], shown["definition"]["filters"]["min_item_views"]) == (64, None)
    file = tmp_path / "some.toml"
    file.write_text("[hyperparameters]\nalpha = 3\n")
    recstore("alter retail --factors 20")
    assert recstore(f"alter retail --file {file}").code == 0
    hyperparameters = recstore("show retail --json").json["definition"]["hyperparameters"]
    assert [hyperparameters[name] for name in ("alpha", "factors", "regularization")] == [3, 20, 7]


def test_a_resize_goes_beyond_given_dimensions_and_not_without_the_rest(recstore: Command, shop: Database) -> None:
    recstore(CREATE + " --dimensions 32")
    recstore("retrain retail")
    for line in ("--factors 100", "--factors 100 --resize --titles shop.nix:a:b"):
        refused = recstore(f"alter retail {line}")
        assert (refused.code, recstore("show retail --json").json["dimensions"]) == (2, 32)
    assert recstore("alter retail --factors 100 --resize").code == 0
    assert recstore("show retail --json").json["dimensions"] == 128
    assert value(shop.connect(), "SELECT count(*) FROM retail.item_vectors") == 120
    assert recstore("retrain retail").code == 0
    assert value(shop.connect(), "SELECT max(vector_dims(embedding)) FROM retail.item_vectors") == 128
    assert len(rows(shop.connect(), "SELECT * FROM retail.recommend(1, 5)")) == 5


def test_a_source_that_cannot_be_read_yet_is_created_with_a_warning(recstore: Command) -> None:
    query = "SELECT (title || '!')::int AS user_id, product_id AS item_id, 1 AS value FROM shop.products"
    recstore("create odd --query", query).expect(0, "Reading it failed: invalid input syntax")
    assert "invalid input syntax" in recstore("retrain odd").err


def test_psql_gets_the_password_out_of_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr("os.execve", lambda _program, arguments, environment: became.append((arguments, environment)))
    assert cli.run(["--database", "postgresql+psycopg://me:s3cret@db/shop", "psql", "-c", "SELECT 1"]) == 0
    arguments, environment = became[0]
    assert "s3cret" not in " ".join(arguments)
    assert "user=me" in arguments[2]
    assert environment["PGPASSWORD"] == "s3cret"


def test_psql_needs_none_on_the_path(shop: Database) -> None:
    line = [sys.executable, "-m", "recstore", "--database", shop.url, "psql", "-qAt", "-c", "SELECT 1"]
    done = subprocess.run(line, env=os.environ | {"PATH": "/nowhere"}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def started(shop: Database, *command: str, out: Any = subprocess.PIPE) -> "subprocess.Popen[str]":
    line = [sys.executable, "-m", "recstore", "--database", shop.url, *command]
    return subprocess.Popen(line, stdout=out, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("number", "source", "begun"),
    [(signal.SIGTERM, VIEWS, TRAINING), (signal.SIGINT, ENDLESS, SLEEPING)],
)
def test_an_interrupt_is_a_sentence_and_a_finished_run(
    shop: Database, number: signal.Signals, source: Source, begun: str
) -> None:
    """While it trains, and while the server works."""
    shop.create(source=source, hyperparameters=Hyperparameters(factors=1024, iterations=1000))
    process = started(shop, "retrain", "retail")
    until(lambda: look(shop, begun))
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, "Traceback" in err) == (130, "", False)
    assert "Error: Interrupted" in err
    assert look(shop, "SELECT state, error FROM recstore.runs") == [{"state": "failed", "error": "Interrupted."}]
    until(lambda: not look(shop, SLEEPING))


def test_a_defect_is_told_and_kept_for_a_report(tmp_path: Path) -> None:
    program = """
import sys
from recstore import __main__, cli
def run(arguments):
    raise ZeroDivisionError("by nothing")
cli.run = run
sys.argv = ["recstore", "list"]
__main__.main()
"""
    environment = dict(os.environ) | {"TMPDIR": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert (ended.returncode, ended.stdout, "Traceback" in ended.stderr) == (70, "", False)
    (report,) = tmp_path.iterdir()
    assert str(report) in ended.stderr
    assert "ZeroDivisionError: by nothing" in report.read_text()


def test_an_answer_that_can_not_be_written(shop: Database) -> None:
    shop.create()
    with Path("/dev/full").open("w") as full, started(shop, "list", out=full) as process:
        err = process.communicate()[1]
    assert (process.returncode, err.count("\n"), "No space left on device" in err) == (1, 1, True)


def test_a_run_whose_process_is_gone_is_not_shown_as_running(shop: Database, recstore: Command) -> None:
    shop.create(hyperparameters=Hyperparameters(factors=64, iterations=1000))
    process = started(shop, "retrain", "retail")
    until(lambda: look(shop, TRAINING))
    assert "running" in recstore("list").out
    recstore("drop retail --yes").expect(1, "Another run of 'retail' is in progress")
    process.kill()
    process.communicate()
    until(lambda: look(shop, "SELECT FROM recstore.status WHERE last_retrain_state = 'abandoned'"))
    assert "abandoned" in recstore("list").out
    assert recstore("drop retail --yes").code == 0


def test_a_source_that_was_dropped_and_made_again(trained: Database, recstore: Command) -> None:
    recstore("grant retail application --people")
    application = trained.connect("application")
    application.execute("CREATE TABLE shop.kept AS TABLE shop.views; DROP TABLE shop.views CASCADE")
    recstore("retrain retail").expect(2, "no table shop.views")
    assert (
        "the last training failed: The source cannot be read: there is no table shop.views"
        in recstore("show retail").out
    )
    assert "interactions" in recstore("db check").err
    recstore("db upgrade").expect(1, "its views cannot be made", "Not everything of retail")
    application.execute("ALTER TABLE shop.kept RENAME TO views; GRANT SELECT ON shop.views TO worker")
    assert "recreated the view interactions" in recstore("db upgrade").out
    assert recstore("db check").code == 0
    assert len(application.execute("SELECT * FROM retail.recommend(1, 3)").fetchall()) == 3
    application.execute("DROP TABLE shop.views CASCADE")
    make_views(application)
    recstore("retrain retail").expect(0, "interactions")
    assert len(application.execute("SELECT * FROM retail.recommend(1, 3)").fetchall()) == 3


def test_what_is_retained_is_said(shop: Database, recstore: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    recstore(CREATE + " --keep 1")
    recstore("retrain retail")
    recstore("retrain retail")
    monkeypatch.setenv("RECSTORE_RETENTION", "3600")
    recstore("retrain retail")
    assert re.search(r"2 stays 3\d\d\d s more \(RECSTORE_RETENTION\)", recstore("prune retail").out)
    monkeypatch.setenv("RECSTORE_RETENTION", "0")
    assert recstore("prune retail").out == "removed 2\n"
    shop.connect().execute("UPDATE recstore_private.runs SET state = 'running' WHERE run = 1")
    again = recstore("prune retail")
    assert again.out == "no generation to remove\n"
    assert "Warning: Run 1 ended without finishing; its leftovers are removed." in again.err


def test_a_table_too_wide_for_the_terminal_is_shown_in_blocks(
    shop: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.create()
    monkeypatch.setattr(cli.state, "output", Screen(force_terminal=True, width=60, color_system=None))
    assert cli.run(["--database", shop.url, "list"]) == 0
    assert "recommender         retail\n" in capsys.readouterr().out


@pytest.mark.parametrize("terminal", [False, True])
def test_data_are_printed_as_they_are(
    recstore: Command, shop: Database, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brackets and :words: of a title are no markup, and a terminal obeys none of its characters."""
    title = "[red]one[/] :id: \x1b[31m \x9b \u202e"
    shop.connect("application").execute("UPDATE shop.products SET title = %s", [title])
    recstore(CREATE + " --titles shop.products:product_id:title")
    recstore("retrain retail")
    monkeypatch.setattr(cli.state, "output", Screen(force_terminal=terminal, width=200, color_system=None))
    assert r"[red]one[/] :id: \u001b[31m \u009b \u202e" in recstore("popular retail").out
    assert recstore("popular retail -k 1 --json").json[0]["title"] == title  # type: ignore[index]
    refused = recstore("show [bold]:id:\x1b")
    assert (refused.code, "\x1b" in refused.err) == (2, False)
    assert "[bold]:id:" in refused.err


def test_a_variable_that_is_no_setting_is_reported(recstore: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSTORE_DEVISE", "gpu")
    answer = recstore("list")
    assert (answer.code, answer.err.count("\n")) == (0, 1)
    assert "RECSTORE_DEVISE is no setting and has no effect; the nearest is RECSTORE_DEVICE" in answer.err


def test_no_database_at_all(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSTORE_HOME", str(tmp_path))
    monkeypatch.delenv("RECSTORE_DATABASE_URL", raising=False)
    assert cli.run(["list"]) == 3
    assert "recstore start" in capsys.readouterr().err


def test_a_database_without_the_schema(empty: Database, recstore: Command) -> None:
    recstore("list", url=empty.url).expect(1, "recstore db upgrade")
    lines = {"db upgrade": 0, "db upgrade --json": 0, "db check": 0, "db downgrade base --yes": 0, "list": 1}
    assert {line: recstore(line, url=empty.url).code for line in lines} == lines


def test_padding_is_shown_with_the_command_that_removes_it(recstore: Command, shop: Database) -> None:
    """The default factors are reduced to items - 1 at the training, when the dimensions are fixed already."""
    recstore("create retail --table shop.views --item product_id --value view_count --iterations 1").expect(
        0, "256 dim"
    )
    recstore("retrain retail").expect(0)
    recstore("show retail").expect(0, "119 factors in 256 dimensions, so 50% of each vector is padding.")
    recstore("alter retail --factors 119 --resize").expect(0)
    recstore("retrain retail").expect(0)
    shown = recstore("show retail").out
    assert "vector of 128 dimensions" in shown
    assert "padding" not in shown
    assert rows(shop.connect(), "SELECT count(*) AS n FROM retail.recommend(1)") == [{"n": 10}]
