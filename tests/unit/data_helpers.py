"""Labeled data for tests, prepared as the data of a recipe."""

from hf_finetune.data import prepare
from hf_finetune.recipe.data import DataSpec, SplitSpec

__all__ = ["prepare_data"]


def prepare_data(path, *, modality, slices=(), seed=0, **fields):
    """Return the prepared data; ``fields`` are those of ``data`` and of ``data.split``."""
    split = {name: fields.pop(name) for name in SplitSpec.model_fields if name in fields}
    spec = DataSpec.model_validate({"path": path, "split": split, **fields})
    return prepare.prepare_data(spec, modality, slices=slices, seed=seed)
