"""Samples of recordings: resampled, cropped and padded."""

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["START", "crop_at", "padded", "place_of", "resampled"]

START, _MIDDLE = 0.0, 0.5
"""Places of a part of a recording: its beginning, its middle."""


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


def place_of(crop: str | None) -> float:
    """Return the place of the part that is evaluated and predicted, for ``crop_at``.

    Args:
        crop: ``data.crop`` of a recipe, or the attribute of a saved feature extractor.
    """
    return _MIDDLE if crop == "center" else START


def padded(samples: np.ndarray, window: int) -> np.ndarray:
    """Return samples with silence after them, at least a window.

    Args:
        samples: Samples [samples].
        window: Number of samples.
    """
    return np.pad(samples, (0, max(0, window - len(samples))))
