"""The server of a home directory, which keeps running until it is stopped.

The home has a cluster `postgres18` (or 16), the log `postgres.log` and `postgres.lock`. Every process of the server
inherits the lock, so the lock shows whether any of them lives, whatever pid files say after a crash, a reboot or a copy of
the home. The pid and the socket's directory are read from PostgreSQL's own pid file in the cluster.
"""

import fcntl
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from recstore.embedded.instance import (
    SETTINGS,
    Server,
    answers,
    elapsed,
    lock,
    locked,
    options,
    pid_file,
    recorded,
    remove_sockets,
    short_directory,
)
from recstore.embedded.programs import INIT, TIMEOUT, VERSIONS, failed, pg_ctl, plain_errors, run, tool_path
from recstore.errors import EmbeddedFailed

DATABASE = "recstore"
"""Database that `start` creates."""

LOCK = "postgres.lock"

LONGEST_HOME = 900
"""Bytes of a home's path that leave room for PostgreSQL's own files below it."""

PATIENCE = 5
"""Seconds after which a server without its socket has lost it, and is not starting or stopping."""

CREATE_DATABASE = """
SELECT pg_advisory_lock(1);
SELECT 'CREATE DATABASE recstore' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'recstore') \\gexec
"""


def start(home: Path, version: int = 18) -> Server:
    """Return the running server of `home`; start it, and create the cluster and the database `recstore`, if necessary.

    Remove what a killed server, a reboot or a copied home left behind. Of several concurrent callers one starts the
    server and all return it. Raises EmbeddedUnavailable, and EmbeddedFailed also when another version is running.
    """
    tool_path(version, "postgres")
    home = home.absolute()
    if len(os.fsencode(home)) > LONGEST_HOME:
        raise EmbeddedFailed(f"The embedded server cannot use {home}: PostgreSQL takes paths of 1023 bytes at most.")
    with plain_errors(home):
        home.mkdir(parents=True, exist_ok=True)
        for waited in elapsed(0.05):
            server = running(home) or launch(home, version)
            if server:
                if server.version != version:
                    raise EmbeddedFailed(
                        f"PostgreSQL {server.version} runs in {home}, but {version} was requested. First run: recstore stop"
                    )
                problem = _create_database(server)
                if not problem:
                    return server
                if waited > PATIENCE:  # until then it may be recovering from a killed process, or stopping
                    raise failed("start", problem, home / "postgres.log")
            elif waited > PATIENCE and (lost := _recorded_in(home)) and not lost.sockets.exists():
                _stop(lost)  # its socket was removed, for example with the temporary directory
            elif waited > TIMEOUT:
                raise EmbeddedFailed(
                    f"The embedded server did not start: for {TIMEOUT} s another process has held the lock of {home} "
                    "without serving. Run: recstore stop"
                )
    raise AssertionError


def version_in(home: Path) -> int:
    """Return the newest PostgreSQL version that has a cluster in `home`; 18 without any."""
    return max((version for version in VERSIONS if (home / f"postgres{version}").is_dir()), default=18)


def stop(home: Path, mode: str = "fast") -> bool:
    """Stop the server of `home`, disconnecting its clients; False when none was running. Raises EmbeddedFailed."""
    home = home.absolute()
    stopped = False
    with plain_errors(home):
        for waited in elapsed(0.02):
            if not locked(home / LOCK):
                break
            server = running(home) or (_recorded_in(home) if waited > PATIENCE else None)
            if server:
                _stop(server, mode)
                remove_sockets(server.sockets)
                stopped = True
            elif waited > TIMEOUT:
                raise EmbeddedFailed(
                    f"The embedded server of {home} did not stop: a process of it still holds its lock."
                )
        if (home / LOCK).exists():
            with lock(home / LOCK, fcntl.LOCK_EX) as held:
                if held is not None:
                    _remove_leftovers(home)
    return stopped


def running(home: Path) -> Server | None:
    """Return the server of `home` if it accepts connections."""
    home = home.absolute()
    with plain_errors(home):
        server = _recorded_in(home) if locked(home / LOCK) else None
        return server if server and answers(server.sockets) else None


def launch(
    home: Path, version: int, parameters: Mapping[str, str] = SETTINGS, *, temporary: bool = False
) -> Server | None:
    """Start the server of `home` with these parameters; create its cluster if necessary.

    The socket of a `temporary` one is in its home, which must have a short path, and its cluster is not flushed to disk.
    None where a process holds the lock. Raises EmbeddedFailed.
    """
    with lock(home / LOCK, fcntl.LOCK_EX) as held:
        if held is None:
            return None
        _remove_leftovers(home)
        data = home / f"postgres{version}"
        if not data.exists():
            _create_cluster(data, version, held, INIT + "--no-sync " * temporary)
        command = pg_ctl(version, data)
        sockets = home if temporary else short_directory()
        os.chown(sockets, data.stat().st_uid, -1)
        log = home / "postgres.log"
        size = log.stat().st_size if log.exists() else 0
        outcome = run([*command, "-l", log.name, "-o", options(parameters, sockets), "start"], home, held)
        server = recorded(data, version, DATABASE)
        if outcome.returncode or server is None:
            run([*command, "-m", "immediate", "stop"], home)
            remove_sockets(sockets)
            logged = log.read_bytes()[size:].decode(errors="replace") if log.exists() else ""
            raise failed("start", outcome.stderr + logged, None if temporary else log)
        return server


def _create_cluster(data: Path, version: int, held: int, init: str) -> None:
    """Create a cluster next to `data`, then rename it, so that an incomplete one is never used."""
    fresh = data.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    command = pg_ctl(version, fresh)
    for locale in "C.UTF-8", "C":
        outcome = run([*command, "-o", f"{init}--locale={locale}", "init"], data.parent, held)
        if outcome.returncode == 0:
            fresh.rename(data)
            return
    raise failed("start", outcome.stderr)


def _stop(server: Server, mode: str = "fast") -> None:
    home = server.data.parent
    outcome = run([*pg_ctl(server.version, server.data), "-m", mode, "stop"], home)
    if outcome.returncode and running(home):  # if it is not running, another process stopped it first
        raise failed("stop", outcome.stderr, home / "postgres.log")


def _create_database(server: Server) -> str:
    """Create the database `recstore` if it is missing; return the error output, empty on success."""
    psql = [str(tool_path(server.version, "psql")), "-X", "-q", "-w", "-o", os.devnull, "-v", "ON_ERROR_STOP=1"]
    outcome = run([*psql, "-d", server.url_of("postgres") + "&connect_timeout=10"], Path("/"), script=CREATE_DATABASE)
    return outcome.stderr if outcome.returncode else ""


def _recorded_in(home: Path) -> Server | None:
    servers = (recorded(home / f"postgres{version}", version, DATABASE) for version in VERSIONS)
    return next((server for server in servers if server), None)


def _remove_leftovers(home: Path) -> None:
    """Remove the pid files and sockets of servers that have ended; the caller holds the lock.

    PostgreSQL would refuse to start where the pid in its file has meanwhile gone to another process. A server started by
    other means is still safe: PostgreSQL also looks for shared memory in use, by the directory's inode.
    """
    for version in VERSIONS:
        data = home / f"postgres{version}"
        match pid_file(data):
            case [_, _, _, _, sockets, *_] if not answers(Path(sockets)):  # a copied home may name the original's
                remove_sockets(Path(sockets))
        (data / "postmaster.pid").unlink(missing_ok=True)
