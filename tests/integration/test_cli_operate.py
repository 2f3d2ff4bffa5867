"""What operators type: status, requests, runs, logs, request, and the rights to do so."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Answer, Command, Database, superuser
from psycopg import errors as pg
from support import Hook, look, until

from recstore import cli, pipeline, requests, schedule
from recstore.api import jobs, progress
from recstore.background import watching
from recstore.cli.context import Screen
from recstore.definition import Filters, Lists, Refresh, Schedule
from recstore.errors import NothingLeft, RunCancelled
from recstore.runs import Run, reporter

LONG = "a_recommender_with_a_name_as_long_as_names_may_g"
UP = "INSERT INTO recstore_private.dispatches VALUES ('lathe', clock_timestamp() - interval '12 s')"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "PROGRESS_EVERY", 0)
    monkeypatch.setattr(watching, "EVERY", 0.01)


@contextmanager
def worker(shop: Database, **settings: Any) -> Iterator[None]:
    """One that serves the first request that there is."""

    def serve() -> None:
        until(lambda: look(shop, "SELECT FROM recstore.requests WHERE state = 'waiting'"))
        with suppress(NothingLeft):
            pipeline.retrain(shop.url, shop.settings.model_copy(update=settings), "retail", requested=True)

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    thread.join()


def terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    screen = Screen(force_terminal=True, width=width, height=40, color_system=None)
    monkeypatch.setattr(cli.state, "output", screen)


def test_where_there_is_nothing_yet(recstore: Command) -> None:
    recstore("status").expect(0, "recstore create", "Start one with: recstore worker")
    for line in ("runs", "requests", "requests --open", "logs"):
        recstore(line).expect(0)
    assert [recstore(f"{line} --json").json for line in ("runs", "requests", "logs")] == [[], [], None]
    assert recstore("status --json").json["recommenders"] == []


def test_status_tells_what_is_live_what_failed_and_what_is_asked_for(recstore: Command, shop: Database) -> None:
    shop.create()
    lists = Lists(similar_into="made.similar", cron="0 4 * * *")
    due: dict[str, Any] = {"schedule": Schedule(cron="0 3 * * *"), "refresh": Refresh(cron="*/15 * * * *")}
    shop.create(LONG, filters=Filters(min_users_per_item=10_000), lists=lists, **due)
    assert "nothing yet. Run: recstore retrain retail" in recstore("status retail").out
    shop.retrain()
    with pytest.raises(NothingLeft):
        shop.retrain(LONG)
    for _ in range(6):
        recstore(f"request reindex {LONG}")
    look(shop, UP + " RETURNING host")
    out = recstore("status").out
    assert re.search(r"retail\n  live          generation \d for \d+ s: 240 users, 120 items\n", out)
    assert re.search(r"last retrain  succeeded \d+ s ago \(run 1\)\n", out)
    assert "schedule      none" in out
    assert re.search(r"failed \d+ s ago \(run 2\)\n  error         No interactions are left after the filters", out)
    assert re.search(r"at 03:00 every day \(UTC\), next \w{3} \d\d \w{3} 03:00 UTC \(in \d+ \w+\)", out)
    assert len(re.findall(r"reindex by worker \(command\) \d+ s ago: request \d", out)) == 4
    assert f"and 2 more: recstore requests {LONG} --open" in out
    assert re.search(r"The last look for due work was \d+ s ago, by lathe\.\n$", out)
    rows = {row["recommender"]: row for row in recstore("status --json").json["recommenders"]}
    assert (rows["retail"]["live_generation"], rows["retail"]["next_retrain"]) == (1, None)
    assert rows[LONG]["next_retrain"][11:19] == "03:00:00"
    assert re.search(r"lists +at 04:00 every day \(UTC\), next \w{3} \d\d \w{3} 04:00 UTC \(in \d+ \w+\)", out)
    assert (rows["retail"]["next_lists"], rows[LONG]["next_lists"][11:19]) == (None, "04:00:00")
    assert re.search(r"refresh +every 15 minutes \(UTC\), next \w{3} \d\d \w{3} \d\d:\d[05] UTC \(in \d+ \w+\)", out)
    assert (rows["retail"]["next_refresh"], rows[LONG]["refresh_schedule"]) == (None, "*/15 * * * *")
    assert len(rows[LONG]["open_requests"]) == 6


def test_a_schedule_that_is_late_and_a_dispatcher_that_is_gone(recstore: Command, shop: Database) -> None:
    shop.create(schedule=Schedule(cron="*/5 * * * *", timezone="Europe/Madrid"))
    with superuser(shop.server, shop.name) as connection:
        connection.execute("UPDATE recstore_private.recommenders SET scheduled_at = now() - interval '1 h'")
        connection.execute("INSERT INTO recstore_private.dispatches VALUES ('lathe', now() - interval '3 h')")
    out = recstore("status").out
    assert re.search(r"\(Europe/Madrid\), due now \(since \w{3} \d\d \w{3} \d\d:\d[05] CES?T\)", out)
    assert "No worker has dispatched work for 3 h (the last was lathe)" in out
    assert "No worker has dispatched" in recstore("request retrain retail").err
    look(shop, "UPDATE recstore_private.dispatches SET dispatched_at = now() RETURNING host")
    assert recstore("request retrain retail").err == ""


def test_a_run_in_progress(recstore: Command, shop: Database) -> None:
    shop.create()
    answers: list[Answer] = []
    lines = ("status", "runs", "logs", "logs --json")

    def at(stage: str) -> None:
        seen = 'SELECT FROM recstore.runs WHERE progress @> \'{"stage": "train", "done": 2}\''
        if stage == "train" and not answers and look(shop, seen):
            answers.extend(recstore(line) for line in lines)

    shop.retrain(reporter=Hook(on_progress=at))
    status, table, story, row = answers
    assert re.search(r"now           retrain for \d\.\d s \(run 1\): train 40 %\n", status.out)
    assert re.search(r"1  retail       retrain  running  .* train 40 %\n", table.out)
    assert re.search(r"weigh +\d\.\d\d s   confidence from bm25\nrunning for \d\.\d s: train 40 %\n", story.out)
    assert "Go on watching: recstore logs 1 --follow" in story.out
    assert row.json["progress"] == {"stage": "train", "done": 2, "total": 5, "note": ""}


def test_the_story_of_every_job(recstore: Command, trained: Database) -> None:
    trained.retrain()
    reindexed = recstore("reindex retail")
    assert reindexed.out.startswith("generation 2 of retail is reindexed and calibrated")
    assert recstore("reindex retail --json").json["generation"] == 2
    recstore("prune retail --keep 1 --yes")
    recstore("alter retail --factors 100 --resize")
    rows = recstore("runs --json").json
    assert [row["job"] for row in rows] == ["retrain", "retrain", "reindex", "reindex", "prune", "resize"]
    for row in rows:
        told = recstore(f"logs {row['run']}").out
        assert told.startswith(f"run {row['run']}: {row['job']} of retail\n  started  20")
        assert "recstore 0" in told
        assert re.search(r"succeeded after \d", told)
        for stage in row["stages"]:
            name, seconds = stage.pop("stage"), stage.pop("seconds")
            assert f"{name:<12} {seconds:7.2f} s   {progress.sentence(stage)}\n" in told
    ended = (
        r"after \d.*, trained on the CPU, \d+\.\d MB of WAL written( by the whole server)?\nGeneration 2 is live\.\n"
    )
    assert re.search(ended, recstore("logs 2").out)
    assert [row["run"] for row in recstore("runs retail --job reindex -n 1 --json").json] == [4]


def test_a_stage_of_an_older_run_is_shown_by_its_figures() -> None:
    assert progress.sentence({"odd": 1, "generation": None}) == "odd 1, generation None"
    assert progress.sentence({"told": "3 rows", "rows": 3}) == "3 rows"
    assert progress.sentence({}) == ""


def test_a_run_that_failed(recstore: Command, shop: Database) -> None:
    shop.create(filters=Filters(min_users_per_item=10_000))
    shop.create("other")
    shop.retrain("other")
    recstore("retrain retail")
    assert "No interactions are left after the filters" in recstore("runs --state failed").out
    story = recstore("logs retail").out
    assert re.search(
        r"\nfilter +not finished\nfailed after \d.*\nError: No interactions are left after the filters", story
    )
    assert story.endswith("The traceback: recstore logs 2 --trace\n")
    assert "Traceback (most recent call last)" not in story
    assert "Traceback (most recent call last)" in recstore("logs 2 --trace").out
    assert recstore("logs retail --json").json["state"] == "failed"


def test_a_generation_that_waits_to_go_live(recstore: Command, trained: Database) -> None:
    look(trained, UP + " RETURNING host")
    with trained.connect() as reader:
        reader.execute("BEGIN; SELECT count(*) FROM retail.item_vectors")
        trained.retrain()
        with worker(trained, flip_wait=0, prune_wait=0):
            asked = recstore("request retrain retail --wait")
        assert asked.code == 4
        assert "ready but not live yet: it waits for process" in asked.out
        told = recstore("status").out
        assert re.search(r"ready         generation 3 waits for process \d+ \(test, role worker\)", told)
        assert "When that has ended: recstore publish retail" in told
        assert "ready" in recstore("runs retail --state ready").out
        assert recstore("logs").out.count("it waits for process") == 1
        reader.execute("COMMIT")
    recstore("publish retail")
    assert [row["state"] for row in recstore("requests --json").json] == ["succeeded"]
    assert "last retrain  succeeded" in recstore("status").out  # what was ready is live


def test_a_request_that_is_waited_for(recstore: Command, shop: Database) -> None:
    shop.create()
    with worker(shop):
        asked = recstore("request retrain retail --wait --timeout 60")
    assert (asked.code, asked.out) == (0, "request 1: retrain of retail\nGeneration 1 is live.\n")
    assert [line.split()[0] for line in asked.err.splitlines() if re.search(r"\d s   ", line)][-3:] == [
        "check",
        "flip",
        "tidy",
    ]
    with worker(shop):
        assert recstore("request retrain retail --wait --json").json["state"] == "succeeded"
    recstore("alter retail --min-users-per-item 10000")
    with worker(shop):
        failed = recstore("request retrain retail --wait")
    assert failed.code == 1
    assert "Error: No interactions are left after the filters" in failed.err


def test_a_run_that_was_skipped(recstore: Command, trained: Database) -> None:
    with trained.connect() as connection:
        requests.insert(connection, "retail", "retrain", "schedule")
    assert pipeline.retrain(trained.url, trained.settings, "retail", requested=True).skipped
    assert re.search(r"retrain  skipped .*  schedule +2  Skipped: the source", recstore("requests").out)
    assert "Skipped: the source has nothing new since generation 1" in recstore("runs --state skipped").out
    story = recstore("logs").out
    assert "for      request 1 by worker (schedule)" in story
    assert "Skipped: the source has nothing new" in story
    assert "last retrain  skipped " in recstore("status").out


def test_a_run_in_progress_is_cancelled(recstore: Command, shop: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.create()
    monkeypatch.setattr(jobs, "ENDING", 0.1)
    with suppress(RunCancelled), Run(shop.url, shop.settings, "retail", "retrain") as run:
        recstore(f"cancel {run.number}").expect(0, f"run {run.number}, retrain of retail, ends at its next step")
        assert recstore(f"cancel {run.number} --json").json["state"] == "running"
        run.stage("prepare", lambda: None)
    assert recstore("runs --json").json[0]["state"] == "cancelled"


def test_taking_a_request_back(recstore: Command, shop: Database) -> None:
    shop.create()
    assert "take it back: recstore request cancel 1" in recstore("request retrain retail").out
    assert recstore("request reindex retail --json").json["state"] == "waiting"
    assert recstore("request cancel 1").out == "cancelled request 1, retrain of retail\n"
    assert recstore("request cancel 2 --json").json["state"] == "cancelled"
    recstore("request cancel 1").expect(1, "cannot be cancelled: it is cancelled")
    assert "Cancelled by worker." in recstore("requests retail").out
    assert recstore("requests --open").out == "Nothing is asked for.\n"

    def cancel() -> None:
        until(lambda: look(shop, "SELECT recstore.cancel_request(3) AS done")[0]["done"])

    thread = threading.Thread(target=cancel)
    thread.start()
    waited = recstore("request retrain retail --wait")
    thread.join()
    assert (waited.code, "Error: Cancelled by postgres." in waited.err) == (1, True)


def test_nobody_comes(recstore: Command, shop: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.create()
    late = recstore("request retrain retail --wait --timeout 0")
    assert (late.code, late.out) == (1, "request 1: retrain of retail\n")
    assert "request 1 waits for a worker\n" in late.err
    assert "Error: Stopped waiting after 0 s. Request 1 is waiting" in late.err

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching, "time", SimpleNamespace(sleep=interrupt))
    recstore("request retrain retail --wait").expect(
        130, "Error: Stopped waiting. Request 2 will still run in the background."
    )
    assert [row["state"] for row in recstore("requests --json").json] == ["waiting", "waiting"]


def test_a_run_is_followed_to_its_end(recstore: Command, shop: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.create()
    followed = threading.Event()

    def sleep(_: float) -> None:
        followed.set()
        time.sleep(0.01)

    monkeypatch.setattr(watching, "time", SimpleNamespace(sleep=sleep))
    hook = Hook(lambda stage: stage != "weigh" or followed.wait(30))
    thread = threading.Thread(target=shop.retrain, kwargs={"reporter": hook})
    thread.start()
    until(lambda: look(shop, 'SELECT FROM recstore.runs WHERE stages @> \'[{"stage": "weigh", "function": "bm25"}]\''))
    story = recstore("logs retail --follow").out
    thread.join()
    assert [line.split()[0] for line in story.splitlines() if re.search(r"\d s   ", line)] == [
        name.split()[0] for name in hook.stages
    ]
    assert re.search(r"succeeded after .*\nGeneration 1 is live\.\n$", story)


@pytest.mark.parametrize("width", [0, 80])
def test_watching_survives_a_lost_connection(
    recstore: Command, trained: Database, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    seconds: list[float] = []

    def sleep(interval: float) -> None:
        seconds.append(interval)
        if len(seconds) == 2:
            look(
                trained,
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'recstore'",
            )
        if len(seconds) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(watching, "time", SimpleNamespace(sleep=sleep))
    if width:
        terminal(monkeypatch, width)
    watched = recstore("status --watch --interval 0.5")
    assert (watched.code, seconds) == (0, [0.5] * 5)
    said = "No connection to the database: terminating connection due to administrator command. Trying again."
    if width:
        assert " ".join(said.split()[:6]) in watched.out
        assert "every 0.5 s until Ctrl-C" in watched.out
    else:
        assert said in watched.err
        assert watched.out.count("live          generation 1") == 4
        assert "\x1b" not in watched.out + watched.err


def test_watching_without_any_connection_is_an_error(recstore: Command) -> None:
    assert recstore("status --watch", url="postgresql://nobody@/x?host=/nonexistent").code == 3


def test_the_real_ctrl_c(shop: Database) -> None:
    shop.create()
    command = [sys.executable, "-m", "recstore", "--database", shop.url, "status", "--watch", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        seen = [process.stdout.readline() for _ in range(20)]
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert "retail\n" in seen
    assert "\x1b" not in "".join(seen) + out


@pytest.mark.parametrize("width", [80, 120])
def test_every_screen_fits_the_terminal(
    recstore: Command, shop: Database, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    shop.create(LONG, filters=Filters(min_users_per_item=10_000), schedule=Schedule(cron="*/7 9-18 * * MON-FRI"))
    with pytest.raises(NothingLeft):
        shop.retrain(LONG)
    recstore(f"request retrain {LONG}")
    piped = recstore("runs").out
    terminal(monkeypatch, width)
    for line in ("status", "runs", "requests", f"runs {LONG}", "list", f"show {LONG}"):
        printed = recstore(line).out
        assert max(map(len, printed.splitlines())) <= width, printed
        assert printed.count("…") == 0 or line != "status"
    assert f" {LONG} " in piped
    assert "Relax the filters with `recstore alter`." in piped


def test_a_role_that_watches_and_asks(recstore: Command, trained: Database) -> None:
    url = trained.url_of("application")
    denied = recstore("status", url=url)
    assert (denied.code, "permission denied for schema recstore" in denied.err) == (1, True)
    granted = recstore("db grant application")
    assert granted.out.splitlines() == recstore("db grant application --json").json["statements"]
    for line in ("status", "runs retail", "requests", "logs", "logs 1 --json", "status retail --json"):
        assert recstore(line, url=url).code == 0
    assert recstore("request retrain retail --json", url=url).json["requested_by"] == "application"
    assert recstore("request reindex retail", url=url).code == 0
    assert recstore("request cancel 1", url=url).out == "cancelled request 1, retrain of retail\n"
    assert recstore("request retrain nix", url=url).code == 2
    assert recstore("status nix", url=url).code == 2
    assert recstore("retrain retail", url=url).code == 1
    with trained.connect("application") as connection:
        for statement in (
            "INSERT INTO recstore_private.requests (recommender, job, origin) VALUES ('retail', 'retrain', 'sql')",
            "DELETE FROM recstore.dispatches",
            "SELECT recstore_private.request('retail', 'retrain', 'sql')",
            "SELECT * FROM retail.user_vectors",
        ):
            with pytest.raises(pg.InsufficientPrivilege):
                connection.execute(statement)
    assert "REVOKE EXECUTE" in recstore("db grant application --no-requests").out
    assert recstore("status", url=url).code == 0
    recstore("request retrain retail", url=url).expect(1, "permission denied for function request_retrain")
    assert recstore("request cancel 2", url=url).code == 1
    assert len(recstore("db revoke application --json").json["statements"]) == 3
    assert recstore("status", url=url).code == 1


def test_a_schedule_is_told_in_words(recstore: Command) -> None:
    create = "create retail --table shop.views --item product_id --factors 16 --timezone Europe/Madrid --schedule"
    assert "retrained by the workers at 03:00 every day (Europe/Madrid), next" in recstore(create, "0 3 * * *").out
    shown = recstore("show retail").out
    assert re.search(r"\n  schedule: at 03:00 every day \(Europe/Madrid\), next .* 03:00 CES?T \(in \d+ \w+\)\n", shown)
    assert shown.count("schedule") == 1
    assert "0 3 * * *" in recstore("list").out
    altered = recstore("alter retail --schedule", "30 4 * * SUN").out
    assert altered.startswith("altered retail: the workers retrain it at 04:30 on Sunday (Europe/Madrid), next Sun ")
    assert "the next training" not in altered
    assert recstore("alter retail --schedule none").out == "altered retail: it has no schedule\n"
    assert "  schedule: none\n" in recstore("show retail").out
    assert recstore("show retail --json").json["next_retrain"] is None


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("*/2 * * * *", "Every 2 minutes"),
        ("*/7 * * * *", "Every seventh minute of every hour"),
        ("0 */6 * * *", "Every 6 hours"),
        ("5 */2 * * *", "At minute 5 past every 2nd hour"),
        ("0 3 * * SUN", "At 03:00 on Sunday"),
    ],
)
def test_a_schedule_in_words(cron: str, words: str) -> None:
    assert schedule.words(cron, "UTC") == f"{words} (UTC)"


def test_an_abandoned_run_says_so(recstore: Command, trained: Database) -> None:
    with superuser(trained.server, trained.name) as connection:  # as one whose process is gone: it holds no lock
        connection.execute(
            "UPDATE recstore_private.runs SET state = 'running', finished_at = NULL, outcome = NULL,"
            ' stages = \'[{"stage": "train"}]\''
        )
    assert "The process of this run ended without finishing it." in recstore("runs --state abandoned").out
    assert re.search(r"train +not finished\nabandoned after .*\nError: The process of this run", recstore("logs").out)
    assert "last retrain  abandoned " in recstore("status").out
