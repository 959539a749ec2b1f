"""Number of examples of each task in an epoch."""

from collections.abc import Sequence

__all__ = ["epoch_counts"]


def epoch_counts(sizes: Sequence[int], exponent: float) -> tuple[int, ...]:
    """Return the number of examples of each task in an epoch, which has as many examples as all tasks together.

    The share of a task with n examples is proportional to n^exponent: with 1, each example occurs once; with 0, the
    shares are equal. Examples left over by rounding go to the tasks with the largest remainders, the first task among
    equals.

    Args:
        sizes: Number of training examples of each task.
        exponent: Power of the number of examples, in [0, 1], from ``MixingSpec.exponent``.

    Source: Devlin et al., multilingual BERT (sizes to a power); Raffel et al. 2020, T5, section 3.5.2 (mixing).
    """
    weights, total = [size**exponent for size in sizes], sum(sizes)
    if exponent == 1.0:
        return tuple(sizes)
    exact_counts = [total * weight / sum(weights) for weight in weights]
    counts = [int(value) for value in exact_counts]
    order = sorted(range(len(sizes)), key=lambda index: counts[index] - exact_counts[index])
    for index in order[: total - sum(counts)]:
        counts[index] += 1
    return tuple(counts)
