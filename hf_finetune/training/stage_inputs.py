"""What a stage is given beside the model and its plan: examples, how it is judged, and what it goes by besides."""

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
    """The examples of a stage, ready for the model.

    Attributes:
        target: ``single_label``, ``multi_label`` or ``regression``; empty where ``Beside.loss`` is given.
        train: Training examples.
        collate: Makes a batch.
        validation: Validation examples, or None.
        lengths: Number of tokens of each training example, by which batches are made; None makes them at random.
        workers: Data loader processes.
        groups: Group number of each training example, which the folds of a fitted head keep together; empty if each
            is its own group.
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
    """How a stage is judged on its validation examples.

    Attributes:
        batch_size: Validation examples per process and forward pass.
        compute_metrics: From an ``EvalPrediction``, beside the loss.
        best_metric: Name of the metric that chooses the checkpoint; None keeps the last.
        greater_is_better: Which way that metric is better.
        reduce: Makes of the logits [batch, classes] and labels of a batch the columns [batch, columns] that
            ``compute_metrics`` takes, where the logits of all examples would be too many to hold; None holds them.
    """

    batch_size: int
    compute_metrics: Callable[[Any], dict[str, float]] = _no_metrics
    best_metric: str | None = None
    greater_is_better: bool = False
    reduce: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None


@dataclass(frozen=True)
class StageExtras:
    """What a stage goes by beside its examples.

    Attributes:
        teacher: A model to learn from beside the labels. It needs whole inputs: nothing may be kept then.
        align: Inputs of another domain for which features are made alike; nothing may be kept then, too.
        pretrained: The checkpoint's weights by name, to which ``regularize.l2_sp`` pulls back.
        balance: How scarce classes get their share; None leaves them as they are.
        mix: Several tasks, whose loss takes the place of the target's; None for one.
        loss: Gives the loss from outputs and labels in the place of that for the target.
    """

    teacher: Teacher | None = None
    align: AlignmentInputs | None = None
    pretrained: Mapping[str, torch.Tensor] | None = None
    balance: ClassBalance | None = None
    mix: Mix | None = None
    loss: Callable[..., torch.Tensor] | None = None


NO_EXTRAS = StageExtras()
