"""Whether the head of a model can be fitted at once."""

from collections.abc import Sequence

from hf_finetune.errors import InputError, Problem
from hf_finetune.planning.layers import Layout
from hf_finetune.recipe.head_fit import AUTO, BALANCES, GRADIENT, KEPT
from hf_finetune.recipe.schema import StageSpec

__all__ = ["MOST_WORK", "check_fitted", "linear_head", "settle_fits"]

MOST_WORK = 10**10
"""Examples x features x classes up to which a head is fitted unasked; beyond, it takes many minutes."""


def linear_head(layout: Layout) -> str:
    """Name the one layer that is the head, if it has a weight and a bias and nothing else; else nothing."""
    names = {parameter.name for parameter in layout.parameters if parameter.group == layout.backbone_groups}
    layer = next(iter(names), "").rpartition(".")[0]
    return layer if names == {f"{layer}.weight", f"{layer}.bias"} else ""


def check_fitted(layout: Layout, place: str, how: str) -> None:
    """Refuse to fit a head of several layers, or of another kind.

    Args:
        layout: The model's parameters.
        place: Where it is asked for.
        how: What is asked for.
    Raises:
        InputError: If the head is not one layer with weight and bias.
    """
    if linear_head(layout):
        return
    head = [parameter.name for parameter in layout.parameters if parameter.group == layout.backbone_groups]
    rule = f"must be gradient unless the head is one linear layer with a bias; this one has {', '.join(head)}"
    raise InputError(Problem(place, rule, repr(how)))


def settle_fits(
    stages: Sequence[StageSpec], layout: Layout, target: str, examples: int | None = None, alone: bool = True
) -> tuple[tuple[StageSpec, ...], tuple[str, ...]]:
    """Decide for each stage with ``fit: auto`` whether its head is fitted at once or trained in steps.

    A stage that is fitted loses its settings of steps.

    Args:
        stages: Of a recipe.
        layout: The model's parameters.
        target: What the labels are.
        examples: Number of training examples; None if it is not known.
        alone: Whether the model has a single task.

    Returns:
        The stages, and a sentence for each decision.
    """
    settled, notes = [], []
    for index, stage in enumerate(stages):
        if stage.fit != AUTO:
            settled.append(stage)
            continue
        reason = _why_not(stage, layout, examples, alone)
        how = "ridge" if target == "regression" else "logistic_regression"
        if reason:
            settled.append(stage.model_copy(update={"fit": GRADIENT}))
            notes.append(f"stages[{index}].fit is gradient: {reason}.")
            continue
        kept = {name: getattr(stage, name) for name in KEPT if name in StageSpec.model_fields}
        settled.append(StageSpec(**{**kept, "fit": how}))
        notes.append(f"stages[{index}].fit is {how}: the head is one linear layer.")
    return tuple(settled), tuple(notes)


def _why_not(stage: StageSpec, layout: Layout, examples: int | None, alone: bool) -> str:
    """Return why a head is not fitted at once; empty if it is."""
    head = [parameter for parameter in layout.parameters if parameter.group == layout.backbone_groups]
    if not alone:
        return "only the head of a single task is fitted at once"
    if not linear_head(layout):
        return f"the head is more than one linear layer ({', '.join(parameter.name for parameter in head)})"
    if stage.balance.method not in BALANCES:
        return f"balance {stage.balance.method} needs steps"
    if stage.teacher is not None:
        return "it learns from a teacher"
    if (examples or 0) * max(parameter.size for parameter in head) > MOST_WORK:
        return f"{examples:,} examples and {head[0].size:,} weights take too long to fit"
    return ""
