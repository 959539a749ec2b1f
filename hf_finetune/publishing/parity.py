"""Whether an exported model says what the model says that it was made from, and what it costs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from datasets import Dataset

from hf_finetune.evaluation.evaluate import model_examples
from hf_finetune.evaluation.metrics import all_metrics, compute_metrics, decide, labels_of, probabilities
from hf_finetune.evaluation.predictor import Classifier, compute_logits

__all__ = ["Parity", "compare_models", "median_milliseconds", "weight_bytes"]

REPEATS, WARM_UP = 30, 5


@dataclass(frozen=True)
class Parity:
    """Two models on the same examples.

    Attributes:
        examples: How many.
        largest_difference: Of any logit of any example.
        largest_logit: Of the first model, its absolute value: what a difference is to be judged by.
        same_answers: Fraction of the examples of which both say the same; None for amounts.
        before: Metrics of the first model.
        after: Metrics of the second.
    """

    examples: int
    largest_difference: float
    largest_logit: float
    same_answers: float | None
    before: Mapping[str, float]
    after: Mapping[str, float]


def compare_models(before: Classifier, after: Classifier, dataset: Dataset) -> Parity:
    """Predict the same examples with two models.

    Args:
        before: The model.
        after: What was made of it.
        dataset: As ``evaluate_model`` takes it.
    """
    one, other = (
        np.stack(list(compute_logits(classifier, model_examples(dataset)))) for classifier in (before, after)
    )
    target = before.target
    labels = labels_of(dataset, target, len(before.label_names))
    scores = [probabilities(logits, target) for logits in (one, other)]
    names = all_metrics(target, len(before.label_names))
    metrics = [compute_metrics(names, target, each, labels, before.thresholds) for each in scores]
    same = None
    if target != "regression":
        answers = [decide(each, target, before.thresholds).reshape(len(labels), -1) for each in scores]
        same = float((answers[0] == answers[1]).all(axis=1).mean())
    return Parity(
        examples=len(labels),
        largest_difference=float(np.abs(one - other).max()),
        largest_logit=float(np.abs(one).max()),
        same_answers=same,
        before=metrics[0],
        after=metrics[1],
    )


def median_milliseconds(call: Callable[[], Any], repeats: int = REPEATS, warm_up: int = WARM_UP) -> float:
    """Take the time of a call again and again, and give the median."""
    for _ in range(warm_up):
        call()
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        call()
        seconds.append(perf_counter() - start)
    return 1000 * median(seconds)


def weight_bytes(*files: Path) -> int:
    """Add up the sizes of files; those that are not there count nothing."""
    return sum(file.stat().st_size for file in files if file.is_file())
