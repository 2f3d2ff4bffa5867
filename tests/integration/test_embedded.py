"""The embedded PostgreSQL with real processes: killed, started at once, copied, moved, as root and as others."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import adbc_driver_postgresql.dbapi as adbc
import psycopg
import pytest
import sqlalchemy
from support import until

import recstore
from recstore.embedded import daemon, programs, running, start, stop, temporary_server, tool_path
from recstore.errors import EmbeddedFailed, InvalidInput

ROOT = os.geteuid() == 0
CHECKOUT = str(Path(recstore.__path__[0]).parent)


MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() and shutil.disk_usage("/dev/shm").free > 8 << 30 else None
"""Where the homes are, if there is plenty: each is a thousand files."""


@pytest.fixture
def new_home() -> Iterator[Path]:
    """A home to be created, with a path that shells break on; a server that runs in it is stopped afterwards."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        home = Path(folder) / "my home $(false) `false` 'ä\"" / "recstore"
        yield home
        stop(home)


@pytest.fixture(scope="module")
def used_home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        home = Path(folder) / "home"
        start(home)
        stop(home)
        yield home


@pytest.fixture
def home(new_home: Path, used_home: Path) -> Path:
    """A home in which the server has run before, which saves a second where the first start is not tested."""
    shutil.copytree(used_home, new_home)
    return new_home


