"""Predict with a fine-tuned model, as a stream of examples in constant memory."""

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from hf_finetune.data.table_options import NO_OPTIONS, TableOptions
from hf_finetune.evaluation.classifier import Classifier, logit_batches
from hf_finetune.evaluation.example_reading import PredictionExample, PredictionInputs
from hf_finetune.evaluation.finished import load_finished, run_options, training_columns
from hf_finetune.evaluation.prediction_inputs import open_inputs
from hf_finetune.targets import TARGETS
from hf_finetune.targets.decisions import decide, probabilities
from hf_finetune.targets.top_scores import MANY_CLASSES, top_indices

__all__ = ["Prediction", "PredictionStream", "Predictor", "predict"]

# Examples whose ids are kept in memory while a batch fills; bounds the memory if many in a row are unreadable.
_MAX_PENDING = 10_000
_MAX_LISTED_FAILURES = 10
"""Number of failures whose ids and errors are stored."""


@dataclass(frozen=True)
class Prediction:
    """Prediction of a model for one example.

    Attributes:
        id: Id of the example.
        label: The most probable class, the classes that the decision rule selects (multi-label: those whose probability
            reaches 0.5, unless the model has another rule), or the predicted value (regression). None if there is an
            error.
        score: Probability of the most probable class; None unless the labels are single-label.
        scores: Probability by class, for the 20 most probable ones only if there are more than 200 classes. Without
            classes, the ``shown_scores`` of the label type: those of a forecast are quantiles.
        error: Reason why there is no prediction; None if there is one.
        row: Cells of the example's table row by column, if columns are carried along.
    """

    id: str
    label: str | list[str] | float | list[float] | None = None
    score: float | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    row: Mapping[str, Any] = field(default_factory=dict)


class PredictionStream:
    """Iterable of predictions in the order of the inputs, computed on demand; it can be iterated once.

    Attributes:
        classifier: The model that predicts.
        total: Total number of predictions and errors; None if it is not known.
        done: Number of predictions and errors so far.
        failed: Number of errors so far.
        first_failures: Ids and errors of the first ten failures.
        remarks: Remarks on how the examples so far were read, and on truncated ones.
        columns: Columns of the input tables, if they are carried along.
    """

    def __init__(self, classifier: Classifier, inputs: PredictionInputs):
        self.classifier = classifier
        self.total = inputs.total
        self.done = 0
        self.failed = 0
        self.first_failures: list[tuple[str, str]] = []
        self.remarks = classifier.modality.remarks()
        self.columns = inputs.columns
        self._items = inputs.items

    def __iter__(self) -> Iterator[Prediction]:
        for first in self._items:
            for prediction in self._predict(chain([first], islice(self._items, _MAX_PENDING - 1))):
                self.done += 1
                if prediction.error is not None:
                    self.failed += 1
                    self._record_failure(prediction.id, prediction.error)
                yield prediction

    def _record_failure(self, name: str, error: str) -> None:
        if len(self.first_failures) < _MAX_LISTED_FAILURES:
            self.first_failures.append((name, error))

    def _predict(self, items: Iterable[PredictionExample]) -> Iterator[Prediction]:
        """Run the pipeline on the readable items, and yield predictions and failures in the order of the items."""
        waiting: deque[PredictionExample] = deque()

        def readable() -> Iterator[Any]:
            for item in items:
                # Only id, error and row are queued, so that examples are not held in memory.
                waiting.append(PredictionExample(item.id, error=item.error, row=item.row))
                if item.facts is not None:
                    self.remarks.add(item.id, item.facts)
                if item.error is None:
                    yield item.content

        reads_ahead = self.total is not None  # else predictions are needed as soon as a batch has arrived
        for logits in logit_batches(self.classifier, readable(), self.remarks, reads_ahead=reads_ahead):
            for prediction in _predictions(logits, self.classifier):
                while waiting[0].error is not None:
                    yield _failure(waiting.popleft())
                item = waiting.popleft()
                yield replace(prediction, id=item.id, row=item.row)
        while waiting:
            yield _failure(waiting.popleft())


