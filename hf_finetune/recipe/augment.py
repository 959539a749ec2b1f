"""Recipe fields for data augmentation."""

from hf_finetune.recipe.modality_fields import AugmentFields

__all__ = ["AugmentSpec"]


class AugmentSpec(AugmentFields):
    """Augmentation of training examples; validation and test examples are not augmented."""
