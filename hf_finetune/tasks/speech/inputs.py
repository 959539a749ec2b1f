"""Model inputs of speech recognition: recordings, and the tokens of their transcripts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import default_data_collator

from hf_finetune.errors import InputError, Problem, join_quoted
from hf_finetune.tasks.audio.inputs import RecordingTransform, prepare_recordings
from hf_finetune.tasks.audio.processor import is_spectrogram, processed_recordings, window_samples
from hf_finetune.tasks.audio.samples import padded, resampled
from hf_finetune.tasks.audio.stored import durations
from hf_finetune.tasks.examples import Inputs, Splits
from hf_finetune.tasks.speech.outputs import IGNORED, FrameTranscripts, GeneratedTranscripts, is_ctc

__all__ = ["SpeechCollator", "inference_inputs", "pieces_of", "prepare_speech", "with_decoder_start"]

DECODER_INPUT = "decoder_input_ids"
_LEAST_SECONDS = 0.1
"""Least length of a waveform, which is padded to it."""
_MARGIN = 16
"""Tokens that a validation transcript may have more than twice the longest label."""


class UnpaddedTransform(RecordingTransform):
    """Transform to normalized samples of the length of the recording, as the pipeline of transformers computes them."""

    def __call__(self, samples: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the model inputs of samples."""
        if self.augmentation is not None:
            samples = self.augmentation(samples)
        return {name: values[0] for name, values in unpadded_inputs([samples], self.processor).items()}


class SpeechCollator:
    """Collate function that encodes transcripts, and gives a decoder the tokens before each one that it predicts.

    Waveforms are padded to the longest one of the batch.

    Args:
        tokenizer: Tokenizer of the checkpoint, with its language.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer, self.has_decoder = tokenizer, not is_ctc(tokenizer)

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return a batch.

        Args:
            examples: Model inputs of recordings, and perhaps ``labels``: a text, or token ids that end with padding.
        """
        inputs = [{name: value for name, value in each.items() if name != "labels"} for each in examples]
        batch: dict[str, torch.Tensor] = {}
        if inputs[0] and is_ctc(self.tokenizer):
            batch = {
                name: pad_sequence([each[name] for each in inputs], batch_first=True) for name in inputs[0]
            }
        elif inputs[0]:
            batch = default_data_collator(inputs)
        labels = [each["labels"] for each in examples if "labels" in each]
        if not labels:
            start = {DECODER_INPUT: start_tokens(self.tokenizer, len(examples))} if self.has_decoder else {}
            return {**batch, **start}
        tokens = [self._encode(label) for label in labels]
        padded = pad_sequence(tokens, batch_first=True, padding_value=IGNORED)
        if not self.has_decoder:
            return {**batch, "labels": padded}
        before = torch.cat([start_tokens(self.tokenizer, len(padded)), padded[:, :-1]], dim=1)
        padding = self.tokenizer.pad_token_id
        return {**batch, "labels": padded, DECODER_INPUT: before.masked_fill(before == IGNORED, padding)}

    def _encode(self, label: Any) -> torch.Tensor:
        """Return the tokens of a transcript without the first one, with which the decoder starts."""
        if isinstance(label, str):
            return torch.tensor(transcript_tokens(self.tokenizer, label))
        return label[label != IGNORED]


