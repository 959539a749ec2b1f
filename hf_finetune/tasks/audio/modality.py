"""The modality of sound recordings."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_finetune.errors import Problem
from hf_finetune.tasks.audio.fields import AudioAugmentFields, AudioFields
from hf_finetune.tasks.audio.formats import (
    AUDIO_SUFFIXES,
    has_unsupported_audio_format,
    unreadable_problems,
)
from hf_finetune.tasks.columns import ColumnRole, choose_only_candidate, is_string
from hf_finetune.tasks.examples import (
    DecodedForm,
    ExampleCheck,
    Inputs,
    PreviewRow,
    Remarks,
    SimpleFeatures,
    Splits,
)
from hf_finetune.tasks.modality import Modality

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset, Features
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["Audio"]

_USUAL_COLUMN_NAMES = (
    "audio", "sound", "recording", "wav", "speech", "clip", "file", "file_name", "filename", "path",
    "file_path", "filepath", "audio_path", "audio_file", "wav_path",
)  # fmt: skip
_BINARIES = ("binary", "large_binary")
_MAX_DRAFT_SECONDS = 10
"""Largest length of the input in a recipe that is written for new data (seconds)."""
_DRAFT_QUANTILE = 0.95
"""Fraction of the recordings that fit into this length."""
_SYNTHETIC_RATE, _SYNTHETIC_SAMPLES = 16_000, 8_000


def _holds_recordings(feature: Any) -> bool:
    """Return whether a column holds recordings of ``datasets``, paths, bytes, or ``{bytes, path}`` structs."""
    if isinstance(feature, dict):
        return set(feature) == {"bytes", "path"}
    return (
        any(base.__name__ == "Audio" for base in type(feature).__mro__)
        or is_string(feature)
        or getattr(feature, "dtype", None) in _BINARIES
    )


class Audio(Modality):
    """Recordings: files or bytes, of any sampling rate, length and number of channels."""

    name: ClassVar[str] = "audio"
    article = "a recording"
    plural = "recordings"
    readable = "a readable recording"
    file_noun = "recording"
    roles: ClassVar[tuple[ColumnRole, ...]] = (
        ColumnRole(
            "audio",
            "recordings",
            "must contain recordings, file paths or the bytes of audio files",
            _USUAL_COLUMN_NAMES,
            _holds_recordings,
            "Column of the recordings or of their paths; null = inferred.",
        ),
    )
    model_inputs: ClassVar[tuple[str, ...]] = ("input_features", "input_values", "attention_mask")
    has_fixed_size: ClassVar[bool] = True
    opens_files: ClassVar[bool] = True
    processor_class: ClassVar[str] = "AutoFeatureExtractor"
    processor_argument: ClassVar[str] = "feature_extractor"
    data_fields: ClassVar[type[AudioFields]] = AudioFields
    augment_fields: ClassVar[type[AudioAugmentFields]] = AudioAugmentFields
    augment_description: ClassVar[str] = "shift, gain, noise, time_mask and frequency_mask"
    packages: ClassVar[tuple[str, ...]] = ("soundfile", "soxr")

    @property
    def main_inputs(self) -> tuple[str, ...]:
        """Inputs for spectrograms and for samples."""
        return self.model_inputs[:2]

    @property
    def suffixes(self) -> frozenset[str]:
        """Lower-case suffixes of audio files."""
        return AUDIO_SUFFIXES

    def find_columns(
        self, features: "Features", named: Mapping[str, str], taken: Sequence[str | None]
    ) -> tuple[dict[str, str | None], list[Problem]]:
        """Find the column of the recordings: named, of an audio type, of a usual name, or the only one without text."""
        if "audio" in named:
            return {"audio": named["audio"]}, []
        from datasets import Audio as AudioFeature

        usable = [name for name in features if _holds_recordings(features[name]) and name not in taken]
        candidates = (
            [name for name in usable if isinstance(features[name], AudioFeature)]
            or [name for name in usable if name.lower() in _USUAL_COLUMN_NAMES]
            or [name for name in usable if not is_string(features[name])]
        )
        column, problems = choose_only_candidate("audio", "recordings", candidates, features)
        return {"audio": column}, problems

    def unreadable_files(self, place: str, files: Iterable[Any]) -> list[Problem]:
        """Return a problem for recordings in formats that must be converted first."""
        return unreadable_problems(place, files)

    def features(self, *, decode: bool = True) -> dict[str, Any]:
        """Return the feature type of the column of the recordings.

        Raises:
            InputError: If a package that reads recordings is not installed.
        """
        from hf_finetune.tasks.audio.feature import Recording
        from hf_finetune.tasks.audio.files import import_packages

        import_packages()

        return {"audio": Recording(decode=decode)}

    def check(self) -> ExampleCheck:
        """Return a check that decodes each recording once."""
        from hf_finetune.tasks.audio.stored import AudioCheck

        return AudioCheck()

    def extreme_rows(self, dataset: "Dataset", lengths: Sequence[int] | None = None) -> list[int]:
        """Return the rows of the longest and of the shortest recording."""
        from hf_finetune.tasks.audio.stored import durations

        known = durations(dataset)
        return list(dict.fromkeys(end(known, key=known.__getitem__) for end in (max, min))) if known else []

    def synthetic_examples(
        self, count: int, rng: Any, *, length: int = 16, pair: bool = False
    ) -> dict[str, Any]:
        """Return tones of half a second."""
        return {"audio": [_tone(rng.uniform(200, 2000)) for _ in range(count)]}

    def configure(
        self,
        processor: Any,
        config: "PreTrainedConfig",
        data: Any,
        skeleton: "Callable[[], PreTrainedModel]",
    ) -> tuple[str, ...]:
        """Set the sampling rate and the window in the feature extractor and the config."""
        from hf_finetune.tasks.audio.processor import configure_audio

        return configure_audio(processor, config, data)

    def is_augmented(self, data: Any) -> bool:
        """Return whether training recordings are changed, or random parts are taken of them."""
        return data.crop == "random" or super().is_augmented(data)

    def without_augmentation(self, data: Any) -> Any:
        """Return the ``data`` of a recipe without random changes and parts."""
        crop = "start" if data.crop == "random" else data.crop
        return super().without_augmentation(data).model_copy(update={"crop": crop})

    def prepare(self, splits: Splits, processor: Any, data: Any, seed: int) -> Inputs:
        """Return augmented training recordings, and validation recordings prepared exactly as for inference."""
        from hf_finetune.tasks.audio.inputs import prepare_recordings

        return prepare_recordings(splits, processor, data, seed, augmented=self.is_augmented(data))

    @property
    def simple_features(self) -> SimpleFeatures | None:
        """Statistics of log-mel spectrograms of the length of the model's input."""

        def compute(
            train: "Dataset", test: "Dataset", data: Any
        ) -> "dict[str, tuple[np.ndarray, np.ndarray]]":
            from hf_finetune.tasks.audio.log_mel import log_mel_features
            from hf_finetune.tasks.audio.samples import place_of

            window = data.max_seconds or _longest(train), place_of(data.crop)
            return {"": (log_mel_features(train, *window), log_mel_features(test, *window))}

        return SimpleFeatures("log_mel", "log-mel statistics", compute)

    def decoded_form(self, examples: Any) -> DecodedForm | None:
        """Return how decoded recordings are stored."""
        from hf_finetune.tasks.audio.inputs import Recordings, StoredRecordings

        return StoredRecordings(examples) if isinstance(examples, Recordings) else None

    def format_size(self, batch: Mapping[str, Any]) -> str:
        """Return the number of samples of the recordings of a batch, or of frames and bands of their spectrograms."""
        values = batch[self.main_input_in(batch)]
        if values.ndim == 2:
            return f"{values.shape[1]:,} samples"
        return " x ".join(map(str, values.shape[1:])) + " spectrogram"

    def describe_sizes(self, dataset: "Dataset") -> str:
        """Return the median and the largest duration, read from the headers of the files."""
        from statistics import median

        from hf_finetune.tasks.audio.stored import durations

        seconds = durations(dataset).values()
        if not seconds:
            return ""
        return f"Median duration {median(seconds):.1f} s, longest {max(seconds):.1f} s."

    def draft_fields(self, dataset: "Dataset") -> Mapping[str, tuple[Any, str]]:
        """Return a length that contains 95 % of the recordings, in whole seconds up to ``_MAX_DRAFT_SECONDS``."""
        from math import ceil

        import numpy as np

        from hf_finetune.tasks.audio.stored import durations

        known = [*durations(dataset).values()] or [_MAX_DRAFT_SECONDS]
        seconds = min(max(1, ceil(np.quantile(known, _DRAFT_QUANTILE))), _MAX_DRAFT_SECONDS)
        comment = f"the longest recording has {max(known):.1f} s; a shorter input saves time"
        return {"max_seconds": (float(seconds), comment)}

    @property
    def searched_augmentations(self) -> tuple[Any, ...]:
        """A small shift, and the same with masks."""
        return ({"shift": 0.1}, {"shift": 0.1, "time_mask": 0.2})

    def write_preview(self, rows: Sequence[PreviewRow], path: Path, title: str, suffix: str) -> None:
        """Write a page of recordings and their views, with players and spectrograms."""
        from hf_finetune.tasks.audio.preview import audio_page

        path.write_text(audio_page(rows, title), encoding="utf-8")

    def preview_example(self, row: Mapping[str, Any]) -> Any:
        """Return the recording as a data URI."""
        return self.show(row)["audio"]

    def preview_inputs(self, inputs: Mapping[str, Any], processor: Any) -> Any:
        """Return the augmented recording, or its spectrogram, as a data URI."""
        from hf_finetune.tasks.audio.preview import view_source
        from hf_finetune.tasks.audio.processor import bands_of

        values = inputs[self.main_input_in(inputs)]
        return view_source(values, processor.sampling_rate, bands_of(processor) if values.ndim == 2 else None)

    def save_tiny_checkpoint(self, folder: Path) -> None:
        """Write a tiny Whisper encoder."""
        from hf_finetune.tasks.audio.tiny import save_tiny_whisper

        save_tiny_whisper(folder)

    def pipeline_input(self, row: Mapping[str, Any]) -> Any:
        """Return ``array`` and ``sampling_rate`` of the recording."""
        return row["audio"]

    def read_batch(
        self, pipe: Any, examples: Iterator[Any], size: int, remarks: Remarks | None = None
    ) -> Any:
        """Return the model inputs of the next recordings; None at the end."""
        recordings = list(islice(examples, size))
        return self.batch_inputs(pipe.feature_extractor)(recordings) if recordings else None

    def has_unsupported_format(self, name: str) -> bool:
        """Return whether a file is a recording in a format that must be converted first."""
        return has_unsupported_audio_format(name)

    def read_example(self, cells: Mapping[str, Any]) -> tuple[Any, Any]:
        """Decode a recording as in training."""
        from hf_finetune.tasks.audio.files import read_recording

        return read_recording(cells["audio"])

    def remarks(self) -> Remarks:
        """Return a new collector of remarks on silence and sampling rates."""
        from hf_finetune.tasks.audio.notes import AudioNotes

        return AudioNotes()

    def batch_inputs(self, processor: Any) -> "Callable[[Sequence[Any]], dict[str, torch.Tensor]]":
        """Return a function from recordings to spectrograms or samples."""
        from hf_finetune.tasks.audio.processor import processed_recordings

        return processed_recordings(processor)

    def makes_batches(self, processor: Any) -> bool:
        """Return whether all recordings have the same length as model inputs."""
        from hf_finetune.tasks.audio.processor import window_samples

        return window_samples(processor) is not None

    def show(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Return the beginning of the recording, to be played."""
        from hf_finetune.tasks.audio.preview import player_source

        return {"audio": player_source(row["audio"])}

    def example_code(self, *, pair: bool) -> str:
        """Return the name of an audio file."""
        return '"recording.wav"'

    @property
    def usage_note(self) -> str:
        """Differences between the pipeline and the commands of this package."""
        return (
            "The pipeline reads files with ffmpeg. `hf-finetune predict` needs no ffmpeg; of recordings that are "
            "longer than the input of the model it uses the beginning, or the middle if `preprocessor_config.json` has "
            "the `crop` `center`."
        )

    def demo_components(self, gradio: Any, *, pair: bool) -> list[Any]:
        """Return a field for an audio file."""
        return [gradio.Audio(type="filepath", label="Recording")]

    def demo_values(self, example: Any, path: Path) -> dict[str, str]:
        """Save the recording as a WAV file, and return its path."""
        from hf_finetune.tasks.audio.feature import wave_bytes

        file = path.with_suffix(".wav")
        file.write_bytes(wave_bytes(example["array"], example["sampling_rate"]))
        return {"audio": str(file)}

    @property
    def space_code(self) -> Path:
        """Python file with the field for a recording."""
        return Path(__file__).with_name("space_fields.py")

    def space_settings(self, processor: Any, *, pair: bool) -> dict[str, Any]:
        """Return the sampling rate (hertz), and number and place of the samples of an input that may need padding."""
        from hf_finetune.tasks.audio.processor import crop_place, needs_padding, window_samples

        return {
            "sampling_rate": processor.sampling_rate,
            "window": window_samples(processor),
            "place": crop_place(processor),
            "pads": needs_padding(processor),
        }


def _longest(dataset: "Dataset") -> float:
    """Return the duration of the longest recording, up to ``_MAX_DRAFT_SECONDS`` (seconds)."""
    from hf_finetune.tasks.audio.stored import durations

    return min(_MAX_DRAFT_SECONDS, max(durations(dataset).values(), default=_MAX_DRAFT_SECONDS))


def _tone(frequency: float) -> "dict[str, np.ndarray | int]":
    """Return a tone.

    Args:
        frequency: Frequency (hertz).
    """
    import numpy as np

    times = np.arange(_SYNTHETIC_SAMPLES, dtype=np.float32) / _SYNTHETIC_RATE
    samples = np.sin(2 * np.pi * frequency * times, dtype=np.float32) / 2
    return {"array": samples, "sampling_rate": _SYNTHETIC_RATE}
