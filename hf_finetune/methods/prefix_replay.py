"""Replay of cached prefix outputs: the frozen layers of a stage are skipped."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hf_finetune.cache.replay import PrefixPass
from hf_finetune.methods.base import Method

__all__ = ["PrefixReplay"]


class PrefixReplay(Method):
    """Method: the outputs of the frozen prefix, which batches hold under ``prefix``, replace its computation.

    It comes last: the other methods change whole batches, prefix outputs included.

    Args:
        entry: Injects the prefix outputs into the forward pass.
    """

    def __init__(self, entry: PrefixPass):
        self.entry = entry

    def on_inputs(self, inputs: dict[str, Any], *, training: bool) -> dict[str, Any]:
        """Move the prefix outputs from the batch to the place of their injection."""
        self.entry.take(inputs)
        return inputs

    @contextmanager
    def active(self) -> Iterator[None]:
        """Context manager: skip the prefix in each forward pass."""
        with self.entry.passing():
            yield
