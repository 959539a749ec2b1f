"""Which examples an epoch is made of, and in which order: by seed and epoch alone, the same on every process."""

from collections.abc import Iterator, Sequence

import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

from hf_finetune.data.seeded_augmentation import seed_of

__all__ = ["generator_of", "sample_with_cycling", "shuffle_by_length"]


def generator_of(seed: int, epoch: int) -> torch.Generator:
    """Give the generator of an epoch's draws."""
    return torch.Generator().manual_seed(seed_of(seed, epoch))


def sample_with_cycling(members: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw some examples of a group, each again only when all of it have been drawn.

    Args:
        members: Indices of the group's examples.
        count: How many to draw.
        generator: Of the epoch.
    """
    rounds = -(-count // len(members))
    orders = [members[torch.randperm(len(members), generator=generator)] for _ in range(rounds)]
    return torch.cat(orders)[:count] if orders else members[:0]


def shuffle_by_length(
    drawn: torch.Tensor, lengths: Sequence[int] | None, group: int, generator: torch.Generator
) -> Iterator[int]:
    """Put what was drawn into an order of chance, or one in which examples of about one length are together.

    Args:
        drawn: Indices of examples.
        lengths: Number of tokens of each example, by its index; None for any order.
        group: Number of examples of an optimiser step, over all processes.
        generator: Of the epoch.
    """
    drawn = drawn[torch.randperm(len(drawn), generator=generator)]
    if lengths is None:
        return iter(drawn.tolist())
    order = get_length_grouped_indices(
        [lengths[index] for index in drawn.tolist()], group, generator=generator
    )
    return iter(drawn[order].tolist())
