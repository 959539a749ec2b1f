"""Whether probabilities mean what they say: calibration error, the reliability curve, and a temperature that helps.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from hf_finetune.data.labels import Target
from hf_finetune.evaluation.metrics import decide, probabilities
from hf_finetune.evaluation.top_scores import Scores, confidences
from hf_finetune.evaluation.unknown_labels import is_known

__all__ = ["BINS", "Bin", "calibration_error", "fit_temperature", "reliability"]

BINS = 15
_CELLS = 200_000
"""Logits of which probabilities are computed at once: so few that they stay in the processor's cache."""
RANGE = (0.05, 20.0)
"""Temperatures that are looked through. At an end of it the scores say next to nothing, or are sure of everything."""

_PRECISION = 1e-5
"""Of the logarithm of the temperature."""
_LEAST_SLOPE = float(np.finfo(np.float64).eps)
"""Added for each example: where all answers are right and sure, the temperature falls until rounding hides the rest."""


@dataclass(frozen=True)
class Bin:
    """Answers of about the same confidence.

    Attributes:
        low: Least confidence, not included but for the first bin's 0.
        high: Greatest confidence.
        count: Number of answers.
        confidence: Mean probability that they give themselves; None if there are none.
        right: Fraction that is right; None if there are none.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    right: float | None


def reliability(scores: Scores, labels: np.ndarray, bins: int = BINS) -> tuple[Bin, ...]:
    """Sort answers into bins of equal width by their confidence.

    An answer is the likeliest class of an example, whose confidence is its probability; for multi-label data it is
    what is said of each class of each example, with the probability of what is said.

    Args:
        scores: Probabilities [examples, classes].
        labels: Class indices [examples], or zeros and ones [examples, classes].
        bins: How many.
    """
    if labels.ndim == 2:
        known = is_known(labels)
        confidence = np.maximum(scores, 1 - scores)[known]
        right = ((scores >= 0.5) == (labels == 1))[known]
    else:
        confidence, right = confidences(scores), decide(scores, "single_label") == labels
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, bins - 1)
    made = []
    for number in range(bins):
        held = place == number
        count = int(held.sum())
        made.append(
            Bin(
                low=float(edges[number]),
                high=float(edges[number + 1]),
                count=count,
                confidence=float(confidence[held].mean()) if count else None,
                right=float(right[held].mean()) if count else None,
            )
        )
    return tuple(made)


def calibration_error(scores: Scores, labels: np.ndarray, bins: int = BINS) -> float:
    """Compute the expected calibration error (ECE): the mean gap of confidence and accuracy, weighted by count.

    Args:
        scores: Probabilities [examples, classes].
        labels: Class indices [examples], or zeros and ones [examples, classes].
        bins: How many bins of equal width.
    """
    held = [each for each in reliability(scores, labels, bins) if each.count]
    total = sum(each.count for each in held)
    gaps = [each.count * abs((each.confidence or 0.0) - (each.right or 0.0)) for each in held]
    return sum(gaps) / total


def fit_temperature(logits: np.ndarray, labels: np.ndarray, target: Target) -> float:
    """Find the number by which logits are divided so that the log loss is least. No answer changes by it.

    Args:
        logits: [examples, classes], of examples that were not trained on.
        labels: Class indices [examples], or zeros and ones [examples, classes].
        target: ``single_label`` or ``multi_label``.
    """
    low, high = RANGE
    if _slope(1 / low, logits, labels, target) <= 0:
        return low
    if _slope(1 / high, logits, labels, target) >= 0:
        return high
    exponent = brentq(
        lambda exponent: _slope(np.exp(-exponent), logits, labels, target), *np.log(RANGE), xtol=_PRECISION
    )
    return float(np.exp(exponent))


def _slope(factor: float, logits: np.ndarray, labels: np.ndarray, target: Target) -> float:
    """Return the sum over the examples of the derivative of the log loss by the factor on the logits.

    The log loss is convex in the factor, so the slope has one zero at most.
    """
    total = _LEAST_SLOPE * len(logits)
    for rows in np.array_split(np.arange(len(logits)), max(1, logits.size // _CELLS)):
        part, true = logits[rows], labels[rows]
        scores = probabilities(part * factor, target)
        if target == "single_label":
            total += float((scores * part).sum() - part[np.arange(len(rows)), true].sum())
        else:
            known = is_known(true)
            each = np.where(known, (scores - (true == 1)) * part, 0).sum(axis=1)
            total += float((each / np.maximum(known.sum(axis=1), 1)).sum())
    return total
