"""`recstore up` with real processes: stopped, killed, started twice, a child dying, children that will not end."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from conftest import Database
from support import until

import recstore
from recstore import cli, embedded
from recstore.cli import up
from recstore.embedded import children, configured
from recstore.embedded.instance import lock
from recstore.errors import RecstoreError

CHECKOUT = str(Path(recstore.__path__[0]).parent)

Lines = list[tuple[str, str]]


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


IGNORING = shell("trap '' TERM QUIT; sleep 60 & echo $!; wait")
"""A child that no polite signal ends, with one of its own."""


READY = "ready: processes: 1 for train, 2 for default"
"""What `recstore up` has said when everything runs."""


# The processes of this machine


def living() -> dict[int, tuple[int, str]]:
    """pid -> (parent, command line) of all that has not ended."""
    listed = subprocess.run(
        ["ps", "-ewwo", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split(None, 3) for line in listed.splitlines())
    return {int(pid): (int(parent), args) for pid, parent, stat, args in rows if not stat.startswith("Z")}


def below(parent: int) -> dict[int, str]:
    """pid -> command line of a process' children, theirs, and so on."""
    found: dict[int, str] = {}
    todo, everything = [parent], living()
    while todo:
        parent = todo.pop()
        new = {pid: args for pid, (its, args) in everything.items() if its == parent}
        found |= new
        todo += new
    return found


def gone(pids: list[int]) -> bool:
    return living().keys().isdisjoint(pids)


def put_away(home: Path) -> bool:
    with lock(home / "up.lock", fcntl.LOCK_EX) as held:
        return held is not None


# The mechanism, with children that take no time


def test_a_child_that_ends_is_named_with_what_it_said_and_the_others_end(tmp_path: Path) -> None:
    said: Lines = []
    with embedded.foreground(tmp_path, lambda *line: said.append(line)) as processes:
        first = processes.start("a", shell("echo '[bold]é'; sleep 60"), {})
        until(lambda: said)
        processes.start("b", shell("echo foo; echo bår >&2; exit 3"), {})
        with pytest.raises(RecstoreError, match=r"(?s)process b ended with exit code 3; .* output:\nfoo\nbår$"):
            processes.wait()
    assert first.process.returncode == -signal.SIGTERM
    assert sorted(said) == [("a", "[bold]é"), ("b", "bår"), ("b", "foo"), ("up", "stopping a")]
    assert put_away(tmp_path)


def test_stubborn_children_are_killed_with_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: Lines = []
    monkeypatch.setattr(children, "QUICK", 0.1)
    with suppress(KeyboardInterrupt), embedded.foreground(tmp_path, lambda *line: said.append(line)) as processes:
        for name in "a", "b":
            processes.start(name, IGNORING, {}, 0.1)
        until(lambda: len(said) == 2)
        os.kill(os.getpid(), signal.SIGTERM)
    grandchildren = [int(line) for _, line in said[:2]]
    assert [line.partition(":")[0] for _, line in said[2:]] == [
        "stopping a and b",
        "stopping a and b at once",
        "killing b",
        "killing a",
    ]
    until(lambda: gone(grandchildren))


def test_a_second_interrupt_skips_the_grace(tmp_path: Path) -> None:
    def show(name: str, line: str) -> None:
        said.append((name, line))
        if "Ctrl-C again" in line:
            os.kill(os.getpid(), signal.SIGINT)

    said: Lines = []
    with suppress(KeyboardInterrupt), embedded.foreground(tmp_path, show) as processes:
        child = processes.start("a", shell("trap '' TERM; echo ready; sleep 60"), {}, 3600)
        until(lambda: said)
        os.kill(os.getpid(), signal.SIGINT)
    assert child.process.returncode == -signal.SIGQUIT


def test_a_closed_output_is_an_interrupt(tmp_path: Path) -> None:
    def show(_name: str, _line: str) -> None:
        raise BrokenPipeError

    with embedded.foreground(tmp_path, show) as processes:
        processes.start("a", shell("echo; sleep 60"), {})
        processes.wait()


def test_after_a_kill_the_keeper_ends_the_stubborn_too_and_only_then_the_next_begins(tmp_path: Path) -> None:
    code = """if True:
        import pathlib, signal, sys
        from recstore import embedded
        from recstore.demo import broker
        from recstore.embedded import children
        children.KEEP = children.KEEP.replace("tries=100", "tries=3")
        def say(*words):  # in one piece: several threads do
            print(" ".join(map(str, words)) + chr(10), end="", flush=True)
        with embedded.foreground(pathlib.Path(sys.argv[1]), say) as foreground:
            broker.start(foreground)
            foreground.start("polite", ["sleep", "60"], {})
            foreground.start("stubborn", ["/bin/sh", "-c", sys.argv[2]], {})
            say("directory", foreground.directory)
            signal.pause()
    """
    command = [sys.executable, "-c", code, str(tmp_path), IGNORING[-1]]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        said: dict[str, str] = {}
        try:
            while not {"stubborn", "directory"} <= said.keys():
                read = parent.stdout.readline()
                assert read, said
                name, _, line = read.strip().partition(" ")  # the broker prints blank lines, too
                said[name] = line
            processes = below(parent.pid)
            assert len(processes) == 5, processes  # the keeper, the broker, the two, and the stubborn one's
        finally:
            parent.kill()
    with embedded.foreground(tmp_path, lambda *_: None):
        until(lambda: gone([*processes]))
    assert not Path(said["directory"]).exists()


