"""Scores of checkpoints on the examples outside the test split: that of ``choose``, LogME and other published ones."""

import json
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from accelerate import PartialState
from sklearn.covariance import ledoit_wolf
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from hf_finetune.evaluation.metrics import labels_of
from hf_finetune.runs.prepare import prepare_with_data
from hf_finetune.search.choose import choose_checkpoint
from hf_finetune.search.contenders import features_recipe
from hf_finetune.search.frozen import load_network, whole_pool
from hf_finetune.search.inspect_data import inspect_data
from hf_finetune.search.parts import PartLoader

__all__ = ["h_score", "measure"]

FOLDS = 5
NEIGHBORS = 5


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Score the checkpoints ``work["models"]`` on ``work["data"]``.

    Returns:
        ``details``: scores by their name for each checkpoint, as JSON. ``seconds``: of all of it.
    """
    PartialState(cpu=True)
    start = perf_counter()
    inspected, loader = inspect_data(work["data"]), PartLoader()
    pool = whole_pool(features_recipe(inspected, work["models"][0]), loader)
    ranking = choose_checkpoint(work["models"], lambda model: features_recipe(inspected, model), pool)
    scores: dict[str, dict[str, float]] = {}
    for entry in ranking.ranked:
        prepared = prepare_with_data(features_recipe(inspected, entry.model), pool)
        features = load_network(prepared, pool).features()[entry.pooling]
        labels = labels_of(pool.train, pool.target, len(pool.label_names))
        scores[Path(entry.model).name] = {
            "choose": entry.value,
            "LogME": entry.log_me,
            "H-score": h_score(features, labels),
            "nearest neighbors": _cross_validated(
                KNeighborsClassifier(NEIGHBORS, metric="cosine"), features, labels
            ),
            "nearest class mean": _cross_validated(NearestCentroid(), features, labels),
        }
    return {"seconds": perf_counter() - start, "right": [], "details": json.dumps(scores)}


def h_score(features: np.ndarray, labels: np.ndarray) -> float:
    """Return the H-score with a shrunk covariance.

    Args:
        features: Features [examples, features].
        labels: Index of the class of each example [examples].

    Source: Bao et al. 2019, An Information-Theoretic Approach to Transferability; the shrinkage is from Ibrahim et al.
    2021, Newer is not always better.
    """
    centered = features - features.mean(axis=0)
    covariance, _ = ledoit_wolf(centered, assume_centered=True)
    means = np.stack([centered[labels == each].mean(axis=0) for each in np.unique(labels)])
    between = means[np.searchsorted(np.unique(labels), labels)]
    return float(np.trace(np.linalg.solve(covariance, between.T @ between / len(labels))))


def _cross_validated(classifier: Any, features: np.ndarray, labels: np.ndarray) -> float:
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return float(cross_val_score(classifier, features, labels, cv=folds).mean())
