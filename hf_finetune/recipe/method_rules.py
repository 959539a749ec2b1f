"""Recipe fields of the training methods, and the requirements of each method."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from hf_finetune.fields.raw_content import as_mapping

__all__ = [
    "CARRIED_OPTIMIZER",
    "CLASS_BALANCE",
    "DISTILLATION",
    "DOMAIN_ALIGNMENT",
    "EMA",
    "GRADIENT_NOISE",
    "MIXUP",
    "PROXIMAL",
    "PRUNING",
    "RULES",
    "R_DROP",
    "MethodRules",
    "conflicting_fields",
    "field_value",
]


@dataclass(frozen=True)
class MethodRules:
    """Recipe fields of a method and its requirements; an empty attribute means no requirement.

    Attributes:
        name: Name of the method.
        fields: Dotted paths of its fields in a stage, such as ``regularize.ema``, or in the recipe.
        cache_blocker: Reason why a stage with the method cannot cache the outputs of its frozen layers.
        single_task_reasons: Fields that require a single-task recipe, each with the reason or the repair.
        classes_reason: Reason why the method requires class labels.
        needs_standard_loss: Whether the method works only with cross-entropy or the squared error.
        sharding_objection: Reason why FSDP and DeepSpeed are not supported, as ``shard the weights``.
        conflicts: Names of methods that cannot be combined with it; a conflict is listed on one side only.
    """

    name: str = ""
    fields: tuple[str, ...] = ()
    cache_blocker: str = ""
    single_task_reasons: Mapping[str, str] = field(default_factory=dict)
    classes_reason: str = ""
    needs_standard_loss: bool = False
    sharding_objection: str = ""
    conflicts: frozenset[str] = frozenset()

    def used(self, part: Any) -> dict[str, Any]:
        """Return the values of the method's fields that a part of a recipe sets, by path.

        Args:
            part: Stage, strategy or the whole recipe, as a model or as plain mappings.
        """
        values = {path: field_value(part, path) for path in self.fields}
        return {path: value for path, value in values.items() if value}


def field_value(part: Any, path: str) -> Any:
    """Return the value at a dotted path in a part of a recipe, or None.

    Args:
        part: Part of a recipe, as a model or as plain mappings.
        path: Dotted field path, such as ``regularize.ema``.
    """
    for name in path.split("."):
        part = getattr(part, name, None) if isinstance(part, BaseModel) else as_mapping(part).get(name)
    return part


def conflicting_fields(rules: MethodRules, stage: Any) -> Iterator[str]:
    """Yield the fields of a stage that belong to methods that cannot be combined with the given one.

    Args:
        rules: Rules of the method.
        stage: Stage of a recipe, as in ``MethodRules.used``.
    """
    for candidate in RULES:
        if candidate.name in rules.conflicts or rules.name in candidate.conflicts:
            yield from candidate.used(stage)


MIXED_LABELS_REASON = "Mixed labels are probabilities of the classes of a single task."
"""Reason why mixup and CutMix require a single-task recipe."""
SHARDS_WEIGHTS = "shard the weights"
"""``sharding_objection`` of methods that change weights or gradients."""

CARRIED_OPTIMIZER = MethodRules(
    "carried optimizer", ("carry_optimizer",), sharding_objection="shard the optimizer state"
)
DISTILLATION = MethodRules(
    "distillation",
    ("teacher",),
    cache_blocker="the teacher needs the original inputs",
    single_task_reasons={"teacher": "A teacher has the classes of a single task."},
    needs_standard_loss=True,
)
PRUNING = MethodRules(
    "pruning",
    ("compress",),
    single_task_reasons={"compress": "Prune the model of a single task in a separate run."},
)
CLASS_BALANCE = MethodRules(
    "class balance",
    ("balance",),
    single_task_reasons={
        "balance.weights": "The tasks have different classes. Remove the weights: they are computed for each task."
    },
)
PROXIMAL = MethodRules(
    "proximal steps", ("regularize.l1", "regularize.l2_sp"), sharding_objection=SHARDS_WEIGHTS
)
EMA = MethodRules("ema", ("regularize.ema",), sharding_objection=SHARDS_WEIGHTS)
GRADIENT_NOISE = MethodRules(
    "gradient noise", ("regularize.gradient_noise",), sharding_objection=SHARDS_WEIGHTS
)
MIXUP = MethodRules(
    "mixup",
    ("regularize.mixup", "regularize.cutmix"),
    cache_blocker="mixup and cutmix mix whole images",
    single_task_reasons={"regularize.mixup": MIXED_LABELS_REASON, "regularize.cutmix": MIXED_LABELS_REASON},
    classes_reason="It mixes class probabilities.",
    needs_standard_loss=True,
)
R_DROP = MethodRules(
    "r_drop",
    ("regularize.r_drop",),
    single_task_reasons={"regularize.r_drop": "It compares class probabilities of a single task."},
    classes_reason="It compares class probabilities.",
    needs_standard_loss=True,
)
DOMAIN_ALIGNMENT = MethodRules(
    "domain alignment",
    ("domain_adaptation",),
    cache_blocker="domain alignment also needs inputs of the target domain",
    sharding_objection="shard the model whose features are aligned",
    # half of a batch is from the target domain and has no labels
    conflicts=frozenset({"distillation", "mixup", "r_drop"}),
)

RULES = (
    CARRIED_OPTIMIZER,
    DISTILLATION,
    PRUNING,
    CLASS_BALANCE,
    PROXIMAL,
    EMA,
    GRADIENT_NOISE,
    MIXUP,
    R_DROP,
    DOMAIN_ALIGNMENT,
)
"""Rules of all methods, in the order in which their problems are listed."""
