"""Check targets for the tests of the doctor: tiny checkpoints with recipes without data."""

import os

from hf_finetune.doctor.check_target import load_check_target
from hf_finetune.recipe.load import parse_recipe

STAGES = [
    {"name": "head", "train": "head", "epochs": 1, "lr": 1e-2},
    {"name": "all", "train": "all", "epochs": 2, "lr": 1e-4, "warmup": 0.5, "layer_decay": 0.5},
]


def make_recipe(task, checkpoint, **changes):
    content = {"task": f"{task}-classification", "model": str(checkpoint), "data": "./not-there"}
    return parse_recipe({**content, "stages": STAGES, **changes})


def make_subject(task, checkpoint, **changes):
    return load_check_target(make_recipe(task, checkpoint, **changes))


def drift_apart(module, inputs):
    """Replace a model by one whose processes disagree. In a module, so that it can be pickled."""
    parameter = next(module.parameters())
    parameter.data.add_(1e-3 * int(os.environ.get("RANK", "0")))


def scale_under_autocast(module, inputs, outputs):
    """Replace a model by one that half precision breaks."""
    import torch

    if torch.is_autocast_enabled("cpu"):
        outputs.logits = outputs.logits * 100
    return outputs


def fail(module, inputs):
    """Replace a model by one that fails."""
    raise RuntimeError("no such luck")
