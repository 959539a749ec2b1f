"""Cross-entropy of soft labels."""

import torch
from torch.nn import functional

__all__ = ["weighted_cross_entropy"]


def weighted_cross_entropy(logits: torch.Tensor, soft_labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return the smoothed cross-entropy of each example [batch], weighted by the sum of its soft labels.

    torch's label smoothing does not weight the smoothed part by that sum.

    Args:
        logits: Logits [batch, classes].
        soft_labels: Class probabilities times the weight of the example [batch, classes].
        smoothing: Share of each label that is distributed over all classes.
    """
    scores = functional.log_softmax(logits, dim=-1)
    smoothed = soft_labels.sum(dim=-1) * scores.mean(dim=-1)
    return -((1 - smoothing) * (soft_labels * scores).sum(dim=-1) + smoothing * smoothed)
