"""Label type in the config of a transformers model."""

from typing import TYPE_CHECKING

from hf_finetune.targets import ASSUMED_TARGET, TARGETS
from hf_finetune.targets.regression import Regression

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["get_target", "set_target"]

TARGET_ATTRIBUTE = "label_target"
"""Config attribute with the label type, set only if ``problem_type`` does not identify it."""


def set_target(config: "PreTrainedConfig", target: str) -> None:
    """Set the label type in a config, in place."""
    kind = TARGETS[target]
    config.problem_type = kind.problem_type
    if get_target(config) != target:
        setattr(config, TARGET_ATTRIBUTE, target)
    if kind.is_numeric:
        config.function_to_apply = "none"  # so that a pipeline returns the prediction unchanged


def get_target(config: "PreTrainedConfig") -> str:
    """Return the label type of a config. As in transformers, one output without ``problem_type`` is regression."""
    if getattr(config, TARGET_ATTRIBUTE, None) in TARGETS:
        return str(getattr(config, TARGET_ATTRIBUTE))
    for name, kind in TARGETS.items():
        if kind.problem_type is not None and kind.problem_type == config.problem_type:
            return name
    return Regression.name if config.num_labels == 1 else ASSUMED_TARGET
