"""Results of a run whose stages are done: the exported model, its calibration, and its evaluation with baselines."""

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from hf_finetune.data.content_hashes import HASHES, write_hashes
from hf_finetune.evaluation.calibration import calibration_error, fit_temperature, reliability
from hf_finetune.evaluation.classifier import COLUMNS, TEMPERATURE, THRESHOLDS, TOP_K, load_classifier
from hf_finetune.evaluation.evaluate import EvaluationResult, evaluate_model
from hf_finetune.evaluation.intervals import intervals
from hf_finetune.evaluation.metrics import compute_metrics, probabilities, without_nan
from hf_finetune.evaluation.predictions import write_predictions
from hf_finetune.evaluation.slices import evaluate_slices, sliced, training_slices
from hf_finetune.evaluation.thresholds import fit_thresholds
from hf_finetune.files import atomic_folder
from hf_finetune.models.adapters import merge_adapter
from hf_finetune.models.export import export_adapter, export_model
from hf_finetune.models.find_head import head_names
from hf_finetune.models.linear_head import fold_temperature_into_head
from hf_finetune.performance.execution_modes import ExecutionMode
from hf_finetune.report.confident_errors import describe_data, find_mistakes
from hf_finetune.report.run_record import DATA_FILE, ERRORS_FILE
from hf_finetune.runs.baselines import (
    compare_with_baselines,
    constant_baseline,
    fit_frozen_baselines,
    fit_simple_baselines,
    predictions_of,
    untrained_baseline,
)
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.targets import TARGETS
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.targets.top_scores import (
    MANY_CLASSES,
    MAX_SCORES_IN_MEMORY,
)
from hf_finetune.tasks import Inputs
from hf_finetune.training.manifest import write_json

__all__ = ["evaluate_run", "finish_model", "write_data"]

logger = logging.getLogger(__name__)

Progress = Callable[[int], None]
MIN_PROBABILITY = 1e-12
"""Lower bound of probabilities before the logarithm is taken."""


def finish_model(model: PreTrainedModel, prepared: PreparedRun, folder: Path) -> dict[str, Any]:
    """Save the model as ``RUN/model``, with its adapter merged, and ``RUN/adapter`` if the recipe asks for it.

    The temperature is fitted on the validation split, and stored in the model if the recipe asks for calibration.
    Decision thresholds are fitted and stored if the recipe asks for them.

    Args:
        model: Trained model; it is moved to the CPU, and its adapter is merged in place.
        prepared: Checked run.
        folder: Run directory.

    Returns:
        ``calibration`` and ``thresholds`` of ``metrics.json``, each only if fitted; empty without a validation split
        or classes.
    """
    spec = prepared.recipe.model
    model.cpu()
    if spec.adapter is not None:
        if prepared.save_format != "merged":
            with atomic_folder(folder / "adapter") as partial:
                export_adapter(model, head_names(model), partial, base=spec.path, revision=spec.revision)
        change = merge_adapter(model, prepared.task.modality.synthetic_batch(prepared.processor))
        logger.info(f"Adapter merged: logits change by at most {change:.1g} of the largest logit.")
    setattr(model.config, COLUMNS, dict(prepared.data.columns))
    if prepared.recipe.evaluation.top_k is not None:
        setattr(model.config, TOP_K, prepared.recipe.evaluation.top_k)
    _export(model, prepared, folder)
    if prepared.data.validation is None or not TARGETS[prepared.data.target].has_classes:
        return {}
    held_out = _subsample(prepared.data.validation, len(prepared.data.label_names))
    result = _evaluate(prepared, folder, held_out, keep_all=True)
    content: dict[str, Any] = {}
    scores, calibration = _fit_calibration(model, prepared, result)
    content["calibration"] = calibration
    chosen = prepared.recipe.evaluation.thresholds
    if TARGETS[prepared.data.target].has_several_classes and chosen:
        fitted = fit_thresholds(scores, result.labels, common=chosen == "common")
        thresholds = [round(threshold, 6) for threshold in fitted.tolist()]
        setattr(model.config, THRESHOLDS, thresholds)
        content["thresholds"] = dict(zip(result.label_names, thresholds, strict=True))
    if prepared.recipe.evaluation.calibrate or "thresholds" in content:
        _export(model, prepared, folder)
    return content


