"""How a batch is spread over processes."""

from math import ceil

__all__ = ["spread_batch"]


def spread_batch(batch_size: int, accumulation: int, before: int, after: int) -> tuple[int, int] | None:
    """Spread the examples of one optimiser step over another number of processes.

    Args:
        batch_size: Examples per process and forward pass, on the first number of processes.
        accumulation: Forward passes per optimiser step there.
        before: The first number of processes.
        after: The other number of processes.

    Returns:
        Examples per process and forward pass, at most as many as before, and forward passes per step; None if the
        examples of a step cannot be divided evenly.
    """
    share, left = divmod(batch_size * accumulation * before, after)
    if left or not share:
        return None
    fewest = ceil(share / batch_size)
    passes = next(passes for passes in range(fewest, share + 1) if share % passes == 0)
    return share // passes, passes
