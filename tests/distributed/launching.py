"""Runs through ``accelerate launch`` on the CPU, and what each of their processes writes down."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from safetensors.torch import load_file

from hf_finetune.recipe import dump_recipe

SECONDS = 300
WORKER = Path(__file__).with_name("worker.py")
COMMON = ("--num_machines", "1", "--num_cpu_threads_per_process", "1", "--mixed_precision", "no")
MODES = {
    "ddp": ("--multi_gpu", "--dynamo_backend", "no"),
    "fsdp": (
        *("--use_fsdp", "--fsdp_version", "2", "--dynamo_backend", "no"),
        *("--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP"),
    ),
    "deepspeed": ("--use_deepspeed", "--deepspeed_config_file", "deepspeed.json"),
}


@dataclass(frozen=True)
class Launched:
    """A launch that has ended.

    Attributes:
        folder: Where it ran; the run is in ``run``, what the processes wrote down in ``ranks``.
        code: Its exit code.
        err: Its standard error.
        seconds: How long it took.
    """

    folder: Path
    code: int
    err: str
    seconds: float

    def weights(self, stage, rank, moment="after"):
        """Read what a process had in its memory before or after a stage."""
        return load_file(self.folder / "ranks" / f"{stage}-{moment}-{rank}.safetensors")

    def notes(self, stage, rank):
        """Read what a process noted of a stage: the examples of each step, mode of modules, buffers when evaluated."""
        return json.loads((self.folder / "ranks" / f"{stage}-{rank}.json").read_text(encoding="utf-8"))

    def manifest(self):
        return json.loads((self.folder / "run" / "manifest.json").read_text(encoding="utf-8"))

    def metrics(self):
        return json.loads((self.folder / "run" / "metrics.json").read_text(encoding="utf-8"))


def launch(folder, recipe, processes, *, mode="ddp", resume=False, event=None, environment=None):
    """Run a recipe on several processes, in a folder that holds a run to be resumed or nothing.

    Args:
        folder: Where to.
        recipe: The recipe.
        processes: Their number.
        mode: ``ddp``, ``fsdp``, or ``deepspeed`` with a ``deepspeed.json`` in the folder.
        resume: Whether to resume.
        event: What happens to one of them: ``{"rank": 1, "stage": "all", "step": 3, "how": "exit"}``.
        environment: Further environment variables.
    """
    (folder / "ranks").mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    options = json.dumps({"resume": resume, "event": event})
    command = [sys.executable, "-m", "accelerate.commands.launch", *MODES[mode], *COMMON]
    command += ["--num_processes", str(processes), "--main_process_port", "0", str(WORKER), options]
    begun = monotonic()
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "MASTER_ADDR": "127.0.0.1", "CUDA_VISIBLE_DEVICES": "", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return Launched(folder, done.returncode, done.stderr, monotonic() - begun)
