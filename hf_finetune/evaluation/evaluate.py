"""Evaluate a finished model on labelled data: the evaluator of ``evaluate`` on a pipeline of transformers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import evaluate
import numpy as np
from datasets import Dataset, Features, List, Value
from transformers import Pipeline

from hf_finetune.data.images import to_rgb
from hf_finetune.data.labels import Target
from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.checkpoint import Classifier, compute_logits
from hf_finetune.evaluation.intervals import Interval
from hf_finetune.evaluation.metrics import all_metrics, compute_metrics, label_array, probabilities

__all__ = ["EvaluationResult", "evaluate_model"]

Progress = Callable[[int], None]


@dataclass(frozen=True)
class EvaluationResult:
    """What a model said of labelled examples, and how good that is.

    Attributes:
        metrics: A value for each metric that is defined for the target, then for each further one.
        ids: The name of each example.
        labels: Class indices [examples], zeros and ones [examples, classes], or amounts [examples].
        scores: Probabilities [examples, classes], or predicted amounts [examples].
        target: What the labels are.
        label_names: The classes in their order.
        seconds: Time of reading and predicting all examples.
        thresholds: From which probability on each class of multi-label data holds; None is 0.5 for all.
        intervals: The 95 % interval of some of the metrics.
        slices: What ``judge_slices`` gives, by column.
    """

    metrics: dict[str, float]
    ids: tuple[str, ...]
    labels: np.ndarray
    scores: np.ndarray
    target: Target
    label_names: tuple[str, ...]
    seconds: float
    thresholds: tuple[float, ...] | None = None
    intervals: Mapping[str, Interval | None] = field(default_factory=dict)
    slices: Mapping[str, Any] = field(default_factory=dict)


def evaluate_model(
    classifier: Classifier,
    dataset: Dataset,
    *,
    metrics: Sequence[str] = (),
    progress: Progress | None = None,
) -> EvaluationResult:
    """Predict every example and compute every metric of the target that says something of so many classes.

    Args:
        classifier: What ``load_classifier`` gives.
        dataset: Columns ``id``, ``image`` or ``text`` (and perhaps ``text_pair``), and ``label`` in the
            model's classes.
        metrics: Further metrics, that ``evaluate.load`` finds.
        progress: Called with the number of examples done.

    Raises:
        InputError: If the labels are of other classes than the model's, or if the model puts out nan.
    """
    _check_labels(classifier, dataset)
    telling = all_metrics(classifier.target, len(classifier.label_names))
    names = tuple(dict.fromkeys([*telling, *metrics]))
    image = classifier.task == "image-classification"
    evaluator = (_ImageEvaluator if image else _TextEvaluator)(classifier, progress)
    columns = {"input_column": "image" if image else "text", "label_column": "label"}
    if not image and "text_pair" in dataset.column_names:
        columns["second_input_column"] = "text_pair"
    with TemporaryDirectory() as scratch:
        found = evaluator.compute(
            model_or_pipeline=classifier.pipe,
            data=dataset.with_format(None),
            metric=_Metrics(names, classifier.target, scratch, classifier.thresholds),
            **columns,
        )
    return EvaluationResult(
        metrics={name: found[name] for name in names},
        ids=tuple(dataset["id"]),
        labels=evaluator.labels,
        scores=evaluator.scores,
        target=classifier.target,
        label_names=classifier.label_names,
        seconds=found["total_time_in_seconds"],
        thresholds=classifier.thresholds,
    )


def _check_labels(classifier: Classifier, dataset: Dataset) -> None:
    if len(dataset) == 0:
        raise InputError(Problem("The data", "must hold at least one example"))
    feature = dataset.features["label"]
    names = getattr(getattr(feature, "feature", feature), "names", None)
    if names is not None and tuple(names) != classifier.label_names:
        expected, given = (", ".join(map(repr, some[:10])) for some in (classifier.label_names, names))
        problem = Problem("The data's classes", f"must be the model's: {expected}", given)
        raise InputError(problem)


class _Streamed:
    """What our evaluators do otherwise than those of ``evaluate``: keep all probabilities, and stream.

    The stock evaluators keep the likeliest class only, which leaves no log loss or ROC-AUC, and hold a
    dictionary for each class of each example until the end.
    """

    labels: np.ndarray
    scores: np.ndarray

    def __init__(self, classifier: Classifier, progress: Progress | None):
        super().__init__()
        self.classifier = classifier
        self.progress = progress

    def prepare_pipeline(self, model_or_pipeline: Pipeline, *args: Any, **kwargs: Any) -> Pipeline:
        """Take the pipeline as it is.

        evaluate 0.4.6 asks here for ``transformers.TFPreTrainedModel``, which transformers 5 no longer has.
        """
        return model_or_pipeline

    def prepare_data(self, *args: Any, **kwargs: Any) -> tuple[dict[str, np.ndarray], Any]:
        """Give the labels as the array that metrics take, and the inputs, read one by one."""
        metric_inputs, inputs = super().prepare_data(*args, **kwargs)  # type: ignore[misc]
        self.labels = label_array(
            metric_inputs["references"], self.classifier.target, len(self.classifier.label_names)
        )
        return {"references": self.labels}, inputs

    def call_pipeline(self, pipe: Pipeline, inputs: Any) -> tuple[np.ndarray, dict[str, float]]:
        """Predict all inputs, and take the time. The result is the logits [examples, classes]."""
        start = perf_counter()
        logits = []
        for row in compute_logits(self.classifier, self._examples(inputs)):
            logits.append(row)
            if self.progress is not None:
                self.progress(len(logits))
        return np.stack(logits), self._compute_time_perf(start, perf_counter(), len(logits))  # type: ignore[attr-defined]

    def predictions_processor(self, logits: np.ndarray, label_mapping: None) -> dict[str, np.ndarray]:
        """Make scores of the logits."""
        self.scores = probabilities(logits, self.classifier.target)
        return {"predictions": self.scores}

    def _examples(self, inputs: Any) -> Iterator[Any]:
        return iter(inputs)


class _ImageEvaluator(_Streamed, evaluate.ImageClassificationEvaluator):
    def _examples(self, inputs: Any) -> Iterator[Any]:
        return (to_rgb(image) for image in inputs)


class _TextEvaluator(_Streamed, evaluate.TextClassificationEvaluator):
    pass


class _Metrics(evaluate.Metric):
    """The metrics of this package as one module of ``evaluate``; nothing is fetched for it."""

    def __init__(
        self, names: Sequence[str], target: Target, cache_dir: str, thresholds: Sequence[float] | None
    ):
        self.metric_names = names
        self.target = target
        self.thresholds = thresholds
        super().__init__(keep_in_memory=True, cache_dir=cache_dir)

    def _info(self) -> evaluate.MetricInfo:
        amount, label = Value("float64"), Value("int64")
        features = {
            "single_label": {"predictions": List(amount), "references": label},
            "multi_label": {"predictions": List(amount), "references": List(label)},
            "regression": {"predictions": amount, "references": amount},
        }[self.target]
        return evaluate.MetricInfo(
            description="All metrics of a target.",
            citation="",
            inputs_description="Scores as predictions, labels as references.",
            features=Features(features),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return compute_metrics(
            self.metric_names, self.target, np.asarray(predictions), np.asarray(references), self.thresholds
        )
