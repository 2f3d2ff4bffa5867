"""Files that are there whole or not at all: written under a name beside, which takes the former one's place in the end."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recstore.errors import RecstoreError


@contextmanager
def written_beside(path: Path, refused: type[RecstoreError]) -> Iterator[Path]:
    """A name beside `path` to write to, renamed in the end, so that nobody reads half a file and a failure leaves the former
    one. Its mode is that of the former one from the first byte, writable for its owner. Raises `refused` with path and reason
    instead of OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.exists():
            beside.touch(mode=0o600)
            beside.chmod(path.stat().st_mode & 0o777 | 0o600)
        yield beside
        beside.replace(path)
    except OSError as error:
        raise refused(path=str(path), reason=error.strerror or str(error)) from error
    finally:
        beside.unlink(missing_ok=True)
