"""The check of the seed: two short runs are equal bit for bit."""

from pathlib import Path

import torch

from hf_finetune.distributed import start_processes
from hf_finetune.doctor.check_target import CheckTarget
from hf_finetune.doctor.gradients import widest_stage
from hf_finetune.doctor.result import CheckResult, counted, some
from hf_finetune.doctor.steps import shorten, take_steps

__all__ = ["check_determinism"]

DETERMINISM = "determinism"
REPAIR = (
    "No seed fixes these. Set OMP_NUM_THREADS=1 and look again; if they still differ, the model draws chance "
    "of its own, and no run with it can be repeated."
)


def check_determinism(subject: CheckTarget, folder: Path) -> CheckResult:
    """Check that two runs of two steps, with the recipe's augmentation, dropout and precision, end equal.

    Off the CPU nobody promises it, so a difference there is told and is no failure.
    """
    index = widest_stage(subject)
    stage, planned = subject.ready.recipe.stages[index], subject.ready.plan.stages[index]
    speed = subject.ready.recipe.speed.model_copy(update={"compile": False})
    ends = []
    for attempt in ("first", "second"):
        trained = take_steps(
            subject.model,
            shorten(stage, planned, steps=2, batch_size=len(subject.examples) // 2, clip=stage.clip),
            target=subject.ready.data.target,
            examples=subject.inputs.train,
            collate=subject.inputs.collate,
            folder=folder / attempt,
            speed=speed,
        )
        ends.append({name: value.detach().cpu() for name, value in trained.state_dict().items()})
    one, other = ends
    device = start_processes().device.type
    where = (
        f"on the CPU with {counted(torch.get_num_threads(), 'thread')}" if device == "cpu" else f"on {device}"
    )
    differ = [name for name in one if not torch.equal(one[name], other[name])]
    if not differ:
        measured = f"Two runs of 2 steps end equal bit for bit in all {len(one)} tensors, {where}."
        return CheckResult(DETERMINISM, "pass", measured)
    largest = max((one[name].double() - other[name].double()).abs().max().item() for name in differ)
    share = f"{len(differ)} of {len(one)} tensors"
    measured = f"Two runs differ {where} in {share}, by up to {largest:.1g}: {some(differ)}."
    if device != "cpu":
        return CheckResult(DETERMINISM, "skipped", f"{measured} Bit for bit is promised on a CPU only.")
    return CheckResult(DETERMINISM, "fail", measured, REPAIR)
