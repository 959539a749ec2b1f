"""TF-IDF weights of words and of character sequences, for a baseline without a checkpoint."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer

from hf_finetune.tasks.text.stored import text_columns

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["tf_idf_features"]

MAX_TERMS = 200_000
"""Largest number of terms: the most frequent ones of the training split."""
MAX_CHARACTERS = 1_000_000
"""Characters of the training split above which only words are counted: there are many more sequences of characters."""
WORDS = {"ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"}
CHARACTERS = {"analyzer": "char_wb", "ngram_range": (2, 5)}


def tf_idf_features(train: "Dataset", test: "Dataset") -> dict[str, tuple[csr_matrix, csr_matrix]]:
    """Compute TF-IDF weights whose terms and document frequencies are those of the training split.

    The terms are words and pairs of adjacent words. If the texts are few or short, another kind of features counts
    sequences of 2 to 5 characters within words: they suit other word forms, and languages without spaces. Term
    frequencies are logarithmic, and the weights of each text have the norm 1. Pairs of texts have the terms of both,
    apart.

    Args:
        train: Training split.
        test: Split to compute the same features of.

    Returns:
        Features of both splits [examples, terms], by kind: ``words``, and ``characters``. Empty if no text has a word.
    """
    columns = {name: (_texts(train, name), _texts(test, name)) for name in text_columns(train.column_names)}
    kinds: dict[str, Mapping[str, Any]] = {"words": WORDS}
    if sum(len(text) for texts, _ in columns.values() for text in texts) <= MAX_CHARACTERS:
        kinds["characters"] = CHARACTERS
    features = {}
    for kind, terms in kinds.items():
        parts = [part for texts in columns.values() if (part := _weights(*texts, terms)) is not None]
        if parts:
            features[kind] = (
                csr_matrix(hstack([part[0] for part in parts])),
                csr_matrix(hstack([part[1] for part in parts])),
            )
    return features


def _texts(dataset: "Dataset", column: str) -> list[str]:
    return [text or "" for text in dataset[column][:]]


def _weights(
    train: list[str], test: list[str], terms: Mapping[str, Any]
) -> tuple[csr_matrix, csr_matrix] | None:
    """Return the weights of both splits; None if the training texts have no term."""
    vectorizer = TfidfVectorizer(sublinear_tf=True, max_features=MAX_TERMS, **terms)
    try:
        return vectorizer.fit_transform(train), vectorizer.transform(test)
    except ValueError:  # "empty vocabulary; perhaps the documents only contain stop words"
        return None
