"""One PostgreSQL server as its data directory shows it, its socket, and the file locks that show whether it lives."""

import fcntl
import os
import re
import shlex
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

SETTINGS = {"listen_addresses": "", "shared_buffers": "256MB", "max_wal_size": "2GB"}
"""Server parameters of every embedded server."""

INDEX_BUILD = 2**30
"""Bytes of shared memory that a parallel build of an index may need: the default of RECSTORE_INDEX_MEMORY."""

SOCKET_FILES = (".s.PGSQL.5432", ".s.PGSQL.5432.lock")


@dataclass(frozen=True)
class Server:
    """A server that accepts connections."""

    version: int
    data: Path
    sockets: Path
    pid: int
    database: str = "postgres"

    @property
    def url(self) -> str:
        """URI of `database`, for libpq (psycopg, ADBC, psql) and, with its scheme replaced, SQLAlchemy."""
        return self.url_of(self.database)

    def url_of(self, database: str) -> str:
        """Return the URI of another database of this server."""
        return f"postgresql://postgres@/{quote(database, safe='')}?host={self.sockets}&port=5432"


def pid_file(data: Path) -> list[str]:
    """Return the lines of postmaster.pid: pid, data directory, start time, port, socket directory, two more, status."""
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def recorded(data: Path, version: int, database: str = "postgres") -> Server | None:
    """Return the server named in PostgreSQL's own pid file; it may have been killed since."""
    match pid_file(data):
        case [pid, _, _, _, sockets, _, _, status, *_] if status.strip() == "ready":
            return Server(version, data, Path(sockets), int(pid), database)
    return None


def answers(sockets: Path) -> bool:
    """Return whether a server accepts connections at its socket in this directory."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(sockets / SOCKET_FILES[0])) == 0


def options(parameters: Mapping[str, str], sockets: Path) -> str:
    """Return the command-line options that set these server parameters."""
    every = {**_shared_memory(), **parameters, "unix_socket_directories": sockets}
    return shlex.join(word for name, value in every.items() for word in ("-c", f"{name}={value}"))


def _shared_memory() -> dict[str, str]:
    """Return the parameter that puts shared memory into files of the cluster where /dev/shm is small, as in a container."""
    try:
        found = os.statvfs("/dev/shm")
    except OSError:
        return {}
    return {} if found.f_blocks * found.f_frsize >= INDEX_BUILD else {"dynamic_shared_memory_type": "mmap"}


def short_directory() -> Path:
    """Make a directory of mode 0700 whose path needs no quoting and leaves room for a socket name (103 bytes in all)."""
    parent = tempfile.gettempdir()
    fits = re.fullmatch(r"[\w./-]{1,70}", parent, re.ASCII)
    return Path(tempfile.mkdtemp(prefix="recstore-", dir=parent if fits else "/tmp"))


def remove_sockets(directory: Path) -> None:
    with suppress(OSError):
        for name in SOCKET_FILES:
            (directory / name).unlink(missing_ok=True)
        directory.rmdir()


def elapsed(pause: float) -> Iterator[float]:
    """Yield the seconds since the first step, again and again, with pauses."""
    began = time.monotonic()
    while True:
        yield time.monotonic() - began
        time.sleep(pause)


@contextmanager
def lock(file: Path, kind: int) -> Iterator[int | None]:
    """Yield the lock of `file` as an open file, or None where another process holds it.

    Processes that inherit the open file share the lock: it is held as long as one of them lives.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            held = False
        yield descriptor if held else None
    finally:
        os.close(descriptor)


def locked(file: Path) -> bool:
    """Return whether a process holds the lock of `file`."""
    if not file.exists():
        return False
    with lock(file, fcntl.LOCK_SH) as held:
        return held is None
