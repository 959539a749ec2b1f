"""Field of the page for a recording."""

from typing import Any

import gradio as gr
import numpy as np


def components(settings: dict[str, Any]) -> list[Any]:
    """Return the fields of the page.

    Args:
        settings: Settings of the Space.
    """
    return [gr.Audio(type="numpy", label="Recording")]


def model_input(
    settings: dict[str, Any], recording: tuple[int, np.ndarray] | None
) -> tuple[Any, dict[str, Any]]:
    """Return the recording at the rate of the model, cropped, padded if the model needs that; and no options.

    Args:
        settings: Settings of the Space.
        recording: Sampling rate (hertz) and samples, [samples] or [samples, channels]; None without one.
    """
    if recording is None or not len(recording[1]):
        raise gr.Error("There is no recording.")
    import soxr

    rate, samples = recording
    samples = np.asarray(samples)
    if samples.dtype.kind == "i":
        samples = samples / np.iinfo(samples.dtype).max
    samples = samples.astype(np.float32)
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if rate != settings["sampling_rate"]:
        samples = soxr.resample(samples, rate, settings["sampling_rate"])
    window = settings["window"]
    if window is None:
        return samples, {}
    start = round(settings["place"] * max(0, len(samples) - window))
    samples = samples[start : start + window]
    if settings["pads"]:
        samples = np.pad(samples, (0, window - len(samples)))
    return samples, {}
