"""Linear probe: a baseline that fits a logistic regression on features of the frozen backbone."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig

from hf_finetune.cache.cut_point import CacheUnavailableError
from hf_finetune.cache.feature_kinds import ForwardSettings
from hf_finetune.cache.frozen_kinds import features_by_kind
from hf_finetune.cache.prefix_cache import CacheSettings, cache_prefix
from hf_finetune.cache.replay import PREFIX
from hf_finetune.data.prepare import LabeledData
from hf_finetune.evaluation.metrics import labels_of, probabilities
from hf_finetune.models.find_head import head_names
from hf_finetune.models.layer_sum import has_layer_sum
from hf_finetune.planning.head_fit import MAX_WORK
from hf_finetune.tasks import Inputs
from hf_finetune.training.freezing import freeze_all_but
from hf_finetune.training.linear_fit import Features, fit_best, fit_metadata
from hf_finetune.training.linear_folds import assign_folds

__all__ = ["MAX_WEIGHTS", "Probe", "check_work", "frozen_features", "linear_probe"]

logger = logging.getLogger(__name__)

MAX_WEIGHTS = 40_000_000
"""Largest number of weights of a linear layer that is fitted: solvers keep them in double precision, many times."""


@dataclass(frozen=True)
class _SingleProcessState:
    """Stand-in for the ``PartialState`` of accelerate, with a single process."""

    device: torch.device
    num_processes: int = 1
    is_main_process: bool = True
    local_process_index: int = 0


@dataclass(frozen=True)
class Probe:
    """Predictions of a fitted linear probe.

    Attributes:
        scores: Probabilities [examples, classes] of the test examples, or regression predictions [examples].
        about: Details of the fit, see ``fit_metadata``.
    """

    scores: np.ndarray
    about: dict[str, Any]


def linear_probe(
    features: Mapping[str, Mapping[str, np.ndarray]],
    data: LabeledData,
    config: PreTrainedConfig,
    *,
    seed: int = 0,
) -> Probe:
    """Fit a logistic regression (ridge regression for regression targets) on the inputs of the pretrained model's head.

    The regularization strength, and for texts the token pooling, are chosen by cross-validation on the training
    examples.

    Args:
        features: Features [examples, features] of the splits ``train`` and ``test`` by pooling or layer, from
            ``frozen_features``.
        data: Labels and groups of the training examples; cross-validation keeps a group in one fold.
        config: Config of the model.
        seed: Seed of the folds.

    Returns:
        Predictions on the test examples.

    Raises:
        CacheUnavailableError: If the fit would take too long.
    """
    train_features = {name: vectors["train"] for name, vectors in features.items()}
    target, classes = data.target, len(data.label_names)
    check_work(train_features, classes)
    folds = assign_folds(data.train["label"][:], target, 1, seed, groups=data.train_groups)
    label_rows = labels_of(data.train, target, classes)
    name, fit, losses = fit_best(train_features, label_rows, target, classes, folds)
    about = fit_metadata(fit, target)
    if name:
        names = ("layer", "layers") if has_layer_sum(config) else ("pool", "pooling")
        about |= dict(zip(names, (name, losses), strict=True))
    return Probe(probabilities(fit(features[name]["test"]), target), about)


def check_work(features: Mapping[str, Features], classes: int) -> None:
    """Check that a linear layer can be fitted to features in an acceptable time.

    Args:
        features: Features [examples, features] by the name of their kind; of sparse ones only stored values count.
        classes: Number of classes; 1 for regression.

    Raises:
        CacheUnavailableError: If the fit would take too long.
    """
    largest = max(features.values(), key=lambda values: int(values.size))
    examples, size = largest.shape
    if largest.size * classes > MAX_WORK or size * classes > MAX_WEIGHTS:
        raise CacheUnavailableError(
            f"{examples:,} examples x {size:,} features x {classes:,} classes take too long to fit"
        )


def frozen_features(
    model: Any,
    inputs: Inputs,
    settings: CacheSettings,
    *,
    poolings: tuple[str, ...] = (),
    device: torch.device,
    batch_size: int,
    autocast: torch.dtype | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Return the inputs of the head of the pretrained model, from the prefix cache where they are in it.

    Feature maps are averaged over their positions.

    Args:
        model: Model with the weights of the checkpoint.
        inputs: Training and, as ``validation``, test examples (or None), both preprocessed as for inference.
        settings: Cache settings of the features.
        poolings: Token poolings or layers, see ``feature_kinds``; empty for images.
        device: Device of the forward passes.
        batch_size: Examples per forward pass.
        autocast: Half-precision dtype of the forward passes; None computes in full precision.

    Returns:
        Features [examples, features] of each split, ``train`` and ``test``, by pooling or layer; the name is ``""`` for
        images, and where there is only one kind.

    Raises:
        CacheUnavailableError: If the inputs of the head cannot be cached.
    """
    forward_options: dict[str, Any] = {"batch_size": batch_size, "autocast": autocast}
    settings = replace(settings, views=1, epochs=None)
    if poolings:
        splits = {"train": inputs.train, "test": inputs.validation}
        present = {name: examples for name, examples in splits.items() if examples is not None}
        try:
            forward = ForwardSettings(batch_size, device, autocast)
            return features_by_kind(model, present, inputs.collate, settings, poolings, forward)
        except CacheUnavailableError as error:
            logger.info("Only one kind of features is used for the baseline: %s.", error)
    return {"": _head_inputs(model, inputs, settings, device, forward_options)}


def _head_inputs(
    model: torch.nn.Module,
    inputs: Inputs,
    settings: CacheSettings,
    device: torch.device,
    forward_options: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """Return the inputs of a model's head for the training and test examples [examples, features]."""
    head = frozenset(head_names(model))
    freeze_all_but(model, head)
    state = _SingleProcessState(device)
    cached = cache_prefix(model, head, inputs, settings, state=state, held_out="test", **forward_options)
    splits = {"train": cached.train, "test": cached.validation}
    return {name: _features(examples) for name, examples in splits.items() if examples is not None}


def _features(examples: Any) -> np.ndarray:
    return np.stack([_pooled(examples[index][PREFIX]) for index in range(len(examples))])


def _pooled(values: tuple[torch.Tensor, ...]) -> np.ndarray:
    """Average the largest input of the head to a vector [size].

    The input is a vector [size], token vectors [tokens, size] or feature maps [size, height, width].
    """
    value = max(values, key=torch.numel).float()
    if value.ndim == 2:
        value = value.mean(dim=0)
    elif value.ndim > 2:
        value = value.flatten(1).mean(dim=1)
    return value.flatten().numpy()
