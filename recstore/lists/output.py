"""Write lists to a file: CSV, compressed CSV or Parquet. The file appears complete or not at all."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv, parquet

from recstore import atomic
from recstore.errors import ListsNotWritten

ENDINGS = (".csv", ".csv.gz", ".parquet")

SLICE = 20_000
"""Rows to write between two checks for Ctrl-C."""


def is_file(into: str) -> bool:
    """Return True if `into` names a file, by its ending or by a folder in it. Anything else is a table."""
    return into.lower().endswith(ENDINGS) or "/" in into or os.sep in into


def check_place(into: str) -> Path:
    """Return the path of a file of lists. Raises ListsNotWritten if it cannot be written."""
    if not into.lower().endswith(ENDINGS):
        raise ListsNotWritten(path=into, reason="its ending is none of .csv, .csv.gz and .parquet")
    linked = os.path.islink(into)  # noqa: PTH114 - a name that is too long is no link
    atomic.check_place(Path(os.path.realpath(into)) if linked else Path(into), ListsNotWritten)
    return Path(into)


@contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Yield a function that writes a batch to a temporary file, which replaces `path` at the end. An error leaves an existing
    file unchanged. Raises ListsNotWritten."""
    with atomic.replacing(path, ListsNotWritten) as temporary, _writer(path, temporary, schema) as write:
        yield write


@contextmanager
def _writer(path: Path, temporary: Path, schema: pa.Schema) -> Iterator[Callable[[pa.RecordBatch], None]]:
    name = path.name.lower()
    with ExitStack() as opened:
        sink = opened.enter_context(_closing(pa.OSFile(str(temporary), "wb")))
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
    """Close the file at the end. After an error, ignore a second one, which Arrow would otherwise print."""
    try:
        yield file
    except BaseException:
        with suppress(OSError, pa.ArrowException):
            file.close()
        raise
    file.close()
