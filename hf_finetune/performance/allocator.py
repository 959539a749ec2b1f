"""Keep the memory that one step has freed for the next one, on the CPU, while steps run."""

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

# Who sets one of these in the environment has chosen: mallopt(3) and "Memory Allocation Tunables" of the glibc manual.
_CHOSEN = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")

# glibc's default number of mapped blocks. The first call of mallopt ends its own adjustment of the two thresholds: they
# get the values that it ends at by itself, DEFAULT_MMAP_THRESHOLD_MAX of malloc.c and twice that.
_USUAL = ((_M_MMAP_MAX, 65536), (_M_MMAP_THRESHOLD, 2**25), (_M_TRIM_THRESHOLD, 2**26))
_KEEPING = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))

_lock = Lock()
_users = 0


@contextmanager
def keep_freed_memory(on_cpu: bool | None = None) -> Iterator[bool]:
    """Have the C library keep what is freed while the body runs, and give it back afterwards.

    glibc asks the kernel again for each block above 32 MiB and gives it back when it is freed, and the kernel clears
    every page of it. A training step on the CPU frees and asks for all its activations, so up to a third of its time
    goes there. Other C libraries, and other allocators put in glibc's place, are left as they are.

    It is not for a whole process: what is kept is a heap that large pictures fragment, which grows with their number.

    Args:
        on_cpu: Whether the steps are computed there; elsewhere nothing is done. None is for those of a Trainer.

    Yields:
        Whether memory is kept.
    """
    global _users
    on_cpu = computes_on_cpu() if on_cpu is None else on_cpu
    library = _c_library() if on_cpu and not any(name in os.environ for name in _CHOSEN) else None
    if library is None:
        yield False
        return
    with _lock:
        _users += 1
        options = [library.mallopt(*option) for option in _KEEPING]
    try:
        yield all(options)
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                for option in _USUAL:
                    library.mallopt(*option)
                library.malloc_trim(0)


def _c_library() -> Any:
    if os.name != "posix":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
