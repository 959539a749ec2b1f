"""Checks and durations of the stored recordings of a dataset."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.tasks.audio.feature import Recording
from hf_finetune.tasks.audio.files import (
    NoRecordingError,
    RecordingError,
    RecordingFacts,
    read_header,
    read_recording,
    source_of,
)
from hf_finetune.tasks.audio.notes import AudioNotes
from hf_finetune.tasks.stored import map_files

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["AudioCheck", "durations", "map_recordings"]

MAX_HEADERS_READ = 1000
"""Largest number of recordings whose headers are read; of larger splits, evenly spaced recordings are sampled."""


def map_recordings(dataset: "Dataset", function: Any) -> Iterator[Any]:
    """Apply a function to each undecoded recording, as ``map_files`` does.

    Args:
        dataset: Dataset with a column ``audio``.
        function: Function of ``{"bytes": ..., "path": ...}``.

    Yields:
        Its results, in order.
    """
    return map_files(dataset, "audio", Recording(decode=False), function)


class AudioCheck:
    """Check that recordings can be read: each is decoded once, as in training."""

    def __init__(self) -> None:
        self.recordings = AudioNotes()

    def faults(self, dataset: "Dataset", ids: Sequence[str]) -> list[str | None]:
        """Return the reason why each recording cannot be used; None if it can.

        Args:
            dataset: Dataset with an ``audio`` column.
            ids: Name of each recording.
        """
        faults: list[str | None] = []
        for name, (fault, facts) in zip(ids, map_recordings(dataset, _inspect), strict=True):
            faults.append(fault)
            if facts is not None:
                self.recordings.add(name, facts)
        return faults

    def notes(self) -> list[str]:
        """Return messages on the recordings that were checked."""
        return self.recordings.sentences()


def _inspect(stored: dict[str, Any] | None) -> tuple[str | None, RecordingFacts | None]:
    try:
        return None, read_recording(source_of(stored))[1]
    except FileNotFoundError:
        return "no such file", None
    except NoRecordingError:
        return "no recording in this row", None
    except RecordingError as error:
        return str(error), None
    except OSError as error:
        return f"a file that cannot be read ({error.strerror or error})", None


def durations(dataset: "Dataset") -> dict[int, float]:
    """Return the durations of recordings by row, read from their headers.

    Args:
        dataset: Dataset with a column ``audio``; of a large one, evenly spaced rows are read.

    Returns:
        Durations in seconds; without the recordings whose header cannot be read.
    """
    count = min(len(dataset), MAX_HEADERS_READ)
    rows = np.unique(np.linspace(0, len(dataset) - 1, count).astype(int)).tolist()
    seconds = map_recordings(dataset.select(rows), _duration)
    return {row: value for row, value in zip(rows, seconds, strict=True) if value is not None}


def _duration(stored: dict[str, Any] | None) -> float | None:
    try:
        return read_header(source_of(stored)).seconds
    except (OSError, NoRecordingError, RecordingError):
        return None
