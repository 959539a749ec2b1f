"""Memory that a step frees is kept for the next one, unless the user has chosen, and given back at the end."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from hf_finetune.speed import allocator

# Elsewhere there is nothing to keep: the last test shows on any system that nothing is done there.
on_glibc = pytest.mark.skipif(
    allocator._c_library() is None, reason="mallopt and malloc_trim are glibc's; this C library has neither"
)
BLOCKS = 50
PAGES = 64 * 2**20 // 4096  # of a block of 64 MiB, which glibc never keeps by itself
# Large blocks are filled and freed in turn, as the activations of a step are. The first is not counted.
WATCH = f"""
import resource
from hf_finetune.speed.allocator import give_back_memory, keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1])

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

kept = keep_freed_memory()
b"x" * 2**26
before = faults()
for _ in range({BLOCKS}):
    b"x" * 2**26
after = faults()
held = resident()
give_back_memory()
print(kept, after - before, held - resident())
"""


def watch(**environment):
    said = subprocess.run(
        [sys.executable, "-c", WATCH],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    ).stdout
    kept, faults, given_back = said.split()
    return kept == "True", int(faults), int(given_back)


@on_glibc
def test_freed_memory_is_kept_until_it_is_given_back():
    kept, faults, given_back = watch()
    assert kept
    assert faults < PAGES
    assert given_back > 0.9 * PAGES


@on_glibc
def test_who_has_chosen_is_obeyed():
    kept, faults, _ = watch(MALLOC_TRIM_THRESHOLD_="131072")
    assert not kept
    assert faults >= BLOCKS * PAGES  # each block is cleared anew, page by page


@pytest.mark.parametrize("library", [None, SimpleNamespace()])
def test_other_systems_are_left_as_they_are(monkeypatch, library):
    monkeypatch.setattr(allocator.os, "name", "nt" if library is None else "posix")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: library)
    allocator.keep_freed_memory.cache_clear()
    try:
        assert not allocator.keep_freed_memory()
        allocator.give_back_memory()
    finally:
        allocator.keep_freed_memory.cache_clear()
