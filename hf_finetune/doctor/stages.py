"""Check of a stage: two training steps change exactly the planned parameters."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.doctor.check_target import CheckTarget
from hf_finetune.doctor.result import CheckResult, sentence
from hf_finetune.doctor.steps import CHECK_LR, FirstGradient, plain_gradient, shorten, take_steps
from hf_finetune.errors import counted, join_words
from hf_finetune.planning.stages import StagePlan
from hf_finetune.recipe.speed import SpeedSpec

__all__ = ["check_stage", "stage_title"]

MIN_RELATIVE_UPDATE = 1e-6
"""Smallest update, as a fraction of a weight, that is certain to change it in fp32, whose rounding error is 6e-8."""

UNPLANNED_CHANGE_REPAIR = (
    "The model is changed by its own code or a library, not only by the optimizer. Update transformers and "
    "accelerate, and do not trust this stage until it passes."
)
UNCHANGED_REPAIR = (
    "The stage would not train exactly the declared parameters. Update transformers and accelerate; until it passes, "
    "exclude these parameters from the stage's selector."
)


def stage_title(subject: CheckTarget, index: int) -> str:
    """Return the name of the check of a stage."""
    return f"stage {subject.prepared.recipe.stages[index].name}"


def check_stage(subject: CheckTarget, index: int, folder: Path) -> CheckResult:
    """Train a stage for two steps, and check the changed tensors, the optimizer's groups and the frozen modules' mode.

    Learning rates below 1e-3 are raised to 1e-3, so that two steps are enough to change the weights.

    Args:
        subject: Model to check.
        index: Index of the stage.
        folder: Folder for the output of the stage.
    """
    title = stage_title(subject, index)
    spec, plan = subject.prepared.recipe.stages[index], subject.prepared.plan.stages[index]
    size = len(subject.examples) // 2
    stage = shorten(spec, plan, steps=2, batch_size=size, clip=spec.clip, lowest_rate=CHECK_LR)
    observer, first = _StageObserver(stage.plan), FirstGradient()
    trained = take_steps(
        subject.model,
        stage,
        target=subject.prepared.data.target,
        sequences=subject.inputs.sequences,
        examples=list(subject.examples),
        collate=subject.inputs.collate,
        folder=folder,
        speed=SpeedSpec(memory_format=subject.prepared.recipe.speed.memory_format),
        prepare=observer.register_hooks,
        callbacks=[observer, first],
    )
    before, after = _tensors(subject.model), _tensors(trained)
    parameters = dict(subject.model.named_parameters())
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    unchanged = [name for name in parameters if name in set(plan.trainable) - changed]
    unplanned = sorted(changed - set(plan.trainable) - _trained_batch_norm_buffers(subject, plan))
    unmeasurable = _unmeasurable_updates(subject, index, unchanged, first.gradient) if unchanged else set()
    missing = [name for name in unchanged if name not in unmeasurable]
    wrong: list[str] = []
    repairs: dict[str, None] = {}
    if unplanned:
        wrong.append(f"changed, but not planned: {join_words(unplanned, most=3)}")
        repairs[UNPLANNED_CHANGE_REPAIR] = None
    if missing:
        wrong.append(f"planned, but not changed: {join_words(missing, most=3)}")
        repairs[UNCHANGED_REPAIR] = None
    if observer.optimizer_problem:
        wrong.append(observer.optimizer_problem)
        repairs[UNCHANGED_REPAIR] = None
    if observer.training:
        wrong.append(f"frozen, but not in eval mode: {join_words(sorted(observer.training), most=3)}")
        repairs[UNPLANNED_CHANGE_REPAIR] = None
    if wrong:
        return CheckResult(title, "fail", sentence(wrong), " ".join(repairs))
    return CheckResult(title, "pass", _summary(subject, plan, unchanged, observer.frozen))


class _StageObserver(TrainerCallback):
    """Callback that checks the optimizer's groups at the start, and the mode of frozen modules in each forward pass."""

    def __init__(self, plan: StagePlan):
        self.groups = plan.groups
        self.trainable = set(plan.trainable)
        self.training: set[str] = set()
        self.frozen = 0
        self.optimizer_problem = "on_train_begin was not called"

    def register_hooks(self, model: PreTrainedModel) -> None:
        """Register a hook on every module whose parameters are all frozen, and on its submodules."""
        trained = {id(value) for name, value in model.named_parameters() if name in self.trainable}
        frozen: dict[str, nn.Module] = {}
        for name, module in model.named_modules():
            owned = {id(value) for value in module.parameters()}
            if owned and not owned & trained:
                frozen |= {f"{name}.{inner}".rstrip("."): child for inner, child in module.named_modules()}
        for name, module in frozen.items():
            module.register_forward_pre_hook(partial(self._check_mode, name))
        self.frozen = len(frozen)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Compare the optimizer's parameter groups with the plan."""
        parameters = kwargs["model"].named_parameters()
        names = {id(parameter): name.removeprefix("module.") for name, parameter in parameters}
        optimized: dict[str, tuple[float, float]] = {}
        twice = []
        for group in kwargs["optimizer"].param_groups:
            for parameter in group["params"]:
                name = names.get(id(parameter), "an unknown tensor")
                if name in optimized:
                    twice.append(name)
                optimized[name] = group["initial_lr"], group["weight_decay"]
        expected = {
            name: (group.lr, group.weight_decay) for group in self.groups for name in group.parameters
        }
        wrong = {
            "lacks": sorted(expected.keys() - optimized.keys()),
            "also contains": sorted(optimized.keys() - expected.keys()),
            "contains twice": sorted(twice),
            "has a wrong learning rate or weight decay for": [
                name for name in expected if optimized.get(name, expected[name]) != expected[name]
            ],
        }
        clauses = [f"{words} {join_words(which, most=3)}" for words, which in wrong.items() if which]
        self.optimizer_problem = f"the optimizer {', '.join(clauses)}" if clauses else ""

    def _check_mode(self, name: str, module: nn.Module, inputs: Any) -> None:
        if module.training:
            self.training.add(name)


