"""Measure retrieval quality and latency through the HTTP API, as a client sees them."""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from service.client.http_client import Client
from service.evaluation.beir import BeirJudgments
from service.evaluation.ranking_metrics import RankingMetrics, percentile, quality

DEPTH = 100
"""Hits requested per query; Recall@100 needs that many."""

MODES: dict[str, dict[str, Any]] = {
    "dense": {"mode": "dense"},
    "lexical": {"mode": "lexical"},
    "hybrid": {"mode": "hybrid"},
    "rerank": {"mode": "hybrid", "rerank": True},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModeScores:
    """Means over the judged queries; latencies as the client saw them, in milliseconds."""

    mode: str
    queries: int
    metrics: RankingMetrics
    p50_ms: float
    p95_ms: float
    degraded: dict[str, int]
    """Number of answers without a stage, by `stage: reason`."""

    def as_json(self) -> dict[str, Any]:
        return {
            "mode": self.mode,
            "queries": self.queries,
            "nDCG@10": round(self.metrics.ndcg_at_10, 4),
            "MRR@10": round(self.metrics.mrr_at_10, 4),
            "Recall@100": round(self.metrics.recall_at_100, 4),
            "p50_ms": round(self.p50_ms, 2),
            "p95_ms": round(self.p95_ms, 2),
            "degraded": self.degraded,
        }


def measure(
    client: Client,
    collection: str,
    judgments: BeirJudgments,
    mode: str,
    *,
    concurrency: int = 1,
    progress: Callable[[], None] = lambda: None,
) -> ModeScores:
    """Run every judged query once. With `concurrency` above 1 the latencies include the wait under that load."""

    def run(query: str) -> tuple[str, list[str], float, list[str]]:
        request = {"query": judgments.queries[query], "k": DEPTH, "include": [], **MODES[mode]}
        started = time.perf_counter()
        answer = client.search(collection, request)
        milliseconds = (time.perf_counter() - started) * 1000
        progress()
        degraded = [f"{one['stage']}: {one['reason']}" for one in answer["degraded"]]
        return query, [hit["id"] for hit in answer["hits"]], milliseconds, degraded

    with ThreadPoolExecutor(concurrency) as threads:
        outcomes = list(threads.map(run, judgments.queries))
    latencies = [milliseconds for *_, milliseconds, _ in outcomes]
    return ModeScores(
        mode=mode,
        queries=len(outcomes),
        metrics=quality([(ranking, judgments.grades[query]) for query, ranking, *_ in outcomes]),
        p50_ms=percentile(latencies, 0.50),
        p95_ms=percentile(latencies, 0.95),
        degraded=dict(Counter(reason for *_, reasons in outcomes for reason in reasons)),
    )
