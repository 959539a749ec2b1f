"""Augmentation of training recordings. All randomness comes from torch's global generator."""

from dataclasses import dataclass

import numpy as np
import torch

from hf_finetune.tasks.audio.samples import START, crop_at, padded

__all__ = ["Augmentation", "mask_frequencies"]

NOISE_RANGE = 40.0
"""Difference between the highest and the lowest signal-to-noise ratio of added noise (dB)."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a recording, in this order: part, shift, silenced piece, noise, gain.

    Attributes:
        window: Number of samples of a model input.
        rate: Sampling rate (hertz).
        place: Place of the part that is taken of a longer recording, see ``crop_at``; None is a random one.
        shift: Maximum shift (seconds).
        gain: Maximum change of the loudness (dB).
        noise: Lowest signal-to-noise ratio of added noise (dB); None adds none.
        time_mask: Maximum fraction of the recording that is silenced.
    """

    window: int
    rate: int
    place: float | None = START
    shift: float = 0.0
    gain: float = 0.0
    noise: float | None = None
    time_mask: float = 0.0

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Change the samples of a recording, float32 [samples]."""
        samples = crop_at(samples, self.window, _uniform() if self.place is None else self.place)
        if self.shift:
            samples = _shifted(samples, round(self.rate * _symmetric(self.shift)), self.window)
        if self.time_mask:
            samples = _silenced(samples, self.time_mask)
        if self.noise is not None:
            samples = _with_noise(samples, self.noise + NOISE_RANGE * _uniform())
        if self.gain:
            samples = samples * np.float32(10 ** (_symmetric(self.gain) / 20))
        return samples


def mask_frequencies(spectrogram: torch.Tensor, bands: int, fraction: float) -> torch.Tensor:
    """Set a random range of frequency bands to the mean of the spectrogram.

    Args:
        spectrogram: Spectrogram, [bands, frames] or [frames, bands].
        bands: Number of frequency bands.
        fraction: Maximum fraction of the bands.

    Returns:
        A changed copy, of the same shape.
    """
    axis = 0 if spectrogram.shape[0] == bands else 1
    start, length = _piece(bands, fraction)
    changed = spectrogram.clone()
    changed.narrow(axis, start, length).fill_(spectrogram.mean())
    return changed


def _uniform() -> float:
    return float(torch.rand(()))


def _symmetric(largest: float) -> float:
    return largest * (2 * _uniform() - 1)


def _piece(size: int, fraction: float) -> tuple[int, int]:
    """Return the start and the length of a random piece of at most a fraction of ``size``."""
    length = int(size * fraction * _uniform())
    return int((size - length + 1) * _uniform()), length


def _shifted(samples: np.ndarray, shift: int, window: int) -> np.ndarray:
    """Return samples that begin later (or earlier, if ``shift`` is negative), at most a window."""
    if shift < 0:
        return padded(samples[-shift:], 1)
    return np.concatenate([np.zeros(shift, samples.dtype), samples])[:window]


def _silenced(samples: np.ndarray, fraction: float) -> np.ndarray:
    start, length = _piece(len(samples), fraction)
    changed = samples.copy()
    changed[start : start + length] = 0
    return changed


def _with_noise(samples: np.ndarray, ratio: float) -> np.ndarray:
    """Add white noise at a signal-to-noise ratio (dB); silence stays as it is."""
    strength = float(np.sqrt(np.mean(np.square(samples)))) * 10 ** (-ratio / 20)
    noise: np.ndarray = torch.randn(len(samples)).numpy()
    return samples + np.float32(strength) * noise
