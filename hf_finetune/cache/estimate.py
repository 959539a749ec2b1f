"""Estimate the size of a stage's prefix cache from the structure of the model, without weights and before any run."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import nn

from hf_finetune.cache.cut_point import CacheUnavailableError
from hf_finetune.cache.find_cut import find_cut
from hf_finetune.tasks import token_count

__all__ = ["CacheEstimate", "estimate_cache_size"]

PROBE_EXAMPLES = (2, 3)
PROBE_TOKENS = (6, 7)
"""Numbers of examples and of tokens in the two probe batches."""


@dataclass(frozen=True)
class CacheEstimate:
    """Estimate of a stage's prefix cache, as far as it is known before the run.

    Attributes:
        place: Modules whose outputs will be cached, in words; empty if nothing will be.
        reason: Reason why nothing will be cached; empty if something will be.
        example_bytes: Bytes per view of an example in fp32, not counting its tokens.
        token_bytes: Bytes per token of an example.
    """

    place: str = ""
    reason: str = ""
    example_bytes: int = 0
    token_bytes: int = 0


def estimate_cache_size(
    skeleton: nn.Module, trainable: Collection[str], example: Mapping[str, torch.Tensor]
) -> CacheEstimate:
    """Return the end of a model's frozen prefix and the bytes of its outputs, or the reason why nothing is cached.

    Args:
        skeleton: Model without weights, on the meta device; a text model is materialized on the CPU with zeros.
        trainable: Names of the trained parameters.
        example: Model inputs of one example, with a batch dimension.
    """
    if token_count(example) and next(skeleton.parameters()).is_meta:
        # the mask functions of transformers 5.23 read tensor values, which the meta device does not have
        skeleton.to_empty(device="cpu")
        for tensor in (*skeleton.parameters(), *skeleton.buffers()):
            tensor.detach().zero_()
    device = next(skeleton.parameters()).device
    probes = [
        _probe(example, count, tokens, device)
        for count, tokens in zip(PROBE_EXAMPLES, PROBE_TOKENS, strict=True)
    ]
    try:
        cut = find_cut(skeleton, trainable, (probes[0], probes[1]))
    except CacheUnavailableError as error:
        return CacheEstimate(reason=str(error))
    example_bytes = token_bytes = 0
    for shape in cut.shapes:
        size = shape.dtype.itemsize * prod(number for number in shape.sizes if isinstance(number, int))
        if shape.has_tokens:
            token_bytes += size
        else:
            example_bytes += size
    place = cut.boundary if cut.is_output else f"all layers before {cut.boundary}"
    return CacheEstimate(place, "", example_bytes, token_bytes)


def _probe(
    example: Mapping[str, torch.Tensor], count: int, tokens: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Return a batch of ``count`` copies of an example; a text consists of copies of its first token.

    So does the text that a decoder has written so far, of which the example has only the first token.
    """
    batch, has_tokens = {}, token_count(example) > 0
    for name, value in example.items():
        is_first_token = value.ndim == 2 and value.shape[1] == 1 and not value.is_floating_point()
        is_text = (has_tokens and value.ndim == 2) or is_first_token
        row = value[:1, :1].expand(1, tokens) if is_text else value[:1]
        batch[name] = row.expand(count, *row.shape[1:]).contiguous().to(device)
    return batch