def _subsample(validation: Any, classes: int) -> Any:
    """Return the validation examples, or evenly spaced ones of them if all probabilities would need too much memory."""
    most = max(1, MAX_SCORES_IN_MEMORY // classes)
    if classes <= MANY_CLASSES or len(validation) <= most:
        return validation
    logger.info(f"Calibration is fitted on {most:,} of the {len(validation):,} validation examples.")
    return validation.select(np.linspace(0, len(validation) - 1, most).astype(int).tolist())


def _export(model: PreTrainedModel, prepared: PreparedRun, folder: Path) -> None:
    with atomic_folder(folder / "model") as partial:
        export_model(model, prepared.processor, partial)


def _evaluate(
    prepared: PreparedRun,
    folder: Path,
    dataset: Any,
    progress: Progress | None = None,
    *,
    keep_all: bool = False,
) -> EvaluationResult:
    """Evaluate the saved model, loaded as its users will load it."""
    classifier = load_classifier(
        folder / "model",
        batch_size=prepared.recipe.evaluation.batch_size,
        trust_remote_code=prepared.trust_remote_code,
    )
    extra = [name for name in prepared.metric_names if name != "loss"]
    costs = prepared.recipe.evaluation.costs
    return evaluate_model(
        classifier, dataset, metrics=extra, costs=costs, keep_all=keep_all, progress=progress
    )


def _fit_calibration(
    model: PreTrainedModel, prepared: PreparedRun, result: EvaluationResult
) -> tuple[np.ndarray, dict[str, Any]]:
    """Fit the temperature on validation predictions, and store it in the model if the recipe asks for calibration.

    It is stored in the weights of the head, or in the config if the last layer of the head is not linear.

    Returns:
        The scores of the stored model [examples, classes], and ``calibration`` of ``metrics.json``.
    """
    target = result.target
    logits = _logits(result.scores, target)
    temperature = fit_temperature(logits, result.labels, target)
    calibrated = probabilities(logits / temperature, target)
    calibration: dict[str, Any] = {
        "temperature": temperature,
        "applied": None,
        "validation": {
            "before": _calibration_metrics(result.examples),
            "after": _calibration_metrics(replace(result.examples, scores=calibrated)),
        },
    }
    if not prepared.recipe.evaluation.calibrate:
        return result.scores, calibration
    if fold_temperature_into_head(
        model, head_names(model), temperature, prepared.task.modality.synthetic_batch(prepared.processor)
    ):
        calibration["applied"] = "head"
        logger.info(
            f"The temperature {temperature:.3g} is folded into the weights of the head, so every program outputs "
            "calibrated probabilities."
        )
    else:
        setattr(model.config, TEMPERATURE, temperature)
        calibration["applied"] = "predict"
        logger.info(
            f"The temperature {temperature:.3g} is stored in the config: predict and evaluate apply it, "
            "plain transformers does not, because the head has no final linear layer."
        )
    return calibrated, calibration


def _logits(scores: np.ndarray, target: str) -> np.ndarray:
    """Return logits [examples, classes] of scores. A constant per example is lost; it does not affect a softmax."""
    clipped = np.clip(scores, MIN_PROBABILITY, 1.0)
    if TARGETS[target].is_exclusive:
        return np.log(clipped)
    return np.log(clipped) - np.log(np.clip(1 - scores, MIN_PROBABILITY, 1.0))


def _calibration_metrics(examples: ScoredExamples) -> dict[str, float]:
    loss = compute_metrics(["log_loss"], examples)["log_loss"]
    return {"ece": calibration_error(examples.scores, examples.labels), "log_loss": loss}


def evaluate_run(
    prepared: PreparedRun,
    inputs: Inputs,
    folder: Path,
    modes: list[ExecutionMode],
    device: torch.device,
    progress: Progress | None,
) -> dict[str, Any]:
    """Evaluate the saved model on the test split, once, and write ``predictions.parquet``.

    The most confident errors and the predictions of the baselines are written too.

    Args:
        prepared: Checked run.
        inputs: Model inputs on which the stages trained.
        folder: Run directory.
        modes: Execution mode of each stage.
        device: Device on which the linear probe computes its features.
        progress: Callback that receives the number of test examples predicted so far.

    Returns:
        ``test``, ``test_interval``, ``target``, ``baselines`` and ``baseline_differences`` of ``metrics.json``, and if
        they apply ``test_groups``, ``baseline_fit``, ``slices`` and ``test_calibration``. Without a test split: empty
        ``test``, ``test_interval`` and ``baselines``.
    """
    if prepared.data.test is None:
        return {"test": {}, "test_interval": {}, "baselines": {}}
    stored = prepared.recipe.evaluation.probabilities
    result = _evaluate(prepared, folder, prepared.data.test, progress, keep_all=stored == "all")
    for note in result.notes:
        logger.info(f"Test split: {note}")
    training = training_slices(prepared.data.train)
    labels = (split["label"][:] for split in (prepared.data.train, prepared.data.test))
    slices = sliced(prepared.data.test, training) | TARGETS[result.target].slices(*labels)
    predictions = predictions_of(result)
    write_predictions(folder / "predictions.parquet", predictions, result.rule, slices, stored)
    write_json(folder / ERRORS_FILE, find_mistakes(predictions, prepared.data.test, result.rule))
    metric_names = [name for name in prepared.metric_names if name != "loss"]
    ends = intervals(metric_names, result.examples, seed=prepared.recipe.seed)
    content: dict[str, Any] = {
        "test": without_nan(result.metrics),
        "test_interval": {name: list(entry) if entry else None for name, entry in ends.items()},
        "target": result.target,
        "test_examples": len(result.ids),
        "test_seconds": round(result.seconds, 3),
    }
    if result.groups is not None:
        content["test_groups"] = {"column": result.group_column, "groups": len(set(result.groups))}
    if slices:
        content["slices"] = evaluate_slices(result, slices, training, metric_names, prepared.recipe.seed)
    fitted = fit_simple_baselines(prepared) | fit_frozen_baselines(prepared, modes, device)
    if "linear_probe" in fitted:
        content["baseline_fit"] = fitted["linear_probe"].about
    baselines = constant_baseline(prepared, result) | untrained_baseline(prepared, device)
    baselines |= {name: probe.scores for name, probe in fitted.items()}
    content |= compare_with_baselines(prepared, result, baselines, folder)
    if TARGETS[result.target].has_classes:
        bins = [asdict(entry) for entry in reliability(result.scores, result.labels)]
        ece = calibration_error(result.scores, result.labels)
        content["test_calibration"] = {"ece": ece, "bins": bins}
    return content


def write_data(prepared: PreparedRun, folder: Path) -> None:
    """Write the description of the data to ``data.json``, and the hashes of its inputs to ``examples.npz``.

    ``data.json`` has the number of examples per split and class, the columns, and the notes on data and labels.
    """
    data = prepared.data
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    content = describe_data(splits, data.target, data.label_names, data.notes)
    more = {"label_notes": list(data.label_notes), "columns": dict(data.columns)}
    write_json(folder / DATA_FILE, {**content, **more})
    write_hashes(folder / HASHES, data.hashes)
