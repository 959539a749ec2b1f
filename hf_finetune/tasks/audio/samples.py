"""Samples of recordings: resampled, cropped and padded."""

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["centered", "crop_at", "padded", "resampled"]


def resampled(recording: Mapping[str, Any], rate: int) -> np.ndarray:
    """Return the samples of a recording at another sampling rate, float32 [samples].

    Args:
        recording: ``array`` [samples] and ``sampling_rate`` (hertz).
        rate: Sampling rate of the result (hertz).
    """
    samples: np.ndarray = np.asarray(recording["array"], dtype=np.float32)
    if recording["sampling_rate"] == rate:
        return samples
    import soxr

    changed: np.ndarray = soxr.resample(samples, recording["sampling_rate"], rate)
    return changed


def crop_at(samples: np.ndarray, window: int, place: float) -> np.ndarray:
    """Return a part of the samples of a recording, or all of them if they are not more than a window.

    Args:
        samples: Samples [samples].
        window: Number of samples of the part.
        place: Place of the part: 0 is the beginning, 1 the end.
    """
    start = round(place * max(0, len(samples) - window))
    return samples[start : start + window]


def centered(samples: np.ndarray, window: int) -> np.ndarray:
    """Return the middle of the samples of a recording, at most a window.

    Args:
        samples: Samples [samples].
        window: Number of samples.
    """
    return crop_at(samples, window, 0.5)


def padded(samples: np.ndarray, window: int) -> np.ndarray:
    """Return samples with silence after them, at least a window.

    Args:
        samples: Samples [samples].
        window: Number of samples.
    """
    return np.pad(samples, (0, max(0, window - len(samples))))
