"""A baseline that trains no network: a logistic regression on features of the frozen backbone."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from hf_finetune.cache.cut_point import CacheUnavailableError
from hf_finetune.cache.pooled_texts import pool_texts
from hf_finetune.cache.prefix_cache import CacheSettings, cache_prefix
from hf_finetune.cache.replay import PREFIX
from hf_finetune.data.labels import Target
from hf_finetune.evaluation.metrics import label_array, probabilities
from hf_finetune.planning.head_fit import MOST_WORK
from hf_finetune.training.freezing import freeze_all_but
from hf_finetune.training.linear_fit import about_fit, assign_folds, fit_best

__all__ = ["Probe", "linear_probe"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Alone:
    """The processes as one of them sees them when it works alone."""

    device: torch.device
    num_processes: int = 1
    is_main_process: bool = True
    local_process_index: int = 0


@dataclass(frozen=True)
class Probe:
    """A fitted baseline.

    Attributes:
        scores: Probabilities [examples, classes] of the test examples; for regression predictions [examples].
        about: How it was fitted, see ``about_fit``.
    """

    scores: np.ndarray
    about: dict[str, Any]


def linear_probe(
    model: Any,
    head: frozenset[str],
    train: Dataset,
    test: Dataset,
    collate: Any,
    settings: CacheSettings,
    *,
    poolings: tuple[str, ...] = (),
    labels: Sequence[Any],
    unknown: Sequence[Sequence[int]] | None = None,
    target: Target,
    classes: int,
    groups: Sequence[int] = (),
    seed: int = 0,
    device: torch.device,
    batch_size: int,
    autocast: torch.dtype | None = None,
) -> Probe:
    """Fit a logistic regression (ridge for regression) on the inputs of the pretrained model's head.

    The penalty, and for texts the pooling of their tokens, are chosen by cross-validation on the training examples.
    Where the head reads a map, its mean is taken.

    Args:
        model: With the checkpoint's weights.
        head: Names of the head's parameters.
        train: Training examples, prepared as inference prepares them.
        test: Test examples, prepared alike.
        collate: Makes a batch of examples.
        settings: Where features are cached.
        poolings: Poolings of texts to choose from, see ``poolings_for``; empty for images.
        labels: Labels of the training examples: class indices, lists of class indices, or numbers.
        unknown: Of each training example the classes that may or may not hold; None if there are none.
        target: Kind of the labels.
        classes: Number of classes.
        groups: Group number of each training example, kept together by the cross-validation.
        seed: Seed of the folds.
        device: Where to compute.
        batch_size: Examples per forward pass.
        autocast: Half precision of the forward passes, if any.

    Raises:
        CacheUnavailableError: If the model cannot be cut before its head, or the fit would take too long.
    """
    how: dict[str, Any] = {"batch_size": batch_size, "autocast": autocast}
    settings = replace(settings, views=1, epochs=None)
    features: dict[str, dict[str, np.ndarray]] = {}
    if poolings:
        try:
            splits = {"train": train, "test": test}
            features = pool_texts(model, splits, collate, settings, poolings, device=device, **how).vectors
        except CacheUnavailableError as error:
            logger.info("Texts are not pooled in several ways for the baseline: %s.", error)
    if not features:
        features = {"": _head_inputs(model, head, train, test, collate, settings, device, how)}
    fitted_to = {name: vectors["train"] for name, vectors in features.items()}
    examples, size = next(iter(fitted_to.values())).shape
    if examples * size * classes > MOST_WORK:
        raise CacheUnavailableError(
            f"{examples:,} examples x {size:,} features x {classes:,} classes take too long to fit"
        )
    folds = assign_folds(labels, target, 1, seed, groups=groups)
    answers = label_array(labels, target, classes, unknown)
    name, fit, losses = fit_best(fitted_to, answers, target, classes, folds)
    about = about_fit(fit, target) | ({"pool": name, "pooling": losses} if name else {})
    return Probe(probabilities(fit(features[name]["test"]), target), about)


def _head_inputs(
    model: torch.nn.Module,
    head: frozenset[str],
    train: Dataset,
    test: Dataset,
    collate: Any,
    settings: CacheSettings,
    device: torch.device,
    how: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """Return what the head of a model reads of the examples of each split [examples, features]."""
    freeze_all_but(model, head)
    state = _Alone(device)
    cached = cache_prefix(model, head, train, test, collate, settings, state=state, held_out="test", **how)
    return {"train": _features(cached.train), "test": _features(cached.validation)}


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
