"""Regularization of a stage: the methods that its ``regularize`` field asks for."""

from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedModel

from hf_finetune.errors import Problem
from hf_finetune.methods.base import CallbackMethod, Method
from hf_finetune.methods.ema import AveragedWeights
from hf_finetune.methods.mixup import BatchMixer
from hf_finetune.methods.proximal import GradientNoise, ProximalSteps
from hf_finetune.methods.r_drop import RDrop
from hf_finetune.planning.stages import Plan, StagePlan
from hf_finetune.recipe.schema import StageSettings, StageSpec
from hf_finetune.targets import TARGETS

__all__ = [
    "build_regularizers",
    "label_problems",
    "pretrained_weights",
    "sharding_problems",
]

STATISTICS = ("running_mean", "running_var")


def build_regularizers(
    stage: StageSpec,
    planned: StagePlan,
    *,
    classes: int,
    seed: int,
    pretrained: Mapping[str, torch.Tensor] | None = None,
    best_metric: str | None = None,
    greater_is_better: bool = False,
) -> list[Method]:
    """Return the regularizers of a stage, from the ``regularize`` field of its recipe, in the order of their hooks.

    Args:
        stage: Stage of the recipe.
        planned: Plan of the stage.
        classes: Number of classes.
        seed: Seed of the stage.
        pretrained: Weights of the checkpoint, from ``pretrained_weights``; needed for l2_sp only.
        best_metric: Name of the metric that selects the best checkpoint; None keeps the last one.
        greater_is_better: Whether higher values of ``best_metric`` are better.
    """
    spec, methods = stage.regularize, list[Method]()
    if spec.gradient_noise:
        methods.append(CallbackMethod(GradientNoise(planned.groups, spec.gradient_noise, seed)))
    if spec.l1 or spec.l2_sp:
        shrunk = [parameter.name for parameter in planned.layout.parameters if parameter.decays]
        steps = ProximalSteps(
            planned.groups, l1=spec.l1, shrunk=shrunk, l2_sp=spec.l2_sp, pretrained=pretrained
        )
        methods.append(CallbackMethod(steps))
    if spec.ema is not None:
        methods.append(AveragedWeights(_moving(planned), spec.ema, best_metric, greater_is_better))
    if spec.mixes:
        methods.append(BatchMixer(spec.mixup, spec.cutmix, classes, seed))
    if spec.r_drop:
        methods.append(RDrop(spec.r_drop))
    return methods


def _moving(planned: StagePlan) -> list[str]:
    """Return the names of the trained parameters and of the statistics of BatchNorms that are not frozen."""
    frozen = set(planned.frozen_batch_norms)
    norms = [name for name, _ in planned.layout.batch_norms if name not in frozen]
    return [*planned.trainable, *(f"{name}.{statistic}" for name in norms for statistic in STATISTICS)]


def pretrained_weights(
    model: PreTrainedModel, stages: Sequence[StageSpec], plan: Plan
) -> dict[str, torch.Tensor]:
    """Return copies of the backbone weights that the stages with l2_sp train, as they are in the checkpoint.

    Args:
        model: Model with the weights of the checkpoint, before any stage.
        stages: Stages of the recipe.
        plan: Plan of the stages.

    Returns:
        Weights by parameter name; empty if no stage uses l2_sp.
    """
    wanted = {
        name
        for stage, planned in zip(stages, plan.stages, strict=True)
        if stage.regularize.l2_sp
        for name in planned.trainable
    }
    layout = plan.layout
    wanted &= {parameter.name for parameter in layout.parameters if parameter.group < layout.backbone_groups}
    return {name: value.detach().clone() for name, value in model.named_parameters() if name in wanted}


def label_problems(stage: StageSettings, place: str, target: str) -> list[Problem]:
    """Return a problem for each regularizer of a stage that is not defined for the kind of labels.

    Args:
        stage: Stage or strategy of a recipe.
        place: Path of the stage in the recipe.
        target: Kind of the labels.
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
        if not TARGETS[target].has_classes and (value := getattr(spec, name))
    ]


def sharding_problems(stage: StageSettings, place: str) -> list[Problem]:
    """Return a problem for each regularizer that needs unsharded weights, which FSDP and DeepSpeed do not provide."""
    rule = "must be left out under FSDP and DeepSpeed, which divide the weights among the processes"
    return [
        Problem(f"{place}.regularize.{name}", rule, repr(value))
        for name in ("l1", "l2_sp", "ema", "gradient_noise")
        if (value := getattr(stage.regularize, name))
    ]
