"""Override a checkpoint's dropout and stochastic depth for training."""

from collections.abc import Sequence

import timm
import torch
from timm.layers import DropPath
from transformers import PreTrainedConfig, TimmWrapperConfig

from hf_finetune.errors import InputError, Problem

__all__ = ["set_drop_path", "set_dropout"]

# Config fields, by architecture, of the dropout before or in the layers, which fine-tuning overrides.
DROPOUT_FIELDS = (
    "hidden_dropout_prob",
    "classifier_dropout",
    "classifier_dropout_prob",
    "seq_classif_dropout",
    "dropout",
    "resid_pdrop",
    "embd_pdrop",
)
DROP_PATH_FIELDS = ("drop_path_rate", "drop_connect_rate")  # the latter is EfficientNet's


def set_dropout(config: PreTrainedConfig, rate: float) -> None:
    """Set the dropout probability in a config, in place.

    Args:
        config: Config of the model.
        rate: Probability of dropping an activation.

    Raises:
        InputError: If the architecture has no dropout.
    """
    fields = [name for name in DROPOUT_FIELDS if hasattr(config, name)]
    if not _set(config, "drop_rate", fields, rate):
        raise _unsupported("dropout", rate, "dropout")


def set_drop_path(config: PreTrainedConfig, rate: float) -> None:
    """Set the stochastic depth in a config, in place.

    Args:
        config: Config of the model.
        rate: Probability of skipping the last block; that of earlier blocks decreases to 0 at the first.

    Raises:
        InputError: If the architecture has no stochastic depth.

    Source: Huang et al. 2016, Deep Networks with Stochastic Depth; timm's and transformers' ``drop_path_rate``.
    """
    fields = [name for name in DROP_PATH_FIELDS if isinstance(getattr(config, name, None), int | float)]
    if not _set(config, "drop_path_rate", fields, rate):
        raise _unsupported("drop_path", rate, "stochastic depth")


def _set(config: PreTrainedConfig, argument: str, fields: Sequence[str], rate: float) -> bool:
    """Set the fields of a config, or an argument of timm's model; return whether the architecture has any of them."""
    if not isinstance(config, TimmWrapperConfig):
        for name in fields:
            setattr(config, name, rate)
        return bool(fields)
    arguments = {**(config.model_args or {}), argument: rate}
    try:
        with torch.device("meta"):
            model = timm.create_model(config.architecture, **arguments)
    except TypeError:  # its architecture has no such argument
        return False
    # an architecture without stochastic depth may accept its argument
    has_effect = argument == "drop_rate" or any(isinstance(part, DropPath) for part in model.modules())
    if rate and not has_effect:
        return False
    config.model_args = arguments
    return True


def _unsupported(field: str, rate: float, what: str) -> InputError:
    rule = f"must not be set for an architecture without {what}"
    return InputError(Problem(f"model.{field}", rule, str(rate)))
