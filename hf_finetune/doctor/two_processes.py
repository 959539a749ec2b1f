"""Check of distributed training: two processes keep equal weights, with the gradient of a single process."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from hf_finetune.doctor.check_target import CheckTarget
from hf_finetune.doctor.gradients import TOLERANCE
from hf_finetune.doctor.result import CheckResult, sentence
from hf_finetune.doctor.steps import difference, plain_gradient, shorten
from hf_finetune.doctor.worker import JOB_FILE, digests_file, gradient_file, pack_model
from hf_finetune.errors import counted, join_words

__all__ = ["check_two_processes"]

TWO_PROCESSES = "two processes"
PROCESSES = 2
TIMEOUT_SECONDS = 300
DIFFERENCE_REPAIR = (
    "Run in one process, without accelerate launch, and update torch, transformers and accelerate."
)
START_REPAIR = (
    "Distributed training does not work on this machine; training in one process is not affected. With a firewall "
    "or in a container, check that processes can connect over the loopback interface."
)


def check_two_processes(subject: CheckTarget, folder: Path) -> CheckResult:
    """Check that two gloo processes have equal weights after two steps of each stage, and the right gradient.

    They compute on the CPU with batches of half the size, so that the global batch, and with it the gradient, is that
    of a single process.

    Args:
        subject: Model to check.
        folder: Folder for the files that the processes exchange.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        return CheckResult(TWO_PROCESSES, "skipped", "This build of torch has no gloo.")
    prepared, count = subject.prepared, len(subject.examples)
    stages = [
        shorten(spec, plan, steps=2, batch_size=count // PROCESSES)
        for spec, plan in zip(prepared.recipe.stages, prepared.plan.stages, strict=True)
    ]
    job = {
        **pack_model(subject.model),
        "stages": stages,
        "target": prepared.data.target,
        "sequences": subject.inputs.sequences,
        "examples": list(subject.examples),
        "collate": subject.inputs.collate,
    }
    torch.save(job, folder / JOB_FILE)
    if error := _worker_error(folder):
        return CheckResult(TWO_PROCESSES, "fail", f"A process failed: {error}", START_REPAIR)
    digests = [
        json.loads(digests_file(folder, rank).read_text(encoding="utf-8")) for rank in range(PROCESSES)
    ]
    batch = subject.inputs.collate([dict(example) for example in subject.examples])
    faults, worst = [], 0.0
    for index, stage in enumerate(stages):
        first, second = (by_stage[index] for by_stage in digests)
        different = [name for name, digest in first.items() if second[name] != digest]
        if different:
            faults.append(
                f"after stage {stage.spec.name} the two processes differ in {counted(len(different), 'parameter')} "
                f"({join_words(different, most=3)})"
            )
        target, smoothing = prepared.data.target, stage.spec.label_smoothing
        expected = plain_gradient(
            *(subject.model, stage.plan.trainable, batch, target, subject.inputs.sequences),
            label_smoothing=smoothing,
        )
        ratio, relative_error = difference(load_file(gradient_file(folder, index)), expected)
        worst = max(worst, relative_error)
        if not relative_error <= TOLERANCE:
            faults.append(
                f"in stage {stage.spec.name} the gradient norm is {ratio:.3g} times that of one process, "
                f"and the gradients differ by {relative_error:.1%} of it"
            )
    if faults:
        return CheckResult(TWO_PROCESSES, "fail", sentence(faults), DIFFERENCE_REPAIR)
    measured = (
        "After 2 steps of every stage they are equal bit for bit; "
        f"the gradient equals that of one process, within {worst:.0e} of its norm."
    )
    return CheckResult(TWO_PROCESSES, "pass", measured)


def _worker_error(folder: Path) -> str:
    """Run both processes until they end or one fails; return the last line of a failed one, empty on success."""
    started: list[subprocess.Popen] = []
    logs = [folder / f"log-{rank}.txt" for rank in range(PROCESSES)]
    try:
        for rank, log in enumerate(logs):
            with log.open("w", encoding="utf-8") as stream:
                started.append(
                    subprocess.Popen(
                        [sys.executable, "-P", "-m", "hf_finetune.doctor.worker", str(folder)],
                        env=_environment(rank),
                        stdin=subprocess.DEVNULL,
                        stdout=stream,
                        stderr=subprocess.STDOUT,
                    )
                )
        until = time.monotonic() + TIMEOUT_SECONDS
        while any(process.poll() is None for process in started):
            if any(process.poll() for process in started):
                break
            if time.monotonic() > until:
                return f"it did not finish within {TIMEOUT_SECONDS} seconds."
            time.sleep(0.05)
    finally:
        for process in started:
            process.kill()
            process.wait()
    # prefer a process that failed by itself (positive code) to one that was killed above
    failed = [rank for rank, process in enumerate(started) if process.returncode > 0] or [
        rank for rank, process in enumerate(started) if process.returncode
    ]
    return _last_line(logs[failed[0]], started[failed[0]].returncode) if failed else ""


def _environment(rank: int) -> dict[str, str]:
    threads = max((os.cpu_count() or PROCESSES) // PROCESSES, 1)
    variables = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(PROCESSES),
        "LOCAL_WORLD_SIZE": str(PROCESSES),
        "ACCELERATE_USE_CPU": "true",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if loopback:  # gloo resolves the host name by default, which may fail in a container
        variables["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", loopback)
    return {**os.environ, **variables}


def _last_line(log: Path, code: int) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    last = next((line for line in reversed(lines) if line), "")
    return re.sub(r"^\[rank\d+\]: ", "", last) or f"it ended with exit code {code} and no output."
