"""Names of the rankings that are baselines."""

from collections.abc import Mapping

__all__ = ["TITLES"]

TITLES: Mapping[str, str] = {
    "bm25": "BM25",
    "tf_idf_cosine": "cosine of TF-IDF weights",
    "word_overlap": "number of common words",
    "embeddings": "cosine of the checkpoint's embeddings",
}
"""Names in words."""
