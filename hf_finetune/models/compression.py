"""A model as the stages of a recipe have made it: narrower where they say so, or with weights that are 0."""

import logging
from collections.abc import Iterable, Sequence

from transformers import PreTrainedConfig, PreTrainedModel

from hf_finetune.errors import InputError, Problem
from hf_finetune.models.build import Modality, build_skeleton
from hf_finetune.models.layout import read_layout
from hf_finetune.models.pruning import NotNarrowedError, narrow_model, pruning_masks, zero_smallest
from hf_finetune.planning.layers import Layout
from hf_finetune.recipe.schema import StageSpec

__all__ = ["apply_pruned_shapes", "compress", "is_sparse", "stage_layouts"]

logger = logging.getLogger(__name__)

REPAIRS = {"method": "Set it: single weights become 0 then.", "prune": ""}


def compress(model: PreTrainedModel, stage: StageSpec) -> PreTrainedModel:
    """Make a model as small as a stage wants it before it trains; as it is where the stage does not.

    Args:
        model: As the stage before left it. It may be changed in place.
        stage: The stage of the recipe.
    """
    spec = stage.compress
    if spec is None:
        return model
    before = model.num_parameters()
    if spec.method == "structured":
        model = narrow_model(model, spec.prune)
        logger.info("Pruned: %s of %s parameters are left.", f"{model.num_parameters():,}", f"{before:,}")
    else:
        zero_smallest(model, spec.prune)
        zeros = sum(int(mask.sum()) for _, mask in pruning_masks(model))
        logger.info("Pruned: %s of %s parameters are 0 and stay so.", f"{zeros:,}", f"{before:,}")
    return model


def apply_pruned_shapes(model: PreTrainedModel, stages: Iterable[StageSpec]) -> PreTrainedModel:
    """Give a model the shape that it has behind some stages, to load weights of theirs into.

    Args:
        model: Of the checkpoint.
        stages: All stages up to the one whose shape is wanted.
    """
    for stage in stages:
        if stage.compress is not None and stage.compress.method == "structured":
            model = narrow_model(model, stage.compress.prune)
    return model


def is_sparse(stages: Iterable[StageSpec]) -> bool:
    """Tell whether one of some stages sets single weights to 0."""
    return any(stage.compress is not None and stage.compress.method == "unstructured" for stage in stages)


def stage_layouts(
    layout: Layout, config: PreTrainedConfig, modality: Modality, stages: Sequence[StageSpec]
) -> tuple[Layout, ...]:
    """Describe the model in each stage: the same layers throughout, with fewer neurons behind a structured pruning.

    Args:
        layout: Of the checkpoint's model.
        config: Its config.
        modality: What it takes.
        stages: The stages of a recipe.

    Raises:
        InputError: If a stage wants the model narrower and it cannot be.
    """
    layouts = []
    skeleton = None
    for index, stage in enumerate(stages):
        if stage.compress is not None and stage.compress.method == "structured":
            skeleton = skeleton if skeleton is not None else build_skeleton(config, modality)
            try:
                skeleton = narrow_model(skeleton, stage.compress.prune)
            except NotNarrowedError as error:
                kind = getattr(config, "architecture", None) or config.model_type
                value = f"{getattr(stage.compress, error.field)!r}, for {kind!r}"
                place = f"stages[{index}].compress.{error.field}"
                raise InputError(Problem(place, error.rule, value, REPAIRS[error.field])) from error
            layout = read_layout(skeleton)
        layouts.append(layout)
    return tuple(layouts)
