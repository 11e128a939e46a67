"""Measure retrieval quality and latency through the HTTP API, as a client sees them."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from service.client.http_client import Client
from service.evaluation.beir import BeirJudgments
from service.evaluation.ranking_metrics import EvaluatedQuery, mean_metrics

DEPTH = 100
"""Hits requested per query; Recall@100 needs that many."""

MODES: dict[str, dict[str, Any]] = {
    "dense": {"mode": "dense"},
    "lexical": {"mode": "lexical"},
    "hybrid": {"mode": "hybrid"},
    "rerank": {"mode": "hybrid", "rerank": True},
}


def measure(
    client: Client,
    collection: str,
    judgments: BeirJudgments,
    mode: str,
    *,
    concurrency: int = 1,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Run every judged query once; mean metrics, with latencies as the client saw them.

    With `concurrency` above 1 these include the wait under that load.
    """

    def run(query: str) -> EvaluatedQuery:
        request = {"query": judgments.queries[query], "k": DEPTH, "include": [], **MODES[mode]}
        started = time.perf_counter()
        answer = client.search(collection, request)
        milliseconds = (time.perf_counter() - started) * 1000
        progress()
        return EvaluatedQuery(
            ranking=[hit["id"] for hit in answer["hits"]],
            grades=judgments.grades[query],
            milliseconds=milliseconds,
            degraded=[f"{one['stage']}: {one['reason']}" for one in answer["degraded"]],
        )

    with ThreadPoolExecutor(concurrency) as threads:
        metrics = mean_metrics(list(threads.map(run, judgments.queries)))
    return {
        "mode": mode,
        "queries": metrics.queries,
        "nDCG@10": round(metrics.ndcg_at_10, 4),
        "MRR@10": round(metrics.mrr_at_10, 4),
        "Recall@100": round(metrics.recall_at_100, 4),
        "p50_ms": round(metrics.p50_ms, 2),
        "p95_ms": round(metrics.p95_ms, 2),
        "degraded": dict(metrics.degraded),
    }
