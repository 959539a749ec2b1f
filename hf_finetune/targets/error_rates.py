"""Word and character error rates of transcripts."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from hf_finetune.targets.metric import Metric, Statistic
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.targets.transcript_metrics import error_counts, error_rate, resampled_error_rates

__all__ = ["error_rates", "word_error_shares"]

_WORDS, _CHARACTERS = 0, 2
"""Position of the errors in ``error_counts``; the number of words or characters follows."""
_RATES = (
    ("wer", _WORDS, "basic"),
    ("cer", _CHARACTERS, "basic"),
    ("wer_orthographic", _WORDS, "none"),
    ("cer_orthographic", _CHARACTERS, "none"),
)
"""Metrics: name of each rate, what it counts, and the normalizer of both texts."""


def error_rates() -> Iterator[Metric]:
    """Yield the error rates, the errors of all examples, divided by the number of spoken words or characters.

    An error is a word that is substituted, left out or inserted, in the alignment with the fewest errors; a rate can
    exceed 1. Before the comparison, texts are normalized as for Whisper: lower case, without punctuation; the
    orthographic rates compare them as they are.
    """
    for name, position, normalizer in _RATES:
        yield Metric(
            name,
            partial(_rate, position, normalizer),
            resampled=partial(_rate_statistic, position, normalizer),
            takes_weights=True,
            greater_is_better=False,
        )


def word_error_shares(labels: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Return the number of wrong words of each example, divided by its number of spoken words [examples].

    Args:
        labels: What was said [examples].
        texts: What a model wrote [examples].
    """
    errors, words, _, _ = error_counts(list(labels), list(texts), "basic")
    shares: np.ndarray = errors / np.maximum(words, 1)
    return shares


def _counts(position: int, normalizer: str, examples: ScoredExamples) -> tuple[np.ndarray, np.ndarray]:
    counts = error_counts(list(examples.labels), list(examples.decisions), normalizer)
    return counts[position], counts[position + 1]


def _rate(position: int, normalizer: str, examples: ScoredExamples) -> float:
    return error_rate(*_counts(position, normalizer, examples), examples.weights)


def _rate_statistic(position: int, normalizer: str, examples: ScoredExamples) -> Statistic:
    return partial(resampled_error_rates, *_counts(position, normalizer, examples))