class Predictor:
    """Fine-tuned model that predicts files, tables or texts; it is loaded once, and called as often as needed.

    Preprocessing, temperature and decision rule are those of ``hf-finetune predict`` and of the evaluation in the run.

    Args:
        model_or_run: Run directory, checkpoint folder or Hub id.
        task: Expected pipeline task, by its tag on the Hub; None takes the task of the model.
        batch_size: Examples per forward pass.
        trust_remote_code: Whether code stored next to the weights may run.

    Attributes:
        classifier: The loaded model: ``task``, ``target``, ``label_names``, ``temperature``, ``rule``, and
            ``pipe``, its pipeline of transformers.

    Raises:
        InputError: If there is no such model, if it cannot be loaded, or if it is for another task.

    Example:
        >>> from hf_finetune import Predictor
        >>> predictor = Predictor("runs/reviews")
        >>> predictor.classifier.label_names
        ('bad', 'good')
        >>> [prediction.label for prediction in predictor(["good film", "bad film"])]
        ['good', 'bad']
    """

    def __init__(
        self,
        model_or_run: str | Path,
        *,
        task: str | None = None,
        batch_size: int = 64,
        trust_remote_code: bool = False,
    ):
        classifier = load_finished(
            model_or_run, task=task, batch_size=batch_size, trust_remote_code=trust_remote_code
        )
        self.classifier = replace(classifier, columns=training_columns(model_or_run, classifier))
        self._options = run_options(model_or_run)

    def predict(
        self,
        inputs: str | Path | Sequence[str | Path],
        *,
        columns: Mapping[str, str | None] | None = None,
        keep: bool = False,
    ) -> list[Prediction]:
        """Predict one input or several; calling the predictor does the same.

        Args:
            inputs: Files, folders or tables; for a model of texts also the texts themselves.
            columns: Columns of the tables by role, such as ``{"label": "stars", "id": "number"}``. Missing roles
                default to the columns used in training, or are inferred.
            keep: Whether predictions contain the cells of their table row.

        Returns:
            A ``Prediction`` for each example in order, with ``label``, ``score`` and ``scores`` (the probability by
            class), or with ``error`` if the example cannot be read.

        Raises:
            InputError: If there is nothing to predict, or a table or folder contains no example.

        Example:
            >>> from hf_finetune import Predictor
            >>> prediction = Predictor("runs/reviews").predict("good film")[0]
            >>> prediction.label, prediction.score > 0.9, sorted(prediction.scores)
            ('good', True, ['bad', 'good'])
        """
        several = [inputs] if isinstance(inputs, str | Path) else inputs
        names = [str(name) for name in several]
        return list(predict(self.classifier, names, columns=columns, options=self._options, keep=keep))

    __call__ = predict


def predict(
    model: str | Path | Classifier,
    inputs: Sequence[str],
    *,
    task: str | None = None,
    batch_size: int = 64,
    columns: Mapping[str, str | None] | None = None,
    stdin: Iterable[str] | None = None,
    trust_remote_code: bool = False,
    options: TableOptions = NO_OPTIONS,
    keep: bool = False,
) -> PredictionStream:
    """Predict files, folders, tables, texts or lines of standard input.

    An input that cannot be read becomes a prediction with an error and does not stop the others.

    Args:
        model: Run directory, checkpoint folder, Hub id, or a model as ``load_classifier`` returns it.
        inputs: Paths, texts or ``-``, see ``open_inputs``.
        task: Expected pipeline task; None takes the task of the model.
        batch_size: Examples per forward pass.
        columns: Columns of the tables by role: those of the modality, and id. Missing roles default to the columns
            used in training, or are inferred.
        stdin: Lines to read for ``-``; None reads standard input.
        trust_remote_code: Whether code stored next to the weights may run.
        options: Encoding, separator and decimal mark of text tables; those that are None are detected.
        keep: Whether predictions contain the columns of the tables.

    Returns:
        The predictions, computed while iterating.

    Raises:
        InputError: If the model cannot be loaded, or if there is nothing to predict.
    """
    if isinstance(model, Classifier):
        classifier, columns_in_training = model, model.columns
    else:
        classifier = load_finished(
            model, task=task, batch_size=batch_size, trust_remote_code=trust_remote_code
        )
        columns_in_training = training_columns(model, classifier)
    lines = sys.stdin if stdin is None else stdin
    opened = open_inputs(
        inputs,
        classifier.modality,
        columns=columns,
        training_columns=columns_in_training,
        stdin=lines,
        options=options,
        keep=keep,
    )
    return PredictionStream(classifier, opened)


def _failure(item: PredictionExample) -> Prediction:
    return Prediction(item.id, error=item.error, row=item.row)


def _predictions(logits: np.ndarray, classifier: Classifier) -> Iterator[Prediction]:
    """Yield the prediction of each row of logits [examples, classes], or of each text [examples], with an empty id."""
    target, names = classifier.target, classifier.label_names
    if TARGETS[target].is_text:
        yield from (Prediction("", TARGETS[target].decode(text, names)) for text in logits)
        return
    finite = np.isfinite(logits).all(axis=1)
    scores = probabilities(np.where(finite[:, None], logits, 0), target)
    decisions = decide(scores, target, classifier.rule)
    class_indices: Any = None
    if TARGETS[target].has_classes:
        all_classes = np.arange(len(names))
        class_indices = (
            top_indices(scores) if len(names) > MANY_CLASSES else np.broadcast_to(all_classes, scores.shape)
        )
    for row, decision in enumerate(decisions):
        if not finite[row]:
            yield Prediction("", error="The model's output is not finite.")
            continue
        label = TARGETS[target].decode(decision, names)
        if not TARGETS[target].has_classes:
            yield Prediction("", label, None, TARGETS[target].shown_scores(scores[row]))
            continue
        values = scores[row, class_indices[row]].tolist()
        by_class = {
            names[index]: value for index, value in zip(class_indices[row].tolist(), values, strict=True)
        }
        yield Prediction("", label, max(values) if TARGETS[target].is_exclusive else None, by_class)