def transcript_tokens(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a transcript: for a decoder language and task, text, and the end; or the characters.

    Args:
        tokenizer: Tokenizer of the checkpoint, with its language.
        text: Transcript.
    """
    tokens: list[int] = tokenizer(text).input_ids
    starts = not is_ctc(tokenizer) and tokens[0] == start_token(tokenizer)
    return tokens[1:] if starts else tokens


def start_token(tokenizer: Any) -> int:
    """Return the token with which a decoder starts.

    Args:
        tokenizer: Tokenizer of the checkpoint.
    """
    prefix = getattr(tokenizer, "prefix_tokens", None)
    return int(prefix[0]) if prefix else int(tokenizer.bos_token_id)


def start_tokens(tokenizer: Any, count: int) -> torch.Tensor:
    """Return the first input of a decoder for a batch, [count, 1].

    Args:
        tokenizer: Tokenizer of the checkpoint.
        count: Number of examples.
    """
    return torch.full((count, 1), start_token(tokenizer))


def with_decoder_start(
    extract: Callable[[Sequence[Any]], dict[str, torch.Tensor]], tokenizer: Any
) -> Callable[[Sequence[Any]], dict[str, torch.Tensor]]:
    """Return a function from recordings to model inputs, with the first input of a decoder.

    Args:
        extract: Function from recordings to model inputs.
        tokenizer: Tokenizer of the checkpoint.
    """

    def prepare(recordings: Sequence[Any]) -> dict[str, torch.Tensor]:
        return {**extract(recordings), DECODER_INPUT: start_tokens(tokenizer, len(recordings))}

    return prepare


def pieces_of(recording: Mapping[str, Any], extractor: Any) -> list[Mapping[str, Any]]:
    """Return a recording in pieces of at most the window of a feature extractor, one after another.

    Args:
        recording: ``array`` [samples] and ``sampling_rate`` (hertz).
        extractor: Configured feature extractor.
    """
    window, rate = window_samples(extractor), extractor.sampling_rate
    samples = resampled(recording, rate)
    size = window or max(1, len(samples))
    count = max(1, -(-len(samples) // size))
    pieces = [samples[index * size : (index + 1) * size] for index in range(count)]
    return [{"array": piece, "sampling_rate": rate} for piece in pieces]


def inference_inputs(recordings: Sequence[Mapping[str, Any]], extractor: Any) -> dict[str, torch.Tensor]:
    """Return model inputs as the pipeline of transformers computes them: a single waveform is not padded.

    Args:
        recordings: ``array`` and ``sampling_rate`` of each; a single one, or pieces of it, for a model of waveforms.
        extractor: Configured feature extractor.
    """
    if is_spectrogram(extractor):
        return processed_recordings(extractor)(recordings)
    return unpadded_inputs(
        [resampled(recording, extractor.sampling_rate) for recording in recordings], extractor
    )


def unpadded_inputs(samples: Sequence[np.ndarray], extractor: Any) -> dict[str, torch.Tensor]:
    """Return normalized waveforms, padded to the longest one, and to the least that convolutions read.

    Args:
        samples: Samples of each recording [samples], at the sampling rate of the feature extractor.
        extractor: Feature extractor of a model of waveforms.
    """
    rate = extractor.sampling_rate
    long = [padded(each, int(_LEAST_SECONDS * rate)) for each in samples]
    return dict(extractor(long, sampling_rate=rate, padding=True, return_tensors="pt"))


def prepare_speech(splits: Splits, processor: Any, data: Any, seed: int, *, augmented: bool) -> Inputs:
    """Return augmented training recordings, and validation recordings prepared exactly as for inference.

    Args:
        splits: Splits with the columns ``audio`` and ``label``.
        processor: Configured feature extractor and tokenizer.
        data: ``data`` of the recipe.
        seed: Seed of the run.
        augmented: Whether training recordings are augmented.

    Raises:
        InputError: If a recording or a transcript is too long for the checkpoint.
    """
    both = {"train": splits.train, "validation": splits.validation}
    named = {name: split for name, split in both.items() if split is not None}
    longest = _check_lengths(named, processor)
    has_waveforms = is_ctc(processor.tokenizer) and not is_spectrogram(processor.feature_extractor)
    inputs = prepare_recordings(
        splits,
        processor.feature_extractor,
        data.model_copy(update={"crop": "start"}),
        seed,
        augmented=augmented,
        transform=UnpaddedTransform if has_waveforms else RecordingTransform,
    )
    return replace(
        inputs,
        collate=SpeechCollator(processor.tokenizer),
        sequences=FrameTranscripts(processor.tokenizer)
        if is_ctc(processor.tokenizer)
        else GeneratedTranscripts(processor.tokenizer, _most_generated(processor.tokenizer, longest)),
    )


def _most_generated(tokenizer: Any, longest: int) -> int:
    """Return the number of tokens that validation generates at most, after those with which a decoder starts."""
    start = len(getattr(tokenizer, "prefix_tokens", None) or [0])
    return int(min(2 * longest + _MARGIN, tokenizer.model_max_length - start))


def _check_lengths(splits: Mapping[str, Any], processor: Any) -> int:
    """Return the number of tokens of the longest transcript; raise an error for too long recordings and transcripts."""
    window = window_samples(processor.feature_extractor)
    most_seconds = np.inf if window is None else window / processor.feature_extractor.sampling_rate
    most_tokens = processor.tokenizer.model_max_length
    problems, longest = [], 0
    for name, split in splits.items():
        ids = split["id"][:]
        long = [ids[row] for row, seconds in durations(split).items() if seconds > most_seconds]
        counts = [len(transcript_tokens(processor.tokenizer, text)) for text in split["label"][:]]
        wordy = [row for row, count in zip(ids, counts, strict=True) if count > most_tokens]
        longest = max(longest, *counts)
        if name == "train" and is_ctc(processor.tokenizer):
            problems += _unknown_problems(ids, split["label"][:], processor.tokenizer)
        if long:
            rule = f"must contain recordings of at most {most_seconds:g} s, the input of the checkpoint"
            repair = "Cut longer ones at pauses, with their transcripts, or remove them."
            problems.append(Problem(f"The {name} split", rule, join_quoted(long), repair))
        if wordy:
            rule = f"must contain transcripts of at most {most_tokens} tokens, which the checkpoint can write"
            problems.append(Problem(f"The {name} split", rule, join_quoted(wordy)))
    if problems:
        raise InputError(problems)
    return longest


def _unknown_problems(ids: Sequence[str], texts: Sequence[str], tokenizer: Any) -> list[Problem]:
    """Return a problem if training transcripts contain characters that a checkpoint cannot write."""
    known = {*tokenizer.get_vocab(), *" \t\n"}
    missing = {text: sorted({*text} - known) for text in texts}
    rows = [row for row, text in zip(ids, texts, strict=True) if missing[text]]
    if not rows:
        return []
    characters = sorted({character for found in missing.values() for character in found})
    place, rule = "The train split", "must contain only characters of the checkpoint's vocabulary"
    repair = (
        "Write the transcripts as the checkpoint does, such as in upper case, or replace these characters."
    )
    return [Problem(place, rule, f"{join_quoted(characters)} in {join_quoted(rows)}", repair)]
