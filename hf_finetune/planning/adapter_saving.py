"""Whether what the stages train can be saved as an adapter."""

from hf_finetune.errors import Problem
from hf_finetune.planning.stages import Plan
from hf_finetune.recipe.schema import Recipe

__all__ = ["adapter_problems"]


def adapter_problems(recipe: Recipe, made: Plan) -> list[Problem]:
    """Refuse to save an adapter on its own where it would not be all that the stages changed."""
    adapter = recipe.model.adapter
    if adapter is None or adapter.save == "merged":
        return []
    beside = {
        parameter.name
        for parameter in made.layout.parameters
        if parameter.is_adapter or parameter.group == made.layout.backbone_groups
    }
    rule = "must train only the adapter and the head when model.adapter.save is not merged"
    repair = f"Set model.adapter.save to merged, or train {adapter.type}."
    return [
        Problem(f"stages[{index}].train", rule, repr(stage.train), repair)
        for index, stage in enumerate(made.stages)
        if not beside.issuperset(stage.trainable)
    ]
