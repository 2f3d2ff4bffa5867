"""Ctrl-C between any two statements of a command: a sentence, what is live serves on, nothing half made is left. (Within a
training: test_runs, and of real processes: test_cli and tests/worker/test_killed.)"""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from conftest import Command, Database
from support import Generations, assert_nothing_left, look, states, until

CREATE = "create retail --table shop.views --item product_id --value view_count --factors 16 --search exact"
INTERRUPTS = 4
"""Of each command, evenly spread over its statements."""


class Hook:
    """Counts statements, and interrupts before or after one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.at, self.after = 0, -1, False
        execute = psycopg.Cursor.execute

        def counted(cursor: Any, *arguments: Any, **options: Any) -> Any:
            self.count += 1
            now = self.count == self.at
            if now and not self.after:
                raise KeyboardInterrupt
            done = execute(cursor, *arguments, **options)
            if now:
                raise KeyboardInterrupt
            return done

        monkeypatch.setattr(psycopg.Cursor, "execute", counted)

    def arm(self, at: int, after: bool = False) -> None:
        self.count, self.at, self.after = 0, at, after


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Hook:
    return Hook(monkeypatch)


def interrupted(
    recstore: Command, hook: Hook, line: str, prepare: Callable[[], object] = lambda: None, url: str = ""
) -> Iterator[bool]:
    """Interrupts the command here and there, each time as `prepare` left things; yields whether it was still asked for."""
    prepare()
    hook.arm(-1)
    assert recstore(line, url=url).code == 0
    statements = hook.count
    assert statements > 5
    for number in range(INTERRUPTS):
        prepare()
        hook.arm(1 + number * (statements - 1) // (INTERRUPTS - 1), after=bool(number % 2))
        answer = recstore(line, url=url)
        hook.arm(-1)
        assert answer.code in (130, 0), (answer.err, number)
        if answer.code:
            assert "Error: Interrupted" in answer.err
        yield answer.code == 130


def whole(database: Database) -> bool:
    """Whether the recommender is there: with everything, or not at all; nobody is connected any more."""
    backends = "SELECT application_name FROM pg_stat_activity WHERE datname = %s AND application_name LIKE 'recstore%%'"
    until(lambda: look(database, backends, database.name) == [])
    (found,) = look(
        database,
        "SELECT (SELECT count(*) FROM recstore_private.recommenders) AS rows, (SELECT count(*) FROM pg_namespace n WHERE"
        " n.nspname = 'retail') AS schemas, (SELECT count(*) FROM recstore_private.pointers) AS pointers,"
        " (SELECT count(*) FROM pg_proc p WHERE p.pronamespace = to_regnamespace('retail')) AS functions",
    )
    assert found["rows"] == found["schemas"] == found["pointers"]
    assert (found["functions"] > 10) is (found["rows"] == 1)
    return bool(found["rows"])


def test_create_and_drop_are_done_whole_or_not_at_all(recstore: Command, shop: Database, hook: Hook) -> None:
    def drop() -> None:
        recstore("drop retail --yes --cascade")

    made = {whole(shop) for _ in interrupted(recstore, hook, CREATE, drop)}
    assert made == {True, False}
    if not whole(shop):
        recstore(CREATE)
    Generations(shop).publish()  # one that was interrupted between its two transactions is as good
    assert_nothing_left(shop)

    def create() -> None:
        if not whole(shop):
            recstore(CREATE)

    assert {whole(shop) for _ in interrupted(recstore, hook, "drop retail --yes", create)} >= {True}


def test_what_is_live_serves_on(recstore: Command, shop: Database, hook: Hook) -> None:
    recstore(CREATE)
    made = Generations(shop)
    made.publish()
    made.publish()
    reader = shop.connect()

    def serving() -> int:
        rows = reader.execute(
            "SELECT i.item_id, i.score, retail.generation() AS g FROM retail.recommend(1, 10) i"
        ).fetchall()
        number = int(rows[0]["g"])
        assert made.recommended(number, 1, [row["item_id"] for row in rows], [row["score"] for row in rows])
        return number

    for _ in interrupted(recstore, hook, "rollback retail --to 1", lambda: recstore("rollback retail --to 2")):
        assert serving() in (1, 2)
    for line in ("alter retail --alpha 3", "grant retail application --people", "reindex retail"):
        before = serving()
        for _ in interrupted(recstore, hook, line):
            assert serving() == before
    recstore("reindex retail")
    assert_nothing_left(shop)

    newest = 0
    recstore("release retail")

    def publish() -> None:
        nonlocal newest
        newest = made.publish().generation

    for _ in interrupted(recstore, hook, "prune retail --keep 1 --yes", publish):
        assert serving() == newest
        assert "building" not in states(shop).values()
    assert recstore("prune retail --keep 1 --yes").code == 0
    assert_nothing_left(shop)
    assert "previous" not in states(shop).values()


def test_an_upgrade_goes_on_where_it_was_interrupted(recstore: Command, empty: Database, hook: Hook) -> None:
    def downgrade() -> None:
        recstore("db downgrade base --yes", url=empty.url)

    for _ in interrupted(recstore, hook, "db upgrade", downgrade, url=empty.url):
        (row,) = look(
            empty, "SELECT to_regclass('recstore.status') IS NULL = (to_regclass('recstore.runs') IS NULL) AS whole"
        )
        assert row["whole"]
        assert recstore("db upgrade", url=empty.url).code == 0
    assert recstore("db check", url=empty.url).code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_the_program_is_still_being_imported(number: signal.Signals) -> None:
    program = f"""
import os, sys
from importlib.abc import MetaPathFinder
class Importing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "recstore.cli":
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Importing())
from recstore.__main__ import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "Error: Interrupted before anything was done.\n")
