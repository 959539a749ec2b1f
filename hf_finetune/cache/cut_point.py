"""Cut point of a model: where its frozen prefix ends, whose outputs are cached.

Terms:

- The *prefix* is the frozen modules whose outputs are cached.
- The *boundary* is the first module after the prefix, which is computed in each forward pass; or, if a weight that
  belongs to no layer reads the outputs of the prefix, the last module of the prefix itself.
- The *keys* are the positions or names of those arguments of the boundary that the prefix computes. Other arguments,
  such as an attention mask, are computed in each forward pass. For a boundary that is part of the prefix, the keys are
  the positions of the tensors among its outputs.
- A *cut point* is a boundary with its keys, the shapes of the cached tensors, and the modules of the prefix.
- A *probe* is a small batch whose forward pass is recorded. There are two probes, with different numbers of examples
  and tokens: a dimension that differs in the same way depends on the batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hf_finetune.cache.call_recording import Key, TensorShape
from hf_finetune.tasks import token_count

__all__ = [
    "Batch",
    "BatchShape",
    "CacheUnavailableError",
    "CutPoint",
    "SkippedModule",
    "batch_sizes",
    "generalize",
]

Batch = Mapping[str, torch.Tensor]
COMPARABLE_TYPES = (bool, int, float, str, TensorShape, Sequence, Mapping, type(None))
"""Types of recorded values that are compared by equality; values of other types are ignored."""


class CacheUnavailableError(ValueError):
    """Raised if the outputs of a frozen prefix cannot be cached or caching saves too little; the message says why."""


@dataclass(frozen=True)
class BatchShape:
    """Shape of a tensor for any batch.

    Attributes:
        sizes: Size of each dimension, or ``examples`` or ``tokens`` if it depends on the batch.
        dtype: Element type.
    """

    sizes: tuple[int | str, ...]
    dtype: torch.dtype

    @property
    def has_tokens(self) -> bool:
        """Whether a value has one row per token."""
        return "tokens" in self.sizes

    def at(self, batch: Batch) -> tuple[int, ...]:
        """Return the shape for a batch."""
        known = batch_sizes(batch)
        return tuple(known[size] if isinstance(size, str) else size for size in self.sizes)


@dataclass(frozen=True)
class SkippedModule:
    """Module of the frozen prefix, whose computation is skipped.

    Attributes:
        name: Name in the model.
        outputs: Output of each call, with a ``BatchShape`` in place of each tensor.
    """

    name: str
    outputs: tuple[Any, ...]


@dataclass(frozen=True)
class CutPoint:
    """Module at which a forward pass can start after the frozen prefix.

    Attributes:
        boundary: Name of the first module after the prefix, which is computed in each forward pass; or with
            ``is_output``, of the last module of the prefix.
        keys: Positions or names of the arguments of ``boundary`` that the prefix computes; or with ``is_output``,
            positions of its output tensors that are needed.
        shapes: Shapes of these tensors.
        skipped: Modules of the prefix.
        is_output: Whether the outputs of ``boundary`` are cached, and not its arguments.
    """

    boundary: str
    keys: tuple[Key, ...]
    shapes: tuple[BatchShape, ...]
    skipped: tuple[SkippedModule, ...]
    is_output: bool = False


def batch_sizes(batch: Batch) -> dict[str, int]:
    """Return the number of examples in a batch, and of tokens in each (0 if there are none)."""
    first = next(iter(batch.values()))
    return {"examples": len(first), "tokens": token_count(batch)}


def generalize(first: Any, second: Any, sizes: Sequence[Mapping[str, int]]) -> Any:
    """Return a recorded value for any batch, inferred from its shapes in two batches.

    Args:
        first: Value with a ``TensorShape`` in place of each tensor, recorded with the first batch.
        second: The same of the second batch.
        sizes: Sizes of both batches, from ``batch_sizes``.

    Raises:
        CacheUnavailableError: If it depends on the batch in another way than by its numbers of examples and tokens.
    """
    if (
        isinstance(first, TensorShape)
        and isinstance(second, TensorShape)
        and len(first.sizes) == len(second.sizes)
    ):
        pairs = zip(first.sizes, second.sizes, strict=True)
        return BatchShape(tuple(_size(pair, sizes) for pair in pairs), first.dtype)
    if isinstance(first, tuple | list) and isinstance(second, tuple | list) and len(first) == len(second):
        return type(first)([generalize(*pair, sizes) for pair in zip(first, second, strict=True)])
    if isinstance(first, Mapping) and isinstance(second, Mapping) and first.keys() == second.keys():
        return type(first)({key: generalize(first[key], second[key], sizes) for key in first})  # type: ignore[call-arg]
    if not isinstance(first, COMPARABLE_TYPES):
        return None  # such as a key-value cache: if the model needs it, verification fails
    if first == second:
        return first
    raise CacheUnavailableError("an output of a frozen module depends on the batch in an unknown way")


def _size(pair: tuple[int, int], sizes: Sequence[Mapping[str, int]]) -> int | str:
    if pair[0] == pair[1]:
        return pair[0]
    for name in ("examples", "tokens"):
        if pair == tuple(counts[name] for counts in sizes):
            return name
    raise CacheUnavailableError("an output shape of a frozen module depends on the batch in an unknown way")
