"""Memory that a step frees is reused by the next one, unless the user decides otherwise, and released at the end."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from hf_finetune.performance import allocator

# Elsewhere the allocator has no such setting: the last test shows on any system that nothing is changed there.
on_glibc = pytest.mark.skipif(
    allocator._c_library() is None, reason="mallopt and malloc_trim are glibc's; this C library has neither"
)
BLOCKS = 15
PAGES = 64 * 2**20 // 4096  # of a block of 64 MiB, which glibc always releases by default
# Large blocks are filled and freed in turn, as the activations of a step are. The first is not counted.
WATCH = f"""
import resource
from hf_finetune.performance.allocator import keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1])

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def fill():
    before = faults()
    for _ in range({BLOCKS}):
        b"x" * 2**26
    return faults() - before

with keep_freed_memory(True) as kept:
    b"x" * 2**26
    inside = fill()
    held = resident()
print(kept, inside, held - resident(), fill())
"""


def watch(**environment):
    said = subprocess.run(
        [sys.executable, "-c", WATCH],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    ).stdout
    kept, inside, given_back, afterwards = said.split()
    return kept == "True", int(inside), int(given_back), int(afterwards)


@pytest.mark.slow
@on_glibc
def test_freed_memory_is_kept_only_while_steps_run():
    kept, inside, given_back, afterwards = watch()
    assert kept
    assert inside < PAGES
    assert given_back > 0.9 * PAGES
    assert afterwards >= BLOCKS * PAGES  # the kernel provides each block again, and gets it back


@pytest.mark.slow
@on_glibc
def test_who_has_chosen_is_obeyed():
    kept, inside, _, _ = watch(MALLOC_TRIM_THRESHOLD_="131072")
    assert not kept
    assert inside >= BLOCKS * PAGES  # each block is cleared again, page by page


def test_it_is_kept_until_the_last_user_is_done(monkeypatch):
    calls = []
    library = SimpleNamespace(
        mallopt=lambda option, value: calls.append((option, value)) or 1,
        malloc_trim=lambda pad: calls.append("trim"),
    )
    monkeypatch.setattr(allocator, "_c_library", lambda: library)
    for name in allocator._USER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with allocator.keep_freed_memory(True):
        with allocator.keep_freed_memory(True):
            pass
        assert "trim" not in calls
    mmap_max = [value for option, value in calls[:-1] if option == allocator._M_MMAP_MAX]
    assert (mmap_max, calls[-1]) == ([0, 0, 65536], "trim")


def test_nothing_is_set_on_other_devices(monkeypatch):
    monkeypatch.setattr(allocator, "_c_library", lambda: pytest.fail("the C library was asked for"))
    with allocator.keep_freed_memory(False) as kept:
        assert not kept


@pytest.mark.parametrize("library", [None, SimpleNamespace()])
def test_other_systems_are_left_as_they_are(monkeypatch, library):
    monkeypatch.setattr(allocator.os, "name", "nt" if library is None else "posix")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: library)
    with allocator.keep_freed_memory(True) as kept:
        assert not kept
