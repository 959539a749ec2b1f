"""Feature extractors: their sampling rate and window, and the model inputs that they compute."""

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

import numpy as np
import torch
from transformers import ASTFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from hf_finetune.errors import InputError, Problem
from hf_finetune.tasks.audio.samples import crop_at, padded, place_of, resampled

__all__ = [
    "bands_of",
    "configure_audio",
    "crop_place",
    "extract",
    "is_spectrogram",
    "needs_padding",
    "processed_recordings",
    "window_samples",
]

DEFAULT_SECONDS = 10.0
"""Window of a checkpoint that accepts recordings of any length."""
WHISPER_STRIDE = 2
"""Frames of a spectrogram for each position of a Whisper encoder."""
FRAME_SHIFT, FRAME_LENGTH = 0.01, 0.025
"""Distance and length of the frames of an Audio Spectrogram Transformer (seconds)."""
LAYER_DROPS = ("layerdrop", "encoder_layerdrop")


def configure_audio(processor: Any, config: Any, data: Any) -> tuple[str, ...]:
    """Set the sampling rate and the window in a feature extractor and its model's config, in place.

    Layers are not dropped at random (``layerdrop``), and the model does not mask its inputs itself.

    Args:
        processor: Feature extractor of the checkpoint.
        config: Config of the model.
        data: ``data`` of the recipe.

    Returns:
        Messages to the user, one sentence each.

    Raises:
        InputError: If the checkpoint does not support a value.
    """
    _set_rate(processor, data.sampling_rate)
    _set_window(processor, config, data.max_seconds)
    if hasattr(data, "crop"):  # speech is never cropped
        processor.crop = "center" if data.crop == "center" else "start"
    for name in LAYER_DROPS:
        if getattr(config, name, 0.0):
            setattr(config, name, 0.0)
    if getattr(config, "apply_spec_augment", False):
        config.apply_spec_augment = False
        return (
            "The model's own random masks in training (apply_spec_augment) are turned off; data.augment has masks.",
        )
    return ()


def is_spectrogram(processor: Any) -> bool:
    """Return whether a feature extractor computes spectrograms, and not normalized samples.

    Args:
        processor: Feature extractor.
    """
    return not isinstance(processor, Wav2Vec2FeatureExtractor)


def bands_of(processor: Any) -> int | None:
    """Return the number of frequency bands of the spectrograms of a feature extractor; None if it computes none.

    Args:
        processor: Feature extractor.
    """
    if not is_spectrogram(processor):
        return None
    return int(getattr(processor, "num_mel_bins", processor.feature_size))


def window_samples(processor: Any) -> int | None:
    """Return the number of samples of a model input, at the sampling rate of the feature extractor.

    It is None for a model of raw waveforms that this package has not trained: recordings keep their length.

    Args:
        processor: Feature extractor.
    """
    if isinstance(processor, WhisperFeatureExtractor):
        return int(processor.n_samples)
    seconds = getattr(processor, "max_seconds", None) or _limit(processor)
    return None if seconds is None else max(1, int(seconds * processor.sampling_rate))


def crop_place(processor: Any) -> float:
    """Return the place of the part that a model reads of a longer recording, see ``crop_at``.

    Args:
        processor: Feature extractor.
    """
    return place_of(getattr(processor, "crop", None))


def needs_padding(processor: Any) -> bool:
    """Return whether a model does not ignore padding, so that it must be given recordings of the trained length.

    Args:
        processor: Feature extractor.
    """
    return isinstance(processor, Wav2Vec2FeatureExtractor) and not processor.return_attention_mask


def extract(processor: Any, recordings: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
    """Return the model inputs of recordings that fill the window or are shorter.

    Args:
        processor: Feature extractor; if it has no window, there must be a single recording.
        recordings: Samples at its sampling rate, float32 [samples] each.

    Returns:
        ``input_features`` or ``input_values`` [recordings, ...], and if the checkpoint uses it, ``attention_mask``.
    """
    options: dict[str, Any] = {"sampling_rate": processor.sampling_rate, "return_tensors": "pt"}
    window = window_samples(processor)
    if window is None:
        return dict(processor(list(recordings), **options))
    if isinstance(
        processor, Wav2Vec2FeatureExtractor
    ):  # with an attention mask, it normalizes without the padding
        options |= {"padding": "max_length", "max_length": window, "truncation": True}
    elif isinstance(processor, ASTFeatureExtractor):  # it fails for less than a frame
        recordings = [padded(samples, ceil(FRAME_LENGTH * processor.sampling_rate)) for samples in recordings]
    elif not isinstance(processor, WhisperFeatureExtractor):
        recordings = [padded(samples, window) for samples in recordings]
    return dict(processor(list(recordings), **options))


def processed_recordings(processor: Any) -> Callable[[Sequence[Any]], dict[str, torch.Tensor]]:
    """Return a function from recordings to model inputs: resampled, cropped, padded.

    Args:
        processor: Configured feature extractor.
    """
    rate, window, place = processor.sampling_rate, window_samples(processor), crop_place(processor)

    def prepare(recordings: Sequence[Any]) -> dict[str, torch.Tensor]:
        samples = [resampled(recording, rate) for recording in recordings]
        return extract(
            processor, samples if window is None else [crop_at(each, window, place) for each in samples]
        )

    return prepare


def _set_rate(processor: Any, rate: int | None) -> None:
    if rate is None or rate == processor.sampling_rate:
        return
    if is_spectrogram(processor):
        rule = f"must be {processor.sampling_rate}, because the checkpoint's spectrograms depend on it"
        raise InputError(Problem("data.sampling_rate", rule, str(rate)))
    processor.sampling_rate = rate


def _set_window(processor: Any, config: Any, seconds: float | None) -> None:
    limit = _limit(processor)
    if seconds is not None and limit is not None and seconds > limit:
        rule = f"must be at most the {limit:g} seconds that the checkpoint accepts"
        raise InputError(Problem("data.max_seconds", rule, f"{seconds:g}"))
    if isinstance(processor, WhisperFeatureExtractor):
        if seconds is not None:
            _set_whisper_window(processor, config, ceil(seconds))
    else:
        trained = getattr(processor, "max_seconds", None)
        processor.max_seconds = seconds or trained or limit or DEFAULT_SECONDS


def _limit(processor: Any) -> float | None:
    """Return the longest window that a checkpoint accepts (seconds); None if it accepts any."""
    if isinstance(processor, WhisperFeatureExtractor):
        return float(processor.chunk_length)
    if isinstance(processor, ASTFeatureExtractor):
        return float(processor.max_length * FRAME_SHIFT)  # 10.24 s of the published models
    return None


def _set_whisper_window(processor: Any, config: Any, seconds: int) -> None:
    """Shorten the window: the encoder then has fewer positions, the first ones of the checkpoint."""
    processor.chunk_length = seconds
    processor.n_samples = seconds * processor.sampling_rate
    processor.nb_max_frames = processor.n_samples // processor.hop_length
    config.max_source_positions = processor.nb_max_frames // WHISPER_STRIDE
