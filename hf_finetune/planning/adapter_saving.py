"""Check whether the trained parameters can be saved as an adapter."""

from hf_finetune.errors import Problem
from hf_finetune.planning.stages import Plan
from hf_finetune.recipe.schema import Recipe

__all__ = ["adapter_problems"]


def adapter_problems(recipe: Recipe, made: Plan) -> list[Problem]:
    """Return a problem for each stage that trains parameters which are not saved with the adapter.

    Args:
        recipe: Recipe, whose ``model.adapter.save`` determines what is saved.
        made: Plan of its stages.
    """
    adapter = recipe.model.adapter
    if adapter is None or adapter.save == "merged":
        return []
    saved = {
        parameter.name
        for parameter in made.layout.parameters
        if parameter.is_adapter or parameter.group == made.layout.backbone_groups
    }
    rule = "must train only the adapter and the head when model.adapter.save is not merged"
    repair = f"Set model.adapter.save to merged, or train {adapter.type}."
    return [
        Problem(f"stages[{index}].train", rule, repr(stage.train), repair)
        for index, stage in enumerate(made.stages)
        if not saved.issuperset(stage.trainable)
    ]
