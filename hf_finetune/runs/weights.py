"""Load the model with the weights after a stage of a run."""

from pathlib import Path

from safetensors.torch import load_file
from transformers import PreTrainedModel

from hf_finetune.models.compression import apply_pruned_shapes
from hf_finetune.models.masked_models import load_backbone
from hf_finetune.planning.domain_adaptation import PRETRAINING
from hf_finetune.runs.checkpoint import load_pretrained
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.training.checkpoints import stage_folder
from hf_finetune.training.stage_weights import WEIGHTS, load_weights

__all__ = ["BACKBONE", "load_stage_weights", "pretraining_folder"]

BACKBONE = "backbone.safetensors"
"""File with the backbone weights after pretraining on masked inputs."""


def pretraining_folder(run: Path) -> Path:
    """Return the folder of the pretraining before the first stage: ``RUN/stages/00-pretraining``."""
    return stage_folder(run, -1, PRETRAINING)


def load_stage_weights(prepared: PreparedRun, folder: Path, count: int) -> PreTrainedModel:
    """Load the model with its weights after the first ``count`` stages of a run.

    Args:
        prepared: Checked run.
        folder: Run directory.
        count: Number of stages; 0 loads the checkpoint with its new head, after pretraining if the recipe has one.

    Returns:
        The model, on the CPU.
    """
    stages = prepared.recipe.stages[:count]
    model = apply_pruned_shapes(load_pretrained(prepared).model, stages)
    if stages:
        load_weights(model, stage_folder(folder, count - 1, stages[-1].name) / WEIGHTS)
    elif prepared.pretrains:
        load_backbone(model, load_file(pretraining_folder(folder) / BACKBONE))
    return model
