"""Inputs of a stage besides the model and its plan: examples, evaluation settings and optional extras."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from hf_finetune.methods.class_balance import ClassBalance
from hf_finetune.methods.distillation import Teacher
from hf_finetune.methods.domain_alignment import AlignmentInputs
from hf_finetune.methods.task_mixing import Mix

__all__ = ["NO_EXTRAS", "StageData", "StageEvaluation", "StageExtras"]


@dataclass(frozen=True)
class StageData:
    """Preprocessed examples of a stage.

    Attributes:
        target: ``single_label``, ``multi_label`` or ``regression``; empty if ``StageExtras.loss`` is set.
        train: Training examples.
        collate: Collate function.
        validation: Validation examples, or None.
        lengths: Number of tokens of each training example, to batch examples of similar length; None for random
            batches.
        workers: Number of data loader processes.
        groups: Group number of each training example; the cross-validation of a fitted head keeps a group in one fold.
            Empty if every example is its own group.
    """

    target: str
    train: Dataset
    collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]
    validation: Dataset | None = None
    lengths: Sequence[int] | None = None
    workers: int = 0
    groups: Sequence[int] = ()


def _no_metrics(prediction: Any) -> dict[str, float]:
    return {}


@dataclass(frozen=True)
class StageEvaluation:
    """Evaluation settings of a stage.

    Attributes:
        batch_size: Validation examples per process and forward pass.
        compute_metrics: Metrics of an ``EvalPrediction``, in addition to the loss.
        best_metric: Name of the metric that selects the best checkpoint; None keeps the last one.
        greater_is_better: Whether higher values of ``best_metric`` are better.
        reduce: Function that reduces logits [batch, classes] and labels to columns [batch, columns] for
            ``compute_metrics``, where the logits of a whole split would take too much memory; None keeps the logits.
    """

    batch_size: int
    compute_metrics: Callable[[Any], dict[str, float]] = _no_metrics
    best_metric: str | None = None
    greater_is_better: bool = False
    reduce: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None


@dataclass(frozen=True)
class StageExtras:
    """Optional inputs of a stage.

    Attributes:
        teacher: Teacher for distillation. It needs the full inputs, so the prefix must not be cached.
        align: Unlabeled inputs of another domain for domain alignment; the prefix must not be cached either.
        pretrained: Weights of the checkpoint by name, towards which ``regularize.l2_sp`` pulls.
        balance: Correction of class imbalance; None for none.
        mix: Mixture of several tasks, whose loss replaces that of the target; None for a single task.
        loss: Loss function of outputs and labels that replaces that of the target.
    """

    teacher: Teacher | None = None
    align: AlignmentInputs | None = None
    pretrained: Mapping[str, torch.Tensor] | None = None
    balance: ClassBalance | None = None
    mix: Mix | None = None
    loss: Callable[..., torch.Tensor] | None = None


NO_EXTRAS = StageExtras()
