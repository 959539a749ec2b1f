"""Evaluate a finished model on labelled data, with a pipeline of transformers as others will load it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter
from typing import Any

import numpy as np
from datasets import Dataset

from hf_finetune.data.images import to_rgb
from hf_finetune.data.labels import Target
from hf_finetune.data.slices import group_of
from hf_finetune.data.truncation import CutTexts
from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.costs import CostTable
from hf_finetune.evaluation.intervals import Interval
from hf_finetune.evaluation.metrics import all_metrics, compute_metrics, decide, labels_of, probabilities
from hf_finetune.evaluation.predictor import Classifier, logit_batches
from hf_finetune.evaluation.registry import MetricSettings, needs_all_scores
from hf_finetune.evaluation.top_scores import MANY_CLASSES, Scores, keep_top, reduced, stack_top

__all__ = ["EvaluationResult", "evaluate_model", "model_examples"]

Progress = Callable[[int], None]


@dataclass(frozen=True)
class EvaluationResult:
    """What a model said of labelled examples, and how good that is.

    Attributes:
        metrics: A value for each metric that is defined for the target, then for each further one.
        ids: The name of each example.
        labels: Class indices [examples], zeros and ones [examples, classes], or amounts [examples].
        scores: Probabilities [examples, classes], the highest ones alone, or predicted amounts [examples].
        target: What the labels are.
        label_names: The classes in their order.
        seconds: Time of reading and predicting all examples.
        thresholds: From which probability on each class of multi-label data holds; None is 0.5 for all.
        intervals: The 95 % interval of some of the metrics.
        slices: What ``judge_slices`` gives, by column.
        groups: The group of each example, whose examples belong together; None if each is on its own.
        group_column: The column of the data that holds the groups.
        costs: ``evaluation.costs`` of the recipe; empty for none.
        seen: Of other data than the run's, how many examples are in each of its splits; None if that is not known.
        changed: Of a run's own data, as ``OwnSplit.changed``; None for other data.
        notes: What the person should know of how the examples were read.
    """

    metrics: dict[str, float]
    ids: tuple[str, ...]
    labels: np.ndarray
    scores: Scores
    target: Target
    label_names: tuple[str, ...]
    seconds: float
    thresholds: tuple[float, ...] | None = None
    intervals: Mapping[str, Interval | None] = field(default_factory=dict)
    slices: Mapping[str, Any] = field(default_factory=dict)
    groups: tuple[str, ...] | None = None
    group_column: str | None = None
    costs: CostTable = field(default_factory=dict)
    seen: Mapping[str, int] | None = None
    changed: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def settings(self) -> MetricSettings:
        """What some metrics depend on besides labels and scores."""
        return MetricSettings(self.label_names, self.costs)


def evaluate_model(
    classifier: Classifier,
    dataset: Dataset,
    *,
    metrics: Sequence[str] = (),
    costs: CostTable | None = None,
    keep_all: bool = False,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Predict every example and compute every metric of the target that says something of so many classes.

    Args:
        classifier: What ``load_classifier`` gives.
        dataset: Columns ``id``, ``image`` or ``text`` (and perhaps ``text_pair``), and ``label`` in the
            model's classes.
        metrics: Further metrics: those that are computed on request, and those that ``evaluate.load`` finds.
        costs: ``evaluation.costs`` of the recipe; None for none.
        keep_all: Whether to keep all probabilities, however many; else of more than 12 million the highest alone.
        progress: Called with the number of examples done.

    Raises:
        InputError: If the labels are of other classes than the model's, or if the model puts out nan.
    """
    _check_labels(classifier, dataset)
    settings = MetricSettings(classifier.label_names, costs or {})
    usual = all_metrics(classifier.target, len(classifier.label_names), settings)
    names = tuple(dict.fromkeys([*usual, *metrics]))
    labels = labels_of(dataset, classifier.target, len(classifier.label_names))
    needs_all = keep_all or any(needs_all_scores(name, classifier.target) for name in metrics)
    all_used = any(needs_all_scores(name, classifier.target) for name in names)
    start = perf_counter()
    classes = len(classifier.label_names)
    reduces = not needs_all and (reduced(len(labels), classes) or (classes > MANY_CLASSES and not all_used))
    cut = CutTexts()
    scores = _predict(classifier, dataset, labels, cut, reduces=reduces, progress=progress)
    seconds = perf_counter() - start
    group_column, groups = group_of(dataset) or (None, None)
    return EvaluationResult(
        metrics=compute_metrics(names, classifier.target, scores, labels, classifier.thresholds, settings),
        ids=tuple(dataset.select_columns(["id"])["id"][:]),
        labels=labels,
        scores=scores,
        target=classifier.target,
        label_names=classifier.label_names,
        seconds=seconds,
        thresholds=classifier.thresholds,
        groups=groups,
        group_column=group_column,
        costs=settings.costs,
        notes=tuple(cut.sentences()),
    )


def _predict(
    classifier: Classifier,
    dataset: Dataset,
    labels: np.ndarray,
    cut: CutTexts,
    *,
    reduces: bool,
    progress: Progress | None,
) -> Scores:
    """Return the scores of all examples; of single labels the highest alone, batch by batch, where that is wanted."""
    target = classifier.target
    reduces = reduces and target == "single_label"
    parts: list[Scores] = []
    done = 0
    for logits in logit_batches(classifier, model_examples(dataset), cut):
        scores: Scores = probabilities(logits, target)
        if reduces:
            scores = keep_top(scores, labels[done : done + len(logits)], decide(scores, target))
        parts.append(scores)
        for _ in range(len(logits)):
            done += 1
            if progress is not None:
                progress(done)
    return stack_top(parts) if reduces else np.concatenate(parts)


def model_examples(dataset: Dataset, limit: int | None = None) -> Iterator[Any]:
    """Return examples as ``compute_logits`` takes them.

    Args:
        dataset: Columns ``image``, or ``text`` and perhaps ``text_pair``.
        limit: At most so many, the first.
    """
    names = [name for name in ("text", "text_pair") if name in dataset.column_names]
    # first the columns: whatever is done to a dataset copies the names of all its classes
    plain = dataset.select_columns(names or ["image"]).with_format(None)
    for row in islice(plain, limit):
        yield row if names else to_rgb(row["image"])


def _check_labels(classifier: Classifier, dataset: Dataset) -> None:
    if len(dataset) == 0:
        raise InputError(Problem("The data", "must hold at least one example"))
    feature = dataset.features["label"]
    names = getattr(getattr(feature, "feature", feature), "names", None)
    if names is not None and tuple(names) != classifier.label_names:
        expected, given = (", ".join(map(repr, some[:10])) for some in (classifier.label_names, names))
        problem = Problem("The data's classes", f"must be the model's: {expected}", given)
        raise InputError(problem)
