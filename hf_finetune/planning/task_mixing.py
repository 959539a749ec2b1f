"""How many examples of each task an epoch has."""

from collections.abc import Sequence

__all__ = ["epoch_counts"]


def epoch_counts(sizes: Sequence[int], method: str, temperature: float = 2.0) -> tuple[int, ...]:
    """Share an epoch, which has as many examples as all tasks together, among the tasks.

    The share of a task of n examples goes by n (``size``: each example comes once), by n^(1/temperature), or is that
    of every other. What rounding leaves goes to the largest remainders, to the task that comes first among equals.

    Args:
        sizes: Number of training examples of each task.
        method: ``size``, ``temperature`` or ``equal``.
        temperature: Of the shares, from 1 on.
    Source: Devlin et al., multilingual BERT (sizes to a power); Raffel et al. 2020, T5, section 3.5.2 (mixing).
    """
    exponent = {"size": 1.0, "temperature": 1 / temperature, "equal": 0.0}[method]
    weights, total = [size**exponent for size in sizes], sum(sizes)
    if exponent == 1.0:
        return tuple(sizes)
    exact = [total * weight / sum(weights) for weight in weights]
    counts = [int(value) for value in exact]
    order = sorted(range(len(sizes)), key=lambda index: counts[index] - exact[index])
    for index in order[: total - sum(counts)]:
        counts[index] += 1
    return tuple(counts)
