"""The examples that a model has wrong and is surest of, with what a person needs to see why."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image

from hf_finetune.data.images import to_rgb
from hf_finetune.evaluation.metrics import decide
from hf_finetune.evaluation.predictions import Predictions, label_text
from hf_finetune.evaluation.top_scores import confidences
from hf_finetune.evaluation.unknown_labels import fill_unknown

__all__ = ["describe_data", "find_mistakes"]

SHOWN = 12
EDGE = 200  # pixels
LETTERS = 600


def find_mistakes(
    predictions: Predictions, dataset: Dataset, thresholds: tuple[float, ...] | None = None
) -> list[dict[str, Any]]:
    """Give the wrong answers of the greatest confidence, the surest first; for amounts the largest errors.

    Args:
        predictions: Of the dataset's examples, in their order.
        dataset: With the columns ``id``, and ``image`` or ``text``.
        thresholds: From which probability on each class of multi-label data holds; None is 0.5 for all.

    Returns:
        Of each ``id``, ``label``, ``prediction``, ``confidence`` (a probability, or the error), and ``text``, or
        ``image`` as a data URI of a small JPEG.
    """
    decisions = decide(predictions.scores, predictions.target, thresholds)
    wrong, confidence = _wrong(predictions, decisions)
    order = np.argsort(-np.where(wrong, confidence, -np.inf), kind="stable")[: min(SHOWN, int(wrong.sum()))]
    found = []
    for row in order.tolist():
        found.append(
            {
                "id": predictions.ids[row],
                "label": label_text(predictions.labels[row], predictions.target, predictions.label_names),
                "prediction": label_text(decisions[row], predictions.target, predictions.label_names),
                "confidence": float(confidence[row]),
                **_content(dataset[row]),
            }
        )
    return found


def _wrong(predictions: Predictions, decisions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = predictions.labels, predictions.scores
    if predictions.target == "regression":
        return np.ones(len(labels), dtype=bool), np.abs(labels - scores)
    if predictions.target == "single_label":
        return labels != decisions, confidences(scores)
    labels, decisions = fill_unknown(labels, decisions)
    sure = np.where(labels != decisions, np.maximum(scores, 1 - scores), 0.0)
    return (labels != decisions).any(axis=1), sure.max(axis=1)


def _content(example: Mapping[str, Any]) -> dict[str, str]:
    if "image" in example:
        return {"image": _thumbnail(example["image"])}
    parts = [example[name] for name in ("text", "text_pair") if example.get(name)]
    text = "\n\n".join(parts)
    return {"text": text if len(text) <= LETTERS else text[: LETTERS - 3] + "..."}


def _thumbnail(image: Image.Image) -> str:
    small = to_rgb(image)
    small.thumbnail((EDGE, EDGE))
    written = io.BytesIO()
    small.save(written, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode("ascii")


def describe_data(
    splits: Mapping[str, Dataset | None], label_names: tuple[str, ...], notes: tuple[str, ...]
) -> dict[str, Any]:
    """Count the examples and classes of each split.

    Args:
        splits: By name; None is left out.
        label_names: The classes in their order.
        notes: What was inferred, made and left out, a sentence each.
    """
    counted = {
        name: {"examples": len(dataset), "classes": _counts(dataset["label"][:], label_names)}
        for name, dataset in splits.items()
        if dataset is not None
    }
    return {"splits": counted, "notes": list(notes)}


def _counts(labels: list[Any], label_names: tuple[str, ...]) -> dict[str, int]:
    if labels and isinstance(labels[0], float):
        return {}
    flat = [index for label in labels for index in (label if isinstance(label, list) else [label])]
    counts = np.bincount(np.asarray(flat, dtype=np.int64), minlength=len(label_names))
    return dict(zip(label_names, counts.tolist(), strict=True))
