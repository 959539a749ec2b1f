"""The model as the stages of a run have left it."""

from pathlib import Path

from transformers import PreTrainedModel

from hf_finetune.models.compressing import in_shape_of
from hf_finetune.ready import Ready, load_pretrained
from hf_finetune.staging.stage import WEIGHTS, load_weights, stage_folder

__all__ = ["load_left"]


def load_left(ready: Ready, folder: Path, count: int) -> PreTrainedModel:
    """Load the model that the first stages of a run left.

    Args:
        ready: The run.
        folder: Its directory.
        count: How many stages; 0 for the checkpoint under its new head.
    """
    stages = ready.recipe.stages[:count]
    model = in_shape_of(load_pretrained(ready).model, stages)
    if stages:
        load_weights(model, stage_folder(folder, count - 1, stages[-1].name) / WEIGHTS)
    return model
