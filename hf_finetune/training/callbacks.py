"""Callbacks of a stage: epoch of the examples, log, clean stop at Ctrl-C, and stop of diverged training."""

import json
import math
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.tasks.seeded_augmentation import set_epoch

__all__ = ["DivergedError", "EpochCallback", "InterruptCallback", "LogCallback", "any_process"]


class DivergedError(RuntimeError):
    """Error of diverged training: the loss, the gradient norm or the logits are not finite."""


class EpochCallback(TrainerCallback):
    """Callback that sets the epoch of the training examples, on which their augmentation depends.

    Args:
        train: Training examples.
        first: Number of the first epoch.
    """

    def __init__(self, train: Dataset, first: int = 0):
        self.train, self.first = train, first

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the epoch, also in a stage that is resumed within one."""
        set_epoch(self.train, self.first + int((state.epoch or 0.0) + 1e-6))


class LogCallback(TrainerCallback):
    """Callback that writes ``log.jsonl``: the Trainer's log with the learning rate of every parameter group.

    It stops training when the loss or the gradient norm is not finite: clipping by such a norm would set all gradients
    to 0, and the stage would train nothing.

    Args:
        path: File to write.
        layers: Layers of each parameter group, in the order of the optimizer's groups.
        stage: Name of the stage, for the error message.

    Raises:
        DivergedError: When an entry is logged whose loss is not finite, or whose gradient norm is not finite (the norm
            is not checked in fp16).
    """

    def __init__(self, path: Path, layers: Sequence[str], stage: str):
        self.path, self.layers, self.stage = path, tuple(layers), stage
        self.rates: list[float] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the file with the entries that a resumed stage logged before its checkpoint."""
        if state.is_world_process_zero:
            self.path.write_text("".join(map(_line, state.log_history)), encoding="utf-8")

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record the learning rates of this step; at logging time the groups hold those of the next step."""
        self.rates = [group["lr"] for group in kwargs["optimizer"].param_groups]

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log before every checkpoint, so that a diverged model is never saved."""
        control.should_log = True

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add the learning rates to the entry, write it, and check that loss and gradient norm are finite."""
        entry = state.log_history[-1]
        if "loss" in entry:
            entry["learning_rates"] = [list(pair) for pair in zip(self.layers, self.rates, strict=True)]
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(entry))
        if not math.isfinite(entry.get("loss", 0.0)):
            raise DivergedError(
                f"Stage {self.stage!r} diverged: the loss is {entry['loss']} at step {state.global_step}. "
                + _remedy(args)
            )
        norm = entry.get("grad_norm", 0.0)
        # fp16 skips such steps until the loss scale is low enough
        if not args.fp16 and not math.isfinite(norm):
            raise DivergedError(
                f"Stage {self.stage!r} diverged: the gradient norm is {norm} at step {state.global_step}. "
                f"{'Start a new run with fp32, and check' if args.bf16 else 'Check'} the checkpoint for extreme "
                "weights: hf-finetune doctor."
            )


class InterruptCallback(TrainerCallback):
    """Callback for Ctrl-C and SIGTERM: finish the step, save a checkpoint and stop; at a second Ctrl-C stop at once.

    A signal after the last checkpoint does not interrupt the restoration of the best checkpoint;
    ``raise_if_interrupted`` raises ``KeyboardInterrupt`` afterwards.

    Raises:
        KeyboardInterrupt: Once the checkpoint is saved, or at the second Ctrl-C.
    """

    def __init__(self) -> None:
        self.signal_received = False  # on this process
        self.stop_agreed = False  # by all processes
        self.previous: dict[int, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Install the signal handlers; Python allows this in the main thread only."""
        if threading.current_thread() is threading.main_thread():
            self.previous = {
                number: signal.signal(number, self._handle_signal)
                for number in (signal.SIGINT, signal.SIGTERM)
            }

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Request a checkpoint if a signal has arrived; several processes agree on it at logging steps only."""
        if args.world_size > 1 and state.global_step % args.logging_steps != 0:
            return
        self.stop_agreed = any_process(self.signal_received, args)
        # At the last step of an epoch leave it to on_epoch_end: the evaluation then precedes the checkpoint.
        at_end = float(state.epoch or 0.0).is_integer() or state.global_step >= state.max_steps
        if self.stop_agreed and not at_end:
            control.should_log = control.should_save = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Request a checkpoint at the end of the epoch after a signal."""
        self.stop_agreed = self.stop_agreed or (self.signal_received and args.world_size == 1)
        if self.stop_agreed:
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raise ``KeyboardInterrupt`` once the requested checkpoint is saved."""
        if self.stop_agreed:
            self.restore()
            raise KeyboardInterrupt

    def raise_if_interrupted(self, args: TrainingArguments) -> None:
        """Raise ``KeyboardInterrupt`` if any process received a signal after the last checkpoint.

        Args:
            args: Arguments of the Trainer.
        """
        if any_process(self.signal_received, args):
            raise KeyboardInterrupt

    def restore(self) -> None:
        """Restore the previous signal handlers, except where another handler has been installed since."""
        for number, handler in self.previous.items():
            if signal.getsignal(number) == self._handle_signal:
                signal.signal(number, handler)
        self.previous = {}

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal_received and number == signal.SIGINT:
            self.restore()
            raise KeyboardInterrupt
        self.signal_received = True


def any_process(flag: bool, args: TrainingArguments) -> bool:
    """Return whether a flag is set on any process; a collective call that all processes make.

    Args:
        flag: Flag of this process.
        args: Arguments of the Trainer.
    """
    if args.world_size == 1:
        return flag
    result = torch.tensor(int(flag), device=args.device)
    torch.distributed.all_reduce(result, torch.distributed.ReduceOp.MAX)
    return bool(result)


def _remedy(args: TrainingArguments) -> str:
    """Return a sentence on how to avoid that the loss diverges, without what the stage already does."""
    settings = [
        "lower its lr",
        *([] if args.max_grad_norm else ["set clip"]),
        *(["use fp32"] if args.bf16 or args.fp16 else []),
    ]
    return f"In a new run {' or '.join(settings)}."


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, sort_keys=True) + "\n"  # sorted, as in the state of a checkpoint
