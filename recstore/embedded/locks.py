"""Locks on files, which processes inherit with the open file: held as long as one of them lives."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def lock(file: Path, kind: int) -> Iterator[int | None]:
    """The lock of `file` as an open file to pass on; None where others hold it."""
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
    """Whether a process holds it."""
    if not file.exists():
        return False
    with lock(file, fcntl.LOCK_SH) as held:
        return held is None
