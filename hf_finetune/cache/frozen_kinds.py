"""Kinds of frozen features that a head could read: poolings of texts, or layers of recordings."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from hf_finetune.cache.feature_kinds import ForwardSettings
from hf_finetune.cache.layer_features import layer_features, share_layer
from hf_finetune.cache.pooled_texts import pool_texts, share_texts
from hf_finetune.cache.prefix_cache import CacheSettings, SharedRows
from hf_finetune.cache.writer import Collate
from hf_finetune.models.layer_sum import has_layer_sum
from hf_finetune.tasks import Inputs

__all__ = ["features_by_kind", "share_features"]


def features_by_kind(
    model: PreTrainedModel,
    splits: Mapping[str, Any],
    collate: Collate,
    settings: CacheSettings,
    kinds: tuple[str, ...],
    forward: ForwardSettings,
) -> dict[str, dict[str, np.ndarray]]:
    """Return the features of each kind, from the cache where possible; the missing ones in one forward pass.

    Args:
        model: Classifier with the checkpoint's weights; it is moved to ``device``.
        splits: Examples by the name of their split; the training split is ``train``.
        collate: Collate function.
        settings: Cache settings.
        kinds: Poolings or layers.
        forward: Batch size, device and precision of the forward passes.

    Returns:
        Float32 features ``[examples, features]``, by kind and split.

    Raises:
        CacheUnavailableError: If they cannot be computed or cached.
    """
    compute = layer_features if has_layer_sum(model.config) else pool_texts
    return compute(model, splits, collate, settings, kinds, forward)


def share_features(
    model: PreTrainedModel,
    trainable: Collection[str],
    inputs: Inputs,
    settings: CacheSettings,
    forward: ForwardSettings,
) -> SharedRows | None:
    """Return the cached rows of the kind of features that the head of a stage reads.

    Args:
        model: Classifier; it is moved to ``device``.
        trainable: Names of the parameters that the stage trains.
        inputs: Examples of the stage.
        settings: Cache settings of the stage.
        forward: Batch size, device and precision of the forward passes.

    Returns:
        The rows; None if other heads do not read the same features, or if the stage trains more than the head.
    """
    if settings.shares_layer:
        return share_layer(model, trainable, inputs, forward)
    return share_texts(model, trainable, inputs, settings, forward)
