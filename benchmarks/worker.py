"""Process of a contender: ``python -m benchmarks.worker MODULE JSON`` runs it and prints its result."""

import json
import os
import sys
from importlib import import_module

from benchmarks.child import MARK

__all__ = ["main"]


def main() -> None:
    """Call ``measure`` of the module, and print its result on one line, unless it is None.

    If the work has ``cores``, the process is restricted to them.
    """
    module, sent = sys.argv[1:]
    work = json.loads(sent)
    if "cores" in work and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, work["cores"])
    answer = import_module(f"benchmarks.contenders.{module}").measure(work)
    if answer is not None:
        print(MARK + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
