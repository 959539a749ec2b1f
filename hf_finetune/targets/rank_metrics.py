"""Metrics of the rank of the true class of each example among all classes, as recommendations are evaluated.

The rank counts from 1. Classes with the same score as the true one share the middle of their ranks, so that a model
that scores everything alike gains nothing.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from hf_finetune.targets.metric import Metric
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.targets.top_scores import TopScores, middle_ranks

__all__ = ["label_places", "rank_metric_at_k", "rank_metrics"]

_NAME = re.compile(r"(hit_rate|ndcg|mrr)_at_([1-9]\d{0,5})")


def rank_metrics() -> Iterator[Metric]:
    """Yield the metrics of the rank that have no k: ``mrr``, the mean reciprocal rank (Voorhees 1999)."""
    yield _mean("mrr", _reciprocal_rank, on_request=True)


def rank_metric_at_k(name: str) -> Metric | None:
    """Return ``hit_rate_at_K``, ``ndcg_at_K`` or ``mrr_at_K``: values of the rank that are 0 below the first K places.

    With a single true class, the hit rate is the recall at K, and NDCG (Järvelin & Kekäläinen 2002) is
    1 / log2(rank + 1).

    Args:
        name: Name in a recipe.

    Returns:
        The metric; None for any other name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    k = int(match[2])
    value = _AT_K[match[1]]
    return _mean(name, partial(_cut, k, value), is_fraction=value is _AT_K["hit_rate"], min_classes=k + 1)


def label_places(examples: ScoredExamples) -> np.ndarray:
    """Return the rank of the true class of each example, from 1; a half if it shares it [examples].

    It is nan for scores that were stored without it.

    Args:
        examples: Single-label examples.
    """
    scores = examples.scores
    if not isinstance(scores, TopScores):
        return 1 + middle_ranks(scores, examples.labels)
    if scores.middle_ranks is None:
        return np.full(len(scores), np.nan)
    places: np.ndarray = 1 + scores.middle_ranks
    return places


def _mean(name: str, per_example: Callable[[ScoredExamples], np.ndarray], **options: int) -> Metric:
    return Metric(
        name,
        lambda examples: float(per_example(examples).mean()),
        per_example=per_example,
        **options,  # type: ignore[arg-type]
    )


def _reciprocal_rank(examples: ScoredExamples) -> np.ndarray:
    return 1 / label_places(examples)


def _cut(k: int, value: Callable[[np.ndarray], np.ndarray], examples: ScoredExamples) -> np.ndarray:
    places = label_places(examples)
    kept: np.ndarray = np.where(places > k, 0.0, value(places))
    return kept


_AT_K: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "hit_rate": lambda places: np.where(np.isnan(places), np.nan, 1.0),
    "ndcg": lambda places: 1 / np.log2(1 + places),
    "mrr": lambda places: 1 / places,
}
