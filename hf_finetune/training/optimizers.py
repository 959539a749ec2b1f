"""Translation of a recipe's optimizers and schedules to those of the Trainer, and their checks."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from transformers.training_args import OptimizerNames, TrainingArguments

from hf_finetune.distributed import deepspeed_cpu_backend
from hf_finetune.errors import Problem, suggestion
from hf_finetune.recipe.schedule import CosineWithRestarts, PolynomialSchedule, ScheduleSpec

__all__ = ["check_optimizer", "optimizer_name", "trainer_schedule"]

ALIASES = {"adamw": "adamw_torch", "adam": "adamw_torch"}
"""The Trainer's names of a recipe's optimizers, where they differ."""
WITHOUT_GROUPS = ("galore", "lomo", "apollo", "lisa", "layerwise", "muon", "dion", "dummy")
"""Parts of the names of optimizers that replace the parameter groups by their own, or need the whole model."""


def optimizer_name(name: str) -> str:
    """Return the Trainer's name of a recipe's optimizer: ``adamw`` is ``adamw_torch``.

    Args:
        name: Name of the optimizer in the recipe.
    """
    return ALIASES.get(name, name)


def trainer_schedule(schedule: ScheduleSpec) -> dict[str, Any] | None:
    """Return the ``TrainingArguments`` of a schedule; None if the Trainer has no such schedule.

    Args:
        schedule: Schedule of the recipe.
    """
    if isinstance(schedule, PolynomialSchedule):
        options = {"lr_end": 0.0, "power": schedule.power}
        return {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": options}
    if isinstance(schedule, CosineWithRestarts):
        options = {"num_cycles": schedule.cycles}
        return {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": options}
    names = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
    return {"lr_scheduler_type": names[schedule.name]} if schedule.name in names else None


def check_optimizer(name: str, arguments: Mapping[str, Any], place: str) -> list[Problem]:
    """Check the name and arguments of an optimizer by creating one.

    Args:
        name: Optimizer name of the recipe.
        arguments: Arguments of the optimizer class, besides learning rate and weight decay.
        place: Path of the optimizer in the recipe, for the problems.

    Returns:
        Problems found; empty if there are none.
    """
    if name in ALIASES and not arguments:
        return []  # no need to import the Trainer, which takes half a second
    known = [*ALIASES, *(member.value for member in OptimizerNames)]
    usable = [candidate for candidate in known if not any(word in candidate for word in WITHOUT_GROUPS)]
    if name not in usable:
        if name in known:
            repair = "Choose another one, such as adamw: this one builds its own parameter groups."
            return [Problem(place, "must accept parameter groups", repr(name), repair)]
        rule = "must be an optimizer that the Trainer supports"
        return [Problem(place, rule, repr(name), suggestion(name, usable))]
    from transformers import Trainer

    try:
        options = TrainingArguments(
            output_dir="unused",
            optim=optimizer_name(name),
            report_to="none",
            ddp_backend=deepspeed_cpu_backend(),
        )
        optimizer_class, defaults = Trainer.get_optimizer_cls_and_kwargs(options)
        accepted = set(inspect.signature(optimizer_class).parameters) - {"params", "lr", "weight_decay"}
        if unknown := [word for word in arguments if word not in accepted]:
            rule = f"must be an argument of {optimizer_class.__name__}"
            return [
                Problem(
                    f"{place}.args.{word}", rule, repr(arguments[word]), suggestion(word, sorted(accepted))
                )
                for word in unknown
            ]
        optimizer_class([torch.nn.Parameter(torch.zeros(1))], **{**defaults, **arguments})
    except (ImportError, ValueError, TypeError) as error:
        return [
            Problem(
                place,
                "must be an optimizer that can be created with these arguments",
                repr(name),
                f"Error: {error}",
            )
        ]
    return []
