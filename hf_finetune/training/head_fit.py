"""Stage without optimizer steps: the linear head is fitted to the outputs of the frozen layers on the main process."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import DataLoader
from transformers import EvalPrediction, PreTrainedModel

from hf_finetune.distributed import broadcast_from_main
from hf_finetune.models.linear_head import read_linear, record_inputs, set_linear
from hf_finetune.performance.allocator import keep_freed_memory
from hf_finetune.performance.execution_modes import DTYPES
from hf_finetune.planning.best_epoch import is_better
from hf_finetune.planning.stages import PlannedStage
from hf_finetune.targets import TARGETS
from hf_finetune.tasks.seeded_augmentation import set_epoch
from hf_finetune.training.execution import StageExecution
from hf_finetune.training.linear_fit import LinearFit, fit_linear, fit_metadata
from hf_finetune.training.linear_folds import assign_folds
from hf_finetune.training.stage_inputs import StageData, StageEvaluation

__all__ = ["FIT_PHRASES", "HeadFitResult", "fit_head", "format_fit"]

FIT_PHRASES = {"logistic_regression": "by logistic regression", "ridge": "by ridge regression"}
"""Phrase of each fitting method in log lines."""


@dataclass(frozen=True)
class HeadFitResult:
    """Result of fitting a head.

    Attributes:
        views: Number of views of each training example that were used.
        validation: Metrics of the fitted head on the validation split; empty without one.
        start: The same metrics of the head before the fit.
        kept_initial_head: Whether the head before the fit was better and is restored.
        metadata: Method, ``C`` or ``alpha``, and cross-validation of the fit, for ``metrics.json``.
    """

    views: int
    validation: dict[str, float]
    metadata: dict[str, Any]
    start: dict[str, float] = field(default_factory=dict)
    kept_initial_head: bool = False


@dataclass(frozen=True)
class _HeadPass:
    """Inputs of the head [examples, features], logits [examples, classes] and labels of a pass over examples."""

    features: np.ndarray
    logits: np.ndarray
    labels: np.ndarray


def fit_head(
    model: PreTrainedModel,
    stage: PlannedStage,
    data: StageData,
    evaluation: StageEvaluation,
    execution: StageExecution,
    options: Mapping[str, Any],
) -> HeadFitResult:
    """Fit the head of a model on the main process, and set the result on all processes.

    Args:
        model: Model that is frozen except for its head, which is changed in place.
        stage: Stage with its plan, which trains the head only: a weight and a bias.
        data: Examples, or their cached prefix outputs.
        evaluation: Evaluation settings. The previous head is restored if its ``best_metric`` is better than that of
            the fitted one.
        execution: Execution mode and prefix cache of the stage.
        options: Further arguments of ``fit_linear``.

    Returns:
        Metrics of the head before and after the fit, which of the two is kept, and the entry about the fit.
    """
    state = PartialState()
    model.to(state.device).eval()
    layer = model.get_submodule(stage.plan.trainable[0].rpartition(".")[0])
    views = execution.report.views if execution.cache is not None else 1
    outputs = partial(_collect_outputs, model, layer, execution, data)

    def fit() -> tuple[LinearFit, dict[str, float], dict[str, float], bool]:
        start = _validation_metrics(outputs, data, evaluation)
        weight, bias = read_linear(layer)
        fitted = _fit_linear(outputs, layer, stage, data, views, options)
        set_linear(layer, fitted.weight, fitted.bias)
        metrics = _validation_metrics(outputs, data, evaluation)
        keeps = _is_start_better(start, metrics, evaluation)
        return replace(fitted, weight=weight, bias=bias) if keeps else fitted, metrics, start, keeps

    fitted, metrics, start, keeps = broadcast_from_main(state, fit)
    set_linear(layer, fitted.weight, fitted.bias)
    return HeadFitResult(views, metrics, fit_metadata(fitted, data.target), start, keeps)


def _validation_metrics(
    outputs: Callable[[Any, int], _HeadPass], data: StageData, evaluation: StageEvaluation
) -> dict[str, float]:
    if data.validation is None:
        return {}
    predicted = outputs(data.validation, evaluation.batch_size)
    return evaluation.compute_metrics(
        EvalPrediction(predictions=predicted.logits, label_ids=predicted.labels)
    )


def _fit_linear(
    outputs: Callable[[Any, int], _HeadPass],
    layer: Any,
    stage: PlannedStage,
    data: StageData,
    views: int,
    options: Mapping[str, Any],
) -> LinearFit:
    """Fit a linear layer to the inputs of the head for all views of the training examples."""
    passes = []
    for view in range(views):
        set_epoch(data.train, view)
        passes.append(outputs(data.train, stage.spec.batch_size))
    fold_labels = _labels_for_folds(passes[0].labels, data.target)
    return fit_linear(
        np.concatenate([head_pass.features for head_pass in passes]),
        np.concatenate([head_pass.labels for head_pass in passes]),
        data.target,
        layer.weight.shape[0],
        folds=assign_folds(fold_labels, data.target, views, stage.seed, groups=data.groups),
        **options,
    )


def _is_start_better(
    start: Mapping[str, float], fitted: Mapping[str, float], evaluation: StageEvaluation
) -> bool:
    """Return whether the head before the fit has the better validation metrics."""
    if evaluation.best_metric is None:
        return False
    before, after = (
        {f"eval_{name}": value for name, value in metrics.items()} for metrics in (start, fitted)
    )
    return is_better(before, after, evaluation.best_metric, greater_is_better=evaluation.greater_is_better)


def _collect_outputs(
    model: PreTrainedModel,
    layer: torch.nn.Module,
    execution: StageExecution,
    data: StageData,
    examples: Any,
    batch_size: int,
) -> _HeadPass:
    """Run the model over examples in their order, from the cached prefix outputs if there are any."""
    loader = DataLoader(examples, batch_size, collate_fn=data.collate, num_workers=data.workers)
    device, entry, dtype = (
        model.device,
        execution.cache.runner if execution.cache else None,
        DTYPES[execution.mode.precision],
    )
    logits, labels = [], []
    with (
        torch.no_grad(),
        keep_freed_memory(),
        torch.autocast(device.type, dtype) if dtype else nullcontext(),
        entry.active() if entry else nullcontext(),
        record_inputs(layer) as head_calls,
    ):
        for batch in loader:
            batch = _moved(batch, device)
            labels.append(batch.pop("labels").cpu())
            if entry is not None:
                entry.load_batch(batch)
            logits.append(model(**batch).logits.float().cpu())
    # record_inputs returns the input and the output of each call
    features = torch.cat([head_input.float().cpu() for head_input in head_calls[::2]])
    return _HeadPass(features.numpy(), torch.cat(logits).numpy(), torch.cat(labels).numpy())


def _moved(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        name: tuple(tensor.to(device) for tensor in value) if isinstance(value, tuple) else value.to(device)
        for name, value in batch.items()
    }


def _labels_for_folds(labels: np.ndarray, target: str) -> list[Any]:
    """Return labels in the form of ``assign_folds``: class indices, lists of them, or regression targets."""
    if TARGETS[target].has_several_classes:
        return [np.flatnonzero(row == 1).tolist() for row in labels]
    if labels.ndim == 2:
        return list(labels.argmax(axis=1).tolist())
    return list(labels.tolist())


def format_fit(stage: str, about: Mapping[str, Any], validation: Mapping[str, float]) -> str:
    """Return the log line about a fit: method, chosen and tried ``C`` or ``alpha``, and validation metrics.

    Args:
        stage: Name of the stage.
        about: Entry about the fit, from ``fit_metadata``.
        validation: Metrics of the fitted head on the validation split.
    """
    name = "alpha" if "alpha" in about else "C"
    scores = ", ".join(f"{metric} {value:.4f}" for metric, value in validation.items())
    tried = ", ".join(f"{trial[name]:g}" for trial in about["cross_validation"])
    choice = f"{name} {about[name]:g} selected from {tried} by cross-validation"
    line = f"Stage {stage}: fitted {FIT_PHRASES[about['method']]}, {choice}"
    return f"{line}; validation {scores}." if scores else f"{line}."
