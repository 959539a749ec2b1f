"""Multi-task training: sampling of the tasks, their joint loss, and freezing of heads without examples in a step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.data.joint_tasks import TaskColumns, task_columns
from hf_finetune.data.sampling import generator_of, sample_with_cycling, shuffle_by_length
from hf_finetune.methods.base import Loss, Method, StageContext
from hf_finetune.methods.class_balance import balanced_loss, build_class_balance
from hf_finetune.models.joining import task_heads
from hf_finetune.planning.stages import StagePlan
from hf_finetune.recipe.schema import Recipe
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.targets import TARGETS

__all__ = ["FreezeIdleHeads", "TaskMixture", "TaskSampler", "mixed_loss"]


@dataclass(frozen=True)
class TaskMixture(Method):
    """Sample the tasks of a multi-task stage, and compute their joint loss.

    Attributes:
        columns: Columns of each task in labels and logits.
        sizes: Number of training examples of each task.
        counts: Number of examples of each task in an epoch.
        loss: Joint loss function of all tasks, from ``mixed_loss``.
    """

    columns: tuple[TaskColumns, ...]
    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    loss: Loss

    @classmethod
    def is_used(cls, recipe: Recipe, spec: StageSpec, plan: StagePlan) -> bool:
        """Return whether the recipe has several tasks."""
        return len(recipe.task_names) > 1

    @classmethod
    def build(cls, context: StageContext) -> "TaskMixture | None":
        """Return the task mixture, or None for a single task; the class balance is computed for each task separately.

        Label smoothing applies to single-label tasks only.
        """
        tasks, spec = context.tasks, context.stage.spec
        if len(tasks) < 2:
            return None
        columns = task_columns({task.name: (task.target, len(task.label_names)) for task in tasks})
        losses = []
        for task in tasks:
            balance = build_class_balance(spec.balance, task.target, task.labels, task.label_names)
            losses.append(balanced_loss(task.target, balance, spec.label_smoothing))
        weights = [task.weight for task in tasks if task.weight is not None]
        sizes = tuple(len(task.labels) for task in tasks)
        counts = tuple(task.per_epoch for task in tasks)
        return cls(columns, sizes, counts, mixed_loss(columns, losses, weights or None))

    def base_loss(self, target: str, label_smoothing: float) -> Loss:
        """Return the joint loss, which includes the label smoothing of each task."""
        return self.loss

    def sampler(self, seed: int, lengths: Sequence[int] | None, examples_per_step: int) -> "TaskSampler":
        """Return the sampler of an epoch, see ``TaskSampler``."""
        return TaskSampler(self.sizes, self.counts, seed, lengths, examples_per_step)

    def loss_denominator(
        self, batches: Sequence[Mapping[str, Any]], gather: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Return the number of examples: a label is a row of numbers. Padding examples do not count."""
        rows = [(~batch["labels"].isnan()).any(dim=-1).sum() for batch in batches]
        return gather(torch.stack(rows).sum()).sum()

    def callbacks(self) -> tuple[TrainerCallback, ...]:
        """Return the callback that freezes idle heads."""
        return (FreezeIdleHeads(),)


class TaskSampler(Sampler[int]):
    """Sample a fixed number of examples of each task per epoch.

    The examples of a task are cycled through in random order: none is sampled again before all have been sampled. The
    sample depends on seed and epoch only, so it is the same after a resume and on all processes.

    Args:
        sizes: Number of examples of each task; the indices of the tasks follow each other in this order.
        counts: Number of examples of each task in an epoch.
        seed: Random seed.
        lengths: Number of tokens of each example, to group examples of similar length; None for random order.
        examples_per_step: Number of examples per optimizer step, over all processes.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        counts: Sequence[int],
        seed: int,
        lengths: Sequence[int] | None = None,
        examples_per_step: int = 1,
    ):
        self.sizes = tuple(sizes)
        self.counts = tuple(counts)
        self.seed = seed
        self.lengths = lengths
        self.examples_per_step = examples_per_step
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, on which the sample depends.

        Args:
            epoch: Number of the epoch, from 0.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(self.counts)

    def __iter__(self) -> Iterator[int]:
        generator = generator_of(self.seed, self.epoch)
        parts, start = [], 0
        for size, count in zip(self.sizes, self.counts, strict=True):
            parts.append(sample_with_cycling(torch.arange(start, start + size), count, generator))
            start += size
        return shuffle_by_length(torch.cat(parts), self.lengths, self.examples_per_step, generator)


def mixed_loss(
    columns: Sequence[TaskColumns], losses: Sequence[Loss], weights: Sequence[float] | None
) -> Loss:
    """Return the joint loss function of all tasks: the mean over a step's examples of the weighted loss of their task.

    With N examples in a step, over all its micro-batches and processes, and l the loss of an example (multi-label: its
    mean over the classes), it is

        1/N sum w l                              with fixed weights w,
        1/N sum (c exp(-s) l + s/2)              with learned weights, s being the log variance of the task,

    where c is 1/2 for the squared error and 1 for cross-entropy. The influence of a task is its weight times its
    fraction of the examples, and a step does not depend on how its examples are divided into micro-batches and over
    processes.

    Args:
        columns: Columns of each task in labels and logits.
        losses: Loss function of each task, from ``balanced_loss``.
        weights: Fixed weight of each task; None uses the learned log variances, which follow the logits in the output.

    Source: Kendall, Gal & Cipolla 2018, Multi-Task Learning Using Uncertainty to Weigh Losses, equations 5 to 10.
    """

    def loss(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        logits = (outputs["logits"] if isinstance(outputs, dict) else outputs[0]).float()
        masks = [~labels[:, task.labels[0]].isnan() for task in columns]
        examples = num_items_in_batch if num_items_in_batch is not None else torch.stack(masks).sum()
        total = logits.new_zeros(())
        for index, (task, rows) in enumerate(zip(columns, masks, strict=True)):
            task_labels = task.select_labels(labels[rows])
            if TARGETS[task.target].is_exclusive:
                task_labels = task_labels[:, 0].long()
            task_loss = losses[index]((task.select_logits(logits[rows]),), task_labels, examples * task.width)
            if weights is not None:
                total = total + weights[index] * task_loss
                continue
            log_variance = logits[0, columns[-1].logits[1] + index]
            factor = 0.5 if TARGETS[task.target].has_squared_error else 1.0
            total = total + factor * torch.exp(-log_variance) * task_loss
            total = total + log_variance / 2 * rows.sum() / examples
        return total

    return loss


class FreezeIdleHeads(TrainerCallback):
    """Callback that keeps the head of a task unchanged in steps without examples of the task.

    In such a step the gradient of the head, over all processes, is exactly 0, but weight decay and momentum would still
    change it.
    """

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set all-zero gradients of heads to None, so that the optimizer skips their parameters."""
        for heads in task_heads(kwargs["model"]).values():
            for name in heads.names:
                parameters = heads.task_parameters(name)
                gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
                if not any(bool(gradient.any()) for gradient in gradients):
                    for parameter in parameters:
                        parameter.grad = None
