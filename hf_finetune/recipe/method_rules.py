"""Rules of the methods of a stage: their fields, and what each method needs of the rest of a recipe."""

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
    """Fields and needs of a method. A need that is empty does not exist.

    Attributes:
        name: Name of the method.
        fields: Places of its fields in a stage, such as ``regularize.ema``, or in the recipe.
        cache_blocker: Why a stage with the method must compute its frozen layers in every epoch.
        one_task: Fields that need a single task, each with the reason or the repair.
        needs_classes: Why the labels must be classes, not amounts.
        needs_standard_loss: Whether it replaces the loss of the labels by one that is made for cross-entropy or the
            squared error.
        unsharded: What FSDP and DeepSpeed do that the method does not survive.
        conflicts: Names of the methods that a stage cannot have as well; it is enough that one of two names the other.
    """

    name: str = ""
    fields: tuple[str, ...] = ()
    cache_blocker: str = ""
    one_task: Mapping[str, str] = field(default_factory=dict)
    needs_classes: str = ""
    needs_standard_loss: bool = False
    unsharded: str = ""
    conflicts: frozenset[str] = frozenset()

    def used(self, part: Any) -> dict[str, Any]:
        """Return the fields of the method that a part of a recipe sets, with their values.

        Args:
            part: Stage, strategy or the whole recipe, as a model or as plain mappings.
        """
        values = {place: field_value(part, place) for place in self.fields}
        return {place: value for place, value in values.items() if value}


def field_value(part: Any, place: str) -> Any:
    """Return the value at a dotted place in a part of a recipe, or None.

    Args:
        part: Part of a recipe, as a model or as plain mappings.
        place: Names of the fields on the way, such as ``regularize.ema``.
    """
    for name in place.split("."):
        part = getattr(part, name, None) if isinstance(part, BaseModel) else as_mapping(part).get(name)
    return part


def conflicting_fields(rules: MethodRules, stage: Any) -> Iterator[str]:
    """Yield the fields of a stage that belong to methods in conflict with the given one.

    Args:
        rules: Rules of the method.
        stage: Stage of a recipe, as in ``MethodRules.used``.
    """
    for other in RULES:
        if other.name in rules.conflicts or rules.name in other.conflicts:
            yield from other.used(stage)


ONE_TASKS_CLASSES = "Mixed labels are probabilities of the classes of a single task."
DIVIDE_WEIGHTS = "shard the weights"

CARRIED_OPTIMIZER = MethodRules(
    "carried optimizer", ("carry_optimizer",), unsharded="shard the optimizer state"
)
DISTILLATION = MethodRules(
    "distillation",
    ("teacher",),
    cache_blocker="the teacher needs the original inputs",
    one_task={"teacher": "A teacher has the classes of a single task."},
    needs_standard_loss=True,
)
PRUNING = MethodRules(
    "pruning", ("compress",), one_task={"compress": "Prune the model of a single task in a separate run."}
)
CLASS_BALANCE = MethodRules(
    "class balance",
    ("balance",),
    one_task={
        "balance.weights": "The tasks have different classes. Leave the weights out: they are computed for each task."
    },
)
PROXIMAL = MethodRules("proximal steps", ("regularize.l1", "regularize.l2_sp"), unsharded=DIVIDE_WEIGHTS)
EMA = MethodRules("ema", ("regularize.ema",), unsharded=DIVIDE_WEIGHTS)
GRADIENT_NOISE = MethodRules("gradient noise", ("regularize.gradient_noise",), unsharded=DIVIDE_WEIGHTS)
MIXUP = MethodRules(
    "mixup",
    ("regularize.mixup", "regularize.cutmix"),
    cache_blocker="mixup and cutmix mix whole images",
    one_task={"regularize.mixup": ONE_TASKS_CLASSES, "regularize.cutmix": ONE_TASKS_CLASSES},
    needs_classes="It mixes class probabilities.",
    needs_standard_loss=True,
)
R_DROP = MethodRules(
    "r_drop",
    ("regularize.r_drop",),
    one_task={"regularize.r_drop": "It compares class probabilities of a single task."},
    needs_classes="It compares class probabilities.",
    needs_standard_loss=True,
)
DOMAIN_ALIGNMENT = MethodRules(
    "domain alignment",
    ("domain_adaptation",),
    cache_blocker="domain alignment also needs inputs of the target domain",
    unsharded="shard the model whose features are aligned",
    # half of a batch is from the target domain and has no labels
    conflicts=frozenset({"distillation", "mixup", "r_drop"}),
)

RULES = (
    *(CARRIED_OPTIMIZER, DISTILLATION, PRUNING, CLASS_BALANCE, PROXIMAL, EMA, GRADIENT_NOISE, MIXUP, R_DROP),
    DOMAIN_ALIGNMENT,
)
"""Rules of all methods, in the order in which their problems are listed."""
