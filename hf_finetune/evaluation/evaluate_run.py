"""Evaluate a fine-tuned model on the data of its run or on other labeled data."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_finetune.data.content_hashes import HASHES, count_known, read_hashes, short_hashes
from hf_finetune.data.evaluation_data import load_for_evaluation
from hf_finetune.data.tables import content_keys
from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.classifier import Classifier
from hf_finetune.evaluation.evaluate import EvaluationResult, evaluate_model
from hf_finetune.evaluation.finished import (
    find_run,
    find_run_recipe,
    load_finished,
    training_columns,
)
from hf_finetune.evaluation.intervals import intervals
from hf_finetune.evaluation.metrics import check_metric_names, default_metrics
from hf_finetune.evaluation.run_data import RunSplit, load_run_split
from hf_finetune.evaluation.slices import evaluate_slices, sliced
from hf_finetune.models.library_logging import quiet_libraries
from hf_finetune.targets.metric import MetricSettings

__all__ = [
    "count_overlap",
    "evaluate",
    "load_labeled",
]

logger = logging.getLogger(__name__)


@quiet_libraries()
def evaluate(
    model_or_run: str | Path,
    data: str | Path | None = None,
    *,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
    trust_remote_code: bool = False,
) -> EvaluationResult:
    """Evaluate a fine-tuned model.

    Args:
        model_or_run: Run directory, checkpoint folder or Hub id.
        data: Labeled data, as in a recipe; None is the data of the run, split as in the run. If that data has changed
            since, the examples of the run are identified by their content, and new ones are ignored.
        split: Name of the split; None is the test split.
        columns: Columns of ``data`` by role: those of the modality, and label. Missing roles default to the columns
            used in training, or are inferred.
        batch_size: Examples per forward pass.
        progress: Called with the number of examples predicted so far.
        trust_remote_code: Whether code of the checkpoint and of the run's metrics may run.

    Returns:
        ``metrics`` by name with their ``intervals``, metrics of the ``slices``, and the predictions: ``ids``,
        ``labels`` and ``scores``, the probabilities ``[examples, classes]``.

    Raises:
        InputError: If there is no such model, data or split, or the data has labels that the model does not know.

    Example:
        >>> from hf_finetune import evaluate
        >>> result = evaluate("runs/reviews")
        >>> result.metrics["accuracy"], result.scores.shape
        (1.0, (4, 2))
        >>> evaluate("runs/reviews/model", "other.csv", batch_size=8).metrics["accuracy"]
        1.0
    """
    recipe, data = find_run_recipe(model_or_run), None if data is None else str(data)
    classifier = load_finished(model_or_run, batch_size=batch_size, trust_remote_code=trust_remote_code)
    metrics = recipe.metrics if recipe else ()
    costs = recipe.evaluation.costs if recipe else None
    settings = MetricSettings(classifier.label_names, costs or {})
    check_metric_names(metrics, classifier.target, settings=settings, trust_remote_code=trust_remote_code)
    loaded = _load(model_or_run, classifier, data=data, split=split, columns=columns)
    dataset = loaded.dataset
    result = evaluate_model(classifier, dataset, metrics=metrics, costs=costs, progress=progress)
    names = [name for name in metrics or default_metrics(result.target) if name in result.metrics]
    seed = recipe.seed if recipe else 0
    ends = intervals(names, result.examples, seed=seed)
    training = _training_slices(model_or_run)
    slices = evaluate_slices(result, sliced(dataset, training), training, names, seed)
    seen = count_overlap(model_or_run, dataset) if data is not None else None
    return replace(result, intervals=ends, slices=slices, seen=seen, changed=loaded.changed)


def count_overlap(model_or_run: str | Path, dataset: Dataset) -> dict[str, int] | None:
    """Count how many examples of other data also occur in each split of a run's data.

    Args:
        model_or_run: Run directory, checkpoint folder or Hub id.
        dataset: Examples, with the columns of ``LabeledData``.

    Returns:
        Number of examples by split of the run; None if the contents of the run's data are not known.
    """
    run = find_run(model_or_run)
    known = read_hashes(run / HASHES) if run is not None else None
    if known is None:
        return None
    hashes = short_hashes(content_keys(dataset))
    return {split: count_known(hashes, numbers) for split, numbers in known.items()}


def load_labeled(
    model_or_run: str | Path,
    classifier: Classifier,
    *,
    data: str | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Dataset:
    """Load labeled examples to evaluate a fine-tuned model on.

    Args:
        model_or_run: Run directory, checkpoint folder or Hub id.
        classifier: The model, as ``load_classifier`` returns it.
        data: Labeled data, as in a recipe; None is the data of the run, split as in the run. If that data has changed
            since, the examples of the run are identified by their content, and new ones are ignored.
        split: Name of the split; None is the test split.
        columns: Columns of ``data`` by role: those of the modality, and label. Missing roles default to the columns
            used in training, or are inferred.

    Returns:
        Dataset in the form that ``evaluate_model`` takes.

    Raises:
        MissingSplitError: If the data, or the run, has no such split.
        InputError: If the data cannot be used, or it has labels that the model does not know.
    """
    return _load(model_or_run, classifier, data=data, split=split, columns=columns).dataset


def _load(
    model_or_run: str | Path,
    classifier: Classifier,
    *,
    data: str | None,
    split: str | None,
    columns: Mapping[str, str] | None,
) -> RunSplit:
    """Load examples as ``load_labeled`` does, with a note if the data of the run has changed."""
    recipe = find_run_recipe(model_or_run)
    if data is not None:
        dataset = load_for_evaluation(
            data,
            modality=classifier.modality,
            target=classifier.target,
            label_names=classifier.label_names,
            spec=recipe.data if recipe else None,
            slices=recipe.evaluation.slices if recipe else (),
            split=split,
            named=columns or {},
            training_columns=training_columns(model_or_run, classifier),
        )
        return RunSplit(dataset)
    run = find_run(model_or_run)
    if recipe is None or run is None:
        repair = "Only a run records its data."
        raise InputError(Problem("--data", "is required unless the model is a run", "", repair))
    run_split = load_run_split(run, recipe, classifier, split or "test")
    if run_split.changed is not None:
        logger.warning("%s", run_split.changed)
    return run_split


def _training_slices(model_or_run: str | Path) -> dict[str, Any]:
    """Read the slices that a run was trained on, by column; empty for a model that does not belong to a run."""
    run = find_run(model_or_run)
    if run is None or not (run / "metrics.json").is_file():
        return {}
    slices: dict[str, Any] = json.loads((run / "metrics.json").read_text(encoding="utf-8")).get("slices", {})
    return slices
