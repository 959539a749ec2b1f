"""Metrics of predicted sets: their overlap with the true sets, and the order of the classes of each example."""

import re
from collections.abc import Callable
from functools import partial

import numpy as np

from hf_finetune.targets.metric import Metric
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.targets.unknown_labels import is_known

__all__ = ["jaccard_metric", "metric_at_k"]

_NAME = re.compile(r"(precision|recall|ndcg)_at_([1-9]\d*)")


def jaccard_metric() -> Metric:
    """Return the size of the intersection of the predicted and the true set over that of their union.

    It is the mean over the examples; 1 for an example whose sets are both empty.
    """
    return Metric("jaccard", lambda examples: float(_jaccard(examples).mean()), per_example=_jaccard)


def metric_at_k(name: str) -> Metric | None:
    """Return ``precision_at_K``, ``recall_at_K`` or ``ndcg_at_K``, of the K most probable classes of each example.

    Recall and NDCG (Järvelin & Kekäläinen 2002) of an example without any class are 0. Unknown labels are left out of
    the order.

    Args:
        name: Name in a recipe.

    Returns:
        The metric; None for any other name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    k = int(match[2])
    per_example = partial(_AT_K[match[1]], k)
    return Metric(
        name,
        lambda examples: float(per_example(examples).mean()),
        per_example=per_example,
        min_classes=k + 1,
        needs_all_scores=True,
    )


def _jaccard(examples: ScoredExamples) -> np.ndarray:
    labels, decisions = (values == 1 for values in examples.filled)
    union = (labels | decisions).sum(axis=1)
    common: np.ndarray = np.where(union > 0, (labels & decisions).sum(axis=1) / np.maximum(union, 1), 1.0)
    return common


def _hits(k: int, examples: ScoredExamples) -> tuple[np.ndarray, np.ndarray]:
    """Return whether each of the k most probable classes is right [examples, k], and the number of true classes."""
    known = is_known(examples.labels)
    scores = np.where(known, np.asarray(examples.scores), -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    true = known & (examples.labels == 1)
    return np.take_along_axis(true, order, axis=1), true.sum(axis=1)


def _precision(k: int, examples: ScoredExamples) -> np.ndarray:
    hits, _ = _hits(k, examples)
    precision: np.ndarray = hits.sum(axis=1) / k
    return precision


def _recall(k: int, examples: ScoredExamples) -> np.ndarray:
    hits, count = _hits(k, examples)
    recall: np.ndarray = hits.sum(axis=1) / np.maximum(count, 1)
    return recall


def _ndcg(k: int, examples: ScoredExamples) -> np.ndarray:
    hits, count = _hits(k, examples)
    gains = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.append(0.0, np.cumsum(gains))[np.minimum(count, k)]
    ndcg: np.ndarray = (hits @ gains) / np.where(count > 0, ideal, 1.0)
    return ndcg


_AT_K: dict[str, Callable[[int, ScoredExamples], np.ndarray]] = {
    "precision": _precision,
    "recall": _recall,
    "ndcg": _ndcg,
}
