"""Files that are there whole or not at all."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recstore import atomic
from recstore.errors import InvalidInput, ReportNotWritten


def write_bytes(path: Path, content: bytes) -> None:
    """Writes the whole file. Raises ReportNotWritten where there is no such folder or it may not be written."""
    with written_beside(path) as name:
        name.write_bytes(content)


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A name beside it to write to, which takes its place in the end. Raises ReportNotWritten where there is no such folder or
    it may not be written."""
    check_place(path)
    with atomic.written_beside(path, ReportNotWritten) as name:
        yield name


def check_report(report: Path | None, pictures: Path | None) -> None:
    """Whether a report and its pictures can be written; before anything is computed. Raises InvalidInput, ReportNotWritten."""
    if report is not None:
        check_place(report)
    if pictures is not None:
        if report is None:
            raise InvalidInput("--pictures go with a report: add --report FILE.html.")
        check_folder(pictures)


def check_place(path: Path) -> None:
    """Raises ReportNotWritten where a file of that name can not be put; better before the work than after it."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        check_folder(path.parent)
        return
    except OSError as error:
        raise ReportNotWritten(path=shortened(path), reason=error.strerror or str(error)) from None
    if not stat.S_ISREG(mode):  # else it would take the place of a device
        what = "a folder" if stat.S_ISDIR(mode) else "no ordinary file"
        raise ReportNotWritten(path=str(path), reason=f"that is {what}")
    check_folder(path.parent)


def shortened(path: Path, most: int = 200) -> str:
    """A path as a sentence can hold it."""
    text = str(path)
    return text if len(text) <= most else f"{text[:most]} .. ({len(text):,} characters)"


def check_folder(folder: Path) -> None:
    """Raises ReportNotWritten where files can not be put."""
    if not os.path.isdir(folder):  # noqa: PTH112 - which a name too long does not trouble
        reason = "that is not a folder" if os.path.exists(folder) else "there is no such folder"  # noqa: PTH110
    elif not os.access(folder, os.W_OK | os.X_OK):
        reason = "this user may not write there"
    else:
        return
    raise ReportNotWritten(path=shortened(folder), reason=reason)
