"""Recipe fields for regularization, and the rules between them and other fields."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from hf_finetune.errors import Problem
from hf_finetune.fields.base import Part
from hf_finetune.fields.raw_content import as_mapping
from hf_finetune.targets import TARGETS
from hf_finetune.tasks import TASKS, Task

__all__ = ["RegularizeSpec", "regularize_problems"]

NEEDED_TRAITS = {"r_drop": "has_tokens", "mixup": "is_spatial", "cutmix": "is_spatial"}
"""Property that the modality of the task must have, for fields that do not apply to every modality."""


class RegularizeSpec(Part):
    """Regularization of a stage; all methods are off by default."""

    l1: float = Field(
        default=0.0,
        ge=0,
        description="L1 strength (no unit), such as 0.001: after each step, moves weights towards 0 by learning "
        "rate x l1 but not past 0 (the proximal step of ISTA, Beck & Teboulle 2009); 0 = off. No measured benefit.",
    )
    l2_sp: float = Field(
        default=0.0,
        ge=0,
        description="L2-SP strength (no unit), such as 0.1: after each step, moves each trained weight w below "
        "the head towards the weight w0 of the checkpoint, to w0 + (w - w0) / (1 + learning rate x l2_sp) "
        "(Li et al. 2018); 0 = off. No measured benefit.",
    )
    r_drop: float = Field(
        default=0.0,
        ge=0,
        description="For texts: two forward passes with different dropout; the divergence of their predictions "
        "times this factor, such as 1.0, is added to the loss (R-Drop, Liang et al. 2021); 0 = off. "
        "No measured benefit.",
    )
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Decay factor of an exponential moving average of the weights, such as 0.99 (Polyak & Juditsky "
        "1992); null = off. No measured benefit.",
    )
    mixup: float = Field(
        default=0.0,
        ge=0,
        description="For images: each image is blended with another one of its batch, and the labels in the same "
        "proportion, which has a Beta distribution with this parameter (no unit; Zhang et al. 2018), "
        "usually 0.2; with cutmix too, each batch uses one of them at random; 0 = off. No measured benefit.",
    )
    cutmix: float = Field(
        default=0.0,
        ge=0,
        description="For images: each image is partly covered by another one of its batch, and the labels are "
        "mixed in the same proportion, which has a Beta distribution with this parameter (no unit; "
        "Yun et al. 2019), usually 1.0; 0 = off. No measured benefit.",
    )
    gradient_noise: float = Field(
        default=0.0,
        ge=0,
        description="Variance (no unit), such as 1e-4, of normal noise that is added to the clipped gradient; it "
        "falls as 1 / (1 + step)^0.55 (Neelakantan et al. 2015); 0 = off. No measured benefit.",
    )

    @property
    def uses_batch_mixing(self) -> bool:
        """Whether the images of a batch are mixed (mixup or cutmix)."""
        return bool(self.mixup or self.cutmix)

    @property
    def active_fields_text(self) -> str:
        """Active fields and their values, such as ``l1 0.001, ema 0.99``; empty if none is active."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return ", ".join(f"{name} {value:g}" for name, value in values.items() if value)

    @model_serializer(mode="wrap")
    def _drop_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = write(self)
        return {name: value for name, value in fields.items() if value}


def regularize_problems(
    task: Any, stages: Sequence[tuple[str, Mapping[str, Any]]], model: Mapping[str, Any]
) -> Iterator[Problem]:
    """Yield the problems between ``regularize`` and other fields of a recipe.

    Args:
        task: ``task`` of the recipe.
        stages: Location and fields of the strategy and of each stage, in order; any value may be of the wrong type.
        model: ``model`` of the recipe, as a plain mapping.
    """
    has_structured_pruning = False
    unsupported = _unsupported_fields(task)
    for place, stage in stages:
        spec = as_mapping(stage.get("regularize"))
        place = f"{place}.regularize"
        has_structured_pruning = has_structured_pruning or _is_structured(stage.get("compress"))
        for name, repair in unsupported.items():
            if spec.get(name):
                rule = f"must not be set when the task is {task}"
                yield Problem(f"{place}.{name}", rule, repr(spec[name]), repair)
        for name in ("mixup", "cutmix"):
            if spec.get(name) and name not in unsupported and stage.get("batch_size") == 1:
                repair = "Mixing needs at least two images per batch."
                yield Problem(
                    f"{place}.{name}", "must not be set when batch_size is 1", repr(spec[name]), repair
                )
        if not spec.get("l2_sp"):
            continue
        if model.get("adapter") is not None:
            repair = "The checkpoint's weights are frozen. Use weight_decay, which moves the adapter towards no change."
            rule = "must not be set when model.adapter is set"
            yield Problem(f"{place}.l2_sp", rule, repr(spec["l2_sp"]), repair)
        if has_structured_pruning:
            rule = "must not be set after structured pruning"
            repair = "The checkpoint's weights do not match the pruned shapes."
            yield Problem(f"{place}.l2_sp", rule, repr(spec["l2_sp"]), repair)


def _unsupported_fields(task: Any) -> dict[str, str]:
    """Return the fields that the modality of a task does not support, each with the repair to suggest."""
    if not isinstance(task, str) or task not in TASKS:
        return {}
    modality = TASKS[task].modality
    supported = [name for name, trait in NEEDED_TRAITS.items() if getattr(modality, trait)]
    unsupported = {}
    for name, trait in NEEDED_TRAITS.items():
        if name not in supported:
            able = [
                known.modality for known in TASKS.values() if known.has_label_head and _has_classes(known)
            ]
            plurals = dict.fromkeys(other.plural for other in able if getattr(other, trait))
            alternative = f"; for {modality.plural}, use {' or '.join(supported)}" if supported else ""
            unsupported[name] = f"It applies to {' and '.join(plurals)}{alternative}."
    return unsupported


def _has_classes(task: Task) -> bool:
    return any(target.has_classes for name, target in TARGETS.items() if task.accepts(name))


def _is_structured(compress: Any) -> bool:
    return compress is not None and as_mapping(compress).get("method", "structured") == "structured"
