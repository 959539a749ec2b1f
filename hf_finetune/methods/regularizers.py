"""What a stage's ``regularize`` means for its training: callbacks, mixed batches, a second pass, an average."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, TrainerCallback

from hf_finetune.errors import Problem
from hf_finetune.methods.ema import AveragedWeights
from hf_finetune.methods.mixup import BatchMixer
from hf_finetune.methods.proximal import GradientNoise, ProximalSteps
from hf_finetune.planning.stages import Plan, StagePlan
from hf_finetune.recipe.schema import StageSettings, StageSpec

__all__ = [
    "Regularizers",
    "build_regularizers",
    "label_problems",
    "pretrained_weights",
    "sharding_problems",
]

STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Regularizers:
    """How a stage is kept from learning its examples by heart.

    Attributes:
        callbacks: What goes before and behind each step of the optimizer, in this order.
        average: Running average of the weights, one of the callbacks; None without it.
        mixing: Mixes the images of a batch; None leaves them.
        r_drop: Factor on how far two passes are apart; 0 makes one pass.
    """

    callbacks: tuple[TrainerCallback, ...] = ()
    average: AveragedWeights | None = None
    mixing: BatchMixer | None = None
    r_drop: float = 0.0


def build_regularizers(
    stage: StageSpec,
    planned: StagePlan,
    *,
    classes: int,
    seed: int,
    pretrained: Mapping[str, torch.Tensor] | None = None,
    best_metric: str | None = None,
    greater_is_better: bool = False,
) -> Regularizers:
    """Work out what a recipe's ``regularize`` means for a stage.

    Args:
        stage: The stage of the recipe.
        planned: What it trains.
        classes: Number of classes.
        seed: Of the stage.
        pretrained: The checkpoint's weights, from ``pretrained_weights``; needed for l2_sp alone.
        best_metric: Name of the metric that chooses the checkpoint; None keeps the last.
        greater_is_better: Which way that metric is better.
    """
    spec, callbacks = stage.regularize, []
    if spec.gradient_noise:
        callbacks.append(GradientNoise(planned.groups, spec.gradient_noise, seed))
    if spec.l1 or spec.l2_sp:
        shrunk = [parameter.name for parameter in planned.layout.parameters if parameter.decays]
        callbacks.append(
            ProximalSteps(planned.groups, l1=spec.l1, shrunk=shrunk, l2_sp=spec.l2_sp, pretrained=pretrained)
        )
    average = None
    if spec.ema is not None:
        average = AveragedWeights(_moving(planned), spec.ema, best_metric, greater_is_better)
        callbacks.append(average)
    mixing = BatchMixer(spec.mixup, spec.cutmix, classes, seed) if spec.mixes else None
    return Regularizers(tuple(callbacks), average, mixing, spec.r_drop)


def _moving(planned: StagePlan) -> list[str]:
    """Name what a stage moves: the trained parameters, and the statistics of BatchNorms that are not frozen."""
    frozen = set(planned.frozen_batch_norms)
    norms = [name for name, _ in planned.layout.batch_norms if name not in frozen]
    return [*planned.trainable, *(f"{name}.{each}" for name in norms for each in STATISTICS)]


def pretrained_weights(
    model: PreTrainedModel, stages: Sequence[StageSpec], plan: Plan
) -> dict[str, torch.Tensor]:
    """Copy the checkpoint's weights to which a stage pulls back: what such stages train below the head.

    Args:
        model: As it was loaded, before any stage.
        stages: Of the recipe.
        plan: What they train.
    """
    wanted = {
        name
        for stage, planned in zip(stages, plan.stages, strict=True)
        if stage.regularize.l2_sp
        for name in planned.trainable
    }
    layout = plan.layout
    wanted &= {each.name for each in layout.parameters if each.group < layout.backbone_groups}
    return {name: value.detach().clone() for name, value in model.named_parameters() if name in wanted}


def label_problems(stage: StageSettings, place: str, target: str) -> list[Problem]:
    """Say what of ``regularize`` these labels have no meaning for.

    Args:
        stage: A stage, or a strategy.
        place: Where it stands in the recipe.
        target: What a label is.
    """
    spec = stage.regularize
    repairs = {
        "r_drop": "It compares probabilities.",
        "mixup": "It mixes the probabilities of classes.",
        "cutmix": "It mixes the probabilities of classes.",
    }
    return [
        Problem(
            f"{place}.regularize.{name}", "must be left out where labels are amounts", repr(value), repair
        )
        for name, repair in repairs.items()
        if target == "regression" and (value := getattr(spec, name))
    ]


def sharding_problems(stage: StageSettings, place: str) -> list[Problem]:
    """Say what of ``regularize`` needs whole weights in every process, which FSDP and DeepSpeed divide."""
    rule = "must be left out under FSDP and DeepSpeed, which divide the weights among the processes"
    return [
        Problem(f"{place}.regularize.{name}", rule, repr(value))
        for name in ("l1", "l2_sp", "ema", "gradient_noise")
        if (value := getattr(stage.regularize, name))
    ]
