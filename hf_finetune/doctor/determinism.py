"""Check of determinism: two short runs with the same seed end with bitwise equal weights."""

from pathlib import Path

import torch

from hf_finetune.distributed import start_processes
from hf_finetune.doctor.check_target import CheckTarget
from hf_finetune.doctor.gradients import widest_stage
from hf_finetune.doctor.result import CheckResult
from hf_finetune.doctor.steps import shorten, take_steps
from hf_finetune.errors import counted, join_words

__all__ = ["check_determinism"]

DETERMINISM = "determinism"
REPAIR = (
    "The trained weights differ between runs with the same seed. Set OMP_NUM_THREADS=1 and run the check again; if "
    "they still differ, the model has its own source of randomness, and its runs cannot be reproduced."
)


def check_determinism(subject: CheckTarget, folder: Path) -> CheckResult:
    """Check that two runs of two steps, with the recipe's augmentation, dropout and precision, end with equal weights.

    Only the CPU guarantees bitwise equality, so a difference on another device is reported, but is no failure.

    Args:
        subject: Model to check.
        folder: Folder for the output of the runs.
    """
    index = widest_stage(subject)
    spec, plan = subject.prepared.recipe.stages[index], subject.prepared.plan.stages[index]
    speed = subject.prepared.recipe.speed.model_copy(update={"compile": False})
    states = []
    for attempt in ("first", "second"):
        trained = take_steps(
            subject.model,
            shorten(spec, plan, steps=2, batch_size=len(subject.examples) // 2, clip=spec.clip),
            target=subject.prepared.data.target,
            sequences=subject.inputs.sequences,
            examples=subject.inputs.train,
            collate=subject.inputs.collate,
            folder=folder / attempt,
            speed=speed,
        )
        states.append({name: value.detach().cpu() for name, value in trained.state_dict().items()})
    first, second = states
    device = start_processes().device.type
    where = f"on {device}"
    if device == "cpu":
        where = f"on the CPU with {counted(torch.get_num_threads(), 'thread')}"
    different = [name for name in first if not torch.equal(first[name], second[name])]
    if not different:
        measured = f"Two runs of 2 steps are equal bit for bit in all {len(first)} tensors, {where}."
        return CheckResult(DETERMINISM, "pass", measured)
    largest = max((first[name].double() - second[name].double()).abs().max().item() for name in different)
    counts = f"{len(different)} of {len(first)} tensors"
    measured = (
        f"Two runs differ {where} in {counts}, by up to {largest:.1g}: {join_words(different, most=3)}."
    )
    if device != "cpu":
        measured = f"{measured} Bitwise reproducibility is guaranteed on a CPU only."
        return CheckResult(DETERMINISM, "skipped", measured)
    return CheckResult(DETERMINISM, "fail", measured, REPAIR)
