"""A .npz written array by array, a large one block by block, so that it need not fit into memory. Pure."""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

Write = Callable[[NDArray[Any]], None]


class Archive(zipfile.ZipFile):
    """A zip file without compression, since vectors do not shrink."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w", zipfile.ZIP_STORED)

    def add(self, name: str, array: NDArray[Any]) -> None:
        """Add a whole array, which holds no Python objects."""
        with self.rows(name, array.shape, array.dtype) as write:
            write(array)

    @contextmanager
    def rows(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[Write]:
        """Add an array of that shape, whose rows are written in blocks. Raises ValueError if their number differs."""
        expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        member = zipfile.ZipInfo(f"{name}.npy")
        member.external_attr = 0o600 << 16
        with self.open(member, "w", force_zip64=True) as stream:
            header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(stream, header)
            written = 0

            def write(block: NDArray[Any]) -> None:
                nonlocal written
                content = np.ascontiguousarray(block, dtype=dtype).tobytes()
                stream.write(content)
                written += len(content)

            yield write
            if written != expected:
                raise ValueError(f"{name}: {written} bytes of rows instead of {expected}")
