"""Suites of checks, and a runner that turns the exception of a check into a failed result."""

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from hf_finetune.distributed import start_processes
from hf_finetune.doctor.check_target import CheckTarget, load_check_target, tiny_recipes
from hf_finetune.doctor.checkpoint import ROUND_TRIP, WEIGHTS, check_round_trip, check_weights
from hf_finetune.doctor.determinism import DETERMINISM, check_determinism
from hf_finetune.doctor.gradients import LOSS_SCALING, check_loss_scaling
from hf_finetune.doctor.precision import PRECISION, check_precision
from hf_finetune.doctor.result import Check, CheckResult
from hf_finetune.doctor.stages import check_stage, stage_title
from hf_finetune.doctor.two_processes import TWO_PROCESSES, check_two_processes
from hf_finetune.errors import InputError, Problem, counted
from hf_finetune.recipe.multitask import problems_in_task
from hf_finetune.recipe.schema import Recipe
from hf_finetune.tasks import TASKS
from hf_finetune.training.manifest import library_versions

__all__ = ["CheckSuite", "check_suites", "describe_machine", "run_check"]


@dataclass(frozen=True)
class CheckSuite:
    """Checks of one model.

    Attributes:
        title: Name of the model, its task and its number of parameters.
        remark: Note for the user, printed before the checks; may be empty.
        checks: Checks, in the order in which they are run.
    """

    title: str
    remark: str
    checks: tuple[Check, ...]


def check_suites(
    recipe: Recipe | None, folder: Path, *, trust_remote_code: bool = False
) -> Iterator[CheckSuite]:
    """Yield the suite of a recipe's checkpoint; without a recipe, one of a tiny model for each task.

    A multi-task recipe has one suite per task, whose model has the head of that task alone.

    Args:
        recipe: Recipe whose checkpoint and stages to check; None checks tiny random models.
        folder: Folder for the tiny models.
        trust_remote_code: Whether code from the checkpoint may run.

    Yields:
        Check suites, each with its model loaded.

    Raises:
        InputError: If the recipe or its checkpoint cannot be used, or if there are several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        value = f"{os.environ['WORLD_SIZE']} processes"
        repair = "Run it directly; it starts its own processes."
        raise InputError(Problem("hf-finetune doctor", "cannot run under accelerate launch", value, repair))
    if recipe is not None:
        for task, single in recipe.by_task().items():
            with problems_in_task(task):
                subject = load_check_target(single, trust_remote_code=trust_remote_code)
            name = _short(recipe.model.title)
            title = _title(subject, f"{name} for {task}" if task else name)
            yield CheckSuite(title, subject.remark, _checks(subject))
        return
    for tiny in tiny_recipes(folder):
        subject = load_check_target(tiny)
        name = f"A tiny {TASKS[tiny.task_type].modality.name} model with random weights"
        yield CheckSuite(_title(subject, name), "", _checks(subject, include_precision=False))


def run_check(check: Check, folder: Path) -> CheckResult:
    """Run a check and return its result; if the check raises an exception, the result is a failure.

    With the environment variable ``HF_FINETUNE_TRACEBACK`` set, the exception is raised instead.

    Args:
        check: Check to run.
        folder: Folder in which a temporary folder for the check is created, and removed afterwards.
    """
    scratch = folder / "check"
    scratch.mkdir()
    try:
        return check.run(scratch)
    except Exception as error:
        if os.environ.get("HF_FINETUNE_TRACEBACK"):
            raise
        first_line = next(iter(str(error).strip().splitlines()), "")
        measured = f"The check raised an exception. {type(error).__name__}: {first_line}".rstrip(": ")
        return CheckResult(check.name, "fail", measured, "Set HF_FINETUNE_TRACEBACK=1 to see the traceback.")
    finally:
        shutil.rmtree(scratch)


def describe_machine() -> str:
    """Return the device and the library versions that the checks run on, as one line."""
    device = start_processes().device
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    elif device.type == "cpu":
        hardware = f"{platform.machine()} CPU, {counted(torch.get_num_threads(), 'thread')}"
    else:
        hardware = device.type
    versions = library_versions()
    names = ("torch", "transformers", "accelerate", "timm")
    return ", ".join([hardware, *(f"{name} {versions[name]}" for name in names)])


def _checks(subject: CheckTarget, include_precision: bool = True) -> tuple[Check, ...]:
    checks = [
        Check(WEIGHTS, lambda folder: check_weights(subject)),
        Check(ROUND_TRIP, partial(check_round_trip, subject)),
    ]
    for index in range(len(subject.prepared.recipe.stages)):
        checks.append(Check(stage_title(subject, index), partial(check_stage, subject, index)))
    checks += [
        Check(LOSS_SCALING, partial(check_loss_scaling, subject)),
        Check(DETERMINISM, partial(check_determinism, subject)),
        Check(TWO_PROCESSES, partial(check_two_processes, subject)),
    ]
    if include_precision:
        checks.append(Check(PRECISION, lambda folder: check_precision(subject)))
    else:
        reason = "It depends on the model; pass a recipe to check it."
        checks.append(Check(PRECISION, lambda folder: CheckResult(PRECISION, "skipped", reason)))
    return tuple(checks)


def _title(subject: CheckTarget, name: str) -> str:
    return f"{name}: {subject.prepared.recipe.task}, {subject.prepared.plan.layout.size:,} parameters"


def _short(path: str) -> str:
    """Return a path relative to the working directory, if it is inside it."""
    if Path(path).is_absolute() and Path(path).is_relative_to(Path.cwd()):
        return str(Path(path).relative_to(Path.cwd()))
    return path
