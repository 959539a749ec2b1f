"""Relevance: how well a candidate answers its query, as a number that orders the candidates of the query."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import Problem, join_quoted
from hf_finetune.targets.base import Target
from hf_finetune.targets.metric import Metric, MetricSettings
from hf_finetune.targets.reading import LABEL_LOCATION, LabelSummary, rows_where
from hf_finetune.targets.regression import Regression

if TYPE_CHECKING:
    from random import Random

    import numpy as np
    import torch

    from hf_finetune.targets.top_scores import Scores

__all__ = ["MAX_RELEVANCE", "Relevance"]

MAX_RELEVANCE = 30
"""Greatest label: the gain of NDCG is 2^label."""


class Relevance(Regression):
    """Relevance of a candidate for its query: one output, whose order within the query counts.

    A label is 0 for a candidate that is not relevant, and 1 or a higher grade for one that is. Scores are the outputs
    of the model, in no unit. In a batch, the label of an example has two columns: the label itself, which metrics take,
    and its share of the highest label of the training split, in 0 to 1, which the loss takes.
    """

    name = "relevance"
    has_standard_loss = False
    needs_groups = True
    default_metrics = ("ndcg_at_10", "mrr", "hit_rate_at_1", "hit_rate_at_10")
    constant_baseline = ""
    has_untrained_baseline = True

    def recognizes(self, labels: LabelSummary) -> bool:
        """Return False: numbers without queries are regression targets."""
        return False

    def value_problems(
        self, values: Mapping[str, Sequence[Any]], ids: Mapping[str, Sequence[str]]
    ) -> list[Problem]:
        """Return a problem for labels that are no grades."""
        wrong = rows_where(values, ids, lambda v: v is not None and not 0 <= v <= MAX_RELEVANCE)
        rule = f"must be from 0 (not relevant) to {MAX_RELEVANCE}"
        repair = "Grades are usually 0 and 1, or 0 to 4."
        return [Problem(LABEL_LOCATION, rule, f"others in {join_quoted(wrong)}", repair)] if wrong else []

    def summary(self, subject: str, classes: str) -> str:
        """Return a phrase for a model that ranks."""
        return f"scores {subject}, to rank the candidates of a query"

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics of the ranks of relevant candidates."""
        from hf_finetune.targets.relevance_metrics import relevance_metrics

        return tuple(relevance_metrics())

    def named_metric(self, name: str, settings: MetricSettings) -> Metric | None:
        """Return ``ndcg_at_K``, ``hit_rate_at_K`` or ``mrr_at_K``."""
        from hf_finetune.targets.relevance_metrics import relevance_metric_at_k

        return relevance_metric_at_k(name)

    def mistakes(
        self, labels: "np.ndarray", scores: "Scores", decisions: "np.ndarray"
    ) -> tuple["np.ndarray", "np.ndarray"]:
        """Return no mistakes: a score has no unit."""
        return Target.mistakes(self, labels, scores, decisions)

    def labels_fit(self, labels: tuple[int, ...], scores: tuple[int, ...]) -> bool:
        """Return whether there is one label for each score, of one column, or of two as in a batch."""
        return labels in (scores, (*scores, 2))

    def label_width(self, classes: int) -> int | None:
        """Return None: several tasks at once are not supported."""
        return None

    def synthetic_label(self, rng: "Random", classes: int) -> Any:
        """Return 0 or 1."""
        return float(rng.randrange(2))

    def label_weights(self, labels: "torch.Tensor", valid: "torch.Tensor") -> "torch.Tensor":
        """Return 1 for each pair or list [batch], 0 for padding; a list without a relevant candidate counts, too."""
        if labels.ndim < 3:
            return valid.reshape(len(labels), -1).all(dim=-1)
        return valid[..., 1].any(dim=-1)

    def loss_sum(
        self, logits: "torch.Tensor", labels: "torch.Tensor", valid: "torch.Tensor", smoothing: float
    ) -> "torch.Tensor":
        """Return the summed loss of the pairs of a batch, or of its lists of candidates.

        Args:
            logits: Logits [pairs, 1], or [lists x candidates, 1].
            labels: Labels [pairs, 2], or [lists, candidates, 2] where nan marks the candidates that fill a list.
            valid: Mask of the labels that are not nan.
            smoothing: Not used.

        Returns:
            Of pairs, the binary cross-entropy of a sigmoid with the share of relevance. Of lists, the cross-entropy of
            a softmax over the candidates with the shares of relevance, divided by their sum; a list without any
            relevant candidate has the loss 0.

        Source: Nogueira and Cho 2019, Passage Re-ranking with BERT (pairs); Cao et al. 2007, ListNet, in the form of
        Bruch et al. 2019, An Analysis of the Softmax Cross Entropy Loss for Learning-to-Rank (lists).
        """
        import torch
        from torch.nn import functional

        known = valid[..., -1] if labels.ndim > 1 else valid
        shares = (labels[..., -1] if labels.ndim > 1 else labels).where(known, 0).to(logits)
        outputs = logits.reshape(shares.shape)
        if labels.ndim < 3:
            losses = functional.binary_cross_entropy_with_logits(outputs, shares, reduction="none")
            return (losses * known).sum()
        logs = outputs.masked_fill(~known, torch.finfo(outputs.dtype).min).log_softmax(dim=-1)
        total = shares.sum(dim=-1, keepdim=True)
        wanted = shares / total.where(total > 0, 1)
        return -(wanted * logs.where(known, 0)).sum()
