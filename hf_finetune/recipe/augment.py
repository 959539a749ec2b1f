"""Recipe fields for data augmentation."""

from hf_finetune.recipe.modality_fields import AugmentFields

__all__ = ["AugmentSpec"]


class AugmentSpec(AugmentFields):
    """How training examples are varied; validation and test examples never are."""
