"""Views (augmented versions) of each example in the prefix cache: how many, and whether that saves time."""

from math import ceil

from hf_finetune.cache.writer import RowCost

__all__ = ["choose_views", "reason_not_to_cache", "saved_seconds"]

SHORT_TRAINING_EPOCHS = 10
"""Number of epochs up to which two views of each example do as well as a new view in each epoch."""


def choose_views(epochs: float, *, augmented: bool) -> int:
    """Return the number of views of each training example to cache; docs/speed.md has a measurement.

    Args:
        epochs: Epochs of the stage.
        augmented: Whether the views of an example differ.
    """
    if not augmented:
        return 1
    return min(2 if epochs <= SHORT_TRAINING_EPOCHS else 3, max(1, ceil(epochs)))


def reason_not_to_cache(views: int, epochs: float | None) -> str:
    """Return why caching so many views for so many epochs cannot pay off.

    Args:
        views: Number of views of each training example.
        epochs: Epochs of the stage; None if caching need not pay off.

    Returns:
        The reason; empty if caching may pay off, or need not.
    """
    return "" if epochs is None or views < epochs else "each cached view would be used only once"


def saved_seconds(cost: RowCost, epochs: float, views: int) -> float:
    """Return the seconds that caching saves per example; negative if it costs more than it saves."""
    return epochs * (cost.compute - cost.read) - views * (cost.compute + cost.write)
