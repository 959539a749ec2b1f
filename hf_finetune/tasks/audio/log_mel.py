"""Statistics of log-mel spectrograms: features of a simple baseline without a checkpoint."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.audio_utils import mel_filter_bank

from hf_finetune.tasks.audio.samples import padded, resampled
from hf_finetune.tasks.audio.stored import map_recordings

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["log_mel_features", "log_mel_statistics"]

RATE = 16_000
"""Sampling rate (hertz)."""
FRAME, HOP, BANDS = 400, 160, 64
"""Length and distance of the frames (samples), and number of bands, as usual for speech (25 ms, 10 ms)."""
FLOOR = 1e-10
"""Smallest power, of which the logarithm is taken."""
_FILTERS = torch.from_numpy(
    mel_filter_bank(1 + FRAME // 2, BANDS, 0.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
).float()
_WINDOW = torch.hann_window(FRAME)


def log_mel_features(dataset: "Dataset") -> np.ndarray:
    """Return the statistics of the recordings of a dataset with a column ``audio``, [examples, features].

    Args:
        dataset: Dataset with the column.
    """
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
    frames = torch.stft(
        torch.from_numpy(samples), FRAME, HOP, window=_WINDOW, pad_mode="constant", return_complex=True
    )
    power = frames.abs().square().T @ _FILTERS
    bands = power.clamp_min(FLOOR).log10().numpy()
    return np.concatenate([bands.mean(axis=0), bands.std(axis=0), [np.log10(len(samples) / RATE)]])
