"""Misclassified examples with the highest confidence, with their content, and counts of examples and classes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset

from hf_finetune.evaluation.metrics import decide
from hf_finetune.evaluation.predictions import Predictions
from hf_finetune.targets import TARGETS
from hf_finetune.targets.decision_rule import DEFAULT_RULE, DecisionRule
from hf_finetune.targets.reading import flat_labels
from hf_finetune.tasks import find_modality

__all__ = ["describe_data", "find_mistakes"]

MAX_EXAMPLES = 12


def find_mistakes(
    predictions: Predictions, dataset: Dataset, rule: DecisionRule = DEFAULT_RULE
) -> list[dict[str, Any]]:
    """Return the wrong predictions with the highest confidence; without classes those with the largest errors.

    Args:
        predictions: Predictions for the examples of the dataset, in the same order.
        dataset: Dataset with the column ``id`` and those of a modality.
        rule: Rule that decides the classes of multi-label examples.

    Returns:
        At most 12 examples in descending order of confidence, each with ``id``, ``label``, ``prediction``,
        ``confidence`` (a probability; without classes the size of the error), ``group`` if there are groups, and the
        values of ``Modality.show_answer``.
    """
    decisions = decide(predictions.scores, predictions.target, rule)
    kind = TARGETS[predictions.target]
    wrong, confidence = kind.mistakes(predictions.labels, predictions.scores, decisions)
    count = min(MAX_EXAMPLES, int(wrong.sum()))
    order = np.argsort(-np.where(wrong, confidence, -np.inf), kind="stable")[:count]
    modality = find_modality(dataset.column_names)
    return [
        {
            "id": predictions.ids[row],
            "label": kind.decode(predictions.labels[row], predictions.label_names),
            "prediction": kind.decode(decisions[row], predictions.label_names),
            "confidence": float(confidence[row]),
            **({} if predictions.groups is None else {"group": predictions.groups[row]}),
            **modality.show_answer(
                dataset[row], predictions.labels[row], predictions.scores[np.array([row])]
            ),
        }
        for row in order.tolist()
    ]


def describe_data(
    splits: Mapping[str, Dataset | None], target: str, label_names: tuple[str, ...], notes: tuple[str, ...]
) -> dict[str, Any]:
    """Return the content of ``data.json``: numbers of examples in each split and class, and notes on the data.

    Args:
        splits: Splits by name; splits that are None are skipped.
        target: Label type; without classes none are counted.
        label_names: Class names, by class index.
        notes: Sentences on inferred columns, created splits and skipped examples.
    """
    has_classes = TARGETS[target].has_classes
    counted = {
        name: {
            "examples": len(dataset),
            "classes": _counts(dataset["label"][:], label_names) if has_classes else {},
        }
        for name, dataset in splits.items()
        if dataset is not None
    }
    return {"splits": counted, "notes": list(notes)}


def _counts(labels: list[Any], label_names: tuple[str, ...]) -> dict[str, int]:
    indices = np.asarray(flat_labels(labels), dtype=np.int64)
    counts = np.bincount(indices, minlength=len(label_names))
    return dict(zip(label_names, counts.tolist(), strict=True))
