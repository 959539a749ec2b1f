"""The command line: ``python -m benchmarks [NAMES...]``."""

import argparse
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.render import render_folder
from benchmarks.runner import Options, run_benchmark
from benchmarks.suite import BENCHMARKS, choose

ROOT = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the given benchmarks, and write ``results/NAME.json`` and ``RESULTS.md``.

    Returns:
        0, or 1 if a contender failed, or 2 if a name is unknown.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    try:
        chosen = choose(options.names, options.device)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    with ExitStack() as stack:
        output = options.output
        if output is None and options.quick:
            output = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-quick-")))
        output = output or ROOT
        settings = Options(
            device=options.device,
            repeats=1 if options.quick else options.repeats,
            seeds=1 if options.quick else options.seeds,
            threads=options.threads,
            quick=options.quick,
            command=shlex.join(["python", "-m", "benchmarks", *given]),
        )
        if options.only_render:
            failures = 0
        else:
            failures = sum(run_benchmark(name, settings, output / "results") for name in chosen)
        if not any((output / "results").glob("*.json")):
            return 1 if failures else 0
        text = render_folder(output / "results")
        (output / "RESULTS.md").write_text(text, encoding="utf-8")
        if options.quick:
            print(text)
            print("These figures show that it runs, and nothing else: --quick hardly trains.")
        else:
            print(f"Written: {output / 'RESULTS.md'}")
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{', '.join(BENCHMARKS)}; default: all that the device allows",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="device to train on")
    parser.add_argument("--repeats", type=_positive, default=3, help="number of rounds")
    parser.add_argument("--seeds", type=_positive, default=3, help="number of different seeds")
    parser.add_argument("--threads", type=_positive, help="number of threads; default: chosen by torch")
    parser.add_argument("--quick", action="store_true", help="one very short round, to test the benchmarks")
    parser.add_argument("--output", type=Path, help="folder of RESULTS.md and results/; default: benchmarks/")
    parser.add_argument("--only-render", action="store_true", help="write RESULTS.md again, and run nothing")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1. Got {text}.")
    return number


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the contender is terminated too
    sys.exit(main())
