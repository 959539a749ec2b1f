"""Names of the recommenders that are baselines."""

from collections.abc import Mapping

__all__ = ["TITLES"]

TITLES: Mapping[str, str] = {
    "popularity": "popularity",
    "markov_chain": "Markov chain",
    "item_knn": "nearest items (kNN)",
    "ease": "linear model of items (EASE)",
}
"""Names in words."""
