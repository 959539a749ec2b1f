"""A label type outside the package: counts, with a Poisson loss and its own metric."""

import numpy as np
from torch.nn import functional

from hf_finetune.targets.metric import Metric
from hf_finetune.targets.regression import Regression
from hf_finetune.targets.regression_metrics import regression_metrics


def deviance(examples):
    """Compute the mean Poisson deviance."""
    labels, scores = examples.labels, examples.scores
    logs = np.log(np.where(labels > 0, labels, 1) / scores)
    return 2 * float((labels * logs - labels + scores).mean())


class Counts(Regression):
    """Whole numbers from 0 on: one output, the logarithm of the expected count."""

    name = "counts"
    has_standard_loss = False
    default_metrics = ("deviance", "mae")
    metrics = (Metric("deviance", deviance, greater_is_better=False), *regression_metrics())

    def recognizes(self, labels):
        return False

    def scores(self, logits):
        return np.exp(super().scores(logits))

    def loss_sum(self, logits, labels, known, smoothing):
        losses = functional.poisson_nll_loss(logits.view(-1), labels.view(-1), reduction="none")
        return (losses * known).sum()

    def synthetic_label(self, rng, classes):
        return float(rng.randrange(5))

    def summary(self, subject, classes):
        return f"counts what is in {subject}"
