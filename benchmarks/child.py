"""Run a contender in its own process, and read its result."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["MARK", "ContenderError", "run_child"]

ROOT = Path(__file__).parents[1]
MARK = "BENCHMARK-RESULT "
LIMIT_SECONDS = 4 * 3600
SECONDS_TO_END = 20
# The number of threads is the same for every contender, whatever the environment sets.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class ContenderError(Exception):
    """Raised when a contender fails; the message is the end of its output."""


def run_child(
    module: str,
    work: Mapping[str, Any],
    *,
    device: str = "cpu",
    processes: int = 1,
    threads: int | None = None,
    python: Path | None = None,
) -> dict[str, Any]:
    """Run a module of ``benchmarks.contenders`` in its own process, and return its result.

    It gets an empty output folder (``work["folder"]``), which is deleted afterwards, and an empty cache.

    Args:
        module: Name of the module; its function ``measure`` is called.
        work: Its argument, sent as JSON.
        device: ``cpu`` hides every other device.
        processes: Number of processes; several are started by ``accelerate launch``.
        threads: Threads of torch, shared by the processes; None leaves the number to torch.
        python: Interpreter of another environment; None is this one.
    Raises:
        ContenderError: If the contender fails, or takes too long.
    """
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        sent = json.dumps({**work, "folder": folder, "device": device})
        launcher = _launcher(processes, threads) if processes > 1 else ["-m"]
        process = subprocess.Popen(
            [python or sys.executable, *launcher, "benchmarks.worker", module, sent],
            cwd=ROOT,
            env=_environment(Path(folder), device, threads),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ContenderError(f"It took longer than {LIMIT_SECONDS} seconds.") from error
        finally:
            _end(process)
    answer = find_answer(out)
    if process.returncode != 0 or answer is None:
        raise ContenderError(last_lines(err) or f"It ended with {process.returncode} and said nothing.")
    return answer


def find_answer(out: str) -> dict[str, Any] | None:
    """Return the result in the output of a contender; None if there is none."""
    lines = [line for line in out.splitlines() if line.startswith(MARK)]
    return json.loads(lines[-1].removeprefix(MARK)) if lines else None


def last_lines(text: str, count: int = 3) -> str:
    """Return the last lines with text, joined to one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" ^~\t")]
    return " | ".join(lines[-count:])


def _launcher(processes: int, threads: int | None) -> list[str]:
    each = max(1, (threads or os.cpu_count() or 1) // processes)
    return [
        *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)),
        *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
        *("--main_process_port", "0", "--num_cpu_threads_per_process", str(each), "--module"),
    ]


def _environment(folder: Path, device: str, threads: int | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in THREADS}
    paths = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    kept.update(
        PYTHONPATH=os.pathsep.join(paths),
        HF_FINETUNE_CACHE=str(folder / "cache"),
        HF_DATASETS_CACHE=str(folder / "datasets"),
        HF_HUB_OFFLINE="1",
        TOKENIZERS_PARALLELISM="true",
    )
    if threads is not None:
        kept.update({name: str(threads) for name in THREADS})
    if device == "cpu":
        kept.update(CUDA_VISIBLE_DEVICES="", MASTER_ADDR="127.0.0.1")
    return kept


def _end(process: "subprocess.Popen[str]") -> None:
    """Terminate a contender and all processes that it has started.

    A launcher is terminated first: its processes are in their own sessions, and it terminates them.
    """
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
