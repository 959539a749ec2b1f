"""Recording of a contender's training: times, accuracies, memory."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.figures import epoch_seconds

__all__ = ["Watch", "peak_bytes"]


class Watch:
    """Clock that starts when data and checkpoint are in memory.

    Args:
        now: Function that returns the time in seconds.
    """

    def __init__(self, now: Callable[[], float] = perf_counter):
        self.now = now
        self.made = now()
        self.started: float | None = None
        self.stopped: float | None = None
        self.evaluations: list[dict[str, float]] = []

    def start(self) -> None:
        """Start the clock: everything is loaded."""
        self.started = self.now()

    def elapsed(self) -> float:
        """Return the seconds since the start.

        Raises:
            RuntimeError: If the clock was not started.
        """
        if self.started is None:
            raise RuntimeError("The watch must be started before anything is timed.")
        return self.now() - self.started

    def evaluated(self, accuracy: float) -> None:
        """Record the accuracy after an epoch."""
        self.evaluations.append({"elapsed": self.elapsed(), "accuracy": float(accuracy)})

    def stop(self) -> None:
        """Record the end of training and evaluation. The last call counts."""
        self.stopped = self.elapsed()

    def result(self) -> dict[str, Any]:
        """Return all records."""
        if self.started is None or self.stopped is None:
            raise RuntimeError("The watch must be started and stopped.")
        return {
            "loading_seconds": self.started - self.made,
            "seconds": self.stopped,
            "evaluations": self.evaluations,
            "epoch_seconds": epoch_seconds(self.evaluations),
            "peak_bytes": peak_bytes(),
        }


def peak_bytes() -> int | None:
    """Return the peak resident memory of this process in bytes; None if the system does not provide it.

    ``resource.getrusage`` is not used: in Linux, a new process inherits the peak of its parent.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    kib = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return int(kib) * 1024 if kib else None
