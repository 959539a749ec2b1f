"""Exponential moving average (EMA) of the weights, evaluated in addition to the raw weights; the better one is kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from hf_finetune.files import atomic_file
from hf_finetune.methods.base import CallbackMethod, StageContext
from hf_finetune.planning.best_epoch import is_better
from hf_finetune.planning.stages import StagePlan
from hf_finetune.recipe.method_rules import EMA

__all__ = ["AVERAGE_FILE", "AveragedWeights", "decay_at", "update_average"]

AVERAGE_FILE = "average.safetensors"
"""File of a checkpoint that stores the average."""
BATCH_NORM_STATISTICS = ("running_mean", "running_var")
"""Buffers of a BatchNorm layer that are averaged."""
IS_AVERAGED = "averaged"
"""Key in an evaluation's log entry: whether its metrics are those of the averaged weights."""

Tensors = dict[str, torch.Tensor]
"""Tensors by name."""


def decay_at(decay: float, step: int) -> float:
    """Return the decay at a step: smaller in the beginning, so that the average also changes in short stages.

    Args:
        decay: Final decay, in (0, 1).
        step: Number of steps before this one.

    Source: TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``: min(decay, (1 + step) / (10 + step)).
    """
    return min(decay, (1 + step) / (10 + step))


def update_average(
    average: Mapping[str, torch.Tensor], current: Mapping[str, torch.Tensor], decay: float
) -> None:
    """Update an average with the current values, in place: decay x average + (1 - decay) x current.

    Args:
        average: Average of each tensor by name; changed in place.
        current: Current value of each tensor by name, of the same shape.
        decay: Weight of the average, in [0, 1].

    Source: Polyak & Juditsky 1992; the exponential form is that of Tarvainen & Valpola 2017, Mean teachers.
    """
    with torch.no_grad():
        for name, value in average.items():
            value.lerp_(current[name], 1 - decay)


class AveragedWeights(CallbackMethod):
    """Average the weights of a stage, evaluate averaged and raw weights, and keep the better ones.

    Args:
        names: Names of the trained parameters and the updated BatchNorm statistics; only these are averaged.
        decay: Final decay of the average, in (0, 1).
        metric: Validation metric by which average and raw weights are compared; None keeps the average.
        greater_is_better: Whether higher values of ``metric`` are better.

    Attributes:
        checkpoint: Checkpoint from which the stage is resumed; None if it is not.
        raw_tensors: Raw weights: the parameters and buffers of the model that are averaged, by name.
        average: Their averages, by name.
    """

    rules = EMA

    def __init__(self, names: Sequence[str], decay: float, metric: str | None, greater_is_better: bool):
        self.names = tuple(names)
        self.decay = decay
        self.metric = metric
        self.greater_is_better = greater_is_better
        self.checkpoint: Path | None = None
        self.raw_tensors: Tensors = {}
        self.average: Tensors = {}

    @classmethod
    def build(cls, context: StageContext) -> "AveragedWeights | None":
        """Return the EMA method if the stage sets ``regularize.ema``, or None."""
        decay = context.stage.spec.regularize.ema
        if decay is None:
            return None
        return cls(_averaged_names(context.stage.plan), decay, context.best_metric, context.greater_is_better)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Initialize the average with the current weights, or with the average of the resumed checkpoint."""
        self.raw_tensors = _tensors(kwargs["model"], self.names)
        self.average = {name: value.detach().clone() for name, value in self.raw_tensors.items()}
        if self.checkpoint is not None and (self.checkpoint / AVERAGE_FILE).is_file():
            _copy_tensors(load_file(self.checkpoint / AVERAGE_FILE), self.average)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Update the average after the step, unless fp16 skipped it."""
        if not kwargs["optimizer"].step_was_skipped:
            update_average(self.average, self.raw_tensors, decay_at(self.decay, state.global_step - 1))

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Broadcast the main process's average: BatchNorm statistics differ, as each process has its own batches."""
        if args.world_size > 1:
            for value in self.average.values():
                torch.distributed.broadcast(value, 0)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Copy the average into the model if it is kept: that of the best checkpoint, or else the latest."""
        if not self.average_is_kept(state):
            return
        average = self.average
        if self.metric is not None:
            average = load_file(Path(args.output_dir) / f"checkpoint-{state.best_global_step}" / AVERAGE_FILE)
        _copy_tensors(average, self.raw_tensors)

    def average_is_kept(self, state: TrainerState) -> bool:
        """Return whether the average is kept rather than the raw weights.

        Args:
            state: State of the Trainer at the end of the stage.
        """
        if self.metric is None:
            return True
        best = [
            entry
            for entry in state.log_history
            if IS_AVERAGED in entry and entry["step"] == state.best_global_step
        ]
        return bool(best and best[-1][IS_AVERAGED])

    def evaluate(self, evaluation: Callable[[], EvalLoopOutput]) -> EvalLoopOutput:
        """Evaluate raw and averaged weights.

        Args:
            evaluation: Function that evaluates the model.

        Returns:
            The better evaluation (the raw one if they are equal), with both metrics added. Without a metric, only the
            average is evaluated.
        """
        if self.metric is None:
            with self.average_applied():
                averaged = evaluation()
            return averaged._replace(metrics={**(averaged.metrics or {}), IS_AVERAGED: True})
        raw = evaluation()
        with self.average_applied():
            averaged = evaluation()
        raw_metrics, averaged_metrics = raw.metrics or {}, averaged.metrics or {}
        better = is_better(
            averaged_metrics, raw_metrics, self.metric, greater_is_better=self.greater_is_better
        )
        name = f"eval_{self.metric}"
        both_metrics = {
            f"raw_{self.metric}": raw_metrics[name],
            f"average_{self.metric}": averaged_metrics[name],
            IS_AVERAGED: better,
        }
        output = averaged if better else raw
        return output._replace(metrics={**(output.metrics or {}), **both_metrics})

    @contextmanager
    def average_applied(self) -> Iterator[None]:
        """Context manager: copy the average into the model, and restore its weights exactly afterwards."""
        weights = {name: value.detach().clone() for name, value in self.raw_tensors.items()}
        _copy_tensors(self.average, self.raw_tensors)
        try:
            yield
        finally:
            _copy_tensors(weights, self.raw_tensors)

    def result(self, state: TrainerState) -> Mapping[str, Any]:
        """Return whether the average is kept."""
        return {"averaged": self.average_is_kept(state)}

    def load(self, checkpoint: Path) -> None:
        """Set the checkpoint whose average is loaded when training begins."""
        self.checkpoint = checkpoint

    def save(self, checkpoint: Path) -> None:
        """Write the average into a checkpoint."""
        with atomic_file(checkpoint / AVERAGE_FILE) as temporary:
            save_file({name: value.contiguous() for name, value in self.average.items()}, temporary)


def _averaged_names(plan: StagePlan) -> list[str]:
    """Return the names of the trained parameters and of the statistics of BatchNorms that are not frozen."""
    frozen = set(plan.frozen_batch_norms)
    norms = [name for name, _ in plan.layout.batch_norms if name not in frozen]
    return [
        *plan.trainable,
        *(f"{name}.{statistic}" for name in norms for statistic in BATCH_NORM_STATISTICS),
    ]


def _tensors(model: nn.Module, names: Sequence[str]) -> Tensors:
    """Return the named parameters and buffers of a model."""
    known = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: known[name] for name in names if name in known}


def _copy_tensors(source: Mapping[str, torch.Tensor], destination: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in destination.items():
            tensor.copy_(source[name])
