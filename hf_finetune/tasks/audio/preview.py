"""Recordings for the user: players and pictures of spectrograms in HTML pages."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
import torch

from hf_finetune.tasks.audio.feature import wave_bytes
from hf_finetune.tasks.audio.samples import resampled
from hf_finetune.tasks.examples import PreviewRow
from hf_finetune.tasks.preview_page import cells_page

__all__ = ["audio_page", "player_source", "view_source"]

MAX_SECONDS = 30
"""Longest part of a recording that a page contains (seconds)."""
PAGE_RATE = 16_000
"""Sampling rate of recordings in a page (hertz)."""


def player_source(recording: Mapping[str, Any]) -> str:
    """Return the beginning of a recording as the data URI of a WAV file.

    Args:
        recording: ``array`` [samples] and ``sampling_rate`` (hertz).
    """
    rate = min(PAGE_RATE, int(recording["sampling_rate"]))
    samples = resampled(recording, rate)[: MAX_SECONDS * rate]
    return f"data:audio/wav;base64,{base64.b64encode(wave_bytes(samples, rate)).decode('ascii')}"


def view_source(values: torch.Tensor, rate: int, bands: int | None) -> str:
    """Return a model input as a data URI: samples as a WAV file, a spectrogram as a picture, time from left to right.

    Args:
        values: Samples [samples], or a spectrogram, [bands, frames] or [frames, bands].
        rate: Sampling rate (hertz).
        bands: Number of frequency bands; None for samples.
    """
    if bands is None:
        loudest = max(float(values.abs().max()), 1e-6)
        return player_source({"array": values.numpy() / loudest, "sampling_rate": rate})
    from PIL import Image

    spectrogram = values if values.shape[0] == bands else values.T
    low, high = spectrogram.amin(), spectrogram.amax()
    gray = ((spectrogram - low) / (high - low).clamp_min(1e-6) * 255).round().to(torch.uint8).flip(0)
    written = BytesIO()
    Image.fromarray(np.ascontiguousarray(gray.numpy())).save(written, "PNG")
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"


def audio_page(rows: Sequence[PreviewRow], title: str) -> str:
    """Return an HTML page with a row for each example: label, original, and the views of each epoch.

    Args:
        rows: Examples whose originals and views are data URIs.
        title: Title of the page.
    """
    lines = [[escape(row.label), *map(_element, [row.original, *row.views])] for row in rows]
    return cells_page(lines, title)


def _element(source: str) -> str:
    """Return a player or a picture."""
    if source.startswith("data:audio"):
        return f'<audio controls src="{source}"></audio>'
    return f'<img alt="spectrogram" src="{source}" style="max-width: 100%">'
