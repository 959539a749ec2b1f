"""A stage without steps: the head is fitted to what the frozen layers give, on the first process, and put in place."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import DataLoader
from transformers import EvalPrediction, PreTrainedModel

from hf_finetune.data.seeded_augmentation import set_epoch
from hf_finetune.distributed import broadcast_from_main
from hf_finetune.methods.class_balance import ClassBalance
from hf_finetune.models.linear_head import read_linear, set_linear, taking_inputs
from hf_finetune.performance.allocator import keep_freed_memory
from hf_finetune.performance.execution_modes import DTYPES
from hf_finetune.planning.best_epoch import is_better
from hf_finetune.training.execution import StageExecution
from hf_finetune.training.linear_fit import LinearFit, about_fit, assign_folds, fit_linear

__all__ = ["FITS", "Fitted", "fit_head", "fit_line"]

FITS = {"logistic_regression": "by logistic regression", "ridge": "by ridge regression"}


@dataclass(frozen=True)
class Fitted:
    """What came of a fit.

    Attributes:
        versions: Number of versions of each training example that it saw.
        validation: Metrics on the validation split; empty without one.
        start: The same of the head as it was before the fit.
        keeps_start: Whether the head as it was is better, and was put back.
        about: How it was found, for ``metrics.json``.
    """

    versions: int
    validation: dict[str, float]
    about: dict[str, Any]
    start: dict[str, float] = field(default_factory=dict)
    keeps_start: bool = False


@dataclass(frozen=True)
class _Outputs:
    """What the head took and gave, and the labels beside it."""

    features: np.ndarray
    logits: np.ndarray
    labels: np.ndarray


def fit_head(
    model: PreTrainedModel,
    head: Sequence[str],
    fast: StageExecution,
    *,
    target: Any,
    train: Any,
    validation: Any,
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    compute_metrics: Callable[[EvalPrediction], dict[str, float]],
    batch_size: int,
    evaluation_batch_size: int,
    workers: int,
    seed: int,
    best_metric: str | None = None,
    greater_is_better: bool = False,
    balance: ClassBalance | None = None,
    groups: Sequence[int] = (),
) -> Fitted:
    """Fit the head of a model, on every process alike.

    Args:
        model: Frozen but for its head; that is changed in place.
        head: Names of the head's parameters: a weight and a bias.
        fast: How the stage computes, and what it has kept of the frozen layers.
        target: What the labels are.
        train: Training examples, or what was kept of them.
        validation: Validation examples, or what was kept of them; None if there are none.
        collate: Makes a batch.
        compute_metrics: From an ``EvalPrediction``.
        batch_size: Training examples per forward pass.
        evaluation_batch_size: Validation examples per forward pass.
        workers: Data loader processes.
        seed: Divides the examples for the cross-validation.
        best_metric: Metric on the validation split by which the fitted head must not be worse than the one before;
            None takes the fitted one in any case.
        greater_is_better: Whether a better model has the greater value of it.
        balance: How scarce classes get their share: by factors or shifts; None leaves them as they are.
        groups: Group number of each training example, kept together by the cross-validation.
    """
    state = PartialState()
    model.to(state.device).eval()
    layer = model.get_submodule(head[0].rpartition(".")[0])
    versions = fast.report.views if fast.cache is not None else 1

    def outputs(examples: Any, size: int) -> _Outputs:
        return _run_through(
            model, layer, fast, DataLoader(examples, size, collate_fn=collate, num_workers=workers)
        )

    def judged() -> dict[str, float]:
        if validation is None:
            return {}
        said = outputs(validation, evaluation_batch_size)
        return compute_metrics(EvalPrediction(predictions=said.logits, label_ids=said.labels))

    def fit() -> tuple[LinearFit, dict[str, float], dict[str, float], bool]:
        found, start = [], judged()
        before = LinearFit(*read_linear(layer), 0.0)
        for version in range(versions):
            set_epoch(train, version)
            found.append(outputs(train, batch_size))
        labels = np.concatenate([each.labels for each in found])
        folds = assign_folds(_plain(found[0].labels, target), target, versions, seed, groups=groups)
        made = fit_linear(
            np.concatenate([each.features for each in found]),
            labels,
            target,
            layer.weight.shape[0],
            folds=folds,
            factors=balance.factors if balance else None,
            shifts=balance.shifts if balance else None,
        )
        set_linear(layer, made.weight, made.bias)
        metrics = judged()
        one, other = ({f"eval_{name}": value for name, value in each.items()} for each in (start, metrics))
        keeps = best_metric is not None and is_better(
            one, other, best_metric, greater_is_better=greater_is_better
        )
        if keeps:
            made = replace(made, weight=before.weight, bias=before.bias)
        return made, metrics, start, keeps

    made, metrics, start, keeps = broadcast_from_main(state, fit)
    set_linear(layer, made.weight, made.bias)
    return Fitted(versions, metrics, about_fit(made, target), start, keeps)


def _run_through(
    model: PreTrainedModel, layer: torch.nn.Module, fast: StageExecution, loader: DataLoader
) -> _Outputs:
    """Compute all examples in their order, behind what was kept where something was."""
    device, entry, dtype = model.device, fast.cache.entry if fast.cache else None, DTYPES[fast.way.precision]
    logits, labels = [], []
    with (
        torch.no_grad(),
        keep_freed_memory(),
        torch.autocast(device.type, dtype) if dtype else nullcontext(),
        entry.passing() if entry else nullcontext(),
        taking_inputs(layer) as found,
    ):
        for batch in loader:
            batch = _moved(batch, device)
            labels.append(batch.pop("labels").cpu())
            if entry is not None:
                entry.take(batch)
            logits.append(model(**batch).logits.float().cpu())
    features = torch.cat([each.float().cpu() for each in found[::2]])
    return _Outputs(features.numpy(), torch.cat(logits).numpy(), torch.cat(labels).numpy())


def _moved(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        name: tuple(each.to(device) for each in value) if isinstance(value, tuple) else value.to(device)
        for name, value in batch.items()
    }


def _plain(labels: np.ndarray, target: str) -> list[Any]:
    """Write labels as ``assign_folds`` takes them."""
    if target == "multi_label":
        return [np.flatnonzero(row == 1).tolist() for row in labels]
    if labels.ndim == 2:
        return list(labels.argmax(axis=1).tolist())
    return list(labels.tolist())


def fit_line(stage: str, about: Mapping[str, Any], validation: Mapping[str, float]) -> str:
    """Say in one line what came of a fit."""
    name = "alpha" if "alpha" in about else "C"
    found = ", ".join(f"{metric} {value:.4f}" for metric, value in validation.items())
    tried = ", ".join(f"{each[name]:g}" for each in about["cross_validation"])
    line = f"Stage {stage} is fitted {FITS[about['method']]}, {name} {about[name]:g} of {tried} by cross-validation"
    return f"{line}; validation {found}." if found else f"{line}."
