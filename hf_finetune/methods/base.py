"""Interface of the methods, the optional additions to the training of a stage.

The stage and its Trainer call the hooks of all methods in their order, and refer to no method by name. Of
``base_loss``, ``sampler`` and ``loss_denominator``, the first result that is not None is used. ``evaluate`` of a method
calls that of the method before it, so the last method is called first.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch.utils.data import Sampler
from transformers import PreTrainedModel, TrainerCallback, TrainerState
from transformers.trainer_utils import EvalLoopOutput

from hf_finetune.planning.groups import ParameterGroup
from hf_finetune.planning.stages import PlannedStage, StagePlan
from hf_finetune.recipe.method_rules import MethodRules
from hf_finetune.recipe.schema import Recipe
from hf_finetune.recipe.stage_fields import StageSpec

__all__ = ["CallbackMethod", "Collate", "Loss", "LossMethod", "Method", "StageContext", "TaskLabels"]

Collate = Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]
"""Function from a list of examples to a batch."""

Loss = Callable[..., torch.Tensor]
"""Function from outputs, labels and ``num_items_in_batch`` to a scalar, see ``targets.losses.loss_for``."""


@dataclass(frozen=True)
class TaskLabels:
    """Labels of a task on which a stage trains.

    Attributes:
        name: Name of the task; empty in a single-task recipe.
        target: Label type.
        label_names: Names of the classes.
        labels: Label of each training example.
        per_epoch: Number of examples of the task in an epoch.
        weight: Factor on the loss of the task; None if it is learned.
    """

    name: str
    target: str
    label_names: Sequence[str]
    labels: Sequence[Any]
    per_epoch: int
    weight: float | None = 1.0


@dataclass(frozen=True)
class StageContext:
    """Stage, model and labels, from which the methods of the stage are built.

    Attributes:
        stage: Stage with its plan and its seed.
        model: Model to train, already pruned if the stage prunes.
        tasks: Labels of each task.
        earlier: Stages before this one.
        previous: Folder of the stage before this one.
        pretrained: Pretrained values, by name, of the parameters that l2_sp stages train.
        best_metric: Name of the metric that selects the best checkpoint; None selects the last one.
        greater_is_better: Whether higher values of ``best_metric`` are better.
    """

    stage: PlannedStage
    model: PreTrainedModel
    tasks: tuple[TaskLabels, ...] = ()
    earlier: tuple[StageSpec, ...] = ()
    previous: Path = Path()
    pretrained: Mapping[str, torch.Tensor] = field(default_factory=dict)
    best_metric: str | None = None
    greater_is_better: bool = False


class Method:
    """Addition to the training of a stage. A hook that is not overridden changes nothing.

    Attributes:
        rules: Fields of the recipe that belong to the method, and its requirements.
        compiles: Whether ``speed.compile: auto`` may choose ``torch.compile`` for a stage with the method.
    """

    rules: ClassVar[MethodRules] = MethodRules()
    compiles: ClassVar[bool] = True

    @classmethod
    def is_used(cls, recipe: Recipe, spec: StageSpec, plan: StagePlan) -> bool:
        """Return whether a stage of a recipe uses the method.

        Args:
            recipe: Recipe of the run.
            spec: Stage of the recipe.
            plan: Plan of the stage.
        """
        return bool(cls.rules.used(spec))

    @classmethod
    def build(cls, context: StageContext) -> Self | None:
        """Return the method of a stage; None if the stage does not use it.

        Methods that are built from files (``Teacher``, ``DomainAlignment``) return None here: the run builds them.

        Args:
            context: Stage, model and labels.
        """
        return None

    def prepare(self, model: PreTrainedModel, train: Any, collate: Collate, seed: int) -> tuple[Any, Collate]:
        """Return training examples and collate function.

        Called after precision, memory format and prefix cache of the stage were chosen.

        Args:
            model: Model to train, in its final memory format.
            train: Training examples.
            collate: Collate function of training and validation examples.
            seed: Seed of the stage.
        """
        return train, collate

    def on_optimizer(self, optimizer: torch.optim.Optimizer, groups: Sequence[ParameterGroup]) -> None:
        """Change the new optimizer of the stage, in place.

        Args:
            optimizer: Optimizer of the planned groups, in their order.
            groups: Planned parameter groups.
        """

    def fit_options(self) -> Mapping[str, Any]:
        """Return the arguments of ``fit_linear`` that the method adds if a solver fits the head."""
        return {}

    def callbacks(self) -> tuple[TrainerCallback, ...]:
        """Return the callbacks of the method."""
        return ()

    def base_loss(self, target: str, label_smoothing: float) -> Loss | None:
        """Return the loss function of the labels; None for the default of the target.

        Args:
            target: Label type; empty for labels of several tasks.
            label_smoothing: Fraction of each label that is distributed over all classes, in [0, 1).
        """
        return None

    def sampler(
        self, seed: int, lengths: Sequence[int] | None, examples_per_step: int
    ) -> Sampler[int] | None:
        """Return the sampler of the training examples; None for the default sampler.

        Args:
            seed: Seed of the stage.
            lengths: Number of tokens of each training example, to group examples of similar length; None for any
                order.
            examples_per_step: Number of examples of an optimizer step, over all processes.
        """
        return None

    def loss_denominator(
        self, batches: Sequence[Mapping[str, Any]], gather: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor | None:
        """Return the number by which the loss of an optimizer step is divided; None for the default of the target.

        Args:
            batches: Micro-batches of this process, each with ``labels``.
            gather: Function that collects a number from every process.
        """
        return None

    def wrap_loss(self, loss: Loss, target: str) -> Loss:
        """Return the training loss: ``loss`` with the method's term added or combined.

        Args:
            loss: Loss function so far.
            target: Label type; empty for labels of several tasks.
        """
        return loss

    def on_batches(
        self, batches: Iterator[dict[str, Any]], step: int, process: int
    ) -> Iterator[dict[str, Any]]:
        """Return the micro-batches with inputs and labels as the method changes them; called for each optimizer step.

        Args:
            batches: Iterator over the remaining micro-batches of the epoch, with ``labels``. The Trainer draws only
                those of this step from the result, so a method must change them one at a time.
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
        """Evaluate the model; not called before the first optimizer step.

        A method may evaluate other weights too, such as their average.

        Args:
            evaluation: Function that evaluates the model with its current weights.

        Returns:
            The evaluation that counts.
        """
        return evaluation()

    def save(self, checkpoint: Path) -> None:
        """Write the state of the method into a checkpoint; the main process calls this.

        Args:
            checkpoint: Folder of the checkpoint.
        """

    def load(self, checkpoint: Path) -> None:
        """Restore the state of the method from the checkpoint of a resumed stage.

        Args:
            checkpoint: Folder of the checkpoint.

        Raises:
            InputError: If the state is missing or damaged.
        """

    @contextmanager
    def active(self) -> Iterator[None]:
        """Context manager that is open while the stage trains; releases resources at the end."""
        yield

    def result(self, state: TrainerState) -> Mapping[str, Any]:
        """Return entries to add to the result of the stage.

        Args:
            state: State of the Trainer at the end of the stage.
        """
        return {}


class LossMethod(Method):
    """Method that replaces the loss of the labels.

    Args:
        loss: Loss function of outputs, labels and ``num_items_in_batch``.
    """

    def __init__(self, loss: Loss):
        self.loss = loss

    def base_loss(self, target: str, label_smoothing: float) -> Loss:
        """Return the loss."""
        return self.loss


class CallbackMethod(Method, TrainerCallback):
    """Method that is a callback itself."""

    def callbacks(self) -> tuple[TrainerCallback, ...]:
        """Return the object itself."""
        return (self,)
