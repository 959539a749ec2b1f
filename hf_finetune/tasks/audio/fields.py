"""Fields of ``data`` and ``data.augment`` in recipes for recordings."""

from typing import Literal

from pydantic import Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.types import Count

__all__ = ["AudioAugmentFields", "AudioFields", "WindowFields"]


class WindowFields(Part):
    """Sampling rate and length of the model's input."""

    sampling_rate: Count | None = Field(
        default=None,
        description="Sampling rate of the model's input in hertz, to which all recordings are resampled; null = the "
        "checkpoint's.",
    )
    max_seconds: float | None = Field(
        default=None,
        ge=0.1,
        description="Length of the model's input in seconds: shorter recordings are padded with silence, and longer "
        "ones are cropped; null = the checkpoint's, or 10 if it has none.",
    )


class AudioFields(WindowFields):
    """Sampling rate, length and part of the recordings."""

    crop: Literal["start", "center", "random"] = Field(
        default="start",
        description="Part of a recording that is longer than the model's input: start = the beginning, as the plain "
        "pipeline takes it; center = the middle; random = in training a random part, a new one in each epoch, or in "
        "each cached view, otherwise the beginning.",
    )


class AudioAugmentFields(Part):
    """Augmentation of training recordings."""

    shift: float = Field(
        default=0.0,
        ge=0,
        description="Maximum time by which a recording is shifted, earlier or later, in seconds; silence fills the "
        "gap.",
    )
    gain: float = Field(
        default=0.0,
        ge=0,
        description="Maximum change of the loudness of a recording, up or down, in decibels; without effect on "
        "waveform models that normalize it.",
    )
    noise: float | None = Field(
        default=None,
        description="Lowest signal-to-noise ratio at which white noise is added, in decibels; the ratio is drawn "
        "uniformly between this value and 40 dB above it; null = no noise.",
    )
    time_mask: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Maximum fraction of a recording, in one piece, that is silenced (SpecAugment, Park et al. 2019).",
    )
    frequency_mask: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Maximum fraction of the frequency bands, in one piece, that is set to the mean of the spectrogram "
        "(SpecAugment, Park et al. 2019); only for checkpoints that read spectrograms.",
    )
