"""The modality of speech: recordings that a model transcribes as a whole."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_finetune.tasks.audio.modality import Audio
from hf_finetune.tasks.examples import DecodedForm, Inputs, Remarks, SimpleFeatures, Splits
from hf_finetune.tasks.speech.fields import SpeechFields

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["PIECES", "Speech"]

PIECES = "pieces"
"""Key of a batch with the number of pieces of each recording, in which longer recordings are transcribed."""


class Speech(Audio):
    """Recordings of speech. They are never cropped, since their transcripts belong to the whole.

    The preprocessor is a pair: a feature extractor for recordings, and a tokenizer for transcripts.
    """

    name: ClassVar[str] = "speech"
    label_columns: ClassVar[tuple[str, ...]] = (
        *("transcription", "transcript", "transcripts", "sentence", "text", "normalized_text", "label"),
    )
    processor_class: ClassVar[str] = "AutoProcessor"
    data_fields: ClassVar[type[SpeechFields]] = SpeechFields  # type: ignore[assignment]
    packages: ClassVar[tuple[str, ...]] = (*Audio.packages, "jiwer")

    @property
    def processor_noun(self) -> str:
        """Noun for the preprocessor with its article."""
        return "a feature extractor with a tokenizer"

    def configure(
        self,
        processor: Any,
        config: "PreTrainedConfig",
        data: Any,
        skeleton: "Callable[[], PreTrainedModel]",
    ) -> tuple[str, ...]:
        """Set window and sampling rate, and the language of the transcripts."""
        from hf_finetune.tasks.speech.language import set_language
        from hf_finetune.tasks.speech.vocabulary import check_family

        check_family(config, processor.tokenizer)
        notes = super().configure(processor.feature_extractor, config, data, skeleton)
        set_language(processor.tokenizer, config, data.language)
        longest = getattr(config, "max_target_positions", None)
        if longest is not None:
            processor.tokenizer.model_max_length = min(longest, processor.tokenizer.model_max_length)
        return notes

    def checkpoint_data(self, data: Any) -> Any:
        """Return the ``data`` of a recipe with the window of the checkpoint."""
        return data.model_copy(update={"max_seconds": None})

    def is_augmented(self, data: Any) -> bool:
        """Return whether training recordings are changed."""
        return super(Audio, self).is_augmented(data)

    def without_augmentation(self, data: Any) -> Any:
        """Return the ``data`` of a recipe without random changes."""
        return super(Audio, self).without_augmentation(data)

    def prepare(self, splits: Splits, processor: Any, data: Any, seed: int) -> Inputs:
        """Return recordings with the tokens of their transcripts."""
        from hf_finetune.tasks.speech.inputs import prepare_speech

        return prepare_speech(splits, processor, data, seed, augmented=self.is_augmented(data))

    def caching_objection(self, processor: Any, data: Any) -> str:
        """Return that waveforms have different lengths, for a model that reads these."""
        from hf_finetune.tasks.audio.processor import is_spectrogram

        varies = not is_spectrogram(processor.feature_extractor)
        return "recordings are not padded to one length" if varies else ""

    def decoded_form(self, examples: Any) -> DecodedForm | None:
        """Return how decoded recordings are stored; None for waveforms, whose lengths differ."""
        from hf_finetune.tasks.audio.processor import is_spectrogram

        transform = getattr(examples, "transform", None)
        if transform is None or not is_spectrogram(transform.processor):
            return None
        return super().decoded_form(examples)

    @property
    def simple_features(self) -> SimpleFeatures | None:
        """None: a transcript is no function of a few features."""
        return None

    def draft_fields(self, dataset: "Dataset") -> Mapping[str, tuple[Any, str]]:
        """Return a language, which cannot be read off the data."""
        return {"language": ("en", "guessed: set the language that is spoken")}

    @property
    def searched_augmentations(self) -> tuple[Any, ...]:
        """A little noise: a shift could move words out of the window."""
        return ({"noise": 10.0},)

    def preview_inputs(self, inputs: Mapping[str, Any], processor: Any) -> Any:
        """Return the augmented recording, or its spectrogram, as a data URI."""
        return super().preview_inputs(inputs, processor.feature_extractor)

    def save_tiny_checkpoint(self, folder: Path) -> None:
        """Write a tiny Whisper with its tokenizer."""
        from hf_finetune.tasks.speech.tiny import save_tiny_speech_model

        save_tiny_speech_model(folder)

    def needs_vocabulary(self, path: str, revision: str | None) -> bool:
        """Return whether a checkpoint has no tokenizer, as Wav2Vec2 has none before it is fine-tuned."""
        from hf_finetune.tasks.speech.vocabulary import lacks_vocabulary

        return lacks_vocabulary(path, revision)

    def save_with_vocabulary(self, folder: Path, path: str, revision: str | None, train: "Dataset") -> str:
        """Write the checkpoint with a tokenizer of the characters of the training transcripts."""
        from hf_finetune.tasks.speech.vocabulary import save_with_characters

        count = save_with_characters(folder, path, revision, train["label"][:])
        return f"The checkpoint has no tokenizer: its vocabulary is the {count} characters of the training transcripts."

    def pipeline_settings(self, processor: Any, model: "PreTrainedModel") -> dict[str, Any]:
        """Return feature extractor and tokenizer."""
        return {"feature_extractor": processor.feature_extractor, "tokenizer": processor.tokenizer}

    def read_batch(
        self, pipe: Any, examples: Iterator[Any], size: int, remarks: Remarks | None = None
    ) -> Any:
        """Return the model inputs of the next recordings; longer ones than the window in several pieces."""
        from hf_finetune.tasks.speech.inputs import inference_inputs, pieces_of

        recordings = list(islice(examples, size))
        if not recordings:
            return None
        pieces = [pieces_of(recording, pipe.feature_extractor) for recording in recordings]
        inputs = inference_inputs([piece for each in pieces for piece in each], pipe.feature_extractor)
        return {**inputs, PIECES: [len(each) for each in pieces]}

    def batch_inputs(self, processor: Any) -> "Callable[[Sequence[Any]], dict[str, torch.Tensor]]":
        """Return a function from recordings to model inputs, with the start of a transcript for a decoder."""
        from hf_finetune.tasks.speech.inputs import with_decoder_start
        from hf_finetune.tasks.speech.outputs import is_ctc

        extract = super().batch_inputs(processor.feature_extractor)
        return extract if is_ctc(processor.tokenizer) else with_decoder_start(extract, processor.tokenizer)

    def makes_batches(self, processor: Any) -> bool:
        """Return whether recordings are padded to one length for a forward pass, as in the pipeline of transformers."""
        from hf_finetune.tasks.speech.outputs import is_ctc

        return not is_ctc(processor.tokenizer)

    def space_settings(self, processor: Any, *, pair: bool) -> dict[str, Any]:
        """Return the sampling rate, the number of samples of a model input, and whether it must be filled."""
        return super().space_settings(processor.feature_extractor, pair=pair)

    @property
    def usage_note(self) -> str:
        """Differences between the pipeline and the commands of this package."""
        return (
            "The pipeline reads files with ffmpeg. `hf-finetune predict` needs no ffmpeg, and transcribes recordings "
            "that are longer than the input of the model in pieces."
        )
