"""A server as its data directory shows it, and the directory of its socket."""

import re
import shlex
import socket
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

SETTINGS = {"listen_addresses": "", "shared_buffers": "256MB", "max_wal_size": "2GB"}
"""Server parameters of every embedded server."""

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
        """URI of another database of this server."""
        return f"postgresql://postgres@/{quote(database, safe='')}?host={self.sockets}&port=5432"


def pid_file(data: Path) -> list[str]:
    """Lines of postmaster.pid: pid, data directory, start time, port, socket directory, .., .., status."""
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def recorded(data: Path, version: int, database: str = "postgres") -> Server | None:
    """The server that PostgreSQL's own pid file tells of; it may have been killed since."""
    match pid_file(data):
        case [pid, _, _, _, sockets, _, _, status, *_] if status.strip() == "ready":
            return Server(version, data, Path(sockets), int(pid), database)
    return None


def answers(sockets: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(sockets / SOCKET_FILES[0])) == 0


def options(parameters: Mapping[str, str], sockets: Path) -> str:
    pairs = (f"{name}={value}" for name, value in {**parameters, "unix_socket_directories": sockets}.items())
    return shlex.join(word for pair in pairs for word in ("-c", pair))


def short_directory() -> Path:
    """A directory of mode 0700 whose path needs no quoting and, with a socket's name, fits the limit of 103 bytes."""
    parent = tempfile.gettempdir()
    fits = re.fullmatch(r"[\w./-]{1,70}", parent, re.ASCII)
    return Path(tempfile.mkdtemp(prefix="recstore-", dir=parent if fits else "/tmp"))


def remove_sockets(directory: Path) -> None:
    with suppress(OSError):
        for name in SOCKET_FILES:
            (directory / name).unlink(missing_ok=True)
        directory.rmdir()
