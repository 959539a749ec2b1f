"""Metrics of many bootstrap resamples at once, each given by how often every example occurs in it.

Labels, decisions and scores are as in ``registry``. Counts are integers stored as floats [resamples, examples].
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from scipy import sparse

from hf_finetune.evaluation.metrics import compute_metrics, decide
from hf_finetune.evaluation.registry import needs_all_scores
from hf_finetune.targets.agreement import cohen_kappa, matthews_correlation, weighted_kappa
from hf_finetune.targets.class_metrics import CLASS_SCORES, COST_METRICS, split_class_metric, top_k
from hf_finetune.targets.labels import Target
from hf_finetune.targets.metric import NO_SETTINGS, MetricSettings
from hf_finetune.targets.top_scores import Scores, TopScores, label_ranks
from hf_finetune.targets.unknown_labels import fill_unknown, has_unknown, is_known

__all__ = ["Statistic", "cross_entropy_per_example", "example_values", "is_fast", "is_fraction", "statistic"]

Statistic = Callable[[np.ndarray], np.ndarray]
"""Function from counts [resamples, examples] to the metric of each resample [resamples]."""

PerExample = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

_KAPPAS = {"cohen_kappa_linear": 1, "cohen_kappa_quadratic": 2}
_LEAST = np.finfo(np.float64).eps
_LEAST_COUNT = 0.5
"""Smallest nonzero count: F1 counts half a member or answer."""
_CELLS = 200_000
"""Maximum size of a temporary array; small enough to stay in the processor's cache."""


def is_fraction(name: str) -> bool:
    """Return whether a metric is a fraction of the examples, such as accuracy.

    Args:
        name: Name of a metric.
    """
    return name in ("accuracy", "exact_match") or top_k(name) is not None


def is_fast(name: str) -> bool:
    """Return whether a metric is computed for many resamples at once, rather than one resample at a time.

    Args:
        name: Name of a metric.
    """
    known = (*_MEANS, *_AGREEMENT, *_KAPPAS, *COST_METRICS, "rmse")
    parsed = top_k(name), _split(name), split_class_metric(name)[1]
    return name in known or any(part is not None for part in parsed)


def statistic(
    name: str,
    target: Target,
    labels: np.ndarray,
    scores: Scores,
    thresholds: Sequence[float] | None = None,
    settings: MetricSettings = NO_SETTINGS,
) -> Statistic:
    """Return a function that computes a metric of resamples.

    Args:
        name: Name of the metric, as for ``compute_metrics``.
        target: Label type: ``single_label``, ``multi_label`` or ``regression``.
        labels: Class indices [examples], zeros and ones [examples, classes], or regression targets [examples].
        scores: Probabilities [examples, classes], or regression predictions [examples].
        thresholds: Decision threshold of each class (multi-label); None is 0.5 for all classes.
        settings: Classes and costs, for the metrics that need them.

    Returns:
        Function from counts [resamples, examples] to the metric of each resample [resamples].
    """
    if name == "log_loss" and has_unknown(labels):
        known = is_known(labels).sum(axis=1)
        return partial(_weighted_mean, cross_entropy_per_example(labels, scores), known)
    unfilled, (labels, decisions) = labels, fill_unknown(labels, decide(scores, target, thresholds))
    if (values := _per_example(name, target, labels, decisions, scores, settings)) is not None:
        return partial(_mean, values, root=name == "rmse")
    score, label = split_class_metric(name)
    if label is not None:
        index = settings.label_names.index(label)
        members, answers = (
            (array[:, [index]] == 1) if array.ndim == 2 else (array == index)[:, None]
            for array in (labels, decisions)
        )
        return partial(_by_class, members, answers, partial(_score, score=score, average="micro"))
    if parts := _split(name):
        combine: Combine = partial(_score, score=parts[0], average=parts[1])
    elif name in _AGREEMENT:
        combine = _AGREEMENT[name]
    elif name in _KAPPAS:
        distances = np.abs(labels - decisions).astype(np.float64) ** _KAPPAS[name]
        return partial(_weighted_kappa, labels, decisions, scores.shape[1], distances, _KAPPAS[name] == 2)
    else:
        return partial(_one_by_one, name, target, unfilled, scores, thresholds, settings)
    if labels.ndim == 1:  # classes that are neither a label nor a decision do not affect these metrics
        occurring, places = np.unique(np.concatenate([labels, decisions]), return_inverse=True)
        members, answers = (_indicator(array, len(occurring)) for array in np.split(places, 2))
    else:
        members, answers = labels.astype(bool), decisions.astype(bool)
    return partial(_by_class, members, answers, combine)


