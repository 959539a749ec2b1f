"""Batches of inputs of similar length, whose outputs are returned in the order of the inputs."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

__all__ = ["WINDOW", "in_similar_batches"]

WINDOW = 8
"""Number of batches that are read at a time and sorted by length."""
MAX_VALUES = 2**23
"""Largest number of outputs that a window keeps in memory, unless a batch has more."""


def in_similar_batches(
    compute: Callable[[Iterator[Any]], Iterable[Any]],
    examples: Iterator[Any],
    length: Callable[[Any], int],
    batch_size: int,
    outputs: int,
) -> Iterator[np.ndarray]:
    """Compute outputs with the inputs of several batches sorted by length, so that little of a batch is padding.

    Args:
        compute: Function from inputs to the outputs of one batch after the other, [batch, outputs] each.
        examples: Inputs; a window of ``WINDOW`` batches is read at a time.
        length: Function from an input to its length (any unit).
        batch_size: Number of inputs in a batch.
        outputs: Number of outputs of an input. With many, the window is smaller.

    Yields:
        Outputs of a batch [batch, outputs], in the order of the inputs.
    """
    batches = max(1, min(WINDOW, MAX_VALUES // (batch_size * outputs)))
    while window := list(islice(examples, batches * batch_size)):
        # longest first, so that inputs that need too much memory fail at the start
        order = sorted(range(len(window)), key=lambda row: -length(window[row]))
        by_length = np.concatenate(list(compute(window[row] for row in order)))
        in_order = np.empty_like(by_length)
        in_order[order] = by_length
        for start in range(0, len(window), batch_size):
            yield in_order[start : start + batch_size]
