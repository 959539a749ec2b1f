"""Building blocks of the checks: a few training steps of a stage, and a reference gradient."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.planning.stages import PlannedStage, StagePlan
from hf_finetune.recipe.regularize import RegularizeSpec
from hf_finetune.recipe.speed import SpeedSpec
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.targets import TARGETS
from hf_finetune.tasks.examples import SequenceOutputs
from hf_finetune.training.sequence_validation import label_loss
from hf_finetune.training.stage import train_stage
from hf_finetune.training.stage_inputs import ExecutionSettings, StageData, StageEvaluation, StageOutput

__all__ = [
    "CHECK_LR",
    "FirstGradient",
    "difference",
    "force_eval_mode",
    "plain_gradient",
    "shorten",
    "take_steps",
]

Gradient = dict[str, torch.Tensor]

CHECK_LR = 1e-3
"""Learning rate of a stage that declares none, at which two steps change the weights."""


def shorten(
    spec: StageSpec,
    plan: StagePlan,
    *,
    steps: int,
    batch_size: int,
    accumulation: int = 1,
    clip: float | None = None,
    lowest_rate: float = 0.0,
) -> PlannedStage:
    """Return a copy of a stage with a few steps, without warmup, ``regularize``, ``best`` and ``early_stopping``.

    Args:
        spec: Stage of the recipe.
        plan: Plan of the stage; its trainable parameters stay the same.
        steps: Optimizer steps.
        batch_size: Examples per process and forward pass.
        accumulation: Forward passes per optimizer step.
        clip: Largest gradient norm; None does not clip.
        lowest_rate: Lower bound of the learning rates; smaller ones are raised to it.
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
        "fit": "gradient",  # a head that a solver fits is trained by gradient here, so that the check covers it
        "lr": spec.lr if spec.lr is not None else max(lowest_rate, CHECK_LR),
    }
    groups = tuple(replace(group, lr=max(group.lr or CHECK_LR, lowest_rate)) for group in plan.groups)
    shortened = replace(plan, groups=groups, steps=steps, warmup_steps=0)
    return PlannedStage(spec.model_copy(update=changes), shortened)


def take_steps(
    model: PreTrainedModel,
    stage: PlannedStage,
    *,
    target: str,
    sequences: SequenceOutputs | None,
    examples: Any,
    collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]],
    folder: Path,
    speed: SpeedSpec | None = None,
    prepare: Callable[[PreTrainedModel], Any] = lambda model: None,
    callbacks: Sequence[TrainerCallback] = (),
) -> PreTrainedModel:
    """Return a copy of a model, trained by ``train_stage``.

    Args:
        model: Model to copy; it is not changed.
        stage: Stage, from ``shorten``.
        target: Label type.
        sequences: How a model is trained whose output is a sequence; None for logits of labels.
        examples: Preprocessed training examples.
        collate: Collate function.
        folder: Folder for the output of the stage.
        speed: Precision and memory format; None is fp32.
        prepare: Function that is called with the copy before training.
        callbacks: Additional callbacks.
    """
    trained = copy.deepcopy(model)
    prepare(trained)
    train_stage(
        trained,
        stage,
        StageData(target, examples, collate, sequences=sequences),
        output=StageOutput(folder),
        evaluation=StageEvaluation(stage.spec.batch_size),
        execution=ExecutionSettings(speed or SpeedSpec()),
        callbacks=[*callbacks, _NoCheckpoints()],
    )
    return trained


def force_eval_mode(model: PreTrainedModel) -> None:
    """Keep the whole model in eval mode in its forward passes, although the Trainer calls ``model.train()``.

    In train mode, dropout draws a new mask for each micro-batch and BatchNorm normalizes over one micro-batch, so the
    accumulated gradient would not be that of the whole batch.
    """
    model.register_forward_pre_hook(_eval)


class FirstGradient(TrainerCallback):
    """Callback that stores the gradient of the first optimizer step, on the CPU."""

    def __init__(self) -> None:
        self.gradient: Gradient = {}

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Copy the gradient before the first optimizer step."""
        if state.global_step == 0:
            self.gradient = _gradient(kwargs["model"])


def plain_gradient(
    model: PreTrainedModel,
    trainable: Sequence[str],
    batch: Mapping[str, torch.Tensor],
    target: str,
    sequences: SequenceOutputs | None,
    *,
    label_smoothing: float = 0.0,
    device: str | torch.device = "cpu",
) -> Gradient:
    """Return the gradient of the mean loss over a batch in eval mode, computed with plain torch.

    Args:
        model: Model to differentiate; it is not changed.
        trainable: Names of the parameters to compute gradients for.
        batch: Model inputs and ``labels``.
        target: Label type: ``single_label`` (cross-entropy), ``multi_label`` (binary cross-entropy),
            ``regression`` (mean squared error), or one with its own loss.
        sequences: How a model is trained whose output is a sequence; None for logits of labels.
        label_smoothing: Share of each label's weight that is distributed over all classes, in [0, 1); only for
            ``single_label``.
        device: Device to compute on.

    Returns:
        Gradient of each parameter that has one, by name; on the CPU, in fp32.
    """
    chosen = set(trainable)
    copied = copy.deepcopy(model).to(device).eval()
    for name, parameter in copied.named_parameters():
        parameter.requires_grad_(name in chosen)
    inputs = {name: value.to(device) for name, value in batch.items()}
    labels = inputs.pop("labels")
    logits = copied(**inputs).logits
    kind = TARGETS[target]
    if not kind.has_standard_loss:
        loss = label_loss(target, sequences, label_smoothing)((logits,), labels)
    elif kind.has_squared_error:
        loss = functional.mse_loss(logits.view(-1), labels.to(logits).view(-1))
    elif kind.is_exclusive:
        logits = logits.flatten(0, -2)
        loss = functional.cross_entropy(logits, labels.flatten(), label_smoothing=label_smoothing)
    else:
        loss = functional.binary_cross_entropy_with_logits(logits, labels.to(logits))
    loss.backward()
    return _gradient(copied)


def difference(gradient: Gradient, expected: Gradient) -> tuple[float, float]:
    """Compare two gradients, with a missing gradient of a parameter as zeros.

    Args:
        gradient: Gradient to check.
        expected: Reference gradient.

    Returns:
        Ratio of the L2 norms, and L2 norm of the difference as a fraction of the reference norm; nan and inf if the
        reference is zero.
    """
    norm = reference_norm = difference_norm = 0.0
    for name, tensor in {**expected, **gradient}.items():
        zeros = torch.zeros_like(tensor)
        value, reference = gradient.get(name, zeros), expected.get(name, zeros)
        norm += _squared_norm(value)
        reference_norm += _squared_norm(reference)
        difference_norm += _squared_norm(value - reference)
    if reference_norm == 0:
        return float("nan"), float("inf")
    return (norm / reference_norm) ** 0.5, (difference_norm / reference_norm) ** 0.5


def _squared_norm(value: torch.Tensor) -> float:
    return torch.linalg.vector_norm(value).item() ** 2


class _NoCheckpoints(TrainerCallback):
    """Callback that disables checkpoints; only the handler of Ctrl-C, a later callback, can still request one."""

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
