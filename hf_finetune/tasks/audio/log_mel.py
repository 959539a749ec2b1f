"""Statistics of log-mel spectrograms: features of a simple baseline without a checkpoint."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from hf_finetune.tasks.audio.samples import padded, resampled
from hf_finetune.tasks.audio.stored import map_recordings

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["log_mel_features", "log_mel_statistics"]

RATE = 16_000
"""Sampling rate (hertz)."""
FRAME, HOP, BANDS = 400, 160, 64
"""Length and distance of the frames (samples), and number of bands, as usual for speech (25 ms, 10 ms)."""
_FILTERS = mel_filter_bank(1 + FRAME // 2, BANDS, 0.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
_WINDOW = window_function(FRAME, "hann")


def log_mel_features(dataset: "Dataset") -> np.ndarray:
    """Return the statistics of the recordings of a dataset with a column ``audio``, [examples, features]."""
    decode = dataset.features["audio"].decode_example
    return np.stack([*map_recordings(dataset, lambda stored: log_mel_statistics(decode(stored)))])


def log_mel_statistics(recording: Mapping[str, Any]) -> np.ndarray:
    """Return mean and standard deviation of each band over time, and the logarithm of the duration.

    Args:
        recording: ``array`` [samples] and ``sampling_rate`` (hertz).

    Returns:
        Features [2 * bands + 1].
    """
    samples = padded(resampled(recording, RATE), FRAME)
    bands = spectrogram(
        samples,
        _WINDOW,
        frame_length=FRAME,
        hop_length=HOP,
        power=2.0,
        mel_filters=_FILTERS,
        mel_floor=1e-10,
        log_mel="log10",
    )
    return np.concatenate([bands.mean(axis=1), bands.std(axis=1), [np.log10(len(samples) / RATE)]])
