"""Interface of the methods: what a stage may add to plain training.

The Trainer calls the hooks of all methods of a stage, in their order, and knows none of them by name.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerState
from transformers.trainer_utils import EvalLoopOutput

__all__ = ["CallbackMethod", "Loss", "Method"]

Loss = Callable[..., torch.Tensor]
"""Function of outputs, labels and ``num_items_in_batch`` to a scalar, see ``loss_for``."""


class Method:
    """Addition to the training of a stage. A hook that is not overridden changes nothing."""

    def callbacks(self) -> tuple[TrainerCallback, ...]:
        """Return the callbacks of the method."""
        return ()

    def base_loss(self, target: str, label_smoothing: float) -> Loss | None:
        """Return the loss function of the labels; None leaves that of the target.

        Args:
            target: Kind of the labels; empty for labels of several tasks.
            label_smoothing: Share of each label's weight that is spread over all classes, in [0, 1).
        """
        return None

    def sampler(
        self, seed: int, lengths: Sequence[int] | None, examples_per_step: int
    ) -> Sampler[int] | None:
        """Return the sampler of the training examples; None leaves the usual one.

        Args:
            seed: Seed of the stage.
            lengths: Number of tokens of each training example, to group examples of similar length; None for any
                order.
            examples_per_step: Number of examples of an optimizer step, over all processes.
        """
        return None

    def count_labels(
        self, batches: Sequence[Mapping[str, Any]], gather: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor | None:
        """Return the number by which the loss of an optimizer step is divided; None leaves that of the target.

        Args:
            batches: Micro-batches of this process, each with ``labels``.
            gather: Function that collects a number from every process.
        """
        return None

    def wrap_loss(self, loss: Loss, target: str) -> Loss:
        """Return the training loss: ``loss`` with the method's own part.

        Args:
            loss: Loss function so far.
            target: Kind of the labels; empty for labels of several tasks.
        """
        return loss

    def on_batches(
        self, batches: Iterable[dict[str, Any]], step: int, process: int
    ) -> Iterable[dict[str, Any]]:
        """Return the micro-batches of an optimizer step, which may be changed together with their labels.

        Args:
            batches: Micro-batches with ``labels``.
            step: Number of optimizer steps before this one.
            process: Index of the process.
        """
        return batches

    def on_inputs(self, inputs: dict[str, Any], *, training: bool) -> dict[str, Any]:
        """Return the inputs of a forward pass.

        Args:
            inputs: Model inputs and ``labels``.
            training: Whether the model is in training mode.
        """
        return inputs

    def evaluate(self, evaluation: Callable[[], EvalLoopOutput]) -> EvalLoopOutput:
        """Return the evaluation of the model after at least one optimizer step.

        Args:
            evaluation: Function that evaluates the model as it is.
        """
        return evaluation()

    def save(self, checkpoint: Path) -> None:
        """Write the state of the method into a checkpoint; the main process calls this."""

    def load(self, checkpoint: Path) -> None:
        """Restore the state of the method from the checkpoint of a resumed stage.

        Raises:
            InputError: If the state is missing or damaged.
        """

    @contextmanager
    def active(self) -> Iterator[None]:
        """Context manager for the training of the stage: release resources at its end."""
        yield

    def result(self, state: TrainerState) -> Mapping[str, Any]:
        """Return what the method adds to the result of the stage."""
        return {}


class CallbackMethod(Method):
    """Method that consists of one callback.

    Args:
        callback: The callback.
    """

    def __init__(self, callback: TrainerCallback):
        self.callback = callback

    def callbacks(self) -> tuple[TrainerCallback, ...]:
        """Return the callback."""
        return (self.callback,)
