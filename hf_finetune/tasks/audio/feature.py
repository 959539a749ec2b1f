"""Column type of recordings."""

from io import BytesIO
from os import PathLike, fspath
from typing import Any

import numpy as np
from datasets import Audio

from hf_finetune.tasks.audio.files import read_recording, source_of

__all__ = ["Recording", "wave_bytes"]


class Recording(Audio):
    """Column type of recordings that are decoded by ``read_recording``."""

    def encode_example(self, value: Any) -> dict[str, Any]:
        """Return a recording in its stored form: the bytes or the path of a file."""
        if isinstance(value, str | PathLike):
            return {"bytes": None, "path": fspath(value)}
        if isinstance(value, bytes | bytearray):
            return {"bytes": bytes(value), "path": None}
        if value.get("array") is not None:
            return {"bytes": wave_bytes(value["array"], value["sampling_rate"]), "path": None}
        return {"bytes": value.get("bytes"), "path": value.get("path")}

    def decode_example(self, value: Any, token_per_repo_id: dict[str, Any] | None = None) -> dict[str, Any]:
        """Decode a stored recording: ``array``, float32 [samples], and ``sampling_rate`` (hertz)."""
        if isinstance(value, dict) and value.get("bytes") is None and "://" in str(value.get("path")):
            from datasets.utils.file_utils import xopen

            with xopen(value["path"], "rb") as file:
                return read_recording(file.read())[0]
        return read_recording(source_of(value))[0]


def wave_bytes(samples: np.ndarray, rate: int) -> bytes:
    """Return a WAV file of 16 bits with one channel.

    Args:
        samples: Samples in -1 .. 1 [samples]; larger ones are clipped.
        rate: Sampling rate (hertz).
    """
    import soundfile

    written = BytesIO()
    soundfile.write(written, samples, rate, format="WAV", subtype="PCM_16")
    return written.getvalue()
