"""The recipe's data, loaded as its task takes it."""

from typing import Literal

from hf_finetune.data.folds import Fold
from hf_finetune.data.prepare import LabelledData, prepare_data
from hf_finetune.recipe import Recipe

__all__ = ["load_data"]


def load_data(recipe: Recipe, modality: Literal["image", "text"]) -> LabelledData:
    """Load, check and split the data of a recipe; the same splits at every call.

    Raises:
        InputError: If the data cannot be used.
    """
    spec = recipe.data
    return prepare_data(
        spec.path,
        modality=modality,
        config=spec.config,
        revision=spec.revision,
        columns=spec.columns.model_dump(),
        target=spec.target,
        validation=spec.split.validation,
        test=spec.split.test,
        stratify=spec.split.stratify,
        group=spec.split.group or spec.columns.group,
        on_error=spec.on_error,
        limit=spec.limit,
        fold=Fold(*map(int, spec.split.fold.split("/"))) if spec.split.fold else None,
        slices=recipe.evaluation.slices,
        seed=recipe.seed,
    )
