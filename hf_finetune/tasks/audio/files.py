"""Reader of recordings: the file, or its bytes, as samples of one channel."""

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from hf_finetune.errors import InputError, Problem, truncate
from hf_finetune.files import is_valid_path
from hf_finetune.tasks.examples import ExampleError

__all__ = [
    "MIN_RATE",
    "NoRecordingError",
    "RecordingError",
    "RecordingFacts",
    "import_packages",
    "read_header",
    "read_recording",
    "source_of",
]

Source = Path | bytes

MIN_RATE = 1000
"""Lowest sampling rate of a usable recording (hertz); a lower one is a damaged header."""
_HEAD = 200  # bytes read to recognize a file of an unknown format
_CUT_CHUNK = re.compile(r"^ ?(?:data|SSND) : (\d+) \(should be (\d+)\)", re.MULTILINE)
# A program that writes to a pipe cannot know the length, and writes the largest one.
_UNKNOWN_LENGTH = 0x7FFF_F000
# Signatures of formats that libsndfile does not read: an offset in the file, the bytes there, and a name.
_UNSUPPORTED = (
    (4, b"ftyp", "MPEG-4 (m4a, aac, mp4)"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (0, b"\x1aE\xdf\xa3", "Matroska (mka, webm)"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "Windows Media (wma)"),
    (0, b"#!AMR", "AMR"),
    (0, b"wvpk", "WavPack"),
    (0, b"MAC ", "Monkey's Audio"),
)


class RecordingError(ExampleError):
    """Error raised if a file contains no usable recording; the message describes its content."""


class NoRecordingError(ValueError):
    """Error raised if a row has no recording: neither bytes nor a path."""


@dataclass(frozen=True)
class RecordingFacts:
    """Facts about a recording that the user should know.

    Attributes:
        rate: Sampling rate (hertz).
        channels: Number of channels.
        seconds: Duration (seconds).
        is_silent: Whether all samples are 0.
    """

    rate: int
    channels: int
    seconds: float
    is_silent: bool = False


def source_of(stored: Mapping[str, Any] | None) -> Source:
    """Return the bytes of a stored recording, or the path of its file.

    Args:
        stored: ``bytes`` and ``path`` of a row; None if the row has no recording.

    Raises:
        NoRecordingError: If the row has no recording.
        FileNotFoundError: If its path is not a valid path.
    """
    if stored is None or (stored.get("bytes") is None and stored.get("path") is None):
        raise NoRecordingError
    if stored.get("bytes") is not None:
        return bytes(stored["bytes"])
    if not is_valid_path(stored["path"]):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), truncate(stored["path"]))
    return Path(stored["path"])


def read_recording(source: Source) -> tuple[dict[str, Any], RecordingFacts]:
    """Read a recording as the mean of its channels.

    Args:
        source: Audio file, or its bytes.

    Returns:
        ``array``, float32 [samples], and ``sampling_rate`` (hertz), as pipelines of transformers take them; and facts
        about the recording.

    Raises:
        OSError: If the file cannot be read.
        RecordingError: If the file is empty, in an unsupported format, damaged or truncated, or if its samples are not
            finite numbers.
    """
    with _open(source) as file:
        expected, rate = file.frames, file.samplerate
        samples = file.read(dtype="float32", always_2d=True)
        _check_complete(len(samples), expected, file.extra_info)
    if not len(samples):
        raise RecordingError("a recording without samples")
    if rate < MIN_RATE:
        raise RecordingError(f"a recording with a sampling rate of {rate:,} Hz, below {MIN_RATE:,} Hz")
    if not np.isfinite(samples).all():
        raise RecordingError("a recording with samples that are NaN or infinite")
    facts = RecordingFacts(rate, samples.shape[1], len(samples) / rate, not samples.any())
    return {"array": np.ascontiguousarray(samples.mean(axis=1)), "sampling_rate": rate}, facts


def read_header(source: Source) -> RecordingFacts:
    """Return sampling rate, channels and duration of a recording, without decoding it.

    Args:
        source: Audio file, or its bytes.

    Raises:
        OSError: If the file cannot be read.
        RecordingError: If the file is not a recording in a supported format.
    """
    with _open(source) as file:
        return RecordingFacts(file.samplerate, file.channels, file.frames / file.samplerate)


def _check_complete(read: int, expected: int, log: str) -> None:
    """Raise an error if fewer samples were read than the header promises.

    Args:
        read: Number of samples that were read, of each channel.
        expected: Number of samples according to libsndfile.
        log: What libsndfile noted when it opened the file: for WAV and AIFF, the bytes that the header promises.
    """
    if read < expected:
        raise RecordingError(f"a truncated file: {read:,} of {expected:,} samples")
    cut = _CUT_CHUNK.search(log)
    if cut is not None and int(cut[2]) < int(cut[1]) < _UNKNOWN_LENGTH:
        raise RecordingError(f"a truncated file: {int(cut[2]):,} of {int(cut[1]):,} bytes of samples")


@contextmanager
def _open(source: Source) -> Iterator[Any]:
    """Open a recording.

    Raises:
        OSError: If the file cannot be read.
        RecordingError: If the file is not a recording in a supported format, or is damaged.
    """
    soundfile, _ = import_packages()
    content = BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    try:
        with soundfile.SoundFile(content) as file:
            yield file
    except soundfile.LibsndfileError as error:
        raise RecordingError(_describe(content, error)) from error
    finally:
        content.close()


def import_packages() -> tuple[Any, Any]:
    """Return the modules that read and resample recordings, soundfile and soxr.

    Raises:
        InputError: If one of them is not installed.
    """
    try:
        import soundfile
        import soxr
    except (ImportError, OSError) as error:  # OSError: the package is there, but its library is not
        rule = "must be read with the packages soundfile and soxr, which are not installed"
        raise InputError(Problem("Recordings", rule, "", "Run pip install 'hf-finetune[audio]'.")) from error
    return soundfile, soxr


def _describe(content: Any, error: Any) -> str:
    """Return words for a file that libsndfile does not read."""
    content.seek(0)
    head = content.read(_HEAD)
    if not head:
        return "an empty file"
    for offset, signature, name in _UNSUPPORTED:
        if head[offset : offset + len(signature)] == signature:
            return (
                f"a file in the unsupported format {name}. Convert it, for example with "
                "`ffmpeg -i FILE -ac 1 FILE.flac`"
            )
    return f"no readable recording ({error.error_string.rstrip('.')})"
