"""Parquet as a source of a load: the types are the file's own; nested columns and durations are refused."""

import contextlib
import functools
import io
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from recstore.errors import InvalidInput
from recstore.files.load.bad_lines import BadLines
from recstore.files.load.layout import Batch, FileColumn
from recstore.files.opening import OpenedFile

ROWS = 20_000
"""Rows of a batch."""

WRITTEN = arrow_csv.WriteOptions(include_header=False, quoting_style="all_valid")
"""An empty text is quoted, NULL is not."""

TEXTS, BYTES = (pa.string(), pa.large_string(), pa.string_view()), (pa.binary(), pa.large_binary())

PANDAS_INDEX = "__index_level_"


@dataclass
class ParquetReader:
    """A Parquet file. Its lines are rows, numbered from 1. pandas' index columns are left out."""

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
            raise InvalidInput(f"{self.file.name} cannot be read as Parquet: {reason}.") from None

    def batches(self, wanted: Sequence[int], bad: BadLines) -> Iterator[Batch]:
        """Yield the columns `wanted`, by position. Raises InvalidInput for one of a type that no column here takes."""
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
                lines = pa.array(range(row, row + len(found)))
                row += len(found)
                columns = [_as_text(found.column(name)) for name in names]
                zero = [pc.fill_null(pc.match_substring(column, "\0"), False) for column in columns]
                broken = functools.reduce(pc.or_, zero)
                for line in lines.filter(broken).to_pylist():
                    bad.add(line, "a zero byte")
                table = pa.table([lines, *columns], [str(n) for n in range(len(columns) + 1)]).filter(pc.invert(broken))
                text = io.BytesIO()
                arrow_csv.write_csv(table, text, WRITTEN)
                yield len(table), text.getvalue()

    def texts(self, lines: set[int]) -> dict[int, str]:  # noqa: ARG002
        return {}


def _sql_type(kind: pa.DataType) -> str | None:
    """Return PostgreSQL's type for an Arrow type, None for nested ones, durations and the like."""
    types = pa.types
    if types.is_dictionary(kind):
        return _sql_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return "uuid" if kind.extension_name == "arrow.uuid" else _sql_type(kind.storage_type)
    if kind in BYTES:
        return "bytea"
    if kind in TEXTS:
        return "text"
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
        (types.is_null, "text"),
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
    """Return the values as PostgreSQL reads them."""
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
        return pa.array([None if one is None else str(uuid.UUID(bytes=one)) for one in column.to_pylist()], pa.string())
    if kind in BYTES or pa.types.is_fixed_size_binary(kind):
        return pa.array([None if value is None else "\\x" + value.hex() for value in column.to_pylist()], pa.string())
    return column if pa.types.is_string(kind) else pc.cast(column, pa.string())
