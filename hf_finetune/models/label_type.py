"""Type of the labels that a model predicts."""

from transformers import PreTrainedConfig

from hf_finetune.targets import TARGETS, Regression, SingleLabel
from hf_finetune.targets.labels import Target

__all__ = ["target_of"]


def target_of(config: PreTrainedConfig) -> Target:
    """Return the label type of a model: that of ``problem_type``, or that of transformers where there is none.

    Args:
        config: Config of a classifier.

    Returns:
        ``single_label``, ``multi_label`` or ``regression``; without ``problem_type``, a model with one output is for
        regression, and any other for single labels.
    """
    for name, target in TARGETS.items():
        if target.problem_type == config.problem_type:
            return name
    return Regression.name if config.num_labels == 1 else SingleLabel.name
