"""Statistics of log-mel spectrograms: features of a simple baseline without a checkpoint."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.audio_utils import mel_filter_bank

from hf_finetune.tasks.audio.samples import START, crop_at, padded, resampled
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
DYNAMIC_RANGE = 8.0
"""Largest difference of the logarithms of power below the maximum (80 dB)."""
_FILTERS = torch.from_numpy(
    mel_filter_bank(1 + FRAME // 2, BANDS, 0.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
).float()
_WINDOW = torch.hann_window(FRAME)


def log_mel_features(dataset: "Dataset", seconds: float, place: float = START) -> np.ndarray:
    """Return the statistics of the recordings of a dataset with a column ``audio``, [examples, features].

    Args:
        dataset: Dataset with the column.
        seconds: Length to which recordings are cropped and padded.
        place: Place of the part that is taken of a longer recording, see ``crop_at``.
    """
    decode = dataset.features["audio"].decode_example
    return np.stack(
        [*map_recordings(dataset, lambda stored: log_mel_statistics(decode(stored), seconds, place))]
    )


def log_mel_statistics(recording: Mapping[str, Any], seconds: float, place: float = START) -> np.ndarray:
    """Return mean and standard deviation of each band over time.

    All recordings are padded to the same length, as those of a model are, so that the statistics also tell how long a
    sound lasts.

    Args:
        recording: ``array`` [samples] and ``sampling_rate`` (hertz).
        seconds: Length to which the recording is cropped and padded.
        place: Place of the part that is taken of a longer recording, see ``crop_at``.

    Returns:
        Features [2 * bands].
    """
    window = max(FRAME, int(seconds * RATE))
    samples = padded(crop_at(resampled(recording, RATE), window, place), window)
    frames = torch.stft(
        torch.from_numpy(samples), FRAME, HOP, window=_WINDOW, pad_mode="constant", return_complex=True
    )
    power = frames.abs().square().T @ _FILTERS
    levels = power.clamp_min(FLOOR).log10()
    bands = levels.clamp_min(float(levels.max()) - DYNAMIC_RANGE).numpy()
    return np.concatenate([bands.mean(axis=0), bands.std(axis=0)])
