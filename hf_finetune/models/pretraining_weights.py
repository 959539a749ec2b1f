"""Weights of a checkpoint that its pretraining needed and a classifier does not use."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, ViTConfig, ViTMAEConfig
from transformers.models.auto import modeling_auto

__all__ = ["classifier_config", "pretraining_weights", "untrained_norms"]

# Tried after the class that a config names: older checkpoints hold the heads of all their pretraining objectives.
_PRETRAINING = (
    modeling_auto.MODEL_FOR_PRETRAINING_MAPPING,
    modeling_auto.MODEL_FOR_MASKED_LM_MAPPING,
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
    modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    modeling_auto.MODEL_FOR_MASKED_IMAGE_MODELING_MAPPING,
    modeling_auto.MODEL_MAPPING,
)
_FAILURES = (ImportError, ValueError, TypeError, AttributeError, KeyError, RuntimeError, AssertionError)


def classifier_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return a ViT config for a ViT-MAE config, which only adds a decoder; any other config unchanged."""
    if not isinstance(config, ViTMAEConfig):
        return config
    known = ViTConfig().to_dict()
    return ViTConfig(
        **{name: value for name, value in config.to_dict().items() if name in known and name != "model_type"}
    )


def pretraining_weights(
    config: PreTrainedConfig, classifier: type[PreTrainedModel], unexpected: Iterable[str]
) -> dict[str, str]:
    """Return the unexpected weights that belong to the pretrained model, mapped to the name of its class.

    That model is the class in the config's ``architectures``, or one that its architecture is pretrained with. Such
    weights are language-model heads, decoders of masked images, poolers, or a second tower. A weight that this model
    does not have either, such as one of an extra layer, is not returned.

    Args:
        config: Config as saved in the checkpoint.
        classifier: Class that the weights were loaded into; it and its base classes are not considered.
        unexpected: Names of weights that the classifier does not have.

    Returns:
        Class name of the pretrained model, by name of the weight.
    """
    remaining = set(unexpected)
    owners: dict[str, str] = {}
    for model_class in _candidate_classes(config, classifier):
        if not remaining:
            break
        declared = _weight_names(model_class, config)
        if declared is None:
            continue
        prefix = f"{model_class.base_model_prefix}."
        declared |= {name.removeprefix(prefix) for name in declared}
        known = {name for name in remaining if name in declared or name.removeprefix(prefix) in declared}
        owners |= dict.fromkeys(sorted(known), model_class.__name__)
        remaining -= known
    return owners


def untrained_norms(
    model: PreTrainedModel, config: PreTrainedConfig, missing: Iterable[str]
) -> dict[str, str]:
    """Return the missing norm weights that the checkpoint's own model does not have, mapped to the name of its class.

    Such a norm starts as the identity, so that nothing random is between backbone and head: BEiT's classifier has
    one in its pooler, BEiT for masked images has none.

    Args:
        model: The classifier.
        config: Config as saved in the checkpoint.
        missing: Names of weights that the checkpoint lacks.

    Returns:
        Class name of the checkpoint's model, by name of the weight.
    """
    norms = {
        name
        for name in missing
        if isinstance(model.get_submodule(name.rpartition(".")[0]), nn.LayerNorm | nn.GroupNorm)
    }
    if not norms:
        return {}
    for model_class in _candidate_classes(config, type(model), include_pretraining=False):
        declared = _weight_names(model_class, config)
        if declared is not None:
            return dict.fromkeys(sorted(norms - declared), model_class.__name__)
    return {}


def _weight_names(model_class: Any, config: PreTrainedConfig) -> set[str] | None:
    """Return the names of a model's weights; None if its class cannot build it from the config."""
    try:
        with torch.device("meta"):
            return set(model_class._from_config(config).state_dict())
    except _FAILURES:
        return None


def _candidate_classes(
    config: PreTrainedConfig, classifier: type[PreTrainedModel], *, include_pretraining: bool = True
) -> Iterator[Any]:
    """Yield the class that a config names, then those its architecture is pretrained with; never the classifier."""
    named = [getattr(transformers, name, None) for name in config.architectures or ()]
    mapped = (
        [mapping[type(config)] for mapping in _PRETRAINING if type(config) in mapping]
        if include_pretraining
        else []
    )
    flat = [item for entry in [*named, *mapped] for item in (entry if isinstance(entry, tuple) else (entry,))]
    for model_class in dict.fromkeys(flat):
        is_model = isinstance(model_class, type) and issubclass(model_class, PreTrainedModel)
        if is_model and not issubclass(classifier, model_class):
            yield model_class