# The command


def test_with_a_broker_celery_s_processes_run(
    shop: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
        cd "$RECSTORE_HOME"
        if [ "$1" = worker ]; then env >new.$3; mv new.$3 $3; echo "$@"; exec sleep 60; fi
        until [ -e train ] && [ -e default ]; do sleep 0.01; done
        exit 3
    """
    monkeypatch.setattr(up, "celery", lambda *words: [*shell(script), "celery", *words])
    monkeypatch.setattr(configured, "celery", lambda *words: [*shell(script), "celery", *words])
    monkeypatch.chdir(tmp_path)
    for name, value in {"BROKER_URL": "redis://u:secret@redis/0", "METRICS_PORT": "7001", "HOME": "a home"}.items():
        monkeypatch.setenv(f"RECSTORE_{name}", value)
    assert cli.run(["--database", shop.url, "up"]) == 1
    printed = capsys.readouterr()
    assert "The process beat ended with exit code 3" in printed.err
    assert "train  | worker -Q train --concurrency 1 -n train@%h" in printed.out
    assert "http://127.0.0.1:7002" in printed.out
    assert "secret" not in printed.out
    for queues, port in ("train", 7001), ("default", 7002):
        variables = (tmp_path / "a home" / queues).read_text().splitlines()
        assert {
            f"RECSTORE_DATABASE_URL={shop.url}",
            "RECSTORE_BROKER_URL=redis://u:secret@redis/0",
            f"RECSTORE_HOME={tmp_path}/a home",
            f"RECSTORE_METRICS_PORT={port}",
        } <= set(variables)


def test_a_database_of_another_version_stops_it_before_anything_starts(
    empty: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSTORE_HOME", str(tmp_path))
    assert cli.run(["--database", empty.url, "up"]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (
        "",
        "Error: This database has no recstore schema yet. Run: recstore db upgrade\n",
    )
    assert put_away(tmp_path)


# Everything, for real


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of all of them, one after the other."""
    return tmp_path_factory.mktemp("up") / "a home"


@contextmanager
def running(home: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
    """`recstore up` in this home, and what it has said until now."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECSTORE_")}
    environment |= {"RECSTORE_HOME": str(home), "RECSTORE_METRICS_PORT": "0"}
    log = home.with_name("said")
    with log.open("w") as file:
        command = [sys.executable, "-m", "recstore", "up", *options]
        process = subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=file, stderr=file)
    try:
        yield process, lambda: log.read_text(errors="replace")
    finally:
        process.kill()
        process.wait()
        until(lambda: put_away(home), 60)


def test_up_runs_everything_once_per_home_and_ends_it_by_an_interrupt(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(home) as (process, said):
        until(lambda: READY in said(), 60)
        server = embedded.running(home)
        assert server
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT count(*) FROM recstore.status").fetchone() == (0,)
        assert "broker" not in said()
        monkeypatch.setenv("RECSTORE_HOME", str(home))
        assert cli.run(["up"]) == 1
        assert f"runs already in {home}, as process {process.pid}." in capsys.readouterr().err
        everything = [server.pid, *below(process.pid)]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        until(lambda: gone(everything))
        assert said().endswith("\nup     | stopping PostgreSQL\nstopped\n")
        order = ["stopping worker: 20 s to finish", "INFO stopped", "stopping PostgreSQL"]
        assert [said().index(words) for words in order] == sorted(said().index(words) for words in order)
    assert {path.name for path in home.iterdir()} == {"postgres18", "postgres.log", "postgres.lock", "up.lock"}
    assert embedded.running(home) is None


def test_up_fails_when_one_of_them_dies(home: Path) -> None:
    server = embedded.start(home)
    try:
        with running(home, "--json") as (process, said):
            until(lambda: READY in said(), 60)
            worker = min(pid for pid, args in below(process.pid).items() if args.endswith(" worker"))
            everything = below(process.pid)
            os.kill(worker, signal.SIGKILL)
            assert process.wait(60) == 1
            *lines, last = map(json.loads, said().splitlines())
            assert last["error"].startswith("The process worker ended by SIGKILL; everything else was stopped.")
            assert {line["process"] for line in lines} >= {"recstore", "worker"}
            until(lambda: gone([*everything]))
        assert embedded.running(home) == server  # which is not its own
    finally:
        embedded.stop(home)


def test_nothing_of_a_killed_up_stays(home: Path) -> None:
    with running(home) as (process, said):
        until(lambda: READY in said(), 60)
        server = embedded.running(home)
        assert server
        everything = [server.pid, *below(process.pid)]
        # PostgreSQL, the keeper, the worker, multiprocessing's server and tracker, and the four of the pool
        assert len(everything) == 9
        process.kill()
        until(lambda: gone(everything), 60)
    assert embedded.running(home) is None
    assert not server.sockets.exists()
