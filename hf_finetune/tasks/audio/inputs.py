"""Model inputs of recordings: augmented for training, and prepared as for inference."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import default_data_collator

from hf_finetune.errors import InputError, Problem
from hf_finetune.targets.labels import class_count, encode_batch
from hf_finetune.tasks.audio.augment import Augmentation, mask_frequencies
from hf_finetune.tasks.audio.processor import bands_of, crop_place, extract, is_spectrogram, window_samples
from hf_finetune.tasks.audio.samples import crop_at, resampled
from hf_finetune.tasks.audio.stored import map_recordings
from hf_finetune.tasks.examples import Inputs, Splits
from hf_finetune.tasks.seeded_augmentation import SeededExamples

__all__ = ["RecordingTransform", "Recordings", "StoredRecordings", "prepare_recordings"]


@dataclass(frozen=True)
class RecordingTransform:
    """Transform from the samples of a recording to model inputs.

    Attributes:
        processor: Configured feature extractor.
        classes: Number of classes of multi-label data; None for other data.
        augmentation: Random changes; None for none.
        frequency_mask: Maximum fraction of the frequency bands that is masked.
        training: Whether labels include example weights and class probabilities for the loss.
    """

    processor: Any
    classes: int | None
    augmentation: Augmentation | None = None
    frequency_mask: float = 0.0
    training: bool = False

    def samples(self, recording: Mapping[str, Any]) -> np.ndarray:
        """Return the samples before random changes: resampled, and without these cropped.

        Args:
            recording: ``array`` [samples] and ``sampling_rate`` (hertz).
        """
        samples = resampled(recording, self.processor.sampling_rate)
        if self.augmentation:
            return samples
        return crop_at(samples, _window(self.processor), crop_place(self.processor))

    def __call__(self, samples: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the model inputs of samples."""
        if self.augmentation is not None:
            samples = self.augmentation(samples)
        inputs = {name: values[0] for name, values in extract(self.processor, [samples]).items()}
        if self.frequency_mask:
            name = next(iter(inputs))
            bands = bands_of(self.processor) or 0
            inputs[name] = mask_frequencies(inputs[name], bands, self.frequency_mask)
        return inputs

    def labels(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the label of a row for training or evaluation; empty if it has none.

        Args:
            row: Row of the dataset.
        """
        if "label" not in row:
            return {}
        batch = {name: [value] for name, value in row.items()}
        return {"labels": encode_batch(batch, self.classes, training=self.training)[0]}


class Recordings(torch.utils.data.Dataset):
    """Dataset of model inputs and labels.

    Args:
        rows: Dataset with the columns ``audio`` and ``label``.
        transform: Transform to model inputs.
    """

    def __init__(self, rows: Any, transform: RecordingTransform):
        self.rows, self.transform = rows, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        inputs = self.transform(self.transform.samples(row["audio"]))
        return {**inputs, **self.transform.labels(row)}


class ReadRecordings(torch.utils.data.Dataset):
    """Dataset whose recordings are read from a store.

    Args:
        rows: Dataset of the other columns.
        store: Tensors of each recording: its samples, or its model inputs.
        transform: Transform to model inputs.
        names: Names of the stored model inputs; empty if samples are stored.
    """

    def __init__(self, rows: Any, store: Any, transform: RecordingTransform, names: Sequence[str]):
        self.rows, self.store, self.transform, self.names = rows, store, transform, names

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> dict[str, Any]:
        stored = self.store[index]
        inputs = (
            dict(zip(self.names, stored, strict=True)) if self.names else self.transform(stored[0].numpy())
        )
        return {**inputs, **self.transform.labels(self.rows[index])}


class StoredRecordings:
    """Cached form of recordings: their model inputs, or before random changes their samples.

    Args:
        recordings: Recordings to store.
    """

    def __init__(self, recordings: Recordings):
        self.recordings, self.transform = recordings, recordings.transform

    @property
    def is_fixed(self) -> bool:
        """Whether model inputs are stored."""
        return self.transform.augmentation is None and not self.transform.frequency_mask

    @property
    def what(self) -> str:
        """Words for the stored recordings."""
        return "preprocessed recordings" if self.is_fixed else "resampled recordings"

    @property
    def facts(self) -> Mapping[str, Any]:
        """Whether model inputs are stored, and the settings of the feature extractor."""
        return {"fixed": self.is_fixed, "processor": self.transform.processor.to_dict()}

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages that decode and resample."""
        return ("soundfile", "soxr")

    def __len__(self) -> int:
        return len(self.recordings)

    def select(self, rows: Sequence[int]) -> "StoredRecordings":
        """Return the form of some of the recordings.

        Args:
            rows: Their indices.
        """
        return StoredRecordings(Recordings(self.recordings.rows.select(rows), self.transform))

    def source(self) -> Recordings:
        """Return the recordings, decoded at each access."""
        return self.recordings

    def rows(self) -> Generator[tuple[torch.Tensor, ...], None, None]:
        """Yield the tensors of all recordings in order."""
        decode = self.recordings.rows.features["audio"].decode_example

        def make(stored: Any) -> tuple[torch.Tensor, ...]:
            samples = self.transform.samples(decode(stored))
            if self.is_fixed:
                return tuple(self.transform(samples).values())
            return (torch.from_numpy(samples),)

        yield from map_recordings(self.recordings.rows, make)

    def formats(self, first: tuple[torch.Tensor, ...]) -> list[tuple[tuple[int, ...], str, bool]]:
        """Return the format of the model inputs, or of samples.

        Args:
            first: Tensors of the first recording.
        """
        if not self.is_fixed:
            return [((), "float32", True)]
        return [(tuple(value.shape), str(value.dtype).removeprefix("torch."), False) for value in first]

    def over(self, store: Any) -> ReadRecordings:
        """Return the same recordings, read from a store of the rows.

        Args:
            store: Stored tensors of each recording.
        """
        names = [name for name in self.recordings.rows.column_names if name != "audio"]
        inputs = tuple(extract(self.transform.processor, [np.zeros(1, np.float32)])) if self.is_fixed else ()
        return ReadRecordings(self.recordings.rows.select_columns(names), store, self.transform, inputs)


def _window(processor: Any) -> int:
    """Return the number of samples of a model input of a configured feature extractor."""
    window = window_samples(processor)
    assert window is not None
    return window


def prepare_recordings(
    splits: Splits,
    processor: Any,
    data: Any,
    seed: int,
    *,
    augmented: bool,
    transform: type[RecordingTransform] = RecordingTransform,
) -> Inputs:
    """Return augmented training recordings, and validation recordings prepared exactly as for inference.

    Args:
        splits: Splits with the columns ``audio`` and ``label``.
        processor: Configured feature extractor.
        data: ``data`` of the recipe.
        seed: Seed of the run.
        augmented: Whether training recordings are augmented.
        transform: Class of the transform to model inputs.

    Raises:
        InputError: If frequencies are to be masked, and the checkpoint's input is no spectrogram.
    """
    classes, augment = class_count(splits.train.features), data.augment
    if augment.frequency_mask and not is_spectrogram(processor):
        rule = "must be 0 for a checkpoint whose input is the raw waveform, not a spectrogram"
        raise InputError(Problem("data.augment.frequency_mask", rule, f"{augment.frequency_mask:g}"))
    augmentation = Augmentation(
        window=_window(processor),
        rate=processor.sampling_rate,
        place=None if data.crop == "random" else crop_place(processor),
        shift=augment.shift,
        gain=augment.gain,
        noise=augment.noise,
        time_mask=augment.time_mask,
    )
    train = transform(
        processor,
        classes,
        augmentation if augmented else None,
        augment.frequency_mask if augmented else 0.0,
        training=True,
    )
    validation = splits.validation
    return Inputs(
        train=SeededExamples(Recordings(splits.train, train), seed),
        validation=None if validation is None else Recordings(validation, transform(processor, classes)),
        collate=default_data_collator,
    )
