"""Replay of cached prefix outputs: the frozen layers of a stage are skipped."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hf_finetune.cache.replay import PrefixRunner
from hf_finetune.methods.base import Method

__all__ = ["PrefixReplay"]


class PrefixReplay(Method):
    """Inject the cached outputs of the frozen prefix, which batches contain under ``prefix``, into the forward pass.

    Must be the last method, so that the other methods can transform batches that contain the prefix outputs.

    Args:
        prefix_pass: Injects the prefix outputs into the forward pass.
    """

    def __init__(self, prefix_pass: PrefixRunner):
        self.prefix_pass = prefix_pass

    def on_inputs(self, inputs: dict[str, Any], *, training: bool) -> dict[str, Any]:
        """Remove the prefix outputs from the batch, and store them for injection in the forward pass."""
        self.prefix_pass.load_batch(inputs)
        return inputs

    @contextmanager
    def active(self) -> Iterator[None]:
        """Context manager: skip the prefix in each forward pass."""
        with self.prefix_pass.active():
            yield
