"""Metrics of ranked candidates: the examples of a group are the candidates of a query, and its labels their relevance.

The rank of a candidate counts from 1 within its query. Candidates with the same score share the middle of their ranks,
so that a model that scores everything alike gains nothing. A metric is the mean over the queries that have a relevant
candidate, one with a label above 0; the other queries are left out, and ``queries_with_relevant`` is their complement.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from hf_finetune.targets.metric import Metric, Statistic
from hf_finetune.targets.scored_examples import ScoredExamples

__all__ = ["RankedQueries", "ranked_queries", "relevance_metric_at_k", "relevance_metrics"]

_NAME = re.compile(r"(hit_rate|ndcg|mrr)_at_([1-9]\d{0,5})")


@dataclass(frozen=True)
class RankedQueries:
    """Candidates with their ranks within their queries.

    Attributes:
        query: Index of the query of each candidate [candidates].
        first: Index of the first candidate of each query [queries].
        relevance: Label of each candidate, 0 for one that is not relevant [candidates].
        rank: Middle rank of each candidate within its query, from 1 [candidates].
        ideal_rank: Rank of each candidate if all are sorted by their relevance [candidates].
    """

    query: np.ndarray
    first: np.ndarray
    relevance: np.ndarray
    rank: np.ndarray
    ideal_rank: np.ndarray

    @property
    def has_relevant(self) -> np.ndarray:
        """Whether each query has a relevant candidate [queries]."""
        counts: np.ndarray = np.bincount(self.query, self.relevance > 0, minlength=len(self.first)) > 0
        return counts

    def total(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of values of the candidates of each query [queries].

        Args:
            values: Values [candidates].
        """
        return np.bincount(self.query, values, minlength=len(self.first))


def relevance_metrics() -> Iterator[Metric]:
    """Yield the metrics of relevance that every evaluation computes.

    - ``ndcg_at_10``, ``hit_rate_at_1`` and ``hit_rate_at_10``: see ``relevance_metric_at_k``.
    - ``mrr``: mean reciprocal rank of the first relevant candidate (Voorhees 1999).
    - ``queries_with_relevant``: fraction of the queries that have a relevant candidate; the others count nowhere else.
    """
    for name in ("ndcg_at_10", "mrr", "hit_rate_at_1", "hit_rate_at_10"):
        metric = _mean_of_queries("mrr", _reciprocal_rank) if name == "mrr" else relevance_metric_at_k(name)
        assert metric is not None
        yield metric
    yield Metric(
        "queries_with_relevant",
        lambda examples: float(_answerable(examples)(_weights(examples))[0]),
        resampled=_answerable,
        takes_weights=True,
    )


def relevance_metric_at_k(name: str) -> Metric | None:
    """Return ``hit_rate_at_K``, ``ndcg_at_K`` or ``mrr_at_K``; candidates below the first K places count nothing.

    The hit rate is the fraction of queries with a relevant candidate in the first K places. NDCG (Järvelin and
    Kekäläinen 2002) has the gain 2^relevance - 1 and the discount 1 / log2(rank + 1), and is divided by the value of
    the ideal order; it is at most 1, which ties across place K might exceed otherwise.

    Args:
        name: Name in a recipe.

    Returns:
        The metric; None for any other name.
    """
    match = _NAME.fullmatch(name)
    return None if match is None else _mean_of_queries(name, partial(_AT_K[match[1]], int(match[2])))


def ranked_queries(examples: ScoredExamples) -> RankedQueries:
    """Return the ranks of candidates within their queries.

    Args:
        examples: Labels [candidates], or with the relevance in the first of several columns; scores [candidates]; and
            the queries as groups. Without groups, all are candidates of one query.
    """
    relevance = examples.labels if examples.labels.ndim == 1 else examples.labels[:, 0]
    scores = np.asarray(examples.scores, dtype=np.float64)
    groups = np.zeros(len(scores), dtype=np.int64) if examples.groups is None else examples.groups
    _, first, query = np.unique(groups, return_index=True, return_inverse=True)
    return RankedQueries(
        query, first, relevance, _middle_ranks(query, scores), _ordinal_ranks(query, relevance)
    )


def _ordinal_ranks(query: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the rank of each value within its query, 1 for the greatest; equal values in the order of the rows."""
    order = np.lexsort((-values, query))
    starts = np.searchsorted(query[order], query[order])
    ranks = np.empty(len(values))
    ranks[order] = np.arange(len(values)) - starts + 1
    return ranks


def _middle_ranks(query: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the middle of the ranks that equal scores share within their query."""
    ranks = _ordinal_ranks(query, scores)
    _, ties = np.unique(np.stack([query, scores]), axis=1, return_inverse=True)
    ties = ties.reshape(-1)
    middles: np.ndarray = (np.bincount(ties, ranks) / np.bincount(ties))[ties]
    return middles


def _weights(examples: ScoredExamples) -> np.ndarray:
    return np.ones((1, len(examples))) if examples.weights is None else examples.weights[None]


def _mean_of_queries(name: str, per_query: Callable[[RankedQueries], np.ndarray]) -> Metric:
    def statistic(examples: ScoredExamples) -> Statistic:
        queries = ranked_queries(examples)
        known = queries.has_relevant
        values = np.where(known, per_query(queries), 0.0)

        def of_resamples(counts: np.ndarray) -> np.ndarray:
            times = counts[:, queries.first]  # all candidates of a query are drawn together
            present = times @ known
            undefined = np.full(len(counts), np.nan)
            means: np.ndarray = np.divide(times @ values, present, out=undefined, where=present > 0)
            return means

        return of_resamples

    def compute(examples: ScoredExamples) -> float:
        return float(statistic(examples)(_weights(examples))[0])

    return Metric(name, compute, resampled=statistic, takes_weights=True)


def _answerable(examples: ScoredExamples) -> Statistic:
    queries = ranked_queries(examples)
    known = queries.has_relevant

    def of_resamples(counts: np.ndarray) -> np.ndarray:
        times = counts[:, queries.first]
        shares: np.ndarray = times @ known / times.sum(axis=1)
        return shares

    return of_resamples


def _reciprocal_rank(queries: RankedQueries, k: float = np.inf) -> np.ndarray:
    """Return the reciprocal of the rank of the first relevant candidate [queries]; 0 without one in k places."""
    values = np.zeros(len(queries.first))
    counts = (queries.relevance > 0) & (queries.rank <= k)
    np.maximum.at(values, queries.query[counts], 1 / queries.rank[counts])
    return values


def _reciprocal_rank_at(k: int, queries: RankedQueries) -> np.ndarray:
    return _reciprocal_rank(queries, k)


def _hit_at(k: int, queries: RankedQueries) -> np.ndarray:
    hits: np.ndarray = (_reciprocal_rank(queries, k) > 0).astype(np.float64)
    return hits


def _ndcg_at(k: int, queries: RankedQueries) -> np.ndarray:
    """Return the normalized discounted cumulative gain of the first k places [queries]."""
    gain = np.exp2(queries.relevance) - 1

    def discounted(ranks: np.ndarray) -> np.ndarray:
        return queries.total(np.where(ranks <= k, gain / np.log2(1 + ranks), 0.0))

    ideal = discounted(queries.ideal_rank)
    values = np.divide(discounted(queries.rank), ideal, out=np.zeros_like(ideal), where=ideal > 0)
    return np.minimum(values, 1.0)


_AT_K: dict[str, Callable[[int, RankedQueries], np.ndarray]] = {
    "hit_rate": _hit_at,
    "ndcg": _ndcg_at,
    "mrr": _reciprocal_rank_at,
}
