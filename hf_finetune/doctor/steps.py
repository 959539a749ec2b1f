"""A few steps of a stage, and the gradient that they ought to have: what the checks are made of."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.planning.stages import StagePlan
from hf_finetune.recipe.schema import RegularizeSpec, SpeedSpec, StageSpec
from hf_finetune.training.stage import train_stage
from hf_finetune.training.stage_inputs import StageData, StageEvaluation

__all__ = ["FirstGradient", "difference", "hold_in_eval", "plain_gradient", "shorten", "take_steps"]

Gradient = dict[str, torch.Tensor]

LR = 1e-3
"""Of a stage that has none."""


def shorten(
    stage: StageSpec,
    planned: StagePlan,
    *,
    steps: int,
    batch_size: int,
    accumulation: int = 1,
    clip: float | None = None,
    lowest_rate: float = 0.0,
) -> tuple[StageSpec, StagePlan]:
    """Make a stage of a few steps, without warmup, out of a recipe's.

    Args:
        stage: The recipe's.
        planned: What it trains; that stays.
        steps: Optimiser steps.
        batch_size: Examples per process and forward pass.
        accumulation: Forward passes per optimiser step.
        clip: Largest gradient norm; None does not clip.
        lowest_rate: Smaller learning rates are raised to it.
    """
    changes = {
        "epochs": None,
        "max_steps": steps,
        "batch_size": batch_size,
        "accumulation": accumulation,
        "clip": clip,
        "warmup": 0,
        "best": None,
        "early_stopping": None,
        "regularize": RegularizeSpec(),
        "fit": "gradient",  # of a head that is fitted, too, it is seen that nothing else would move
        "lr": stage.lr if stage.lr is not None else max(lowest_rate, LR),
    }
    groups = tuple(replace(group, lr=max(group.lr or LR, lowest_rate)) for group in planned.groups)
    return stage.model_copy(update=changes), replace(planned, groups=groups, steps=steps, warmup_steps=0)


def take_steps(
    model: PreTrainedModel,
    short: tuple[StageSpec, StagePlan],
    *,
    target: str,
    examples: Any,
    collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]],
    folder: Path,
    speed: SpeedSpec | None = None,
    prepare: Callable[[PreTrainedModel], Any] = lambda model: None,
    callbacks: Sequence[TrainerCallback] = (),
) -> PreTrainedModel:
    """Train a copy of a model by ``train_stage``, and give it.

    Args:
        model: It is left as it is.
        short: From ``shorten``.
        target: What a label is.
        examples: Training examples, ready for the model.
        collate: Makes a batch.
        folder: Where the stage writes.
        speed: Precision and memory layout; None is plain fp32.
        prepare: Is given the copy before it is trained.
        callbacks: Further callbacks.
    """
    stage, planned = short
    trained = copy.deepcopy(model)
    prepare(trained)
    train_stage(
        trained,
        stage,
        planned,
        StageData(target, examples, collate),
        folder=folder,
        judging=StageEvaluation(stage.batch_size),
        speed=speed or SpeedSpec(),
        seed=0,
        callbacks=[*callbacks, _NoCheckpoints()],
    )
    return trained


def hold_in_eval(model: PreTrainedModel) -> None:
    """Keep a whole model in eval mode during its forward passes, whatever the Trainer does.

    Dropout draws anew for each micro-batch, and a BatchNorm sees one micro-batch only: with them in train mode no
    gradient would be that of the whole batch.
    """
    model.register_forward_pre_hook(_eval)


class FirstGradient(TrainerCallback):
    """Keep the gradient of the first optimiser step, on the CPU."""

    def __init__(self) -> None:
        self.gradient: Gradient = {}

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Copy it."""
        if state.global_step == 0:
            self.gradient = _gradient(kwargs["model"])


def plain_gradient(
    model: PreTrainedModel,
    trainable: Sequence[str],
    batch: Mapping[str, torch.Tensor],
    target: str,
    *,
    label_smoothing: float = 0.0,
    device: str | torch.device = "cpu",
) -> Gradient:
    """Compute the gradient of the mean loss over a batch in eval mode, without any Trainer.

    Args:
        model: It is left as it is.
        trainable: Names of the parameters to derive by.
        batch: With ``labels``.
        target: What a label is.
        label_smoothing: Share of each label's weight that is spread over all classes, in [0, 1).
        device: Where to compute; the gradient is given on the CPU.
    """
    chosen = set(trainable)
    copied = copy.deepcopy(model).to(device).eval()
    for name, parameter in copied.named_parameters():
        parameter.requires_grad_(name in chosen)
    inputs = {name: value.to(device) for name, value in batch.items()}
    labels = inputs.pop("labels")
    logits = copied(**inputs).logits
    if target == "single_label":
        loss = functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    elif target == "multi_label":
        loss = functional.binary_cross_entropy_with_logits(logits, labels.to(logits))
    else:
        loss = functional.mse_loss(logits.view(-1), labels.to(logits).view(-1))
    loss.backward()
    return _gradient(copied)


def difference(found: Gradient, expected: Gradient) -> tuple[float, float]:
    """Compare two gradients; a parameter that got none counts as zeros.

    Returns:
        The ratio of their L2 norms, and the norm of their difference as a share of the expected one's norm.
    """
    ours = theirs = apart = 0.0
    for name, like in {**expected, **found}.items():
        one, other = (side.get(name, torch.zeros_like(like)) for side in (found, expected))
        ours += _square(one)
        theirs += _square(other)
        apart += _square(one - other)
    if theirs == 0:
        return float("nan"), float("inf")
    return (ours / theirs) ** 0.5, (apart / theirs) ** 0.5


def _square(value: torch.Tensor) -> float:
    return torch.linalg.vector_norm(value).item() ** 2


class _NoCheckpoints(TrainerCallback):
    """Nobody goes on with these steps; only Ctrl-C may still ask for a checkpoint, behind this callback."""

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        control.should_save = False


def _gradient(model: torch.nn.Module) -> Gradient:
    return {
        name.removeprefix("module."): parameter.grad.detach().float().cpu().clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def _eval(module: torch.nn.Module, inputs: Any) -> None:
    module.eval()
