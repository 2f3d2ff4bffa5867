"""What `implicit` needs of CUDA: the libraries, room for its arrays, and a device that still answers.

Called by `als` only, which imports `implicit`; nothing here does. Importing this touches no GPU, since a process that has
touched one must not fork workers that want it: `rmm` is imported when the memory is asked for.
"""

import ctypes
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

LIBRARIES = ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10")

WARP = 32
"""On the GPU factors are padded with zeros to a multiple of this (a zero column stays zero): the kernels' sums read all
lanes of a warp."""

MOST_FACTORS = 1024
"""On the GPU: `implicit`'s kernels give each factor a thread of one block."""

MOST_NUMBERS = 2**31 - 1
"""Of one side's padded factors: the kernels of `implicit` 0.7.3 find a row of the other side by 32-bit arithmetic."""

MARGIN, WORKSPACE = 1.1, 256 << 20
"""On top of the arrays: a tenth for what allocations are rounded up to, and 256 MiB for cuBLAS, cuRAND and the kernels.
Chosen, not measured."""


def load_libraries() -> None:
    """Loads the CUDA libraries of the wheels (extra `gpu`), where `implicit`'s module would not look for them. One that
    can not be loaded is left to `implicit`, which says what it misses."""
    nvidia = find_spec("nvidia") if find_spec("rmm") else None
    for folder in (nvidia.submodule_search_locations or ()) if nvidia else ():
        for name in LIBRARIES:
            library = Path(folder, "cu13", "lib", name)
            with suppress(OSError):
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def padded(factors: int) -> int:
    """`factors`, rounded up to a multiple of WARP."""
    return factors + -factors % WARP


def bytes_needed(users: int, items: int, pairs: int, factors: int) -> int:
    """Of GPU memory, to train: MARGIN * arrays + WORKSPACE, where with f = padded(factors) `implicit` allocates

    arrays = 4 f (users + items)                 both sides' factors, float32
           + 4 (users + items + 2) + 16 pairs    the matrix and its transpose: int32 pointers and columns, float32 values
           + 12 f^2                              the Gram matrix of each side, and one more for the loss

    The matrices are managed memory, which could spill to the host; they are counted since a training that spills crawls.
    """
    f = padded(factors)
    arrays = 4 * f * (users + items) + 4 * (users + items + 2) + 16 * pairs + 12 * f * f
    return int(MARGIN * arrays) + WORKSPACE


def memory() -> tuple[int, int]:
    """(free, total) bytes of the current device, its context made first. Raises ImportError without rmm, RuntimeError or
    MemoryError without a device, and again once an error has left the device unusable for this process."""
    import rmm.mr

    free, total = rmm.mr.available_device_memory()
    return int(free), int(total)


def room_problem(users: int, items: int, pairs: int, factors: int) -> str | None:
    """Why a training of this size does not fit on the GPU, with the numbers; None where it does."""
    if factors > MOST_FACTORS:
        return f"it takes at most {MOST_FACTORS} factors, not {factors}"
    if max(users, items) * padded(factors) > MOST_NUMBERS:
        return (
            f"it takes at most {MOST_NUMBERS} numbers for the factors of one side, and {max(users, items)} rows of "
            f"{padded(factors)} are more"
        )
    try:
        free, total = memory()
    except (ImportError, RuntimeError, MemoryError) as error:
        return f"its free memory could not be found out ({error})"
    needed = bytes_needed(users, items, pairs, factors)
    if needed <= free:
        return None
    return f"about {needed / 1e9:.2f} GB of its memory are needed, {free / 1e9:.2f} of {total / 1e9:.2f} GB are free"


def keep_if_broken(error: BaseException) -> None:
    """Keeps `error`, its traceback and so the arrays in its frames for good, if the device no longer answers: freeing them
    would throw inside C++ destructors and end the process (github.com/benfred/implicit/pull/722 shows one)."""
    try:
        memory()
    except (ImportError, RuntimeError, MemoryError):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(error))
