"""Label types outside the package: counts, with a Poisson loss and its own metric, and tallies, a third form."""

import numpy as np
import pyarrow as pa
from datasets import Value
from torch.nn import functional

from hf_finetune.targets import Target
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

    def loss_sum(self, logits, labels, valid, smoothing):
        losses = functional.poisson_nll_loss(logits.view(-1), labels.view(-1), reduction="none")
        return (losses * valid).sum()

    def synthetic_label(self, rng, classes):
        return float(rng.randrange(5))

    def summary(self, subject, classes):
        return f"counts what is in {subject}"


def stroke_difference(examples):
    """Compute the mean difference in the number of strokes."""
    return float(np.abs(examples.labels - examples.scores).mean())


class Tallies(Target):
    """Texts of strokes such as ``xxx``: neither classes nor numbers, with a Poisson loss of their length."""

    name = "tallies"
    problem_type = "regression"  # transformers knows no other for a single output
    default_metrics = ("stroke_difference",)
    score_dimensions = 1
    metrics = (Metric("stroke_difference", stroke_difference, greater_is_better=False),)

    def output_names(self, labels, declared):
        return ("strokes",)

    def encode(self, label, indices):
        return float(len(label))

    def feature(self, label_names):
        return Value("float32")

    def decode(self, label, label_names):
        return "x" * int(label)

    @property
    def arrow_type(self):
        return pa.string()

    def describe_labels(self, labels, label_names):
        return f"tallies from {min(labels):g} to {max(labels):g}"

    def summary(self, subject, classes):
        return f"keeps a tally of {subject}"

    def scores(self, logits):
        return np.rint(np.exp(logits.reshape(len(logits))))

    def decide(self, scores, rule=None):
        return scores

    def label_array(self, labels, classes, unknown=None):
        return np.array(labels, dtype=np.float64)

    def stored_scores(self, predictions):
        return np.array([len(strokes) for strokes in predictions], dtype=np.float64)

    def synthetic_label(self, rng, classes):
        return float(rng.randrange(1, 5))

    def loss_sum(self, logits, labels, valid, smoothing):
        losses = functional.poisson_nll_loss(logits.view(-1), labels.view(-1), reduction="none")
        return (losses * valid).sum()
