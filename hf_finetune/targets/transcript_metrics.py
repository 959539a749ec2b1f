"""Word and character error rates of transcripts, after a text normalization that is chosen by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hf_finetune.errors import InputError, Problem, suggestion

__all__ = [
    "NORMALIZERS",
    "ErrorCounts",
    "Normalizer",
    "error_counts",
    "error_rate",
    "resampled_error_rates",
    "sentences_in_training",
    "text_normalizer",
]

Normalizer = Callable[[str], str]
"""Function from a text to the text that is compared."""


class ErrorCounts(NamedTuple):
    """Edit distances between references and hypotheses, and the lengths of the references.

    Attributes:
        word_errors: Substituted, deleted and inserted words [examples], int64.
        words: Words of each reference [examples], int64.
        character_errors: Substituted, deleted and inserted characters [examples], int64.
        characters: Characters of each reference, with the spaces between words [examples], int64.
    """

    word_errors: np.ndarray
    words: np.ndarray
    character_errors: np.ndarray
    characters: np.ndarray


def _basic() -> Normalizer:
    """Return Whisper's normalizer for all languages.

    It maps to lower case, removes text in brackets, and replaces punctuation and symbols by spaces, also apostrophes
    within words; diacritics of composed letters are kept (NFKC). Combining marks are replaced as well, which damages
    words of Indic scripts, as in published results.
    """
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer

    normalizer: Normalizer = BasicTextNormalizer()
    return normalizer


def _none() -> Normalizer:
    return str


NORMALIZERS: Mapping[str, Callable[[], Normalizer]] = {"basic": _basic, "none": _none}
"""Function that returns the normalizer of each name."""


def text_normalizer(name: str, place: str = "normalizer") -> Normalizer:
    """Return a text normalizer. After any of them, whitespace is collapsed, and removed at both ends.

    Args:
        name: ``basic`` (lower case, no punctuation) or ``none``.
        place: Location of the name in the recipe, for the error text.

    Returns:
        Function from a text to the normalized text, whose words are separated by single spaces.

    Raises:
        InputError: If there is no normalizer of this name.

    Source: Radford et al. 2022 (Whisper), appendix C; implementation of transformers.
    """
    if name not in NORMALIZERS:
        known = list(NORMALIZERS)
        raise InputError(
            Problem(place, "must be the name of a text normalizer", repr(name), suggestion(name, known))
        )
    normalize = NORMALIZERS[name]()
    return lambda text: " ".join(normalize(text).split())


def error_counts(references: Sequence[str], hypotheses: Sequence[str], normalizer: str) -> ErrorCounts:
    """Return the edit distance of each hypothesis to its reference, in words and in characters.

    All words of a hypothesis whose reference is empty are insertions.

    Args:
        references: Correct transcripts.
        hypotheses: Predicted transcripts, in the order of the references.
        normalizer: Name of the normalizer of both.

    Returns:
        Errors, and lengths of the normalized references.

    Raises:
        InputError: If jiwer is not installed, or there is no normalizer of this name.
        ValueError: If there are not as many hypotheses as references.

    Source: jiwer, whose minimal alignments (Levenshtein, all edits cost 1) are counted per example.
    """
    if len(references) != len(hypotheses):
        raise ValueError(
            f"Each reference must have one hypothesis. Got {len(references)} references and "
            f"{len(hypotheses)} hypotheses."
        )
    normalize = text_normalizer(normalizer)
    jiwer = _import_jiwer()
    if not references:
        return ErrorCounts(*(np.zeros(0, dtype=np.int64) for _ in ErrorCounts._fields))
    pairs = [normalize(text) for text in references], [normalize(text) for text in hypotheses]
    words, characters = jiwer.process_words(*pairs), jiwer.process_characters(*pairs)
    return ErrorCounts(_edits(words), _lengths(words), _edits(characters), _lengths(characters))


def _import_jiwer() -> Any:
    """Return the module jiwer.

    Raises:
        InputError: If it is not installed.
    """
    try:
        import jiwer
    except ImportError as error:
        rule = "must be computed with the package jiwer, which is not installed"
        raise InputError(
            Problem("The word error rate", rule, "", "Run pip install 'hf-finetune[speech]'.")
        ) from error
    return jiwer


def _edits(output: Any) -> np.ndarray:
    """Return the number of edits of each alignment of jiwer."""
    edits = [
        sum(
            max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
            for chunk in chunks
            if chunk.type != "equal"
        )
        for chunks in output.alignments
    ]
    return np.array(edits, dtype=np.int64)


def _lengths(output: Any) -> np.ndarray:
    return np.array([len(reference) for reference in output.references], dtype=np.int64)


def error_rate(errors: np.ndarray, lengths: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Compute the weighted sum of errors over the weighted sum of lengths.

    Args:
        errors: Errors of each example [examples].
        lengths: Length of each reference [examples].
        weights: Weight of each example [examples], or None for equal weights.

    Returns:
        The rate; nan if the sum of lengths is 0.
    """
    equal = np.ones(len(errors))
    return float(resampled_error_rates(errors, lengths, (equal if weights is None else weights)[None])[0])


def resampled_error_rates(errors: np.ndarray, lengths: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Compute the error rate of each of many resamples of the examples.

    Args:
        errors: Errors of each example [examples].
        lengths: Length of each reference [examples].
        counts: Number of times that each example was drawn [resamples, examples].

    Returns:
        Rates [resamples]; nan for a resample without a word.
    """
    numerators = np.asarray(counts @ errors, dtype=np.float64)
    denominators = np.asarray(counts @ lengths, dtype=np.float64)
    rates = np.full(len(denominators), np.nan)
    return np.divide(numerators, denominators, out=rates, where=denominators > 0)


def sentences_in_training(
    test_sentences: Sequence[str], training_sentences: Sequence[str], normalizer: str
) -> np.ndarray:
    """Return whether each test sentence is also one of the training transcripts, after normalization.

    Args:
        test_sentences: Transcripts of the test split.
        training_sentences: Transcripts of the training split.
        normalizer: Name of the normalizer of both.

    Returns:
        Booleans [test sentences]; False for an empty sentence, which contains no words to remember.

    Raises:
        InputError: If there is no normalizer of this name.
    """
    normalize = text_normalizer(normalizer)
    seen = {normalize(sentence) for sentence in training_sentences} - {""}
    return np.array([normalize(sentence) in seen for sentence in test_sentences], dtype=bool)
