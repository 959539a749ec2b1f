"""Callbacks of a stage: the log of every rate, a clean stop at Ctrl-C, and an end to diverged training."""

import json
import math
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.training.freezing_callback import FreezingCallback

__all__ = ["DivergedError", "FreezingCallback", "InterruptCallback", "LogCallback"]


class DivergedError(RuntimeError):
    """The loss is no longer a number, or the gradients are none."""


class LogCallback(TrainerCallback):
    """Write ``log.jsonl``: what the Trainer logs, with the rate of every parameter group.

    Stop when the loss is nan, or when the norm of the gradients is not finite: clipping would make them all 0, and the
    stage would train nothing.

    Args:
        path: The file.
        layers: For each parameter group, the layers it spans.
        stage: The stage's name, for the error.
    """

    def __init__(self, path: Path, layers: Sequence[str], stage: str):
        self.path, self.layers, self.stage = path, tuple(layers), stage
        self.rates: list[float] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin with what a resumed stage logged before its checkpoint."""
        if state.is_world_process_zero:
            self.path.write_text("".join(map(_line, state.log_history)), encoding="utf-8")

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the rates of this step; when it is logged they are those of the next one."""
        self.rates = [group["lr"] for group in kwargs["optimizer"].param_groups]

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log before every checkpoint, so that a diverged model is never saved."""
        control.should_log = True

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add the rates and write the entry."""
        entry = state.log_history[-1]
        if "loss" in entry:
            entry["learning_rates"] = [list(pair) for pair in zip(self.layers, self.rates, strict=True)]
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(entry))
        if not math.isfinite(entry.get("loss", 0.0)):
            raise DivergedError(
                f"Stage {self.stage!r} diverged: the loss is {entry['loss']} at step {state.global_step}. "
                "In a new run lower its lr, set clip, or use fp32."
            )
        norm = entry.get("grad_norm", 0.0)
        # in fp16 such steps are left out, until the scale of the loss fits
        if not args.fp16 and not math.isfinite(norm):
            raise DivergedError(
                f"Stage {self.stage!r} cannot learn: the norm of its gradients is {norm} at step {state.global_step}. "
                "In a new run use fp32, and look whether the checkpoint has extreme weights: hf-finetune doctor."
            )


class InterruptCallback(TrainerCallback):
    """At the first Ctrl-C (or SIGTERM) finish the step, save a checkpoint and stop; at the second stop at once.

    What comes behind the last step, the choice of the best checkpoint, is finished first: ``stop_if_asked`` then
    raises ``KeyboardInterrupt``.
    """

    def __init__(self) -> None:
        self.asked = self.stops = False
        self.previous: dict[int, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Listen for the signals."""
        if threading.current_thread() is threading.main_thread():
            self.previous = {
                number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
            }

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a checkpoint at the end of the step; on several processes at the next step that is logged."""
        if args.world_size > 1 and state.global_step % args.logging_steps != 0:
            return
        self.stops = _anywhere(self.asked, args)
        # The checkpoint of an epoch's last step is left to its end, behind the evaluation that chooses the best.
        at_end = float(state.epoch or 0.0).is_integer() or state.global_step >= state.max_steps
        if self.stops and not at_end:
            control.should_log = control.should_save = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a checkpoint at the end of the epoch."""
        self.stops = self.stops or (self.asked and args.world_size == 1)
        if self.stops:
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop once the checkpoint is there."""
        if self.stops:
            self.restore()
            raise KeyboardInterrupt

    def stop_if_asked(self, args: TrainingArguments) -> None:
        """Stop if that was asked for behind the last checkpoint, on any of the processes."""
        if _anywhere(self.asked, args):
            raise KeyboardInterrupt

    def restore(self) -> None:
        """Give the signals back to whoever had them, but for those that another has taken since."""
        for number, handler in self.previous.items():
            if signal.getsignal(number) == self._ask:
                signal.signal(number, handler)
        self.previous = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            self.restore()
            raise KeyboardInterrupt
        self.asked = True


def _anywhere(asked: bool, args: TrainingArguments) -> bool:
    """Say whether something was asked for on any process; all of them call this at once."""
    if args.world_size == 1:
        return asked
    flag = torch.tensor(int(asked), device=args.device)
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag)


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, sort_keys=True) + "\n"  # sorted, as what comes back from a checkpoint is
