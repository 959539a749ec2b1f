"""Pruning of a model by the stages of a recipe, and its layouts and shapes afterwards."""

import logging
from collections.abc import Iterable, Sequence

from transformers import PreTrainedConfig, PreTrainedModel

from hf_finetune.errors import InputError, Problem
from hf_finetune.models.build import build_skeleton
from hf_finetune.models.layout import read_layout
from hf_finetune.models.pruning import CannotNarrowError, narrow_model, pruning_masks, zero_smallest
from hf_finetune.planning.layers import Layout
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.tasks import Task

__all__ = ["apply_pruned_shapes", "compress", "is_sparse", "stage_layouts"]

logger = logging.getLogger(__name__)

REPAIRS = {"method": "Unstructured pruning sets single weights to 0.", "prune": ""}


def compress(model: PreTrainedModel, spec: StageSpec) -> PreTrainedModel:
    """Return the model pruned as a stage specifies, before that stage trains; unchanged if it specifies nothing.

    Args:
        model: Model after the previous stage. It may be changed in place.
        spec: The stage of the recipe.
    """
    if spec.compress is None:
        return model
    before = model.num_parameters()
    if spec.compress.method == "structured":
        model = narrow_model(model, spec.compress.prune)
        logger.info("Pruned: %s of %s parameters remain.", f"{model.num_parameters():,}", f"{before:,}")
    else:
        zero_smallest(model, spec.compress.prune)
        zeros = sum(int(mask.sum()) for _, mask in pruning_masks(model))
        logger.info("Pruned: %s of %s parameters are 0 and stay 0.", f"{zeros:,}", f"{before:,}")
    return model


def apply_pruned_shapes(model: PreTrainedModel, stages: Iterable[StageSpec]) -> PreTrainedModel:
    """Return the model with the shapes that structured pruning in some stages leaves, to load later weights into it.

    Args:
        model: Model of the checkpoint.
        stages: All stages up to and including the one whose weights are to be loaded.
    """
    for spec in stages:
        if spec.compress is not None and spec.compress.method == "structured":
            model = narrow_model(model, spec.compress.prune)
    return model


def is_sparse(stages: Iterable[StageSpec]) -> bool:
    """Return whether any of the stages sets single weights to 0 (unstructured pruning)."""
    return any(spec.compress is not None and spec.compress.method == "unstructured" for spec in stages)


def stage_layouts(
    layout: Layout, config: PreTrainedConfig, task: Task, stages: Sequence[StageSpec]
) -> tuple[Layout, ...]:
    """Return the model's layout in each stage: the same layers, with fewer neurons after structured pruning.

    Args:
        layout: Layout of the checkpoint's model.
        config: Config of the checkpoint's model.
        task: Task of the model.
        stages: The stages of a recipe.

    Raises:
        InputError: If a stage prunes neurons and the model cannot be narrowed.
    """
    layouts = []
    skeleton = None
    for index, spec in enumerate(stages):
        if spec.compress is not None and spec.compress.method == "structured":
            skeleton = skeleton if skeleton is not None else build_skeleton(config, task)
            try:
                skeleton = narrow_model(skeleton, spec.compress.prune)
            except CannotNarrowError as error:
                kind = getattr(config, "architecture", None) or config.model_type
                value = f"{getattr(spec.compress, error.field)!r}, for {kind!r}"
                place = f"stages[{index}].compress.{error.field}"
                raise InputError(Problem(place, error.rule, value, REPAIRS[error.field])) from error
            layout = read_layout(skeleton)
        layouts.append(layout)
    return tuple(layouts)
