"""Lists into a file: CSV, compressed CSV or Parquet, there whole or not at all."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv, parquet

from recstore.atomic import replacing
from recstore.errors import ListsNotWritten

ENDINGS = (".csv", ".csv.gz", ".parquet")

SLICE = 20_000
"""Rows that are written between two looks at Ctrl-C."""


def is_file(into: str) -> bool:
    """Whether that names a file: by its ending, or by a folder before it. Anything else is a table."""
    return into.lower().endswith(ENDINGS) or "/" in into or os.sep in into


def check_place(into: str) -> Path:
    """Raises ListsNotWritten where no such file can be put, before any work."""
    path = Path(into)
    folder = Path(os.path.realpath(into)).parent if os.path.islink(into) else path.parent  # noqa: PTH114 - a name too long
    if not into.lower().endswith(ENDINGS):
        reason = "its ending says no format: .csv, .csv.gz and .parquet do"
    elif len(os.fsencode(path.name)) > 255:
        reason = "its name is too long"
    elif path.is_dir():
        reason = "that is a folder"
    elif path.exists() and not path.is_file():  # else it would take the place of a device
        reason = "that is no ordinary file"
    elif not folder.is_dir():
        reason = f"there is no folder {folder}"
    elif not os.access(folder, os.W_OK | os.X_OK):
        reason = f"this user may not write to {folder}"
    else:
        return path
    raise ListsNotWritten(path=into, reason=reason)


@contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """A context within which batches are written beside `path`; at its end the file takes that name. An error leaves what was
    there. Raises ListsNotWritten."""
    with replacing(path, ListsNotWritten) as beside, _writer(path, beside, schema) as write:
        yield write


@contextmanager
def _writer(path: Path, beside: Path, schema: pa.Schema) -> Iterator[Callable[[pa.RecordBatch], None]]:
    name = path.name.lower()
    with ExitStack() as opened:
        sink = opened.enter_context(_closing(pa.OSFile(str(beside), "wb")))
        if name.endswith(".gz"):
            sink = opened.enter_context(_closing(pa.CompressedOutputStream(sink, "gzip")))
        if name.endswith(".parquet"):
            yield opened.enter_context(_closing(parquet.ParquetWriter(sink, schema))).write_batch
            return
        options = csv.WriteOptions(quoting_style="needed")
        out = opened.enter_context(_closing(csv.CSVWriter(sink, schema, write_options=options)))

        def write(batch: pa.RecordBatch) -> None:
            for start in range(0, len(batch), SLICE):
                out.write_batch(batch.slice(start, SLICE))

        yield write


@contextmanager
def _closing(file: Any) -> Iterator[Any]:
    """Closed in the end; after an error without another one, which Arrow would print when it is left to Arrow."""
    try:
        yield file
    except BaseException:
        with suppress(OSError, pa.ArrowException):
            file.close()
        raise
    file.close()
