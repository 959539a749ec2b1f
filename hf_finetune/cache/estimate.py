"""What a stage's prefix cache will hold, told from the structure of the model: without weights, before any run."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import nn

from hf_finetune.cache.cut_point import CacheUnavailableError, find_cut

__all__ = ["CacheEstimate", "estimate_cache_size"]

EXAMPLES = (2, 3)
TOKENS = (6, 7)


@dataclass(frozen=True)
class CacheEstimate:
    """What will be kept of a stage's frozen layers, as far as can be told.

    Attributes:
        boundary: Name of the first module that computes; empty if nothing will be kept.
        reason: Why nothing will be kept; empty if something will.
        example_bytes: Of a version of an example in fp32, besides its tokens'.
        token_bytes: Of each token of an example.
    """

    boundary: str = ""
    reason: str = ""
    example_bytes: int = 0
    token_bytes: int = 0


def estimate_cache_size(
    skeleton: nn.Module, trainable: Collection[str], example: Mapping[str, torch.Tensor]
) -> CacheEstimate:
    """Find where a model's frozen prefix ends, and how much it gives for an example.

    Args:
        skeleton: The model without weights, on the meta device; one that takes texts is laid out in memory.
        trainable: Names of the parameters that are trained.
        example: The inputs of one example, as the model takes them.
    """
    if "input_ids" in example and next(skeleton.parameters()).is_meta:
        # the masks of transformers 5.23 look at the numbers, which the meta device does not have
        skeleton.to_empty(device="cpu")
        for tensor in (*skeleton.parameters(), *skeleton.buffers()):
            tensor.detach().zero_()
    device = next(skeleton.parameters()).device
    probes = [_probe(example, count, tokens, device) for count, tokens in zip(EXAMPLES, TOKENS, strict=True)]
    try:
        cut = find_cut(skeleton, trainable, (probes[0], probes[1]))
    except CacheUnavailableError as error:
        return CacheEstimate(reason=str(error))
    sizes = [
        (
            "tokens" in shape.sizes,
            shape.dtype.itemsize * prod(size for size in shape.sizes if isinstance(size, int)),
        )
        for shape in cut.shapes
    ]
    by_token = sum(size for varies, size in sizes if varies)
    return CacheEstimate(cut.boundary, "", sum(size for varies, size in sizes if not varies), by_token)


def _probe(
    example: Mapping[str, torch.Tensor], count: int, tokens: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Make a batch of an example: an image again and again, of a text its first token again and again."""
    batch = {}
    for name, value in example.items():
        row = value[:1, :1].expand(1, tokens) if value.ndim == 2 else value[:1]
        batch[name] = row.expand(count, *row.shape[1:]).contiguous().to(device)
    return batch
