"""A running average of the weights (EMA), evaluated beside them; the better of the two goes on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from hf_finetune.files import replacing
from hf_finetune.planning.best_epoch import is_better

__all__ = ["AVERAGE", "AveragedWeights", "decay_at", "fold_in"]

AVERAGE = "average.safetensors"
"""In a checkpoint: the average as it was then."""
KEPT = "averaged"
"""In the log of an evaluation: whether its metrics are those of the average."""

Tensors = dict[str, torch.Tensor]


def decay_at(decay: float, step: int) -> float:
    """Give the share that a step leaves of the average: smaller in the beginning, else short stages would not move it.

    Args:
        decay: The share in the long run, in (0, 1).
        step: Number of steps before this one.
    Source: TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``: min(decay, (1 + step) / (10 + step)).
    """
    return min(decay, (1 + step) / (10 + step))


def fold_in(average: Mapping[str, torch.Tensor], current: Mapping[str, torch.Tensor], decay: float) -> None:
    """Take current values into an average, in place: decay x average + (1 - decay) x current.

    Source: Polyak & Juditsky 1992; the exponential form is that of Tarvainen & Valpola 2017, Mean teachers.
    """
    with torch.no_grad():
        for name, value in average.items():
            value.lerp_(current[name], 1 - decay)


class AveragedWeights(TrainerCallback):
    """Keep the running average of what a stage moves, compare it at each evaluation, and leave the better weights.

    Args:
        names: Of the trained parameters, and of the BatchNorm statistics that move: nothing else is touched.
        decay: Share of the average that a step leaves in it, in (0, 1).
        metric: By which the better weights are told; None without an evaluation that chooses: the average goes on.
        greater_is_better: Which way that metric is better.

    Attributes:
        checkpoint: The one that the stage goes on from; None if it begins.
    """

    def __init__(self, names: Sequence[str], decay: float, metric: str | None, greater_is_better: bool):
        self.names, self.decay, self.metric, self.greater = tuple(names), decay, metric, greater_is_better
        self.checkpoint: Path | None = None
        self.moving: Tensors = {}
        self.average: Tensors = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin with the weights as they are, or with the average of the checkpoint."""
        self.moving = _tensors(kwargs["model"], self.names)
        self.average = {name: value.detach().clone() for name, value in self.moving.items()}
        if self.checkpoint is not None and (self.checkpoint / AVERAGE).is_file():
            _put(load_file(self.checkpoint / AVERAGE), self.average)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the new weights in, behind all that moves them in a step."""
        if not kwargs["optimizer"].step_was_skipped:
            fold_in(self.average, self.moving, decay_at(self.decay, state.global_step - 1))

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give all processes the first one's average, as each counts BatchNorm statistics of its own batches."""
        if args.world_size > 1:
            for value in self.average.values():
                torch.distributed.broadcast(value, 0)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the average in the model, if it goes on: that of the best checkpoint, or without one the newest."""
        if not self.goes_on(state):
            return
        found = self.average
        if self.metric is not None:
            found = load_file(Path(args.output_dir) / f"checkpoint-{state.best_global_step}" / AVERAGE)
        _put(found, self.moving)

    def goes_on(self, state: TrainerState) -> bool:
        """Say whether the average goes on, and not the weights themselves."""
        if self.metric is None:
            return True
        best = [
            entry for entry in state.log_history if KEPT in entry and entry["step"] == state.best_global_step
        ]
        return bool(best and best[-1][KEPT])

    def evaluate(self, evaluation: Callable[[], EvalLoopOutput]) -> EvalLoopOutput:
        """Evaluate the weights and their average, and return the better evaluation; of two alike, that of the weights.

        Args:
            evaluation: Evaluates the model.
        """
        if self.metric is None:
            with self.in_place():
                averaged = evaluation()
            return averaged._replace(metrics={**(averaged.metrics or {}), KEPT: True})
        raw = evaluation()
        with self.in_place():
            averaged = evaluation()
        one, other = raw.metrics or {}, averaged.metrics or {}
        better = is_better(other, one, self.metric, greater_is_better=self.greater)
        name = f"eval_{self.metric}"
        both = {f"raw_{self.metric}": one[name], f"average_{self.metric}": other[name], KEPT: better}
        kept = averaged if better else raw
        return kept._replace(metrics={**(kept.metrics or {}), **both})

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model hold the average; behind it, its own weights again, bit for bit."""
        own = {name: value.detach().clone() for name, value in self.moving.items()}
        _put(self.average, self.moving)
        try:
            yield
        finally:
            _put(own, self.moving)

    def save(self, checkpoint: Path) -> None:
        """Write the average into a checkpoint."""
        with replacing(checkpoint / AVERAGE) as temporary:
            save_file({name: value.contiguous() for name, value in self.average.items()}, temporary)


def _tensors(model: nn.Module, names: Sequence[str]) -> Tensors:
    """Find parameters and buffers by name."""
    known = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: known[name] for name in names if name in known}


def _put(values: Mapping[str, torch.Tensor], places: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, place in places.items():
            place.copy_(values[name])
