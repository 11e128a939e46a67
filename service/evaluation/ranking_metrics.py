"""Metrics of a ranking against judgments or against another ranking, and the confidence intervals of their means.

`ranking`: document ids, best first. `grades`: document id -> judged relevance, where above 0 is relevant. Metrics
against judgments are as trec_eval computes them, and tested equal to `ir_measures`.
"""

import math
from collections import Counter
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
    """The share of all relevant documents that are among the first k."""
    relevant = {document for document, grade in grades.items() if grade > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """1 / rank of the first relevant document among the first k, else 0."""
    return next((1.0 / rank for rank, document in enumerate(ranking[:k], 1) if grades.get(document, 0) > 0), 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatedQuery:
    """The answer to one judged query. `ranking`: 100 deep. `degraded`: `stage: reason` of stages that did not run."""

    ranking: Sequence[str]
    grades: Mapping[str, int]
    milliseconds: float
    degraded: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingMetrics:
    """Means over judged queries, and percentiles of their latencies; NaN of no queries. `ndcg_per_query`: nDCG@10.
    `degraded`: answers that lacked a stage, by `stage: reason`."""

    queries: int
    ndcg_at_10: float
    mrr_at_10: float
    recall_at_100: float
    p50_ms: float
    p95_ms: float
    degraded: Mapping[str, int]
    ndcg_per_query: Sequence[float]


def mean_metrics(queries: Sequence[EvaluatedQuery]) -> RankingMetrics:
    ndcgs = [ndcg(query.ranking, query.grades, 10) for query in queries]
    milliseconds = [query.milliseconds for query in queries]
    return RankingMetrics(
        queries=len(queries),
        ndcg_at_10=_mean(ndcgs),
        mrr_at_10=_mean([reciprocal_rank(query.ranking, query.grades, 10) for query in queries]),
        recall_at_100=_mean([recall(query.ranking, query.grades, 100) for query in queries]),
        p50_ms=percentile(milliseconds, 0.50),
        p95_ms=percentile(milliseconds, 0.95),
        degraded=Counter(reason for query in queries for reason in query.degraded),
        ndcg_per_query=ndcgs,
    )


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile (share in [0, 1]); NaN without values."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan


def overlap_at_k(a: Sequence[str], b: Sequence[str], k: int) -> float:
    """How many of the first k the two have in common, as a share of the longer; 1 where both are empty."""
    first, second = set(a[:k]), set(b[:k])
    longer = max(len(first), len(second))
    return len(first & second) / longer if longer else 1.0


def kendall_tau(a: Sequence[str], b: Sequence[str]) -> float:
    """Kendall's rank correlation (1938) of the items that are in both; NaN where these are fewer than two.

    Not scipy's: this runs on the event loop, which the import of scipy would block for a second.
    """
    place = {item: rank for rank, item in enumerate(b)}
    places = [place[item] for item in a if item in place]
    signs = [1 if earlier < later else -1 for earlier, later in combinations(places, 2)]
    return sum(signs) / len(signs) if signs else math.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanInterval:
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap(
    values: Sequence[float], *, resamples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> MeanInterval:
    """The mean over queries, with its percentile interval (Efron and Tibshirani 1993, ch. 13).

    The same seed gives the same interval. scipy is imported on first use: call it in a thread.
    """
    from scipy import stats

    measured = np.asarray(values, dtype=np.float64)
    if measured.ndim != 1 or not measured.size or not np.isfinite(measured).all():
        raise ValueError("a bootstrap needs one finite value for each query")
    mean = float(measured.mean())
    if measured.size == 1:
        return MeanInterval(mean=mean, low=mean, high=mean)
    interval = stats.bootstrap(
        (measured,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, _DRAWN_AT_ONCE // measured.size),
        confidence_level=confidence,
        method="percentile",
        rng=seed,
    ).confidence_interval
    return MeanInterval(mean=mean, low=float(interval.low), high=float(interval.high))


def paired_bootstrap(
    old: Sequence[float], new: Sequence[float], *, confidence: float = 0.95, seed: int = 0
) -> MeanInterval:
    """The mean difference new - old over the same queries, with its interval (for retrieval: Sakai 2006).

    Paired, because what is easy or hard for both says nothing about which is better.
    """
    differences = [after - before for before, after in zip(old, new, strict=True)]
    return bootstrap(differences, confidence=confidence, seed=seed)
