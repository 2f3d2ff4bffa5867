"""Lists into a file: CSV, compressed CSV or Parquet, there whole or not at all."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, parquet

from recstore.beside import written_beside
from recstore.errors import ListsNotWritten

ENDINGS = (".csv", ".csv.gz", ".parquet")


def is_file(into: str) -> bool:
    """Whether that names a file: by its ending, or by a folder before it. Anything else is a table."""
    return into.lower().endswith(ENDINGS) or "/" in into or os.sep in into


def check_place(into: str) -> Path:
    """Raises ListsNotWritten where no such file can be put, before any work."""
    path = Path(into)
    if not into.lower().endswith(ENDINGS):
        reason = "its ending says no format: .csv, .csv.gz and .parquet do"
    elif len(os.fsencode(path.name)) > 255:
        reason = "its name is too long"
    elif path.is_dir():
        reason = "that is a folder"
    elif path.exists() and not path.is_file():  # else it would take the place of a device
        reason = "that is no ordinary file"
    elif not path.parent.is_dir():
        reason = f"there is no folder {path.parent}"
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        reason = f"this user may not write to {path.parent}"
    else:
        return path
    raise ListsNotWritten(path=into, reason=reason)


@contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """A context within which batches are written beside `path`; at its end the file takes that name. An error leaves what was
    there. Raises ListsNotWritten."""
    with written_beside(path, ListsNotWritten) as beside, _writer(path, beside, schema) as write:
        yield write


@contextmanager
def _writer(path: Path, beside: Path, schema: pa.Schema) -> Iterator[Callable[[pa.RecordBatch], None]]:
    name = path.name.lower()
    if name.endswith(".parquet"):
        with parquet.ParquetWriter(str(beside), schema) as out:
            yield out.write_batch
        return
    with pa.OSFile(str(beside), "wb") as file:
        sink = pa.CompressedOutputStream(file, "gzip") if name.endswith(".gz") else file
        with csv.CSVWriter(sink, schema, write_options=csv.WriteOptions(quoting_style="needed")) as out:
            yield out.write_batch
        if sink is not file:
            sink.close()
