"""Whether the head of a model can be fitted at once."""

from hf_finetune.errors import InputError, Problem
from hf_finetune.plan.layers import Layout

__all__ = ["check_fitted", "linear_head"]


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
