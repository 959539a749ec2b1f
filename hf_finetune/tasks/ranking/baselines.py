"""Rankings without a neural network: BM25, the cosine of TF-IDF weights, and the number of common words.

Their statistics of words are those of the candidates of all splits, which a search engine also knows before any query
is asked; labels are not used. The settings of BM25 are those with the best NDCG@10 on the validation split.
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.targets.relevance import Relevance
from hf_finetune.targets.relevance_metrics import relevance_metric_at_k
from hf_finetune.targets.scored_examples import ScoredExamples, group_indices

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["fit_rankings"]

logger = logging.getLogger(__name__)

_K1 = (0.6, 0.9, 1.2, 2.0)
_B = (0.0, 0.4, 0.75)
_USUAL = {"k1": 1.2, "b": 0.75}
"""Settings of BM25 without a validation split."""


@dataclass(frozen=True)
class _Corpus:
    """Words of the candidates of all splits, each distinct text once.

    Attributes:
        texts: Distinct candidates.
    """

    texts: Sequence[str]

    @cached_property
    def counts(self) -> Mapping[str, Counter[str]]:
        """Number of times that each word is in each text."""
        return {text: Counter(_words(text)) for text in self.texts}

    @cached_property
    def frequency(self) -> Counter[str]:
        """Number of texts that contain each word."""
        return Counter(word for counts in self.counts.values() for word in counts)

    @cached_property
    def mean_length(self) -> float:
        """Mean number of words of a text."""
        lengths = [counts.total() for counts in self.counts.values()]
        return float(np.mean(lengths)) or 1.0

    def rarity(self, word: str) -> float:
        """Return the inverse document frequency of a word, as Lucene computes it: it is positive."""
        frequency = self.frequency[word]
        return float(np.log(1 + (len(self.texts) - frequency + 0.5) / (frequency + 0.5)))


def fit_rankings(
    train: "Dataset", validation: "Dataset | None", test: "Dataset"
) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
    """Score the test pairs by the words of the query and the candidate.

    Args:
        train: Training split with the columns ``query``, ``candidate`` and ``label``.
        validation: Validation split, which chooses the settings of BM25; None takes the usual ones.
        test: Test split.

    Returns:
        Scores of the test pairs [pairs] and the chosen settings, by name.
    """
    splits = [split for split in (train, validation, test) if split is not None]
    corpus = _Corpus(list(dict.fromkeys(text for split in splits for text in split["candidate"][:])))
    settings: Mapping[str, float] = _USUAL
    if validation is not None:
        grid = [{"k1": k1, "b": b} for k1 in _K1 for b in _B]
        values = [_ndcg(validation, _bm25(validation, corpus, **candidate)) for candidate in grid]
        settings = grid[int(np.argmax(values))] if np.isfinite(values).all() else _USUAL
    logger.info("Baseline BM25 with k1 %g and b %g.", settings["k1"], settings["b"])
    return {
        "bm25": (_bm25(test, corpus, **settings), dict(settings)),
        "tf_idf_cosine": (_cosine(test, corpus), {}),
        "word_overlap": (_overlap(test), {}),
    }


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _pairs(split: "Dataset") -> list[tuple[str, str]]:
    return list(zip(split["query"][:], split["candidate"][:], strict=True))


def _bm25(split: "Dataset", corpus: _Corpus, k1: float, b: float) -> np.ndarray:
    """Return the BM25 score of each pair.

    Source: Robertson and Zaragoza 2009, The Probabilistic Relevance Framework: BM25 and Beyond.
    """

    def score(query: str, text: str) -> float:
        counts = corpus.counts[text]
        norm = k1 * (1 - b + b * counts.total() / corpus.mean_length)
        found = (word for word in _words(query) if counts[word])
        return sum(corpus.rarity(word) * counts[word] * (k1 + 1) / (counts[word] + norm) for word in found)

    return np.array([score(*pair) for pair in _pairs(split)])


def _cosine(split: "Dataset", corpus: _Corpus) -> np.ndarray:
    """Return the cosine of the logarithmic TF-IDF weights of both texts of each pair; 0 without common words."""

    def weights(text: str) -> dict[str, float]:
        return {
            word: float(1 + np.log(count)) * corpus.rarity(word)
            for word, count in Counter(_words(text)).items()
        }

    vectors = {text: weights(text) for pair in _pairs(split) for text in pair}
    norms = {
        text: float(np.sqrt(sum(value**2 for value in words.values()))) for text, words in vectors.items()
    }

    def cosine(query: str, text: str) -> float:
        product = sum(value * vectors[text].get(word, 0.0) for word, value in vectors[query].items())
        return product / (norms[query] * norms[text]) if product else 0.0

    return np.array([cosine(*pair) for pair in _pairs(split)])


def _overlap(split: "Dataset") -> np.ndarray:
    """Return the number of different words that both texts of each pair contain."""
    return np.array([float(len({*_words(query)} & {*_words(text)})) for query, text in _pairs(split)])


def _ndcg(split: "Dataset", scores: np.ndarray) -> float:
    metric = relevance_metric_at_k("ndcg_at_10")
    assert metric is not None
    labels = np.asarray(split["label"][:], dtype=np.float64)
    return metric.compute(
        ScoredExamples(labels, scores, Relevance.name, groups=group_indices(split["query"][:]))
    )