def _tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: value.detach().cpu() for name, value in named}


def _trained_batch_norm_buffers(subject: CheckTarget, plan: StagePlan) -> set[str]:
    """Return the names of the running statistics of trained BatchNorms; no other buffer may change."""
    trained_norms = {name for name, _ in subject.prepared.plan.layout.batch_norms} - {
        *plan.frozen_batch_norms
    }
    return {name for name, _ in subject.model.named_buffers() if name.rpartition(".")[0] in trained_norms}


def _unmeasurable_updates(
    subject: CheckTarget, index: int, names: list[str], gradient: Mapping[str, torch.Tensor]
) -> set[str]:
    """Return the unchanged parameters whose update is not measurable, so that they could not change.

    An update is not measurable if it is below the fp32 rounding error of the weight, either with the gradient of plain
    torch or with the ``gradient`` of the first step of the stage. A parameter that lacks the latter is not returned if
    the former is large enough.
    """
    batch = subject.inputs.collate([dict(example) for example in subject.examples])
    trainable = subject.prepared.plan.stages[index].trainable
    target, sequences = subject.prepared.data.target, subject.inputs.sequences
    expected = plain_gradient(subject.model, trainable, batch, target, sequences)
    clip = subject.prepared.recipe.stages[index].clip
    total = torch.stack([value.norm() for value in gradient.values()]).norm().item() if gradient else 0.0
    scale = 1.0 if clip is None or total <= clip else clip / total
    weights = dict(subject.model.named_parameters())

    def is_visible(name: str, step: torch.Tensor | None) -> bool:
        if step is None:
            return False
        weight = weights[name].detach().abs()
        return bool((CHECK_LR * scale * step.abs() > MIN_RELATIVE_UPDATE * weight + 1e-30).any())

    return {
        name
        for name in names
        if not is_visible(name, expected.get(name))
        or (name in gradient and not is_visible(name, gradient[name]))
    }


def _summary(subject: CheckTarget, plan: StagePlan, unmeasurable: list[str], frozen: int) -> str:
    total = len(subject.prepared.plan.layout.parameters)
    buffers = {name for name, _ in subject.model.named_buffers()} - _trained_batch_norm_buffers(subject, plan)
    unchanged = [counted(total - len(plan.trainable), "other")] if len(plan.trainable) < total else []
    unchanged += [counted(len(buffers), "buffer")] if buffers else []
    text = f"2 steps changed {counted(len(plan.trainable) - len(unmeasurable), 'planned parameter')}"
    text += f"; {' and '.join(unchanged)} are equal bit for bit" if unchanged else ""
    text += f"; {counted(frozen, 'frozen module')} stayed in eval mode" if frozen else ""
    text += "; the optimizer's parameter groups match the plan."
    if unmeasurable:
        text += f" Planned, but their updates are not measurable: {join_words(unmeasurable, most=3)}."
    return text
