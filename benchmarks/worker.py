"""Process of a contender: ``python -m benchmarks.worker MODULE JSON`` runs it and prints its result."""

import json
import sys
from importlib import import_module

from benchmarks.child import MARK

__all__ = ["main"]


def main() -> None:
    """Call ``measure`` of the module, and print its result on one line, unless it is None."""
    module, work = sys.argv[1:]
    answer = import_module(f"benchmarks.contenders.{module}").measure(json.loads(work))
    if answer is not None:
        print(MARK + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
