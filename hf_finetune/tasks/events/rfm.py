"""Recency, frequency and amount: the features of the simple baseline for histories of events."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hf_finetune.tasks.events.history import parse_history

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["rfm_features"]

_MAX_KINDS = 50
"""Number of the most frequent kinds of events whose counts are features."""


def rfm_features(train: "Dataset", test: "Dataset") -> tuple[np.ndarray, np.ndarray]:
    """Return recency, frequency and amount features of the histories of both splits.

    Days since the newest and since the oldest event, mean gap, number of events, total, mean and newest amount, each
    followed by its ``log(1 + x)``; and the number of events of each kind if there are several.

    Args:
        train: Training split with a column ``events``, which determines the kinds.
        test: Test split.

    Returns:
        Features of both splits [examples, features].

    Source: Fader, Hardie & Lee 2005, "Counting your customers the easy way", for recency, frequency and amount.
    """
    counts = Counter(event.kind for text in train["events"][:] for event in parse_history(text))
    kinds = [kind for kind, _ in counts.most_common(_MAX_KINDS)] if len(counts) > 1 else []
    return _features(train["events"][:], kinds), _features(test["events"][:], kinds)


def _features(texts: Sequence[str], kinds: Sequence[str]) -> np.ndarray:
    rows = []
    for text in texts:
        events = parse_history(text)
        days = [event.days for event in events if event.days is not None] or [0.0]
        amounts = [event.amount for event in events if event.amount is not None] or [0.0]
        newest, oldest, count = min(days), max(days), len(events)
        numbers = [newest, oldest, (oldest - newest) / max(count - 1, 1), count]
        numbers += [sum(amounts), sum(amounts) / len(amounts), amounts[0]]
        by_kind = Counter(event.kind for event in events)
        logs = [float(np.sign(number) * np.log1p(abs(number))) for number in numbers]
        rows.append([*numbers, *logs, *(by_kind[kind] for kind in kinds)])
    return np.asarray(rows, dtype=np.float64)
