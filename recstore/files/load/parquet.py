"""Parquet as batches: the types are the file's own, a nested column or a duration is refused, a dictionary is taken apart."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recstore.errors import InvalidInput
from recstore.files.load.bad_lines import BadLines
from recstore.files.load.batches import Batch, FileColumn
from recstore.files.load.opening import OpenedFile

ROWS = 20_000
"""Rows of a batch."""

HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
PANDAS_INDEX = "__index_level_"


@dataclass
class ParquetReader:
    """A Parquet file. A "line" is the number of a row, from 1. pandas' index columns are left out."""

    file: OpenedFile
    unit: str = "row"
    named: bool = True
    nulls: Sequence[str] = ("",)
    columns: list[FileColumn] = field(init=False)
    names: list[str] = field(init=False)
    kinds: list[pa.DataType] = field(init=False)
    what: str = field(init=False)

    def __post_init__(self) -> None:
        with self._open() as parquet:
            schema = parquet.schema_arrow
            self.names = [name for name in schema.names if not name.startswith(PANDAS_INDEX)]
            self.kinds = [schema.field(name).type for name in self.names]
            self.columns = [
                FileColumn(name, _sql_type(kind)) for name, kind in zip(self.names, self.kinds, strict=True)
            ]
            codecs = {
                parquet.metadata.row_group(0).column(n).compression.lower()
                for n in range(parquet.metadata.num_columns if parquet.metadata.num_row_groups else 0)
            } - {"uncompressed"}
            self.what = ", ".join(["Parquet", *sorted(codecs)])

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            with self.file.reading() as stream, pq.ParquetFile(stream) as parquet:
                yield parquet
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise InvalidInput(f"{self.file.name} can not be read as Parquet: {reason}.") from None

    def batches(self, wanted: Sequence[int], bad: BadLines) -> Iterator[Batch]:
        """Columns `wanted`, by position, in that order. Raises InvalidInput for one of a type that is not taken."""
        names = [self.names[position] for position in wanted]
        for position in wanted:
            if self.columns[position].type is None:
                raise InvalidInput(
                    f"Column {self.columns[position].name!r} of {self.file.name} is of Arrow's type {self.kinds[position]},"
                    " which no column here takes. Leave it out with --columns, or convert it in the file."
                )
        row = 1
        with self._open() as parquet:
            for found in parquet.iter_batches(ROWS, columns=names, use_threads=False):
                lines = np.arange(row, row + len(found), dtype=np.int64)
                row += len(found)
                columns = [_as_text(found.column(name)) for name in names]
                keep = _without_zero_bytes(columns, lines, bad)
                if not keep.all():
                    lines, columns = lines[keep], [column.filter(pa.array(keep)) for column in columns]
                yield Batch(lines, columns, lambda _: b"")


def _sql_type(kind: pa.DataType) -> str | None:
    """PostgreSQL's type for an Arrow type; None for nested ones, durations and the like. Text may still turn out to be uuids."""
    types = pa.types
    if types.is_dictionary(kind):
        return _sql_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return "uuid" if kind.extension_name == "arrow.uuid" else _sql_type(kind.storage_type)
    for is_kind, name in (
        (types.is_boolean, "boolean"),
        (types.is_int64, "bigint"),
        (types.is_uint32, "bigint"),
        (types.is_uint64, "numeric"),
        (types.is_integer, "integer"),
        (types.is_float64, "double precision"),
        (types.is_floating, "real"),
        (types.is_date, "date"),
        (types.is_time, "time without time zone"),
        (types.is_string, "text"),
        (types.is_large_string, "text"),
        (types.is_string_view, "text"),
        (types.is_null, "text"),
        (types.is_binary, "bytea"),
        (types.is_large_binary, "bytea"),
    ):
        if is_kind(kind):
            return name
    if types.is_decimal(kind):
        return f"numeric({kind.precision},{kind.scale})" if 0 <= kind.scale <= kind.precision else "numeric"
    if types.is_timestamp(kind):
        return "timestamp with time zone" if kind.tz else "timestamp without time zone"
    if types.is_fixed_size_binary(kind):
        return "uuid" if kind.byte_width == 16 else "bytea"
    return None


def _as_text(column: pa.Array) -> pa.Array:
    """The values as PostgreSQL reads them."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _as_text(column.storage)
    if pa.types.is_dictionary(kind):
        return _as_text(column.dictionary_decode())
    if pa.types.is_null(kind):
        return pa.nulls(len(column), pa.string())
    if pa.types.is_float16(kind):
        return _as_text(column.cast(pa.float32()))
    if pa.types.is_timestamp(kind):
        return pc.cast(column.cast(pa.timestamp("us", kind.tz and "UTC"), safe=False), pa.string())
    if pa.types.is_fixed_size_binary(kind) and kind.byte_width == 16:
        return _uuids(column)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.array([None if value is None else "\\x" + value.hex() for value in column.to_pylist()], pa.string())
    return column if pa.types.is_string(kind) else pc.cast(column, pa.string())


def _uuids(column: pa.Array) -> pa.Array:
    data = np.frombuffer(column.buffers()[1], np.uint8)[16 * column.offset : 16 * (column.offset + len(column))]
    digits = HEX[np.stack([data >> 4, data & 15], axis=-1)].reshape(len(column), 32)
    pieces = np.split(digits, [8, 12, 16, 20], axis=1)
    dash = np.full((len(column), 1), ord("-"), np.uint8)
    written = np.concatenate([part for piece in pieces for part in (piece, dash)][:-1], axis=1)
    offsets = np.arange(0, 36 * (len(column) + 1), 36, dtype=np.int32)
    texts = pa.StringArray.from_buffers(len(column), pa.py_buffer(offsets), pa.py_buffer(written.tobytes()))
    return pc.if_else(column.is_valid(), texts, None) if column.null_count else texts


def _without_zero_bytes(
    columns: Sequence[pa.Array], lines: np.ndarray[Any, Any], bad: BadLines
) -> np.ndarray[Any, Any]:
    keep = np.ones(len(lines), np.bool_)
    for column in columns:
        zero = pc.fill_null(pc.match_substring(column, "\0"), False).to_numpy(zero_copy_only=False)
        for index in np.flatnonzero(zero & keep).tolist():
            bad.unmake(int(lines[index]), "a zero byte")
        keep &= ~zero
    return keep
