"""Inputs of a stage besides the model and its plan: examples, evaluation, output folder and execution settings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import TrainingArguments

from hf_finetune.cache.prefix_cache import CacheSettings
from hf_finetune.methods.base import Collate
from hf_finetune.recipe.speed import SpeedSpec
from hf_finetune.tasks.examples import SequenceOutputs
from hf_finetune.training.stage_limit import StageLimit

__all__ = ["ExecutionSettings", "StageData", "StageEvaluation", "StageOutput"]


@dataclass(frozen=True)
class StageData:
    """Preprocessed examples of a stage.

    Attributes:
        target: ``single_label``, ``multi_label`` or ``regression``; empty if a method of the stage
            replaces the loss.
        train: Training examples.
        collate: Collate function.
        validation: Validation examples, or None.
        lengths: Number of tokens of each training example, to batch examples of similar length; None for random
            batches.
        workers: Number of data loader processes.
        groups: Group number of each training example; the cross-validation of a fitted head keeps a group in one fold.
            Empty if every example is its own group.
        sequences: How a model is trained and evaluated whose output is a sequence; None for logits of labels.
    """

    target: str
    train: Dataset
    collate: Collate
    validation: Dataset | None = None
    lengths: Sequence[int] | None = None
    workers: int = 0
    groups: Sequence[int] = ()
    sequences: SequenceOutputs | None = None


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
        at_start: Whether the model is also evaluated before the first step.
    """

    batch_size: int
    compute_metrics: Callable[[Any], dict[str, float]] = _no_metrics
    best_metric: str | None = None
    greater_is_better: bool = False
    reduce: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    at_start: bool = True


@dataclass(frozen=True)
class StageOutput:
    """Output folder of a stage, and options of resuming and saving.

    Attributes:
        folder: Folder of the stage.
        resume: Whether to resume from the last checkpoint in ``folder``.
        keep_optimizer: Whether to save the optimizer state of the kept weights for the next stage.
        track: Experiment trackers, as in the Trainer's ``report_to``.
    """

    folder: Path
    resume: bool = False
    keep_optimizer: bool = False
    track: Sequence[str] = ()


@dataclass(frozen=True)
class ExecutionSettings:
    """Requested execution of a stage, from which ``plan_execution`` decides its ``StageExecution``.

    Attributes:
        speed: Precision, memory format and compilation settings of the recipe.
        cache: Settings of the prefix cache; None computes the frozen prefix in every epoch.
        arguments: User's ``TrainingArguments`` for the fields that a stage does not set; None uses the defaults.
        limit: Time limit; None takes all steps. A head that a solver fits is not limited.
    """

    speed: SpeedSpec
    cache: CacheSettings | None = None
    arguments: TrainingArguments | None = None
    limit: StageLimit | None = None
