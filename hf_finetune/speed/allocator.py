"""Keep the memory that one step has freed for the next one, on the CPU."""

import ctypes
import os
from functools import cache
from typing import Any

__all__ = ["give_back_memory", "keep_freed_memory"]

# Parameters of glibc's mallopt, from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4

# Who sets one of these in the environment has chosen: mallopt(3) and "Memory Allocation Tunables" of the glibc manual.
_CHOSEN = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


@cache
def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed, and say whether it does. It lasts until the process ends.

    glibc asks the kernel anew for each block above 32 MiB and gives it back when it is freed, and the kernel clears
    every page of it. A training step on the CPU frees and asks for all its activations, so up to a third of its time
    goes there. Other C libraries, and other allocators put in glibc's place, are left as they are.
    """
    library = _c_library()
    if library is None or any(name in os.environ for name in _CHOSEN):
        return False
    return bool(library.mallopt(_M_MMAP_MAX, 0) and library.mallopt(_M_TRIM_THRESHOLD, -1))


def give_back_memory() -> None:
    """Give what is kept back to the kernel, once the work is done."""
    library = _c_library()
    if library is not None:
        library.malloc_trim(0)


def _c_library() -> Any:
    if os.name != "posix":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
