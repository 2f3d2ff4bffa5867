"""Files that are there whole or not at all: written under a name beside, which takes the former one's place in the end."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recstore.errors import RecstoreError


@contextmanager
def written_beside(path: Path, refused: type[RecstoreError]) -> Iterator[Path]:
    """A name beside `path`, or beside what it is a link to, to write to, renamed in the end, so that nobody reads half a file
    and a failure leaves the former one. Its mode is that of the former one from the first byte, writable for its owner. What a
    process left that was killed is taken away. Raises `refused` with path and reason instead of OSError."""
    there = Path(os.path.realpath(path))  # which no circle of links troubles
    beside = there.with_name(f".{there.name}.{os.getpid()}.part")
    try:
        _take_away_dead(there)
        if there.exists():
            if not there.is_file():  # a device, whose place a file would take
                raise refused(
                    path=str(path), reason="that is a folder" if there.is_dir() else "that is no ordinary file"
                )
            beside.touch(mode=0o600)
            beside.chmod(there.stat().st_mode & 0o777 | 0o600)
        with beside.open("ab") as held:
            with suppress(OSError):  # a file system without locks, where nothing is taken away either
                fcntl.flock(held, fcntl.LOCK_EX)
            yield beside
        beside.replace(there)
    except OSError as error:
        raise refused(path=str(path), reason=error.strerror or str(error)) from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _take_away_dead(path: Path) -> None:
    """The lock of a process that is gone is gone with it; its number may be another's by now, or in another container."""
    part = re.compile(rf"\.{re.escape(path.name)}\.\d+\.part")
    with suppress(OSError):
        for name in filter(part.fullmatch, os.listdir(path.parent)):  # noqa: PTH208
            with suppress(OSError), (path.parent / name).open("rb") as left:
                fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (path.parent / name).unlink()
