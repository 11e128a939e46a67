"""A collection judged over HTTP: through the real search, in each mode and in bounded time."""

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import orjson
import pytest
from prometheus_client import REGISTRY
from pydantic import TypeAdapter

from service.api.routes import evaluate
from service.core.errors import AzimuthError, ModelUnavailable, Overloaded
from service.core.ids import CollectionName
from service.core.search import SearchRequest
from service.evaluation.ranking_metrics import ndcg
from service.spaces.sampling import OVERLOAD_RETRIES
from tests.edge import Edge, Json, Stuck, WordReranker, api_fixture, assert_problem, call_and_leave, edge

pytestmark = pytest.mark.slow

PATH = "/v1/collections/papers/evaluate"
ANSWER = TypeAdapter(evaluate.EvaluationAnswer)
TEXTS = {"a": "cancel a running task", "b": "sort a list by key", "c": "read a file line by line", "d": "sort of odd"}
QUERIES = [{"_id": "q1", "text": "sort a list"}, {"_id": "q2", "text": "cancel task"}]


def row(query: str, document: str, score: int = 1) -> Json:
    return {"query-id": query, "corpus-id": document, "score": score}


QRELS = [row("q1", "b"), row("q2", "a")]
DOCUMENTS: list[Json] = [{"id": name, "text": text} for name, text in TEXTS.items()]
api = api_fixture(*DOCUMENTS, reranker=WordReranker())


async def run_evaluation(api: Edge, **body: Any) -> Json:
    shown = await api.post(PATH, body)
    ANSWER.validate_python(shown)
    return shown


async def test_each_mode_gets_its_metrics(api: Edge) -> None:
    shown = await run_evaluation(api, queries=QUERIES, qrels=QRELS, modes=["dense", "lexical", "hybrid", "rerank"])
    assert (shown["collection"], shown["version"]) == ("papers", 1)
    assert (shown["queries"], shown["judged_queries"], shown["unknown_documents"]) == (2, 2, 0)
    assert list(shown["modes"]) == ["dense", "lexical", "hybrid", "rerank"]
    lexical = shown["modes"]["lexical"]
    assert (lexical["ndcg_at_10"], lexical["mrr_at_10"], lexical["recall_at_100"]) == (1.0, 1.0, 1.0)
    assert lexical["ndcg_interval"] == {"low": 1.0, "high": 1.0}
    assert lexical["degraded"] == {}
    assert 0 < lexical["p50_ms"] <= lexical["p95_ms"]


async def test_metrics_are_those_of_the_answers_of_clients(api: Edge) -> None:
    qrels = [row("q1", "d", 1), row("q1", "c", 2), row("q2", "c", 1)]
    shown = await run_evaluation(api, queries=QUERIES, qrels=qrels, modes=["hybrid"])
    of_clients = [
        ndcg([hit["id"] for hit in (await api.search(query["text"], k=100))["hits"]], grades, 10)
        for query, grades in zip(QUERIES, ({"d": 1, "c": 2}, {"c": 1}), strict=True)
    ]
    assert shown["modes"]["hybrid"]["ndcg_at_10"] == pytest.approx(sum(of_clients) / 2, abs=1e-4)
    assert 0 < shown["modes"]["hybrid"]["ndcg_at_10"] < 1


async def test_without_a_body_the_stored_judgments_are_used(api: Edge) -> None:
    await api.client.post("/v1/collections/papers/judgments", json={"queries": QUERIES, "qrels": QRELS})
    answer = await api.post(PATH)
    assert answer["queries"] == 2
    assert list(answer["modes"]) == ["dense", "lexical", "hybrid"]


async def test_without_judgments_it_is_a_409(api: Edge) -> None:
    assert "no judgments" in (await api.refused(PATH, {}, 409))["detail"]


async def test_a_relevant_document_that_is_not_there_counts_as_not_found(api: Edge) -> None:
    shown = await run_evaluation(api, queries=QUERIES, qrels=[*QRELS, row("q1", "gone")], modes=["lexical"])
    assert shown["unknown_documents"] == 1
    assert shown["modes"]["lexical"]["recall_at_100"] == 0.75


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"queries": QUERIES}, 422, ""),
        ({"qrels": QRELS}, 422, ""),
        ({"queries": QUERIES, "qrels": [row("q9", "a")]}, 422, "qrels.0.query-id"),
        ({"queries": QUERIES, "qrels": [row("q1", "a", 0)]}, 422, "qrels"),
        ({"queries": QUERIES, "qrels": [row("q1", "gone")]}, 409, None),
        ({"queries": [], "qrels": QRELS}, 422, "queries"),
        ({"queries": [{"_id": str(at), "text": "x"} for at in range(1001)], "qrels": QRELS}, 422, "queries"),
        ({"queries": QUERIES, "qrels": QRELS, "modes": []}, 422, "modes"),
        ({"queries": QUERIES, "qrels": QRELS, "modes": ["sparse"]}, 422, "modes.0"),
        ({"queries": QUERIES, "qrels": QRELS, "budget_seconds": 0}, 422, "budget_seconds"),
        ({"queries": QUERIES, "qrels": QRELS, "budget_seconds": 601}, 422, "budget_seconds"),
        ({"queries": QUERIES, "qrels": QRELS, "k": 10}, 422, "k"),
    ],
)
async def test_invalid_evaluations_are_refused_by_field(api: Edge, body: Json, status: int, field: str | None) -> None:
    assert_problem(await api.client.post(PATH, json=body), status, field)


