"""Measures of a ranking against judgments or against another ranking, and how sure a difference of them is.

`ranking`: document ids, best first. `grades`: document id -> judged relevance, where above 0 is relevant. What is
measured against judgments is as trec_eval computes it, tested equal to `ir_measures`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np

_DRAWN_AT_ONCE = 1_000_000
"""Draws of the bootstrap that are held in memory together."""


def ndcg(ranking: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """nDCG@k with linear gain and log2 discount (Jarvelin and Kekalainen 2002, as in trec_eval's ndcg_cut)."""
    ideal = _dcg(sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:k])
    return _dcg([max(0, grades.get(document, 0)) for document in ranking[:k]]) / ideal if ideal else 0.0


def _dcg(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def recall(ranking: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """The share of all relevant documents that stand among the first k."""
    relevant = {document for document, grade in grades.items() if grade > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """1 / rank of the first relevant document among the first k, else 0."""
    return next((1.0 / rank for rank, document in enumerate(ranking[:k], 1) if grades.get(document, 0) > 0), 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingMetrics:
    """Means over judged queries; NaN of none."""

    ndcg_at_10: float
    mrr_at_10: float
    recall_at_100: float


def quality(judged: Sequence[tuple[Sequence[str], Mapping[str, int]]]) -> RankingMetrics:
    """Of each query the ranking that it got, 100 deep, and its grades."""
    if not judged:
        return RankingMetrics(ndcg_at_10=math.nan, mrr_at_10=math.nan, recall_at_100=math.nan)
    return RankingMetrics(
        ndcg_at_10=fmean(ndcg(ranking, grades, 10) for ranking, grades in judged),
        mrr_at_10=fmean(reciprocal_rank(ranking, grades, 10) for ranking, grades in judged),
        recall_at_100=fmean(recall(ranking, grades, 100) for ranking, grades in judged),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile (share in [0, 1]); NaN without values."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


# ---------------------------------------------------------------- two rankings


def overlap(a: Sequence[str], b: Sequence[str], k: int) -> float:
    """How many of the first k the two have in common, as a share of the longer; 1 where both are empty."""
    first, second = set(a[:k]), set(b[:k])
    longer = max(len(first), len(second))
    return len(first & second) / longer if longer else 1.0


def kendall_tau(a: Sequence[str], b: Sequence[str]) -> float:
    """Of the pairs that both know, how many more stand in the same order than not, as a share (Kendall 1938).

    NaN where fewer than two items are common. Time grows with the square of the common items.
    """
    place = {item: rank for rank, item in enumerate(b)}
    places = [place[item] for item in a if item in place]
    signs = [1 if earlier < later else -1 for earlier, later in combinations(places, 2)]
    return sum(signs) / len(signs) if signs else math.nan


# ---------------------------------------------------------------- how sure it is


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean, and between what it lies with the confidence that was asked for."""

    mean: float
    low: float
    high: float


def bootstrap(values: Sequence[float], *, resamples: int = 10_000, confidence: float = 0.95, seed: int = 0) -> Interval:
    """The mean of values that were measured by query, with its percentile interval (Efron and Tibshirani 1993, ch. 13).

    As many queries are drawn with replacement as there are, `resamples` times. The same seed gives the same interval.
    """
    measured = np.asarray(values, dtype=np.float64)
    if measured.ndim != 1 or not measured.size or not np.isfinite(measured).all():
        raise ValueError("a bootstrap needs one finite value for each query")
    chance = np.random.default_rng(seed)
    n = measured.size
    at_once = max(1, _DRAWN_AT_ONCE // n)
    means = np.concatenate(
        [
            measured[chance.integers(n, size=(min(at_once, resamples - done), n), dtype=np.int32)].mean(axis=1)
            for done in range(0, resamples, at_once)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean=float(measured.mean()), low=float(low), high=float(high))


def paired_bootstrap(
    old: Sequence[float],
    new: Sequence[float],
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The mean difference new - old over the same queries, with its interval (for retrieval: Sakai 2006).

    Paired, because what is easy or hard for both says nothing about which is better.
    """
    differences = [after - before for before, after in zip(old, new, strict=True)]
    return bootstrap(differences, resamples=resamples, confidence=confidence, seed=seed)
