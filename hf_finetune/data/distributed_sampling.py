"""What several processes share: the examples of an epoch, each exactly once, and the buffers of the model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import ceil, nan
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices

from hf_finetune.data.sampling import generator_of
from hf_finetune.targets.losses import IGNORED, label_weights

__all__ = [
    "DistributedBatchSampler",
    "LengthGroupedSampler",
    "PaddedDataset",
    "SharedBuffers",
    "count_labels",
    "split_into_batches",
    "tell_epochs",
]


def split_into_batches(
    order: Iterable[int], size: int, batch_size: int, processes: int
) -> Iterator[list[int]]:
    """Deal the examples of an epoch: in each round one batch to every process, and each example once.

    The last round is dealt as evenly as it comes out. A process for which nothing is left gets a filler, an example
    from beyond the data, whose label does not count.

    Args:
        order: The indices of the examples, in the order of this epoch.
        size: Number of examples.
        batch_size: Examples per process in a full round.
        processes: Number of processes.

    Yields:
        The batch of the first process in the first round, of the second one, and so on, round after round.
    """
    left = list(order)
    for start in range(0, len(left), batch_size * processes):
        dealt = left[start : start + batch_size * processes]
        share, more = divmod(len(dealt), processes)
        end = 0
        for process in range(processes):
            begin, end = end, end + share + (process < more)
            yield dealt[begin:end] or [size + dealt[0]]


class LengthGroupedSampler(Sampler[int]):
    """The examples of an epoch in an order in which those of about one length are together; chance does the rest.

    Unlike the sampler of transformers 5.23, which draws from torch's global generator, the order depends on seed and
    epoch only: it is the same on every process and after a resume.

    Args:
        lengths: Of each example.
        group: Number of examples that are padded together.
        seed: Of the order.
    """

    def __init__(self, lengths: Sequence[int], group: int, seed: int):
        self.lengths, self.group, self.seed, self.epoch = lengths, group, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Draw another order from here on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = generator_of(self.seed, self.epoch)
        return iter(get_length_grouped_indices(self.lengths, self.group, generator=generator))


class DistributedBatchSampler:
    """The batches of all processes in turn, for a ``DataLoader`` that accelerate divides among them.

    accelerate 1.15 by itself completes the last round with examples from the beginning of the epoch, which then
    count twice.

    Args:
        sampler: Gives the order of an epoch. accelerate replaces it by one that all processes agree on.
        batch_size: Examples per process in a full round.
        processes: Number of processes.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int, processes: int):
        self.sampler, self.examples_per_process, self.processes = sampler, batch_size, processes

    def __iter__(self) -> Iterator[list[int]]:
        return split_into_batches(self.sampler, len(self.sampler), self.examples_per_process, self.processes)  # type: ignore[arg-type]

    def __len__(self) -> int:
        rounds = ceil(len(self.sampler) / (self.examples_per_process * self.processes))  # type: ignore[arg-type]
        return rounds * self.processes


def tell_epochs(loader: Any, sampler: Any) -> None:
    """Let accelerate tell a sampler each epoch, also when a resumed epoch skips the batches that were done.

    accelerate 1.15 looks for a sampler in one place, and puts only a random one there: the rest of the epoch would be
    drawn as that of the first one.

    Args:
        loader: What accelerate made of one with ``DistributedBatchSampler``.
        sampler: The sampler that these have.
    """
    if hasattr(sampler, "set_epoch"):
        loader.set_sampler(sampler)


class PaddedDataset(Dataset):
    """Examples, and beyond their end the same ones again with labels that do not count.

    Args:
        dataset: Gives examples with ``labels`` by index.
    """

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index < len(self.dataset):
            return self.dataset[index]
        example = dict(self.dataset[index - len(self.dataset)])
        return {**example, "labels": _ignored(example["labels"])}


def _ignored(label: Any) -> Any:
    """Give a label of the same kind that does not count."""
    if isinstance(label, torch.Tensor):
        return torch.full_like(label, nan if label.is_floating_point() else IGNORED)
    if isinstance(label, Sequence):
        return [_ignored(item) for item in label]
    return nan if isinstance(label, float) else IGNORED


def count_labels(
    batches: Sequence[Any], gather: Callable[[torch.Tensor], torch.Tensor], target: str = ""
) -> torch.Tensor:
    """Sum the weights of the labels of an optimizer step, over all forward passes and processes.

    Args:
        batches: The batches of this process, each with ``labels``.
        gather: Collects a number from every process.
        target: What a label is.
    """
    here = torch.stack([label_weights(batch["labels"], target).sum() for batch in batches]).sum()
    total = gather(here).sum()
    # a step whose examples all weigh 0 has a loss of 0, and not of 0 / 0
    return total.clamp(min=torch.finfo(total.dtype).tiny) if total.is_floating_point() else total


class SharedBuffers(TrainerCallback):
    """Give all processes the first one's BatchNorm statistics before a model is evaluated, as they are saved.

    In training each process counts the statistics of its own batches; torch 2.15 takes over the first one's at the
    next forward pass under DDP, and never under FSDP.
    """

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Broadcast the buffers."""
        if args.world_size > 1:
            for buffer in kwargs["model"].buffers():
                torch.distributed.broadcast(buffer, 0)
