"""Distributed sampling without repeated examples, and synchronization of model buffers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import ceil, nan
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices

from hf_finetune.data.sampling import generator_of
from hf_finetune.targets.losses import IGNORE_INDEX, label_weights

__all__ = [
    "DistributedBatchSampler",
    "LengthGroupedSampler",
    "PaddedDataset",
    "SyncBuffersCallback",
    "count_labels",
    "forward_set_epoch",
    "split_into_batches",
]


def split_into_batches(
    order: Iterable[int], size: int, batch_size: int, processes: int
) -> Iterator[list[int]]:
    """Split an epoch into batches: one per process in each round, and each example exactly once.

    The last round is divided as evenly as possible. A process without examples in it gets a padding example: an index
    of at least ``size``, whose label is ignored (see ``PaddedDataset``).

    Args:
        order: Indices of the examples, in the order of this epoch.
        size: Number of examples.
        batch_size: Examples per process in a full round.
        processes: Number of processes.

    Yields:
        Batches of indices: in each round the batch of the first process, of the second process, and so on.
    """
    indices = list(order)
    for start in range(0, len(indices), batch_size * processes):
        round_indices = indices[start : start + batch_size * processes]
        per_process, remainder = divmod(len(round_indices), processes)
        end = 0
        for process in range(processes):
            begin, end = end, end + per_process + (process < remainder)
            yield round_indices[begin:end] or [size + round_indices[0]]


class LengthGroupedSampler(Sampler[int]):
    """Sampler that groups examples of similar length, in random order otherwise.

    The order depends on seed and epoch only, so it is the same on every process and after a resume. The sampler of
    transformers 5.23 draws from torch's global generator instead.

    Args:
        lengths: Length of each example.
        group: Number of examples per group; those of one group have similar lengths.
        seed: Seed of the order.
    """

    def __init__(self, lengths: Sequence[int], group: int, seed: int):
        self.lengths, self.group, self.seed, self.epoch = lengths, group, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which changes the order."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = generator_of(self.seed, self.epoch)
        return iter(get_length_grouped_indices(self.lengths, self.group, generator=generator))


class DistributedBatchSampler:
    """Batch sampler for a ``DataLoader`` that accelerate divides among processes; it yields their batches in turn.

    Without it, accelerate 1.15 fills the last round with examples from the beginning of the epoch, which then count
    twice.

    Args:
        sampler: Sampler of the examples of an epoch. accelerate replaces it by one with the same order on all
            processes.
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


def forward_set_epoch(loader: Any, sampler: Any) -> None:
    """Register a sampler so that accelerate calls its ``set_epoch``, also if a resumed epoch skips finished batches.

    accelerate 1.15 looks up the sampler in a single attribute, which it sets only for random samplers. Without the
    registration, the remainder of a resumed epoch would have the order of the first epoch.

    Args:
        loader: Data loader with a ``DistributedBatchSampler``, as prepared by accelerate.
        sampler: Sampler of that batch sampler.
    """
    if hasattr(sampler, "set_epoch"):
        loader.set_sampler(sampler)


class PaddedDataset(Dataset):
    """Dataset whose indices beyond the end return the same examples again with ignored labels.

    Its length is that of the wrapped dataset.

    Args:
        dataset: Dataset of examples with ``labels``.
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
    """Return an ignored label of the same shape and type: nan for floats, ``IGNORE_INDEX`` for class indices."""
    if isinstance(label, torch.Tensor):
        return torch.full_like(label, nan if label.is_floating_point() else IGNORE_INDEX)
    if isinstance(label, Sequence):
        return [_ignored(item) for item in label]
    return nan if isinstance(label, float) else IGNORE_INDEX


def count_labels(
    batches: Sequence[Any], gather: Callable[[torch.Tensor], torch.Tensor], target: str = ""
) -> torch.Tensor:
    """Sum the label weights of an optimizer step over all micro-batches and processes.

    Args:
        batches: Micro-batches of this process, each with ``labels``.
        gather: Function that gathers a scalar tensor from every process.
        target: Label type.

    Returns:
        Scalar tensor; at least the smallest positive number of its dtype if the weights are floats.
    """
    local_weight = torch.stack([label_weights(batch["labels"], target).sum() for batch in batches]).sum()
    total = gather(local_weight).sum()
    # if all weights of a step are 0, its loss must be 0 and not 0 / 0
    return total.clamp(min=torch.finfo(total.dtype).tiny) if total.is_floating_point() else total


class SyncBuffersCallback(TrainerCallback):
    """Callback that broadcasts BatchNorm statistics from the main process before evaluation.

    These are the statistics that are saved. During training, each process computes the statistics of its own batches;
    torch 2.15 synchronizes them with the main process at the next forward pass under DDP, and never under FSDP.
    """

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Broadcast the buffers of the main process."""
        if args.world_size > 1:
            for buffer in kwargs["model"].buffers():
                torch.distributed.broadcast(buffer, 0)
