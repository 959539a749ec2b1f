"""What a checkpoint was before: the weights that its pretraining needed and a classifier has no use for."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, ViTConfig, ViTMAEConfig
from transformers.models.auto import modeling_auto

__all__ = ["classifier_config", "pretraining_weights", "untrained_norms"]

# Besides the class that a config names: older checkpoints hold the heads of all their pretraining's objectives.
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
    """Return a ViT's config for one of ViT-MAE, which is a ViT but for its decoder; any other config as it is."""
    if not isinstance(config, ViTMAEConfig):
        return config
    known = ViTConfig().to_dict()
    return ViTConfig(
        **{name: value for name, value in config.to_dict().items() if name in known and name != "model_type"}
    )


def pretraining_weights(
    config: PreTrainedConfig, classifier: type[PreTrainedModel], unexpected: Iterable[str]
) -> dict[str, str]:
    """Return which left-over weights belong to the model that a checkpoint was saved as, with the name of its class.

    They are those that the class in the config's ``architectures``, or one that its architecture is pretrained with,
    declares itself: language-model heads, decoders of masked images, poolers, a second tower. What such a model would
    not know either, such as a layer too many, is not among them.

    Args:
        config: As it stands in the checkpoint.
        classifier: The class that the weights were loaded into. What it declares it must have.
        unexpected: Names of weights that it does not have.
    """
    waiting = set(unexpected)
    found: dict[str, str] = {}
    for model_class in _saved_as(config, classifier):
        if not waiting:
            break
        try:
            with torch.device("meta"):
                model = model_class._from_config(config)
        except _FAILURES:
            continue
        declared, prefix = set(model.state_dict()), f"{model.base_model_prefix}."
        declared |= {name.removeprefix(prefix) for name in declared}
        known = {name for name in waiting if name in declared or name.removeprefix(prefix) in declared}
        found |= dict.fromkeys(sorted(known), model_class.__name__)
        waiting -= known
    return found


def untrained_norms(
    model: PreTrainedModel, config: PreTrainedConfig, missing: Iterable[str]
) -> dict[str, str]:
    """Return which missing weights are of norms that the model a checkpoint was saved as does not have.

    Such a norm begins as the identity, so that nothing random stands between backbone and head: BEiT's classifier
    has one in its pooler, BEiT for masked images has none.

    Args:
        model: The classifier.
        config: As it stands in the checkpoint.
        missing: Names of weights that the checkpoint lacks.
    """
    norms = {
        name
        for name in missing
        if isinstance(model.get_submodule(name.rpartition(".")[0]), nn.LayerNorm | nn.GroupNorm)
    }
    if not norms:
        return {}
    for model_class in _saved_as(config, type(model), others=False):
        try:
            with torch.device("meta"):
                declared = set(model_class._from_config(config).state_dict())
        except _FAILURES:
            continue
        return dict.fromkeys(sorted(norms - declared), model_class.__name__)
    return {}


def _saved_as(
    config: PreTrainedConfig, classifier: type[PreTrainedModel], *, others: bool = True
) -> Iterator[Any]:
    """Yield the class that a config names, then those its architecture is pretrained with, never the classifier."""
    named = [getattr(transformers, name, None) for name in config.architectures or ()]
    mapped = [mapping[type(config)] for mapping in _PRETRAINING if type(config) in mapping] if others else []
    flat = [one for entry in [*named, *mapped] for one in (entry if isinstance(entry, tuple) else (entry,))]
    for model_class in dict.fromkeys(flat):
        is_model = isinstance(model_class, type) and issubclass(model_class, PreTrainedModel)
        if is_model and not issubclass(classifier, model_class):
            yield model_class
