"""A file as batches of columns of strings, each row with the line it begins on; from text, or from Parquet."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recstore.files.load.bad_lines import BadLines
from recstore.files.load.layout import Layout
from recstore.files.load.opening import OpenedFile, text_pieces
from recstore.files.load.records import Records, TooLong, read_records, to_columns


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows as columns of strings (NULL where the file says so); `text` gives a row as it stands in the file."""

    lines: NDArray[np.int64]
    columns: list[pa.Array]
    text: Callable[[int], bytes]

    def __len__(self) -> int:
        return len(self.lines)


@dataclass(frozen=True)
class FileColumn:
    """A column of the file: its name there, and the type where the file itself says it."""

    name: str
    type: str | None = None


class Reader(Protocol):
    """What both kinds of file give."""

    @property
    def what(self) -> str: ...

    @property
    def unit(self) -> str:
        """What is counted: lines, or rows."""

    @property
    def nulls(self) -> Sequence[str]:
        """Texts that are NULL where they are not quoted, and in a column that is no text also where they are."""

    @property
    def columns(self) -> list[FileColumn]: ...

    @property
    def named(self) -> bool:
        """Whether the columns' names are the file's own."""

    def batches(self, wanted: Sequence[int], bad: BadLines) -> Iterator[Batch]: ...


@dataclass
class TextReader:
    """A delimited text. Lines that do not make a row go to `bad`."""

    file: OpenedFile
    layout: Layout
    nulls: Sequence[str]
    unit: str = "line"
    columns: list[FileColumn] = field(init=False)

    def __post_init__(self) -> None:
        names = self.layout.names or [f"column_{n + 1}" for n in range(self.layout.fields)]
        self.columns = [FileColumn(name.strip()) for name in names]

    @property
    def what(self) -> str:
        return ", ".join([str(self.layout), *filter(None, [self.file.packed])])

    @property
    def named(self) -> bool:
        return self.layout.names is not None

    def batches(self, wanted: Sequence[int], bad: BadLines) -> Iterator[Batch]:
        """Columns `wanted`, by position, in that order."""
        dialect, fields, header = self.layout.dialect, self.layout.fields, self.named
        for found in read_records(text_pieces(self.file, self.layout.encoding), dialect):
            if isinstance(found, TooLong):
                header = False
                bad.unmake(found.line, found.reason, found.text)
                continue
            keep = ~found.blank & (found.lines >= self.layout.begins)
            for index, reason in found.broken.items():
                keep[index] = False
                bad.unmake(int(found.lines[index]), reason, found.text(index))
            for index in np.flatnonzero(keep & ((found.fields != fields) | found.stray)).tolist():
                keep[index] = False
                bad.unmake(int(found.lines[index]), self._wrong(found, index), found.text(index))
            if header and keep.any():
                keep[np.flatnonzero(keep)[0]] = False
                header = False
            for index, reason in _unreadable(found, self.layout.encoding):
                if keep[index]:
                    keep[index] = False
                    bad.unmake(int(found.lines[index]), reason, found.text(index))
            kept = np.flatnonzero(keep)
            if len(kept):
                columns = to_columns(found.take(keep), dialect, fields, len(kept), self.nulls, wanted)
                yield Batch(found.lines[kept], columns, lambda row, found=found, kept=kept: found.text(kept[row]))  # type: ignore[misc]

    def _wrong(self, found: Records, index: int) -> str:
        if found.fields[index] == self.layout.fields:
            return "a carriage return in the middle"
        fields = f"{found.fields[index]} field" + ("s" if found.fields[index] > 1 else "")
        more = found.text(index).count(b"\n")
        return f"{fields} instead of {self.layout.fields}" + (f", on {more + 1} lines" if more else "")


def _unreadable(found: Records, encoding: str) -> Iterator[tuple[int, str]]:
    """Records with bytes that are no text, or that PostgreSQL's text can not hold."""
    data = found.data[: found.ends[-1]] if len(found) else b""
    nothing = b"\0" in data
    try:
        if not data.isascii():
            data.decode()
        if not nothing:
            return
    except UnicodeDecodeError:
        pass
    for index in range(len(found)):
        text = found.text(index)
        if nothing and b"\0" in text:
            yield index, "a zero byte"
        elif not text.isascii():
            try:
                text.decode()
            except UnicodeDecodeError:
                yield index, f"not {encoding} text"
