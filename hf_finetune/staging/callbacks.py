"""Callbacks of a stage: freezing, the log of every rate, a clean stop at Ctrl-C, and an end to diverged training."""

import json
import math
import signal
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.models.layout import read_layout
from hf_finetune.plan.selectors import select
from hf_finetune.staging.freezing import freeze_all_but

__all__ = ["DivergedError", "FreezingCallback", "InterruptCallback", "LogCallback"]

Selector = str | Sequence[str]


class DivergedError(RuntimeError):
    """The loss is no longer a number."""


class FreezingCallback(TrainerCallback):
    """Train only what a selector names. Works on any ``Trainer``.

    ``FreezingCallback("head")`` freezes the rest once, before the optimiser exists, which then holds exactly the
    trained parameters: one stage, one Trainer.

    ``FreezingCallback({0: "head", 2: "last:3", 4: "all"})`` changes what is trained at the start of these epochs,
    inside one ``train()``. The optimiser then holds every parameter that any phase trains, and leaves those alone
    that have no gradient at the moment. Which phase it is follows from ``state.epoch``, so a resumed run goes on
    as it should. On several processes pass ``ddp_find_unused_parameters=True``.

    Args:
        phases: A selector, as in a recipe's ``train:``; or one for each epoch (from 0) at which it takes over.
    Raises:
        ValueError: If the phases do not begin at epoch 0.
        InputError: When training begins, if a selector matches nothing in the model.
    """

    def __init__(self, phases: Selector | Mapping[int, Selector]):
        self.once = not isinstance(phases, Mapping)
        self.phases: dict[int, Selector] = {0: phases} if not isinstance(phases, Mapping) else dict(phases)
        if 0 not in self.phases:
            raise ValueError(f"phases must begin at epoch 0. Got {sorted(self.phases)}.")

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Freeze for a whole stage, or make trainable what any of the phases trains."""
        model = kwargs["model"]
        if self.once:
            freeze_all_but(model, self._names(model, 0))
            return
        freeze_all_but(model, {name for epoch in self.phases for name in self._names(model, epoch)})

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that the optimiser holds what the phases need, and freeze for the phase that is due.

        Also for a single selector: a Trainer with ``model_init`` makes a new model for each ``train()``, after
        ``on_init_end``. Its optimiser then holds all of it, and passes over what has no gradient.
        """
        model, optimizer = kwargs["model"], kwargs.get("optimizer")
        if optimizer is not None:
            self._check_optimizer(model, optimizer)
        self._enter(model, state)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Change over to the phase of this epoch."""
        if not self.once:
            self._enter(kwargs["model"], state)

    def _enter(self, model: nn.Module, state: TrainerState) -> None:
        epoch = math.floor((state.epoch or 0.0) + 1e-6)
        freeze_all_but(_unwrapped(model), self._names(model, max(at for at in self.phases if at <= epoch)))

    def _names(self, model: nn.Module, epoch: int) -> Collection[str]:
        place = "train" if self.once else f"phases[{epoch}]"
        return select(read_layout(_unwrapped(model)), self.phases[epoch], place)

    def _check_optimizer(self, model: nn.Module, optimizer: Any) -> None:
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        parameters = dict(_unwrapped(model).named_parameters())
        for epoch in self.phases:
            lacking = [name for name in self._names(model, epoch) if id(parameters[name]) not in held]
            if lacking:
                raise ValueError(
                    f"The optimizer must hold every parameter that the callback trains from epoch {epoch}. "
                    f"It lacks {len(lacking)}, the first is {lacking[0]!r}. Pass the callback when the Trainer is "
                    "made, so that the Trainer makes the optimizer after it; or give your own optimizer all of them."
                )


class LogCallback(TrainerCallback):
    """Write ``log.jsonl``: what the Trainer logs, with the rate of every parameter group. Stop when the loss is nan.

    Args:
        path: The file.
        layers: For each parameter group, the layers it spans.
        stage: The stage's name, for the error.
    """

    def __init__(self, path: Path, layers: Sequence[str], stage: str):
        self.path, self.layers, self.stage = path, tuple(layers), stage

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin with what a resumed stage logged before its checkpoint."""
        if state.is_world_process_zero:
            self.path.write_text(
                "".join(json.dumps(entry) + "\n" for entry in state.log_history), encoding="utf-8"
            )

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
        optimizer = kwargs.get("optimizer")
        if "loss" in entry and optimizer is not None:
            rates = [group["lr"] for group in optimizer.param_groups]
            entry["learning_rates"] = [list(pair) for pair in zip(self.layers, rates, strict=True)]
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        if not math.isfinite(entry.get("loss", 0.0)):
            raise DivergedError(
                f"Stage {self.stage!r} diverged: the loss is {entry['loss']} at step {state.global_step}. "
                "In a new run lower its lr, set clip, or use fp32."
            )


class InterruptCallback(TrainerCallback):
    """At the first Ctrl-C (or SIGTERM) finish the step, save a checkpoint and stop; at the second stop at once."""

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
        if args.world_size > 1:
            if state.global_step % args.logging_steps != 0:
                return
            flag = torch.tensor(int(self.asked), device=args.device)
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
            self.stops = bool(flag)
        else:
            self.stops = self.asked
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

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            self.restore()
            raise KeyboardInterrupt
        self.asked = True


def _unwrapped(model: nn.Module) -> PreTrainedModel:
    while not isinstance(model, PreTrainedModel):
        inner = getattr(model, "module", None) or getattr(model, "_orig_mod", None)
        if inner is None:
            raise TypeError(f"model must be a PreTrainedModel. Got {type(model).__name__}.")
        model = inner
    return model
