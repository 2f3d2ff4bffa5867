"""Prepare CUDA for `implicit`: load its libraries, and check the memory and the state of the device.

Used by `als` only. Importing this module does not touch a GPU, since a process that has done so must not fork workers that
use one; `rmm` is imported when the memory is queried.
"""

import ctypes
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

LIBRARIES = ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10")

WARP = 32
"""Factors on the GPU are padded with zeros to a multiple of this, since the kernels sum over all lanes of a warp. A zero
column stays zero."""

MOST_FACTORS = 1024
"""Maximum factors on the GPU: the kernels of `implicit` use one thread of a block per factor."""

MOST_NUMBERS = 2**31 - 1
"""Maximum size of a factor matrix with padding: the kernels of `implicit` 0.7.3 address it by 32-bit arithmetic."""

MARGIN, WORKSPACE = 1.1, 256 << 20
"""Factor for the rounding of allocations, and bytes for cuBLAS, cuRAND and the kernels. Chosen, not measured."""


def load_libraries() -> None:
    """Load the CUDA libraries of the extra `gpu`, which `implicit` does not find by itself. It reports missing ones itself."""
    nvidia = find_spec("nvidia") if find_spec("rmm") else None
    for folder in (nvidia.submodule_search_locations or ()) if nvidia else ():
        for name in LIBRARIES:
            library = Path(folder, "cu13", "lib", name)
            with suppress(OSError):
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def padded(factors: int) -> int:
    """Return `factors`, rounded up to a multiple of WARP."""
    return factors + -factors % WARP


def bytes_needed(users: int, items: int, pairs: int, factors: int) -> int:
    """Return the GPU memory for training: MARGIN * arrays + WORKSPACE, where with f = padded(factors) `implicit` allocates

    arrays = 4 f (users + items)                 factors of users and items, float32
           + 4 (users + items + 2) + 16 pairs    the matrix and its transpose: int32 pointers and columns, float32 values
           + 12 f^2                              two Gram matrices, and one more for the loss

    The matrices are managed memory, which may spill to the host. They are counted, since spilling is very slow.
    """
    f = padded(factors)
    arrays = 4 * f * (users + items) + 4 * (users + items + 2) + 16 * pairs + 12 * f * f
    return int(MARGIN * arrays) + WORKSPACE


def memory() -> tuple[int, int]:
    """Return free and total bytes of the current device, creating its context.

    Raises ImportError without rmm, and RuntimeError or MemoryError without a usable device."""
    import rmm.mr

    free, total = rmm.mr.available_device_memory()
    return int(free), int(total)


def room_problem(users: int, items: int, pairs: int, factors: int) -> str | None:
    """Return why training at this size does not fit on the GPU, with the numbers; None if it fits."""
    if factors > MOST_FACTORS:
        return f"it supports at most {MOST_FACTORS} factors, not {factors}"
    if max(users, items) * padded(factors) > MOST_NUMBERS:
        return (
            f"it supports factor matrices of at most {MOST_NUMBERS} numbers, and {max(users, items)} rows of "
            f"{padded(factors)} are more"
        )
    try:
        free, total = memory()
    except (ImportError, RuntimeError, MemoryError) as error:
        return f"its free memory is unknown ({error})"
    needed = bytes_needed(users, items, pairs, factors)
    if needed <= free:
        return None
    return f"about {needed / 1e9:.2f} GB of its memory are required, {free / 1e9:.2f} of {total / 1e9:.2f} GB are free"


def keep_if_broken(error: BaseException) -> None:
    """Keep `error` and the arrays in its traceback forever if the device no longer answers: freeing them would throw in C++
    destructors and end the process (for example github.com/benfred/implicit/pull/722)."""
    try:
        memory()
    except (ImportError, RuntimeError, MemoryError):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(error))
