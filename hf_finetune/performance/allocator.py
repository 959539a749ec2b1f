"""Keep freed memory in the process for the next training step, on the CPU."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from hf_finetune.distributed import computes_on_cpu

__all__ = ["keep_freed_memory"]

# Parameters of glibc's mallopt, from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4

# Environment variables by which the user has chosen: mallopt(3) and "Memory Allocation Tunables" of the glibc manual.
_USER_VARIABLES = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")

# Values to restore. The number of mapped blocks is glibc's default. The first call of mallopt disables glibc's dynamic
# adjustment of the two thresholds, so that they get its upper limits: DEFAULT_MMAP_THRESHOLD_MAX of malloc.c, and twice
# that.
_DEFAULTS = ((_M_MMAP_MAX, 65536), (_M_MMAP_THRESHOLD, 2**25), (_M_TRIM_THRESHOLD, 2**26))
_KEEP_OPTIONS = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))

_lock = Lock()
_users = 0


@contextmanager
def keep_freed_memory(on_cpu: bool | None = None) -> Iterator[bool]:
    """Make the C library keep freed memory within the block, and return it to the system afterwards.

    glibc requests each block above 32 MiB from the kernel and returns it when it is freed, and the kernel clears every
    page of it. A training step on the CPU allocates and frees all its activations, so that this takes up to a third of
    its time. Other C libraries, and allocators that replace glibc's, are left unchanged.

    Do not use it for a whole process: large images fragment the heap, which then grows with their number.

    Args:
        on_cpu: Whether the steps are computed on the CPU; on other devices nothing is done. None: the device of the
            Trainer.

    Yields:
        Whether freed memory is kept.
    """
    global _users
    on_cpu = computes_on_cpu() if on_cpu is None else on_cpu
    library = _c_library() if on_cpu and not any(name in os.environ for name in _USER_VARIABLES) else None
    if library is None:
        yield False
        return
    with _lock:
        _users += 1
        options = [library.mallopt(*option) for option in _KEEP_OPTIONS]
    try:
        yield all(options)
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                for option in _DEFAULTS:
                    library.mallopt(*option)
                library.malloc_trim(0)


def _c_library() -> Any:
    if os.name != "posix":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