def example_values(
    name: str,
    target: Target,
    labels: np.ndarray,
    scores: Scores,
    thresholds: Sequence[float] | None = None,
    settings: MetricSettings = NO_SETTINGS,
) -> np.ndarray | None:
    """Return the values [examples] whose mean is a metric; None if the metric is not a mean over the examples.

    Args:
        name: Name of the metric.
        target: Label type: ``single_label``, ``multi_label`` or ``regression``.
        labels: Labels, as for ``statistic``.
        scores: Scores, as for ``statistic``.
        thresholds: Decision thresholds, as for ``statistic``.
        settings: Classes and costs, for the metrics that need them.
    """
    if name == "rmse" or (name == "log_loss" and has_unknown(labels)):
        return None
    labels, decisions = fill_unknown(labels, decide(scores, target, thresholds))
    return _per_example(name, target, labels, decisions, scores, settings)


Combine = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Function from counts [resamples, classes] of members, answers and hits to a metric [resamples]."""


def _mean(values: np.ndarray, counts: np.ndarray, *, root: bool) -> np.ndarray:
    means = counts @ values / counts.sum(axis=1)
    return np.sqrt(means) if root else means


def _weighted_mean(values: np.ndarray, weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return counts @ (values * weights) / (counts @ weights)


def _indicator(indices: np.ndarray, classes: int) -> sparse.csr_array:
    rows = np.arange(len(indices))
    return sparse.csr_array((np.ones(len(indices), dtype=bool), (rows, indices)), (len(indices), classes))


def _by_class(
    members: np.ndarray | sparse.csr_array,
    answers: np.ndarray | sparse.csr_array,
    combine: Combine,
    counts: np.ndarray,
) -> np.ndarray:
    """Compute a metric from the numbers of labels, decisions and correct decisions per class and resample.

    Args:
        members: Whether the label of an example is a class [examples, classes].
        answers: Whether the decision for an example is a class [examples, classes].
        combine: Function that computes the metric from the counts.
        counts: Counts of the examples [resamples, examples].

    Returns:
        Metric of each resample [resamples].
    """
    hits = members & answers if isinstance(members, np.ndarray) else members.multiply(answers)
    tables = [table.T.astype(np.float64) for table in (members, answers, hits)]
    pieces = max(1, -(-counts.shape[0] * members.shape[1] // _CELLS))
    results = []
    for rows in np.array_split(counts, pieces):
        results.append(combine(*((table @ rows.T).T for table in tables)))
    return np.concatenate(results)


def _weighted_kappa(
    labels: np.ndarray,
    decisions: np.ndarray,
    classes: int,
    distances: np.ndarray,
    squared: bool,
    counts: np.ndarray,
) -> np.ndarray:
    members, answers = (_indicator(array, classes).T.astype(np.float64) for array in (labels, decisions))
    return weighted_kappa((members @ counts.T).T, (answers @ counts.T).T, counts @ distances, squared=squared)


def _score(
    members: np.ndarray, answers: np.ndarray, hits: np.ndarray, *, score: str, average: str
) -> np.ndarray:
    """Compute averaged precision, recall or F1 [resamples] from counts [resamples, classes], as in scikit-learn."""
    if average == "micro":
        members, answers, hits = (table.sum(axis=1, keepdims=True) for table in (members, answers, hits))
    either = members + answers
    of = {"precision": answers, "recall": members, "f1": either / 2}[score]
    values = hits / np.maximum(of, _LEAST_COUNT)  # a class without counts has no hits, and so the value 0
    if average == "micro":
        return values[:, 0]
    if average == "weighted":
        above, total = (values * members).sum(axis=1), members.sum(axis=1)
    else:  # macro averages over classes in labels or decisions, balanced over classes in labels
        above = values.sum(axis=1)
        total = np.count_nonzero(members if average == "balanced" else either, axis=1).astype(np.float64)
    return np.divide(above, total, out=np.zeros_like(total), where=total > 0)


def _one_by_one(
    name: str,
    target: Target,
    labels: np.ndarray,
    scores: Scores,
    thresholds: Sequence[float] | None,
    settings: MetricSettings,
    counts: np.ndarray,
) -> np.ndarray:
    values = []
    for times in counts:
        rows = np.repeat(np.arange(len(labels)), times.astype(np.int64))
        metrics = compute_metrics([name], target, scores[rows], labels[rows], thresholds, settings)
        values.append(metrics[name])
    return np.array(values)


def _split(name: str) -> tuple[str, str] | None:
    """Return score and average of a name such as ``f1_macro``; None for a metric that does not average over classes."""
    if name == "balanced_accuracy":
        return "recall", "balanced"
    score, _, average = name.partition("_")
    known = score in CLASS_SCORES and average in ("micro", "macro", "weighted")
    return (score, average) if known else None


def _per_example(
    name: str,
    target: Target,
    labels: np.ndarray,
    decisions: np.ndarray,
    scores: Scores,
    settings: MetricSettings,
) -> np.ndarray | None:
    """Return the values [examples] whose mean is the metric (rmse: its square); None if it is not such a mean."""
    if isinstance(scores, TopScores) and needs_all_scores(name, target):
        return np.full(len(labels), np.nan)
    if (k := top_k(name)) is not None:
        return _among_likeliest(labels, scores, k)
    if name in COST_METRICS:
        matrix = settings.cost_matrix()
        bayes = name == "expected_cost_bayes"
        return matrix[labels, (scores @ matrix).argmin(axis=1) if bayes else decisions]
    compute = _MEANS.get("mse" if name == "rmse" else name)
    return None if compute is None else compute(labels, decisions, scores)


def _right(labels: np.ndarray, decisions: np.ndarray, scores: Scores) -> np.ndarray:
    same = labels == decisions
    return same.reshape(len(same), -1).all(axis=1).astype(np.float64)


def _among_likeliest(labels: np.ndarray, scores: Scores, k: int) -> np.ndarray:
    """Return 1 where the class is among the k most probable, else 0. As in scikit-learn the greater index wins ties."""
    ranks = scores.ranks if isinstance(scores, TopScores) else label_ranks(scores, labels)
    return (ranks < k).astype(np.float64)


def cross_entropy_per_example(labels: np.ndarray, scores: Scores) -> np.ndarray:
    """Return the cross-entropy of each example [examples], in nats; for multi-label data the mean over known labels.

    Args:
        labels: Class indices [examples], or zeros and ones [examples, classes].
        scores: Probabilities [examples, classes].
    """
    if labels.ndim == 2:
        clipped, known = np.clip(scores, _LEAST, 1 - _LEAST), is_known(labels)
        losses = -np.where(labels == 1, np.log(clipped), np.log1p(-clipped))
        return np.where(known, losses, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    of_label = scores.of_label if isinstance(scores, TopScores) else scores[np.arange(len(labels)), labels]
    return -np.log(np.clip(of_label, _LEAST, 1.0))


_MEANS: dict[str, PerExample] = {
    "accuracy": _right,
    "exact_match": _right,
    "log_loss": lambda labels, decisions, scores: cross_entropy_per_example(labels, scores),
    "mae": lambda labels, decisions, scores: np.abs(labels - scores),
    "mse": lambda labels, decisions, scores: (labels - scores) ** 2,
}
_AGREEMENT: dict[str, Combine] = {"matthews_correlation": matthews_correlation, "cohen_kappa": cohen_kappa}
