"""Calibration of probabilities: expected calibration error, reliability curve and temperature scaling.

Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from hf_finetune.evaluation.metrics import probabilities
from hf_finetune.targets import TARGETS
from hf_finetune.targets.labels import TargetName
from hf_finetune.targets.top_scores import Scores, confidences, predicted_classes
from hf_finetune.targets.unknown_labels import is_known

__all__ = ["NUM_BINS", "Bin", "calibration_error", "fit_temperature", "reliability"]

NUM_BINS = 15
"""Default number of bins."""
_CHUNK_SIZE = 200_000
"""Number of logits converted to probabilities at once; few enough to stay in the processor's cache."""
TEMPERATURE_RANGE = (0.05, 20.0)
"""Range of temperatures searched. At its upper end the scores are almost uniform, at its lower end almost 0 or 1."""

_PRECISION = 1e-5
"""Absolute tolerance of the logarithm of the temperature."""
_SLOPE_OFFSET = float(np.finfo(np.float64).eps)
"""Slope added per example. If all predictions are correct, the log loss has no minimum; this stops the temperature
where the remaining slope is within the rounding error."""


@dataclass(frozen=True)
class Bin:
    """Bin of a reliability curve: predictions of similar confidence.

    Attributes:
        low: Lower edge of the confidence; exclusive, except for the 0 of the first bin.
        high: Upper edge of the confidence, inclusive.
        count: Number of predictions.
        confidence: Mean confidence of the predictions; None if the bin is empty.
        right: Fraction of the predictions that are correct; None if the bin is empty.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    right: float | None


def reliability(scores: Scores, labels: np.ndarray, bins: int = NUM_BINS) -> tuple[Bin, ...]:
    """Compute the reliability curve: predictions binned by confidence, in bins of equal width.

    Single-label data has one prediction per example, the most probable class, and its probability is the confidence.
    Multi-label data has one prediction per example and class, positive or negative, and the probability of that
    outcome is the confidence; unknown labels are ignored.

    Args:
        scores: Probabilities [examples, classes].
        labels: Class indices [examples], or zeros and ones [examples, classes].
        bins: Number of bins.

    Returns:
        The bins in ascending order of confidence.
    """
    if labels.ndim == 2:
        known = is_known(labels)
        confidence = np.maximum(scores, 1 - scores)[known]
        correct = ((scores >= 0.5) == (labels == 1))[known]
    else:
        confidence, correct = confidences(scores), predicted_classes(scores) == labels
    edges = np.linspace(0.0, 1.0, bins + 1)
    bin_index = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, bins - 1)
    curve = []
    for number in range(bins):
        in_bin = bin_index == number
        count = int(in_bin.sum())
        curve.append(
            Bin(
                low=float(edges[number]),
                high=float(edges[number + 1]),
                count=count,
                confidence=float(confidence[in_bin].mean()) if count else None,
                right=float(correct[in_bin].mean()) if count else None,
            )
        )
    return tuple(curve)


def calibration_error(scores: Scores, labels: np.ndarray, bins: int = NUM_BINS) -> float:
    """Compute the expected calibration error (ECE).

    It is the mean absolute difference of confidence and accuracy over the bins, weighted by their counts.

    Args:
        scores: Probabilities [examples, classes].
        labels: Class indices [examples], or zeros and ones [examples, classes].
        bins: Number of bins of equal width.
    """
    filled = [entry for entry in reliability(scores, labels, bins) if entry.count]
    total = sum(entry.count for entry in filled)
    gaps = [entry.count * abs((entry.confidence or 0.0) - (entry.right or 0.0)) for entry in filled]
    return sum(gaps) / total


def fit_temperature(logits: np.ndarray, labels: np.ndarray, target: TargetName) -> float:
    """Fit the temperature that minimizes the log loss when logits are divided by it.

    Args:
        logits: Logits [examples, classes] of examples that were not used for training.
        labels: Class indices [examples], or zeros and ones [examples, classes].
        target: ``single_label`` or ``multi_label``.

    Returns:
        Temperature within ``TEMPERATURE_RANGE``. Dividing by it does not change any decision.
    """
    low, high = TEMPERATURE_RANGE
    if _slope(1 / low, logits, labels, target) <= 0:
        return low
    if _slope(1 / high, logits, labels, target) >= 0:
        return high
    exponent = brentq(
        lambda exponent: _slope(np.exp(-exponent), logits, labels, target),
        *np.log(TEMPERATURE_RANGE),
        xtol=_PRECISION,
    )
    return float(np.exp(exponent))


def _slope(factor: float, logits: np.ndarray, labels: np.ndarray, target: TargetName) -> float:
    """Compute the derivative of the log loss, summed over the examples, with respect to a factor on the logits.

    The log loss is convex in the factor, so the derivative has at most one zero.
    """
    total = _SLOPE_OFFSET * len(logits)
    for rows in np.array_split(np.arange(len(logits)), max(1, logits.size // _CHUNK_SIZE)):
        chunk_logits, chunk_labels = logits[rows], labels[rows]
        scores = probabilities(chunk_logits * factor, target)
        if TARGETS[target].is_exclusive:
            total += float(
                (scores * chunk_logits).sum() - chunk_logits[np.arange(len(rows)), chunk_labels].sum()
            )
        else:
            known = is_known(chunk_labels)
            slopes = np.where(known, (scores - (chunk_labels == 1)) * chunk_logits, 0).sum(axis=1)
            total += float((slopes / np.maximum(known.sum(axis=1), 1)).sum())
    return total
