"""Train on several tasks at once: what an epoch is made of, the loss of a step, and which heads a step moves."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.data.joint_tasks import TaskColumns
from hf_finetune.data.sampling import generator_of, sample_with_cycling, shuffle_by_length
from hf_finetune.models.joining import task_heads

__all__ = ["FreezeIdleHeads", "Mix", "TaskSampler", "mixed_loss"]

Loss = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Mix:
    """What a stage needs to train several tasks.

    Attributes:
        columns: Of each task its columns in labels and logits.
        sizes: Of each task its number of training examples.
        counts: Of each task its number of examples in an epoch.
        loss: Of all tasks, from ``mixed_loss``.
    """

    columns: tuple[TaskColumns, ...]
    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    loss: Loss

    def sampler(self, seed: int, lengths: Sequence[int] | None, group: int) -> "TaskSampler":
        """Give what draws an epoch, see ``TaskSampler``."""
        return TaskSampler(self.sizes, self.counts, seed, lengths, group)


class TaskSampler(Sampler[int]):
    """Draw so many examples of each task, in an order that seed and epoch decide.

    The examples of a task come in turn, in an order of their own each time: all of them once before any comes again.
    A resumed epoch is drawn as it was, and all processes draw alike.

    Args:
        sizes: Number of examples of each task; those of the first task have the first indices.
        counts: Number of examples of each task in an epoch.
        seed: Of the draws.
        lengths: Number of tokens of each example, to put those of about one length together; None for any order.
        group: Number of examples of an optimiser step, over all processes.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        counts: Sequence[int],
        seed: int,
        lengths: Sequence[int] | None = None,
        group: int = 1,
    ):
        self.sizes, self.counts, self.seed, self.epoch = tuple(sizes), tuple(counts), seed, 0
        self.lengths, self.group = lengths, group

    def set_epoch(self, epoch: int) -> None:
        """Draw others from here on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(self.counts)

    def __iter__(self) -> Iterator[int]:
        generator = generator_of(self.seed, self.epoch)
        parts, start = [], 0
        for size, count in zip(self.sizes, self.counts, strict=True):
            parts.append(sample_with_cycling(torch.arange(start, start + size), count, generator))
            start += size
        return shuffle_by_length(torch.cat(parts), self.lengths, self.group, generator)


def mixed_loss(
    columns: Sequence[TaskColumns], losses: Sequence[Loss], weights: Sequence[float] | None
) -> Loss:
    """Give the loss of all tasks: the mean over the examples of a step, each by the loss and the weight of its task.

    With N examples in a step, over all its forward passes and processes, and l the loss of an example (of several
    labels its mean over the classes), it is

        1/N sum w l                              with fixed weights w,
        1/N sum (c exp(-s) l + s/2)              with learnt ones, s being the logarithm of the task's variance,

    where c is 1/2 for amounts and 1 for classes. So a task counts by its weight and by its share of the examples, and
    no step depends on how its examples are spread over passes and processes.

    Args:
        columns: Of each task its columns.
        losses: Of each task its loss, as ``balanced_loss`` gives it.
        weights: Of each task; None takes the variances that stand behind the logits.
    Source: Kendall, Gal & Cipolla 2018, Multi-Task Learning Using Uncertainty to Weigh Losses, equations 5 to 10.
    """

    def loss(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        logits = (outputs["logits"] if isinstance(outputs, dict) else outputs[0]).float()
        asked = [~labels[:, task.labels[0]].isnan() for task in columns]
        examples = num_items_in_batch if num_items_in_batch is not None else torch.stack(asked).sum()
        total = logits.new_zeros(())
        for index, (task, rows) in enumerate(zip(columns, asked, strict=True)):
            wanted = task.labels_of(labels[rows])
            wanted = wanted[:, 0].long() if task.target == "single_label" else wanted
            own = losses[index]((task.logits_of(logits[rows]),), wanted, examples * task.width)
            if weights is not None:
                total = total + weights[index] * own
                continue
            variance = logits[0, columns[-1].logits[1] + index]
            factor = 0.5 if task.target == "regression" else 1.0
            total = total + factor * torch.exp(-variance) * own + variance / 2 * rows.sum() / examples
        return total

    return loss


class FreezeIdleHeads(TrainerCallback):
    """Let a step without any example of a task leave its head alone: no decay and no momentum moves it.

    Such a step gives the head, on all processes together, a gradient of exactly 0.
    """

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the gradients away, by which optimizers pass over weights."""
        for heads in task_heads(kwargs["model"]).values():
            for name in heads.names:
                own = [each for each in heads.parameters_of(name) if each.grad is not None]
                if own and not any(bool(each.grad.any()) for each in own if each.grad is not None):
                    for each in own:
                        each.grad = None