@pytest.mark.parametrize("version", [18, 16])
def test_temporary_server_serves_every_client_and_leaves_nothing(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("long and spaced" * 8)  # no socket's path may be so long
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    shared_memory = os.statvfs_result([4096, 4096, 2**20 if version == 18 else 2**14, *range(7)])  # 4 GB, or 64 MB
    monkeypatch.setattr(os, "statvfs", lambda _: shared_memory)
    with temporary_server(version, {"work_mem": "7MB"}, durable=version == 18) as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute('CREATE DATABASE "an odd/name?"')
            settings = connection.execute(
                "SELECT current_setting('server_version_num')::int / 10000, current_setting('work_mem'), "
                "current_setting('fsync'), current_setting('server_encoding'), '[1,2]'::vector::text, "
                "current_setting('dynamic_shared_memory_type')"
            ).fetchone()
        differ = ("on", "posix") if version == 18 else ("off", "mmap")
        assert settings == (version, "7MB", differ[0], "UTF8", "[1,2]", differ[1])
        engine = sqlalchemy.create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.connect() as opened:
            assert opened.scalar(sqlalchemy.text("SELECT current_database()")) == "postgres"
        engine.dispose()
        with adbc.connect(server.url) as other, other.cursor() as cursor:
            cursor.execute("SELECT current_database()")
            assert cursor.fetchone() == ("postgres",)
        command = [str(tool_path(version, "psql")), "-XAtc", "SELECT current_database()", server.url_of("an odd/name?")]
        assert subprocess.run(command, env={}, capture_output=True, check=True).stdout == b"an odd/name?\n"
        assert server.sockets.stat().st_mode & 0o777 == 0o700
    assert not alive(server.pid)
    assert not server.sockets.exists()


@pytest.mark.parametrize(
    ("module", "kind", "place"), [("embedded", "server", "sockets"), ("demo.broker", "broker", "socket.parent")]
)
def test_a_temporary_one_ends_with_a_killed_parent_although_its_forked_child_lives(
    module: str, kind: str, place: str
) -> None:
    code = f"""if True:
        import os, signal
        from recstore.{module} import temporary_{kind}
        with temporary_{kind}() as it:
            child = os.fork()
            if not child:
                signal.pause()
            print(it.pid, it.{place}, child, flush=True)
            signal.pause()
    """
    with subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid, sockets, child = parent.stdout.readline().split()
        try:
            assert alive(int(pid))
            parent.kill()
            until(lambda: not alive(int(pid)) and not Path(sockets).exists())
            assert alive(int(child))
        finally:
            parent.kill()
            os.kill(int(child), signal.SIGKILL)


def test_a_wrong_setting_is_named() -> None:
    with (
        pytest.raises(EmbeddedFailed, match='unrecognized configuration parameter "nonsense"'),
        temporary_server(settings={"nonsense": "1"}),
    ):
        pass


def test_programs_and_versions() -> None:
    for name in "psql", "pg_dump", "pg_restore", "pgbench":
        for version in 18, 16:
            said = subprocess.run([tool_path(version, name), "--version"], env={}, capture_output=True, check=True)
            assert f"(PostgreSQL) {version}." in said.stdout.decode()
    with pytest.raises(InvalidInput, match="18, 16"):
        tool_path(9, "psql")


@pytest.mark.parametrize("version", [18, 16])
def test_daemon_starts_once_keeps_its_data_and_stops(new_home: Path, version: int) -> None:
    assert running(new_home) is None
    first = start(new_home, version)
    with psycopg.connect(first.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT current_database() AS name, current_setting('fsync') AS fsync")
    assert start(new_home, version) == running(new_home) == first
    assert first.data.is_relative_to(new_home)
    with pytest.raises(EmbeddedFailed, match="First run: recstore stop"):
        start(new_home, 16 if version == 18 else 18)
    assert stop(new_home)
    assert not alive(first.pid)
    assert not first.sockets.exists()
    assert running(new_home) is None
    assert not stop(new_home)
    with psycopg.connect(start(new_home, version).url) as connection:
        assert connection.execute("SELECT * FROM kept").fetchone() == ("recstore", "on")


def test_start_recovers_from_a_kill_a_reused_pid_and_a_dropped_database(home: Path) -> None:
    first = start(home)
    with psycopg.connect(first.url_of("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE recstore")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(first.url)
    os.kill(first.pid, signal.SIGKILL)
    second = start(home)  # at once: processes of the first may still be ending
    assert second.pid != first.pid
    assert not first.sockets.exists()
    psycopg.connect(second.url).close()

    os.kill(second.pid, signal.SIGKILL)
    until(lambda: not alive(second.pid))
    recorded = second.data / "postmaster.pid"  # as after a reboot that gave the number to another process
    recorded.write_text(recorded.read_text().replace(str(second.pid), str(os.getpid()), 1))
    assert running(home) is None
    assert not stop(home)
    psycopg.connect(start(home).url).close()


def test_start_recovers_from_a_start_killed_halfway(new_home: Path) -> None:
    with subprocess.Popen(starting(new_home), cwd=CHECKOUT, stdout=subprocess.PIPE) as halfway:
        until((new_home / "postgres18.new").exists)
        halfway.kill()
    psycopg.connect(start(new_home).url).close()


def test_start_recovers_from_a_lost_socket(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "PATIENCE", 0.2)
    first = start(home)
    shutil.rmtree(first.sockets)
    second = start(home)
    assert not alive(first.pid)
    psycopg.connect(second.url).close()


def test_starts_at_once_give_one_server(new_home: Path) -> None:
    with ThreadPoolExecutor() as pool:
        calls = pool.map(
            lambda _: subprocess.run(starting(new_home), cwd=CHECKOUT, capture_output=True, text=True), range(3)
        )
    servers = [(call.stdout, call.stderr) for call in calls]
    server = running(new_home)
    assert server
    assert servers == [(f"{server.pid}\n", "")] * 3


def test_moved_and_copied_homes(home: Path) -> None:
    original = start(home)
    copy = home.with_name("copy")
    shutil.copytree(home, copy)
    try:
        assert running(copy) is None
        copied = start(copy)
        assert {copied.pid, copied.sockets}.isdisjoint({original.pid, original.sockets})
        moved = home.rename(home.with_name("moved"))
        assert running(home) is None
        try:
            found = running(moved)
            assert found
            assert (found.pid, found.data) == (original.pid, moved / "postgres18")
            assert stop(copy)
            psycopg.connect(found.url).close()
        finally:
            assert stop(moved)
    finally:
        stop(copy)


def test_callers_environment_does_not_matter(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = {"PGHOST": "nowhere", "PGPORT": "1", "PGOPTIONS": "-c nonsense=1", "PGDATA": "/nowhere", "LC_ALL": "none"}
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    start(home)
    with temporary_server() as server:
        assert alive(server.pid)


def test_unusable_homes_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for unusable in tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("/".join(["x" * 200] * 5)):
        with pytest.raises(EmbeddedFailed, match="cannot use"):
            start(unusable)
    broken = tmp_path / "broken"
    (broken / "postgres18").mkdir(parents=True)
    with pytest.raises(EmbeddedFailed, match="postgres") as caught:
        start(broken)
    assert str(broken / "postgres.log") in caught.value.message


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_root_without_user_namespaces_runs_it_as_nobody(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(home)
    stop(home)
    monkeypatch.setattr(programs, "_may_unshare", lambda: False)
    server = start(home)  # made by the other method
    assert server.data.stat().st_uid == programs.NOBODY
    psycopg.connect(server.url).close()
    with temporary_server() as other:
        psycopg.connect(other.url).close()
    assert not other.sockets.exists()
    stop(home)
    monkeypatch.undo()
    psycopg.connect(start(home).url).close()

    monkeypatch.setattr(programs, "_may_unshare", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(EmbeddedFailed, match="Run recstore as an ordinary user"):
        start(home.with_name("other"))


@pytest.mark.skipif(not ROOT, reason="only root can become another user; every other test here runs as an ordinary one")
def test_ordinary_user(used_home: Path) -> None:
    code = """if True:
        import os, signal
        from pathlib import Path
        from recstore.embedded import running, start, stop, temporary_server
        from recstore.errors import EmbeddedFailed
        with temporary_server() as server:
            assert server.data.stat().st_uid == os.getuid() == 65534
            assert server.sockets.parent == Path(os.environ["TMPDIR"])
        home = Path.home() / "a home"
        first = start(home)
        assert start(home) == first
        os.kill(first.pid, signal.SIGKILL)
        second = start(home)
        assert second.pid != first.pid
        assert stop(home) and not stop(home) and not running(home)
        for unusable in os.environ["ROOTS"], "/proc/new", "/home of nobody":
            try:
                start(Path(unusable))
            except EmbeddedFailed as error:
                print(error.message)
    """
    folder = Path(tempfile.mkdtemp())
    roots = folder / "roots"
    try:
        shutil.copytree(used_home, roots)
        folder.chmod(0o755)
        own = folder / "own"
        own.mkdir(mode=0o700)
        os.chown(own, 65534, 65534)
        environment = {"HOME": str(own), "TMPDIR": str(own), "ROOTS": str(roots), "PYTHONPATH": python_path()}
        person = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        command = [*person, interpreter(person), "-W", "error", "-c", code]
        outcome = subprocess.run(command, cwd=own, env=environment, capture_output=True, text=True)
        assert (outcome.returncode, outcome.stderr) == (0, "")
        assert outcome.stdout.count("cannot use") == outcome.stdout.count("\n") == 3
        assert outcome.stdout.count("Permission denied") >= 2
        assert [*own.iterdir()] == [own / "a home"]
    finally:
        shutil.rmtree(folder)


def starting(home: Path) -> list[str]:
    code = "import sys, pathlib, recstore.embedded as e; print(e.start(pathlib.Path(sys.argv[1])).pid)"
    return [sys.executable, "-c", code, str(home)]


def python_path() -> str:
    return os.pathsep.join([CHECKOUT, str(tool_path(18, "psql").parents[3])])


def interpreter(person: list[str]) -> str:
    """A Python that this person may run: that of the tests may be out of reach, for instance below /root."""
    for python in sys.executable, *(f"/usr/bin/python3{minor}" for minor in ("", ".14", ".13", ".12", ".11")):
        code = "import sys, recstore.embedded as e; e.tool_path(18, 'psql'); assert sys.version_info >= (3, 11)"
        command, with_path = [*person, python, "-c", code], {"PYTHONPATH": python_path()}
        try:
            if subprocess.run(command, cwd="/", env=with_path, capture_output=True).returncode == 0:
                return python
        except OSError:
            continue
    pytest.fail("an ordinary user can run no Python here that finds recstore; check the rights of the checkout")


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")
