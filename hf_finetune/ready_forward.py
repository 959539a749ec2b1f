"""Try a model on one example, before anything is written."""

from typing import Any

import torch
from transformers import PreTrainedModel

from hf_finetune.errors import InputError, Problem
from hf_finetune.models.adapters import uncalled_layers
from hf_finetune.models.head import head_names
from hf_finetune.models.heads import head_problem, unsuited
from hf_finetune.models.linear_head import not_linear
from hf_finetune.ready import Ready
from hf_finetune.recipe.fitting import fitted_by
from hf_finetune.tasks import Inputs

__all__ = ["try_forward"]


def try_forward(model: PreTrainedModel, ready: Ready, inputs: Inputs) -> None:
    """Try one example, so that an input of the wrong size is told before anything trains.

    Raises:
        InputError: If the model cannot take what inference or training will give it.
    """
    size = ready.recipe.data.image_size
    if reason := head_problem(model, ready.task.dummy(ready.processor)):
        raise unsuited(model.config, reason)
    example = inputs.collate([_first(inputs, ready)])
    example.pop("labels", None)
    with uncalled_layers(model) as uncalled:
        for batch in (ready.task.dummy(ready.processor), example):
            try:
                with torch.no_grad():
                    model.eval()(**batch)
            except (RuntimeError, ValueError, AssertionError) as error:
                path = repr(ready.recipe.model.path)
                place, value = ("data.image_size", str(size)) if size else ("model.path", path)
                problem = Problem(place, "must suit the checkpoint", value, _complaint(error))
                raise InputError(problem) from error
    fitted = [(index, stage) for index, stage in enumerate(ready.recipe.stages) if fitted_by(stage)]
    if fitted and (reason := not_linear(model, head_names(model), ready.task.dummy(ready.processor))):
        rule = "must be gradient unless the head is one linear layer"
        repair = f"Here {reason}."
        index, stage = fitted[0]
        raise InputError(Problem(f"stages[{index}].fit", rule, repr(stage.fit), repair))
    if uncalled:
        rule, names = "must name layers that the model calls", sorted(uncalled)
        value = f"{names[0]!r}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        repair = "The model reads their weights without calling them, past any adapter: name others."
        raise InputError(Problem("model.adapter.target", rule, value, repair))


def _first(inputs: Inputs, ready: Ready) -> dict[str, Any]:
    named = ready.recipe.data.augment.transforms
    try:
        return inputs.train[0]
    except (RuntimeError, ValueError, TypeError) as error:
        if not named:
            raise
        names = ", ".join(repr(each.name) for each in named)
        repair = f"They say: {next(iter(str(error).splitlines()), type(error).__name__)}"
        problem = Problem("data.augment.transforms", "must take the first training image", names, repair)
        raise InputError(problem) from error


def _complaint(error: Exception) -> str:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "The model cannot compute with it." if "INTERNAL ASSERT" in first else f"The model says: {first}"
