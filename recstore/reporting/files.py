"""Files that are there whole or not at all."""

import os
from pathlib import Path

from recstore.errors import ReportNotWritten


def write_bytes(path: Path, content: bytes) -> None:
    """Writes beside it and renames, so that nobody reads half a file and a failure leaves the former one. Raises
    ReportNotWritten where there is no such folder or it may not be written."""
    check_place(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ReportNotWritten(path=str(path), reason=error.strerror or str(error)) from error


def check_place(path: Path) -> None:
    """Raises ReportNotWritten where a file of that name can not be put; better before the work than after it."""
    if path.is_dir():
        raise ReportNotWritten(path=str(path), reason="that is a folder")
    check_folder(path.parent)


def check_folder(folder: Path) -> None:
    """Raises ReportNotWritten where files can not be put."""
    if not folder.is_dir():
        reason = "that is not a folder" if folder.exists() else "there is no such folder"
    elif not os.access(folder, os.W_OK | os.X_OK):
        reason = "this user may not write there"
    else:
        return
    raise ReportNotWritten(path=str(folder), reason=reason)
