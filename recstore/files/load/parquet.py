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
from recstore.files.load.text import Batch, FileColumn
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
    delimiter: str = ""
    nulls: Sequence[str] = ("",)
    schema: pa.Schema = field(init=False)
    columns: list[FileColumn] = field(init=False)
    what: str = field(init=False)

    def __post_init__(self) -> None:
        with self._open() as parquet:
            self.schema, metadata = parquet.schema_arrow, parquet.metadata
            groups = [metadata.row_group(n).to_dict() for n in range(min(1, metadata.num_row_groups))]
        fields = [field for field in self.schema if not field.name.startswith(PANDAS_INDEX)]
        self.columns = [FileColumn(field.name, _sql_type(field.type)) for field in fields]
        codecs = {column["compression"].lower() for group in groups for column in group["columns"]} - {"uncompressed"}
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
        columns = [self.columns[position] for position in wanted]
        for column in columns:
            if column.type is None:
                raise InvalidInput(
                    f"Column {column.name!r} of {self.file.name} is of Arrow's type {self.schema.field(column.name).type},"
                    " which no column here takes. Leave it out with --columns, or convert it in the file."
                )
        names = [column.name for column in columns]
        row = 1
        with self._open() as parquet:
            for found in parquet.iter_batches(ROWS, columns=names, use_threads=False):
                lines = pa.array(range(row, row + len(found)))
                row += len(found)
                texts = [_as_text(found.column(name)) for name in names]
                broken = functools.reduce(
                    pc.or_, [pc.fill_null(pc.match_substring(text, "\0"), False) for text in texts]
                )
                for line in lines.filter(broken).to_pylist():
                    bad.add(line, "a zero byte")
                table = pa.table([lines, *texts], [str(n) for n in range(len(texts) + 1)]).filter(pc.invert(broken))
                text = io.BytesIO()
                arrow_csv.write_csv(table, text, WRITTEN)
                yield len(table), text.getvalue()

    def texts(self, _lines: set[int]) -> dict[int, str]:
        """Return no texts: a row of a Parquet file is not one."""
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
