"""Worker process of the check of distributed training: ``python -m hf_finetune.doctor.worker FOLDER``."""

import copy
import hashlib
import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import save_file
from torch.nn.utils.parametrize import is_parametrized
from transformers import PreTrainedModel

from hf_finetune.doctor.steps import FirstGradient, force_eval_mode, take_steps

__all__ = ["JOB_FILE", "digests_file", "gradient_file", "pack_model"]

JOB_FILE = "job.pt"
TIMEOUT = timedelta(seconds=60)


def digests_file(folder: Path, rank: int) -> Path:
    """Return the path of the file to which a process writes the SHA-256 of each parameter after each stage."""
    return folder / f"digests-{rank}.json"


def gradient_file(folder: Path, index: int) -> Path:
    """Return the path of the file to which the first process writes the gradient of a stage's first step."""
    return folder / f"gradient-{index}.safetensors"


def pack_model(model: PreTrainedModel) -> dict[str, Any]:
    """Return the entries of a job from which a worker restores a model, in eval mode.

    The eval hook is registered before the model is pickled: torch numbers hooks from 0 in each process, so a hook
    registered on an unpickled model may overwrite one that the model already has. Parametrized modules, such as those
    of ``weight_norm``, cannot be pickled; a model with one is rebuilt from its config and state dict.

    Args:
        model: Model to send to the workers; it is not changed.
    """
    if any(map(is_parametrized, model.modules())):
        return {"class": type(model), "config": model.config, "weights": model.state_dict()}
    model = copy.deepcopy(model)
    force_eval_mode(model)
    return {"model": model}


def _unpack_model(job: dict[str, Any]) -> PreTrainedModel:
    if "model" in job:
        return job["model"]
    model = job["class"](job["config"])
    model.load_state_dict(job["weights"])
    force_eval_mode(model)
    return model


def run_job(folder: Path) -> None:
    """Train two steps of each stage together with the other process; write the digests and the gradients.

    Args:
        folder: Folder with the job, and for the results.
    """
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    # weights_only=False is safe: the process that started this one has just written the file
    job = torch.load(folder / JOB_FILE, weights_only=False)
    rendezvous = (folder / "rendezvous").as_uri()
    torch.distributed.init_process_group("gloo", rendezvous, timeout=TIMEOUT, rank=rank, world_size=count)
    PartialState(cpu=True)
    model, digests = _unpack_model(job), []
    for index, stage in enumerate(job["stages"]):
        first = FirstGradient()
        trained = take_steps(
            model,
            stage,
            target=job["target"],
            sequences=job["sequences"],
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
    run_job(Path(sys.argv[1]))
