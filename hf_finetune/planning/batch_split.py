"""Split of the examples of an optimizer step over processes."""

from math import ceil

__all__ = ["split_batch"]


def split_batch(batch_size: int, accumulation: int, before: int, after: int) -> tuple[int, int] | None:
    """Split the examples of one optimizer step over a changed number of processes.

    Args:
        batch_size: Examples per process and forward pass before the change.
        accumulation: Forward passes per optimizer step before the change.
        before: Number of processes before the change.
        after: Number of processes after the change.

    Returns:
        Examples per process and forward pass, at most ``batch_size``, and forward passes per optimizer step; None if
        the examples of a step cannot be divided evenly.
    """
    per_process, remainder = divmod(batch_size * accumulation * before, after)
    if remainder or not per_process:
        return None
    min_accumulation = ceil(per_process / batch_size)
    passes = next(passes for passes in range(min_accumulation, per_process + 1) if per_process % passes == 0)
    return per_process // passes, passes