async def test_the_mode_rerank_needs_a_reranker() -> None:
    async with edge() as api:
        await api.collection()
        body = {"queries": QUERIES, "qrels": QRELS, "modes": ["dense", "rerank"]}
        problem = await api.refused(PATH, body, 422, "modes.1")
        assert "AZIMUTH_RERANKER" in problem["detail"]


async def test_external_vectors_allow_only_lexical_evaluation() -> None:
    async with edge() as api:
        await api.collection(embedder={"model": "external", "dimensions": 2, "identity": "ours"})
        await api.write({"id": "b", "text": "sort a list", "vector": [1.0, 0.0]})
        body = {"queries": QUERIES[:1], "qrels": QRELS[:1]}
        await api.refused(PATH, body, 409)
        shown = await run_evaluation(api, **body, modes=["lexical"])
        assert shown["modes"]["lexical"]["ndcg_at_10"] == 1.0


async def test_a_spent_budget_limits_the_sample(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(float(at) for at in range(1_000))
    monkeypatch.setattr("service.evaluation.evaluator.time", SimpleNamespace(monotonic=lambda: next(clock)))
    queries = [{"_id": f"q{at}", "text": f"sort {at}"} for at in range(20)]
    shown = await run_evaluation(api, queries=queries, qrels=[row(f"q{at}", "b") for at in range(20)], budget_seconds=5)
    assert (shown["queries"], shown["judged_queries"]) == (5, 20)
    assert {len(shown["modes"])} == {3}


async def test_large_sets_are_sampled(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.evaluation.evaluator.MAX_QUERIES", 3)
    queries = [{"_id": f"q{at}", "text": f"sort {at}"} for at in range(20)]
    body = {"queries": queries, "qrels": [row(f"q{at}", "b") for at in range(20)]}
    await api.client.post("/v1/collections/papers/judgments", json=body)
    shown = await run_evaluation(api, modes=["lexical"])
    assert (shown["queries"], shown["judged_queries"]) == (3, 20)


def _live_samples() -> dict[str, float]:
    """What is measured of searches. The work of the models is measured apart from who wanted it."""
    apart = (
        "azimuth_embed",
        "azimuth_query_vectors",
        "azimuth_rerank_pass",
        "azimuth_reranked",
        "azimuth_http",
        "azimuth_admission",
    )
    samples = [sample for family in REGISTRY.collect() for sample in family.samples]
    return {
        f"{one.name}{one.labels}": one.value
        for one in samples
        if one.name.startswith("azimuth_") and not one.name.startswith(apart) and not one.name.endswith("_created")
    }


async def test_live_metrics_do_not_count_it(api: Edge) -> None:
    labels = {"collection": "papers", "version": "1", "mode": "hybrid"}
    before = REGISTRY.get_sample_value("azimuth_search_seconds_count", labels) or 0.0
    shown = _live_samples()
    await run_evaluation(api, queries=QUERIES, qrels=QRELS, modes=["hybrid", "dense", "lexical", "rerank"])
    await api.service.search.run_background(CollectionName("papers"), SearchRequest(text="sort"))  # shadow traffic
    assert _live_samples() == shown
    assert (REGISTRY.get_sample_value("azimuth_search_seconds_count", labels) or 0.0) == before
    await api.search("sort a list")
    assert REGISTRY.get_sample_value("azimuth_search_seconds_count", labels) == before + 1


@pytest.mark.parametrize(("error", "status"), [(Overloaded("busy", retry_after=0.0), 429), (ModelUnavailable(), 200)])
async def test_degraded_answers_are_counted_or_retried(
    api: Edge, monkeypatch: pytest.MonkeyPatch, error: AzimuthError, status: int
) -> None:
    read = AsyncMock(side_effect=error)
    monkeypatch.setattr(api.service.reranker, "read", read)
    monkeypatch.setattr("service.evaluation.evaluator.BUSY_SECONDS", 0.0)
    answer = await api.client.post(PATH, json={"queries": QUERIES, "qrels": QRELS, "modes": ["rerank"]})
    assert answer.status_code == status
    if status == 200:
        assert answer.json()["modes"]["rerank"]["degraded"] == {f"rerank: {error.detail}": 2}
        assert read.await_count == 2
    else:
        assert read.await_count == 1 + OVERLOAD_RETRIES


async def test_one_evaluation_at_a_time_and_it_stops_when_the_client_disconnects() -> None:
    reranker, leave = Stuck(), asyncio.Event()
    body = {"queries": QUERIES, "qrels": QRELS, "modes": ["rerank"]}
    async with edge(reranker=reranker) as api:
        await api.collection()
        await api.write(*DOCUMENTS)
        running = asyncio.create_task(call_and_leave(api.service, PATH, orjson.dumps(body), leave))
        async with asyncio.timeout(20):
            await reranker.began.wait()
        await api.refused(PATH, body, 429)
        leave.set()
        assert await running == []
        assert (await run_evaluation(api, queries=QUERIES, qrels=QRELS, modes=["lexical"]))["queries"] == 2
    assert reranker.cancelled
