"""One of the two processes of the check: ``python -m hf_finetune.doctor.worker FOLDER``."""

import hashlib
import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import save_file

from hf_finetune.doctor.steps import FirstGradient, take_steps

__all__ = ["JOB", "digests_file", "gradient_file"]

JOB = "job.pt"
PATIENCE = timedelta(seconds=60)


def digests_file(folder: Path, rank: int) -> Path:
    """Name the file in which a process leaves, for each stage, the SHA-256 of every parameter."""
    return folder / f"digests-{rank}.json"


def gradient_file(folder: Path, index: int) -> Path:
    """Name the file in which the first process leaves the gradient of a stage's first step."""
    return folder / f"gradient-{index}.safetensors"


def work(folder: Path) -> None:
    """Take two steps of every stage together with the other process, and write down what came of it."""
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    job = torch.load(
        folder / JOB, weights_only=False
    )  # written a moment ago by the process that waits for this one
    rendezvous = (folder / "rendezvous").as_uri()
    torch.distributed.init_process_group("gloo", rendezvous, timeout=PATIENCE, rank=rank, world_size=count)
    PartialState(cpu=True)
    digests = []
    for index, short in enumerate(job["stages"]):
        first = FirstGradient()
        trained = take_steps(
            job["model"],
            short,
            target=job["target"],
            examples=job["examples"],
            collate=job["collate"],
            folder=folder / f"stage-{index}",
            callbacks=[first],
        )
        digests.append({name: _digest(parameter) for name, parameter in trained.named_parameters()})
        if rank == 0:
            save_file(first.gradient, gradient_file(folder, index))
    digests_file(folder, rank).write_text(json.dumps(digests), encoding="utf-8")
    torch.distributed.destroy_process_group()


def _digest(value: torch.Tensor) -> str:
    raw = value.detach().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(raw.numpy().tobytes()).hexdigest()


if __name__ == "__main__":
    work(Path(sys.argv[1]))
