"""Selection and order of an epoch's examples, determined by seed and epoch only and equal on every process."""

from collections.abc import Iterator, Sequence

import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

from hf_finetune.tasks.seeded_augmentation import derive_seed

__all__ = ["generator_of", "sample_with_cycling", "shuffle_by_length"]


def generator_of(seed: int, epoch: int) -> torch.Generator:
    """Return the random generator for sampling in an epoch."""
    return torch.Generator().manual_seed(derive_seed(seed, epoch))


def sample_with_cycling(members: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Sample examples of a group without replacement, starting over once all of them have been drawn.

    Args:
        members: Indices of the group's examples.
        count: Number of examples to draw, which may exceed the size of the group.
        generator: Random generator of the epoch.

    Returns:
        Sampled indices, [count]; empty if ``count`` is 0.
    """
    rounds = -(-count // len(members))
    orders = [members[torch.randperm(len(members), generator=generator)] for _ in range(rounds)]
    return torch.cat(orders)[:count] if orders else members[:0]


def shuffle_by_length(
    indices: torch.Tensor, lengths: Sequence[int] | None, group: int, generator: torch.Generator
) -> Iterator[int]:
    """Shuffle examples, optionally so that examples of similar length are next to each other.

    Args:
        indices: Indices of examples.
        lengths: Number of tokens of each example, by its index; None shuffles regardless of length.
        group: Number of examples of an optimizer step, over all processes.
        generator: Random generator of the epoch.

    Returns:
        Iterator over the indices in their new order.
    """
    indices = indices[torch.randperm(len(indices), generator=generator)]
    if lengths is None:
        return iter(indices.tolist())
    order = get_length_grouped_indices(
        [lengths[index] for index in indices.tolist()], group, generator=generator
    )
    return iter(indices[order].tolist())
