"""Parity of an exported model with the original: logits, predictions, metrics, latency and size."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from datasets import Dataset

from hf_finetune.evaluation.classifier import Classifier, iter_logits
from hf_finetune.evaluation.evaluate import model_examples
from hf_finetune.evaluation.metrics import all_metrics, compute_metrics, groups_of, labels_of, probabilities
from hf_finetune.targets import TARGETS
from hf_finetune.targets.scored_examples import ScoredExamples

__all__ = ["Parity", "compare_models", "median_milliseconds", "weight_bytes"]

TIMED_CALLS = 30
WARM_UP_CALLS = 5


@dataclass(frozen=True)
class Parity:
    """Comparison of the original and the exported model on the same examples.

    Attributes:
        examples: Number of examples.
        largest_difference: Largest absolute difference of a logit, over all examples and classes.
        largest_logit: Largest absolute logit of the original model, the scale for ``largest_difference``.
        prediction_agreement: Fraction of the examples with the same prediction, in [0, 1]; None for regression.
        original_metrics: Metrics of the original model.
        exported_metrics: Metrics of the exported model.
    """

    examples: int
    largest_difference: float
    largest_logit: float
    prediction_agreement: float | None
    original_metrics: Mapping[str, float]
    exported_metrics: Mapping[str, float]


def compare_models(original: Classifier, exported: Classifier, dataset: Dataset) -> Parity:
    """Compute the predictions of both models on the same examples and compare them.

    Args:
        original: Original model.
        exported: Exported model.
        dataset: Labeled examples, as for ``evaluate_model``.
    """
    original_logits, exported_logits = (
        np.stack(list(iter_logits(classifier, model_examples(dataset))))
        for classifier in (original, exported)
    )
    target = original.target
    labels = labels_of(dataset, target, len(original.label_names))
    original_examples, exported_examples = (
        ScoredExamples(labels, probabilities(logits, target), target, original.rule, groups_of(dataset))
        for logits in (original_logits, exported_logits)
    )
    names = all_metrics(target, len(original.label_names))
    agreement = None
    if TARGETS[target].has_classes:
        matches = original_examples.decisions == exported_examples.decisions
        agreement = float(matches.reshape(len(labels), -1).all(axis=1).mean())
    return Parity(
        examples=len(labels),
        largest_difference=float(np.abs(original_logits - exported_logits).max()),
        largest_logit=float(np.abs(original_logits).max()),
        prediction_agreement=agreement,
        original_metrics=compute_metrics(names, original_examples),
        exported_metrics=compute_metrics(names, exported_examples),
    )


def median_milliseconds(
    call: Callable[[], Any], repeats: int = TIMED_CALLS, warm_up: int = WARM_UP_CALLS
) -> float:
    """Return the median time of a call in milliseconds.

    Args:
        call: Function to time.
        repeats: Number of timed calls.
        warm_up: Number of calls before these, which are not timed.
    """
    for _ in range(warm_up):
        call()
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        call()
        seconds.append(perf_counter() - start)
    return 1000 * median(seconds)


def weight_bytes(*files: Path) -> int:
    """Return the total size of the files in bytes; missing files count as 0."""
    return sum(file.stat().st_size for file in files if file.is_file())
