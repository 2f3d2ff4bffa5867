"""Write files atomically: into a temporary file in the same folder, renamed over the target at the end."""

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recstore.errors import InvalidInput, RecstoreError, ReportNotWritten

SHOWN_CHARACTERS = 200
"""Characters of a path that an error message shows."""


@contextmanager
def replacing(path: Path, refused: type[RecstoreError] = ReportNotWritten) -> Iterator[Path]:
    """Yield a temporary file to write to, and rename it to `path` (or to what `path` links to) on success.

    A reader sees the former file or the complete new one; a failure leaves the former file. The new file has the former
    one's mode from its first byte and stays writable for its owner. Temporary files of killed processes are removed.

    Raises:
        RecstoreError: of class `refused`, with path and reason, in place of OSError.
    """
    target = Path(os.path.realpath(path))  # resolves loops of links without an error
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        _remove_abandoned(target)
        if target.exists():
            if not target.is_file():  # renaming over a device would replace it
                raise refused(
                    path=str(path), reason="that is a folder" if target.is_dir() else "that is no ordinary file"
                )
            temporary.touch(mode=0o600)
            temporary.chmod(target.stat().st_mode & 0o777 | 0o600)
        with temporary.open("ab") as held:
            with suppress(OSError):  # a file system without locks; nothing is removed there either
                fcntl.flock(held, fcntl.LOCK_EX)
            yield temporary
        temporary.replace(target)
    except OSError as error:
        raise refused(path=str(path), reason=error.strerror or str(error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _remove_abandoned(target: Path) -> None:
    """Remove temporary files that no process locks; their number cannot tell, it may be in use by another process now."""
    part = re.compile(rf"\.{re.escape(target.name)}\.\d+\.part")
    with suppress(OSError):
        for name in filter(part.fullmatch, os.listdir(target.parent)):  # noqa: PTH208
            with suppress(OSError), (target.parent / name).open("rb") as left:
                fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (target.parent / name).unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write the whole file. Raises ReportNotWritten."""
    check_place(path)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def check_report(report: Path | None, pictures: Path | None) -> None:
    """Check, before anything is computed, that a report and its pictures can be written.

    Raises InvalidInput, ReportNotWritten.
    """
    if report is not None:
        check_place(report)
    if pictures is not None:
        if report is None:
            raise InvalidInput("--pictures go with a report: add --report FILE.html.")
        check_folder(next((place for place in (pictures, *pictures.parents) if place.exists()), pictures))


def check_place(path: Path, refused: type[RecstoreError] = ReportNotWritten) -> None:
    """Raise `refused` if a file cannot be written at `path`."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        check_folder(path.parent, refused)
        return
    except OSError as error:
        raise refused(path=shortened(path), reason=error.strerror or str(error)) from None
    if not stat.S_ISREG(mode):  # renaming over a device would replace it
        what = "a folder" if stat.S_ISDIR(mode) else "no ordinary file"
        raise refused(path=str(path), reason=f"that is {what}")
    check_folder(path.parent, refused)


def check_folder(folder: Path, refused: type[RecstoreError] = ReportNotWritten) -> None:
    """Raise `refused` if files cannot be created in `folder`."""
    if not os.path.isdir(folder):  # noqa: PTH112 - accepts a name that is too long
        reason = "that is not a folder" if os.path.exists(folder) else "there is no such folder"  # noqa: PTH110
    elif not os.access(folder, os.W_OK | os.X_OK):
        reason = "this user may not write there"
    else:
        return
    raise refused(path=shortened(folder), reason=reason)


def make_folder(folder: Path) -> None:
    """Create `folder`, with its parents, if it does not exist. Raises ReportNotWritten."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportNotWritten(path=shortened(folder), reason=error.strerror or str(error)) from None
    check_folder(folder)


def shortened(path: Path) -> str:
    """Return a path at a length that fits a sentence."""
    text = str(path)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]} .. ({len(text):,} characters)"
