"""Parallel runs (lanes), each on its own cores."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import Queue
from typing import TypeVar

__all__ = ["in_lanes", "lanes_problem", "shares"]

Answer = TypeVar("Answer")


def shares(lanes: int) -> list[list[int]]:
    """Divide the cores of this process equally among lanes; remaining cores are not used."""
    known = hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if known else list(range(os.cpu_count() or 1))
    each = max(1, len(cores) // lanes)
    return [cores[start : start + each] for start in range(0, each * lanes, each)]


def lanes_problem(lanes: int) -> str:
    """Return an error message if a lane would have no core, else an empty text."""
    cores = len(shares(1)[0])
    if 1 <= lanes <= cores:
        return ""
    return f"--lanes must be from 1 to {cores}, the number of cores. Got {lanes}."


def in_lanes(runs: Sequence[Callable[[list[int]], Answer]], lanes: int) -> Iterator[Answer]:
    """Do runs in their order, one per lane at a time, and yield each result as soon as it is ready.

    Args:
        runs: Functions from the cores of a run to its result.
        lanes: Number of parallel runs.

    Raises:
        ContenderError: If a run fails; runs that have not started are not done.
    """
    free: Queue[list[int]] = Queue()
    for cores in shares(lanes):
        free.put(cores)

    def alone(run: Callable[[list[int]], Answer]) -> Answer:
        cores = free.get()
        try:
            return run(cores)
        finally:
            free.put(cores)

    with ThreadPoolExecutor(lanes) as pool:
        begun = [pool.submit(alone, run) for run in runs]
        try:
            for each in as_completed(begun):
                yield each.result()
        finally:
            pool.shutdown(cancel_futures=True)
