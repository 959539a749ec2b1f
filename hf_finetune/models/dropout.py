"""Override a checkpoint's dropout and stochastic depth for training."""

import timm
import torch
from timm.layers import DropPath
from torch import nn
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
    if isinstance(config, TimmWrapperConfig):
        if _timm_model(config, "drop_rate", rate) is None:
            raise _lacking("dropout", rate, "dropout")
        config.model_args = {**(config.model_args or {}), "drop_rate": rate}
        return
    fields = [name for name in DROPOUT_FIELDS if hasattr(config, name)]
    if not fields:
        raise _lacking("dropout", rate, "dropout")
    for name in fields:
        setattr(config, name, rate)


def set_drop_path(config: PreTrainedConfig, rate: float) -> None:
    """Set the stochastic depth in a config, in place.

    Args:
        config: Config of the model.
        rate: Probability of skipping the last block; that of earlier blocks decreases to 0 at the first.

    Raises:
        InputError: If the architecture has no stochastic depth.

    Source: Huang et al. 2016, Deep Networks with Stochastic Depth; timm's and transformers' ``drop_path_rate``.
    """
    if isinstance(config, TimmWrapperConfig):
        model = _timm_model(config, "drop_path_rate", rate)
        if model is None or (rate and not any(isinstance(module, DropPath) for module in model.modules())):
            raise _lacking("drop_path", rate, "stochastic depth")
        config.model_args = {**(config.model_args or {}), "drop_path_rate": rate}
        return
    fields = [name for name in DROP_PATH_FIELDS if isinstance(getattr(config, name, None), int | float)]
    if not fields:
        raise _lacking("drop_path", rate, "stochastic depth")
    for name in fields:
        setattr(config, name, rate)


def _timm_model(config: TimmWrapperConfig, argument: str, rate: float) -> nn.Module | None:
    """Return timm's model on the meta device, built with an extra argument; None if it does not accept that."""
    try:
        with torch.device("meta"):
            model: nn.Module = timm.create_model(
                config.architecture, **{**(config.model_args or {}), argument: rate}
            )
    except TypeError:
        return None
    return model


def _lacking(field: str, rate: float, what: str) -> InputError:
    return InputError(
        Problem(f"model.{field}", f"must be left out for an architecture without {what}", str(rate))
    )
