"""Open a file: locate, decompress and decode it line by line. Its content shows whether it is text or Parquet."""

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from recstore.errors import InvalidInput

PIECE = 1 << 20
"""Bytes read to find the encoding, and copied at once."""

PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}
FOREIGN = {
    b"PK\x03\x04": "a zip archive, or a spreadsheet: unpack it, or save the sheet as CSV",
    b"7z\xbc\xaf": "a 7-Zip archive: unpack it",
    b"\xd0\xcf\x11\xe0": "an Excel file: save the sheet as CSV",
    b"\x1f\x9d": "compressed by compress (.Z): unpack it",
    b"ORC": "an ORC file: convert it to Parquet or CSV",
    b"Obj\x01": "an Avro file: convert it to Parquet or CSV",
    b"ARROW1": "an Arrow file: convert it to Parquet or CSV",
    b"SQLite format 3": "an SQLite database: export its table as CSV",
}
"""First bytes of files that cannot be loaded, with the remedy."""


@dataclass
class OpenedFile:
    """A file that can be read from its beginning more than once. `name` is for messages."""

    name: str
    path: Path
    size: int
    packed: str | None = None
    parquet: bool = False
    _raw: IO[bytes] | None = field(default=None, repr=False)

    def position(self) -> int:
        """Return the bytes read so far, as stored."""
        return self._raw.tell() if self._raw and not self._raw.closed else self.size

    @contextlib.contextmanager
    def reading(self) -> Iterator[IO[bytes]]:
        """Open the decompressed bytes from the beginning. Raises InvalidInput if that fails."""
        try:
            with self.path.open("rb") as raw:
                self._raw = raw
                yield _unpacked(raw, self.packed)
        except (EOFError, OSError, lzma.LZMAError, zlib.error, pa.ArrowException) as error:
            why = getattr(error, "strerror", None) or " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise InvalidInput(f"{self.name} cannot be read to its end: {why}.") from None
        finally:
            self._raw = None

    def first_bytes(self) -> bytes:
        """Return the first of the decompressed bytes."""
        with self.reading() as stream:
            return stream.read(16)


@contextlib.contextmanager
def opened(file: str) -> Iterator[OpenedFile]:
    """Open the file named `file`, or standard input for "-".

    Standard input and compressed Parquet go through a temporary file. Raises InvalidInput for a file that is missing, empty or
    of an unknown kind.
    """
    with contextlib.ExitStack() as kept:
        path, name = Path(file), file
        if file == "-":
            path, name = kept.enter_context(_spooled(sys.stdin.buffer)), "standard input"
        if path.is_dir():
            raise InvalidInput(f"{name} is a folder: name one file in it.")
        try:
            with path.open("rb") as stream:
                first = stream.read(16)
            found = OpenedFile(name, path, path.stat().st_size)
        except FileNotFoundError:
            raise InvalidInput(f"There is no file {name}.") from None
        except OSError as error:
            raise InvalidInput(f"{name} cannot be read: {error.strerror}.") from None
        for begin, what in FOREIGN.items():
            if first.startswith(begin):
                raise InvalidInput(f"{name} is {what}, then load that.")
        found.packed = next((kind for begin, kind in PACKED.items() if first.startswith(begin)), None)
        if found.packed:
            first = found.first_bytes()
        if not first:
            raise InvalidInput(f"{name} is empty.")
        found.parquet = first.startswith(b"PAR1")
        if found.parquet and found.packed:
            with found.reading() as stream:
                path = kept.enter_context(_spooled(stream))
            found = OpenedFile(name, path, path.stat().st_size, parquet=True)
        if not found.parquet and ".parquet" in name.lower():
            raise InvalidInput(f"{name} is no Parquet file: it does not begin with PAR1.")
        yield found


def refuse_to_overwrite(file: str, bad: str | Path | None) -> None:
    """Raise InvalidInput if the bad lines would overwrite the file itself, under whatever name."""
    with contextlib.suppress(OSError):  # one of them is not there
        if bad is not None and Path(bad).samefile(file):
            raise InvalidInput(f"--bad is {bad}, the file that is loaded: name another one.")


@dataclass(frozen=True)
class TextDecoding:
    """The decoding of a file's bytes into lines of text."""

    file: OpenedFile
    encoding: str
    newline: str

    @classmethod
    def of(cls, file: OpenedFile, encoding: str | None) -> "TextDecoding":
        """Find the encoding by the byte order mark if it is None. Raises InvalidInput for an unknown one."""
        with file.reading() as stream:
            first = stream.read(PIECE)
        marked = first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        encoding = encoding or ("utf-16" if marked else "utf-8")
        try:
            "".encode(encoding)
        except LookupError:
            known = "utf-8, latin-1, cp1252, utf-16 and Python's others"
            raise InvalidInput(f"{encoding!r} is no encoding of text; known are {known}.") from None
        return cls(file, encoding, "\r" if b"\r" in first and b"\n" not in first else "\n")

    def lines(self) -> Iterator[str]:
        """Yield the lines with their ends, without a byte order mark. An undecodable byte becomes a lone surrogate."""
        try:
            with self.file.reading() as stream:
                text = io.TextIOWrapper(stream, self.encoding, "surrogateescape", self.newline)
                yield next(text, "").removeprefix("\ufeff")
                yield from text
        except UnicodeError:
            raise InvalidInput(
                f"{self.file.name} is not {self.encoding} text: name its encoding with --encoding."
            ) from None


def is_text(text: str) -> bool:
    """Return whether every byte of a decoded line is text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unpacked(raw: IO[bytes], packed: str | None) -> Any:
    match packed:
        case "gzip":
            return gzip.open(raw)
        case "bzip2":
            return bz2.open(raw)
        case "xz":
            return lzma.open(raw)
        case "zstd" | "lz4":
            return pa.CompressedInputStream(pa.PythonFile(raw, "r"), packed)
    return raw


@contextlib.contextmanager
def _spooled(stream: IO[bytes]) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(prefix="recstore-") as kept:
        shutil.copyfileobj(stream, kept, PIECE)
        kept.flush()
        yield Path(kept.name)
