"""Evaluate a fine-tuned model on labeled data, with the transformers pipeline that its users will load."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from time import perf_counter
from typing import Any

import numpy as np
from datasets import Dataset

from hf_finetune.data.slices import group_of
from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.classifier import Classifier, logit_batches
from hf_finetune.evaluation.intervals import Interval
from hf_finetune.evaluation.metrics import all_metrics, compute_metrics, decide, labels_of, probabilities
from hf_finetune.evaluation.registry import needs_all_scores
from hf_finetune.targets import TARGETS
from hf_finetune.targets.costs import CostTable
from hf_finetune.targets.decision_rule import DEFAULT_RULE, DecisionRule
from hf_finetune.targets.labels import TargetName
from hf_finetune.targets.metric import MetricSettings
from hf_finetune.targets.scored_examples import ScoredExamples, group_indices
from hf_finetune.targets.top_scores import MANY_CLASSES, Scores, keep_top, needs_reduction, stack_top
from hf_finetune.tasks import find_modality
from hf_finetune.tasks.examples import Remarks

__all__ = ["EvaluationResult", "evaluate_model", "model_examples"]

Progress = Callable[[int], None]


@dataclass(frozen=True)
class EvaluationResult:
    """Scores of a model on labeled examples, and the metrics computed from them.

    Attributes:
        metrics: Value of each metric that is defined for the label type, then of each further one.
        ids: Id of each example.
        labels: Class indices [examples], zeros and ones [examples, classes], or regression targets [examples].
        scores: Probabilities [examples, classes], only the highest of them (``TopScores``), or regression predictions
            [examples].
        target: Label type: ``single_label``, ``multi_label`` or ``regression``.
        label_names: Class names in the order of the model.
        seconds: Time to read and predict all examples.
        rule: Rule that decides the classes of multi-label examples.
        intervals: 95 % interval of some of the metrics.
        slices: Metrics of each slice as ``evaluate_slices`` returns them, by column.
        groups: Group of each example, for grouped resampling; None if the data has no groups.
        group_column: Column of the data that contains the groups.
        costs: ``evaluation.costs`` of the recipe; empty without any.
        seen: For data other than the run's, the number of examples that also occur in each split of the run; None if
            unknown.
        changed: For the data of the run, see ``RunSplit.changed``; None for other data.
        notes: Remarks for the user on how the examples were read.
    """

    metrics: dict[str, float]
    ids: tuple[str, ...]
    labels: np.ndarray
    scores: Scores
    target: TargetName
    label_names: tuple[str, ...]
    seconds: float
    rule: DecisionRule = DEFAULT_RULE
    intervals: Mapping[str, Interval | None] = field(default_factory=dict)
    slices: Mapping[str, Any] = field(default_factory=dict)
    groups: tuple[str, ...] | None = None
    group_column: str | None = None
    costs: CostTable = field(default_factory=dict)
    seen: Mapping[str, int] | None = None
    changed: str | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def examples(self) -> ScoredExamples:
        """Labels and scores, as metrics receive them."""
        return ScoredExamples(
            labels=self.labels,
            scores=self.scores,
            target=self.target,
            rule=self.rule,
            groups=group_indices(self.groups),
            settings=MetricSettings(self.label_names, self.costs),
        )


def evaluate_model(
    classifier: Classifier,
    dataset: Dataset,
    *,
    metrics: Sequence[str] = (),
    costs: CostTable | None = None,
    keep_all: bool = False,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Predict every example, and compute every metric that is meaningful for the label type and number of classes.

    Args:
        classifier: Model as ``load_classifier`` returns it.
        dataset: Columns ``id``, those of the modality, and ``label`` in the model's classes.
        metrics: Further metrics: those that are computed on request only, and those that ``evaluate.load`` finds.
        costs: ``evaluation.costs`` of the recipe; None without any.
        keep_all: Whether to keep all probabilities regardless of their number; otherwise only the highest are kept
            if there are more than 12 million.
        progress: Called with the number of examples predicted so far.

    Returns:
        Metrics, labels and scores, without intervals and slices.

    Raises:
        InputError: If the classes of the labels are not those of the model, or if the model outputs nan or infinity.
    """
    _check_labels(classifier, dataset)
    settings = MetricSettings(classifier.label_names, costs or {})
    default_names = all_metrics(classifier.target, len(classifier.label_names), settings)
    names = tuple(dict.fromkeys([*default_names, *metrics]))
    labels = labels_of(dataset, classifier.target, len(classifier.label_names))
    requested_need_all = keep_all or any(needs_all_scores(name, classifier.target) for name in metrics)
    any_needs_all = any(needs_all_scores(name, classifier.target) for name in names)
    start = perf_counter()
    classes = len(classifier.label_names)
    keeps_top = not requested_need_all and (
        needs_reduction(len(labels), classes) or (classes > MANY_CLASSES and not any_needs_all)
    )
    remarks = classifier.modality.remarks()
    scores = _predict(classifier, dataset, labels, remarks, keeps_top=keeps_top, progress=progress)
    seconds = perf_counter() - start
    group_column, groups = group_of(dataset) or (None, None)
    result = EvaluationResult(
        metrics={},
        ids=tuple(dataset.select_columns(["id"])["id"][:]),
        labels=labels,
        scores=scores,
        target=classifier.target,
        label_names=classifier.label_names,
        seconds=seconds,
        rule=classifier.rule,
        groups=groups,
        group_column=group_column,
        costs=settings.costs,
        notes=tuple(remarks.sentences()),
    )
    return replace(result, metrics=compute_metrics(names, result.examples))


def _predict(
    classifier: Classifier,
    dataset: Dataset,
    labels: np.ndarray,
    remarks: Remarks,
    *,
    keeps_top: bool,
    progress: Progress | None,
) -> Scores:
    """Return the scores of all examples, [examples, classes] or [examples].

    With ``keeps_top`` only the highest scores of single-label data are kept, reduced batch by batch to save memory.
    """
    target = classifier.target
    keeps_top = keeps_top and TARGETS[target].is_exclusive
    batches: list[Scores] = []
    done = 0
    for logits in logit_batches(classifier, model_examples(dataset), remarks):
        scores: Scores = probabilities(logits, target)
        if keeps_top:
            scores = keep_top(
                scores, labels[done : done + len(logits)], decide(scores, target, classifier.rule)
            )
        batches.append(scores)
        for _ in range(len(logits)):
            done += 1
            if progress is not None:
                progress(done)
    return stack_top(batches) if keeps_top else np.concatenate(batches)


def model_examples(dataset: Dataset, limit: int | None = None) -> Iterator[Any]:
    """Yield examples in the form that ``iter_logits`` takes.

    Args:
        dataset: Data with the columns of a modality.
        limit: Number of examples to yield, from the first on; None yields all.
    """
    modality = find_modality(dataset.column_names)
    # select columns first: every operation on a dataset copies its features, with the names of all classes
    plain = dataset.select_columns(modality.columns_in(dataset.column_names)).with_format(None)
    for row in islice(plain, limit):
        yield modality.pipeline_input(row)


def _check_labels(classifier: Classifier, dataset: Dataset) -> None:
    if len(dataset) == 0:
        raise InputError(Problem("The data", "contains no examples"))
    feature = dataset.features["label"]
    names = getattr(getattr(feature, "feature", feature), "names", None)
    if names is not None and tuple(names) != classifier.label_names:
        expected, actual = (", ".join(map(repr, some[:10])) for some in (classifier.label_names, names))
        problem = Problem("The data's classes", f"must be those of the model: {expected}", actual)
        raise InputError(problem)
