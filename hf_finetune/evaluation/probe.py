"""A baseline that trains no network: a logistic regression on what the frozen backbone gives for each example."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from hf_finetune.data.labels import Target
from hf_finetune.evaluation.metrics import probabilities
from hf_finetune.speed.passing import PREFIX
from hf_finetune.speed.prefix_cache import CacheSettings, cache_prefix
from hf_finetune.staging.freezing import freeze_all_but
from hf_finetune.staging.linear_fit import assign_folds, fit_linear

__all__ = ["linear_probe"]

STRENGTH = 0.1
"""scikit-learn's C on features of unit variance. With about as many examples as features, as is usual in fine-tuning,
its default of 1 fits the training split by heart."""


@dataclass(frozen=True)
class _Alone:
    """The processes as one of them sees them when it works alone."""

    device: torch.device
    num_processes: int = 1
    is_main_process: bool = True
    local_process_index: int = 0


def linear_probe(
    model: torch.nn.Module,
    head: frozenset[str],
    train: Dataset,
    test: Dataset,
    collate: Any,
    settings: CacheSettings,
    *,
    labels: np.ndarray,
    target: Target,
    classes: int,
    device: torch.device,
    batch_size: int,
    autocast: torch.dtype | None = None,
) -> np.ndarray:
    """Fit a logistic regression (for amounts a ridge regression) on the input of the pretrained model's head.

    The features come from the prefix cache where a stage that trains the head has kept them: those of the first version
    of each training image. Where the head takes a row for each token, or a map, their mean is taken.

    Args:
        model: With the checkpoint's weights.
        head: Names of the head's parameters.
        train: Training examples as the model takes them.
        test: Test examples, as inference prepares them.
        collate: Makes a batch of examples.
        settings: Where features are kept.
        labels: Of the training examples: class indices [examples], zeros and ones [examples, classes], or amounts.
        target: What the labels are.
        classes: Number of classes.
        device: Where to compute.
        batch_size: Examples per forward pass.
        autocast: Half precision in which the features were kept, if any.

    Returns:
        Probabilities [examples, classes] of the test examples, or amounts [examples].

    Raises:
        NoCutError: If the model cannot be cut before its head.
    """
    freeze_all_but(model, head)
    made = cache_prefix(
        model,
        head,
        train,
        test,
        collate,
        replace(settings, views=1, epochs=None),
        batch_size=batch_size,
        state=_Alone(device),
        autocast=autocast,
        held_out="test",
    )
    known, asked = _features(made.train), _features(made.validation)
    if target == "regression":
        folds = assign_folds(labels.tolist(), target, 1, seed=0)
        return fit_linear(known, labels, target, 1, folds=folds)(asked)[:, 0]
    return probabilities(fit_linear(known, labels, target, classes, (STRENGTH,))(asked), target)


def _features(examples: Any) -> np.ndarray:
    return np.stack([_pooled(examples[index][PREFIX]) for index in range(len(examples))])


def _pooled(values: tuple[torch.Tensor, ...]) -> np.ndarray:
    """Make a vector of what enters the head: a vector, rows of tokens [tokens, size], or maps [size, height, width]."""
    value = max(values, key=torch.numel).float()
    if value.ndim == 2:
        value = value.mean(dim=0)
    elif value.ndim > 2:
        value = value.flatten(1).mean(dim=1)
    return value.flatten().numpy()
