"""Drift over HTTP: live searches leave queries behind, the lookout compares them, and the route tells."""

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock

import pytest
from prometheus_client import REGISTRY
from pydantic import TypeAdapter

from service.api.routes import drift
from service.core import metrics
from service.core.collections import Collection
from service.core.errors import LexiconUnavailable
from service.core.ids import CollectionName
from service.drift.assess import DRIFT_MEASURES
from service.drift.query_window import MIN_LATEST
from tests.edge import Edge, Json, api_fixture, assert_problem

pytestmark = pytest.mark.slow

PATH = "/v1/collections/papers/drift"
ANSWER = TypeAdapter(drift.DriftAnswer)
START = datetime(2026, 3, 1, 12, 0, 10, tzinfo=UTC)
FISH = ["heron", "pike", "perch", "pond", "river", "reed", "fish", "bank"]
CODE = ["loop", "task", "cancel", "await", "list", "sort", "key", "value"]


def sentence(words: list[str], number: int) -> str:
    return " ".join(words[(number * step) % len(words)] for step in (1, 3, 5, 7)) + f" {words[number % 8]}"


api = api_fixture(*({"id": str(n), "text": f"{sentence(FISH, n)}."} for n in range(60)))


async def run_queries(api: Edge, words: list[str], count: int) -> None:
    for number in range(count):
        await api.search(sentence(words, number), k=1, include=[])


async def measure_drift(api: Edge, minutes: float = 0.0) -> Json:
    await api.service.drift_monitor.measure_due(lambda: START + timedelta(minutes=minutes))
    shown = await api.get(PATH)
    ANSWER.validate_python(shown)
    return shown


def measures_by_name(shown: Json) -> dict[str, Any]:
    assert [one["name"] for one in shown["measures"]] == list(DRIFT_MEASURES)
    return {one["name"]: one for one in shown["measures"]}


async def test_without_queries_the_report_is_empty(api: Edge) -> None:
    shown = await measure_drift(api)
    assert shown == {
        "collection": "papers",
        "version": 1,
        "queries": 0,
        "reference_queries": 0,
        "seen_queries": 0,
        "measured_at": None,
        "verdict": None,
        "measures": [],
        "history": [],
    }
    await run_queries(api, FISH, MIN_LATEST - 1)
    assert (await measure_drift(api))["measures"] == []


async def test_the_same_queries_are_healthy_and_different_ones_are_not(api: Edge) -> None:
    await run_queries(api, FISH, 2 * MIN_LATEST)
    same = await measure_drift(api)
    counts = same["queries"], same["reference_queries"], same["seen_queries"]
    assert counts == (MIN_LATEST, MIN_LATEST, 2 * MIN_LATEST)
    assert same["verdict"] == "healthy"
    assert measures_by_name(same)["mmd"]["p"] > 0.01
    assert measures_by_name(same)["unknown_words"]["value"] == 0.0
    await run_queries(api, CODE, 2 * MIN_LATEST)
    other = await measure_drift(api, minutes=1)
    measures = measures_by_name(other)
    assert other["verdict"] == "watch"
    for name in ("centroid_shift", "mmd", "unknown_words", "top_score"):
        assert measures[name]["verdict"] == "watch", name
        assert measures[name]["value"] > measures_by_name(same)[name]["value"]
        assert measures[name]["low"] <= measures[name]["value"] <= measures[name]["high"]
    assert measures["unknown_words"]["value"] == 1.0
    assert measures["out_of_domain"]["value"] is None  # nothing was learnt here
    labels = {"collection": "papers", "measure": "mmd"}
    assert REGISTRY.get_sample_value("azimuth_drift", labels) == pytest.approx(measures["mmd"]["value"], abs=1e-4)
    assert REGISTRY.get_sample_value("azimuth_drift", {**labels, "measure": "out_of_domain"}) is None
    metrics.remove_collection("papers")
    assert REGISTRY.get_sample_value("azimuth_drift", labels) is None


async def test_history_has_the_minutes_with_queries(api: Edge) -> None:
    await run_queries(api, FISH, 60)
    await measure_drift(api)
    await run_queries(api, FISH, 20)
    await measure_drift(api, minutes=0.5)
    await measure_drift(api, minutes=5)
    await run_queries(api, CODE, 30)
    shown = await measure_drift(api, minutes=9)
    assert [(one["minute"], one["queries"]) for one in shown["history"]] == [
        ("2026-03-01T12:00:00+00:00", 80),
        ("2026-03-01T12:09:00+00:00", 30),
    ]
    before, after = shown["history"]
    assert before["unknown_words"] < after["unknown_words"]
    assert before["best_cosine"] > after["best_cosine"]
    assert before["mmd"] is None  # there were no earlier ones yet
    assert shown["measured_at"] == (START + timedelta(minutes=9)).isoformat()


async def test_evaluations_are_not_live_queries(api: Edge) -> None:
    body = {"queries": [{"_id": "q", "text": "pike"}], "qrels": [{"query-id": "q", "corpus-id": "1", "score": 1}]}
    assert (await api.client.post("/v1/collections/papers/evaluate", json=body)).status_code == 200
    assert (await measure_drift(api))["seen_queries"] == 0


async def test_without_a_lexical_index_the_other_measures_are_reported(
    api: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.service.lexicon, "document_frequencies", AsyncMock(side_effect=LexiconUnavailable))
    await run_queries(api, FISH, 2 * MIN_LATEST)
    measures = measures_by_name(await measure_drift(api))
    assert measures["unknown_words"]["value"] is None
    assert measures["mmd"]["value"] is not None


async def test_a_promotion_resets_the_windows(api: Edge) -> None:
    await run_queries(api, FISH, 2 * MIN_LATEST)
    await measure_drift(api)
    await api.ready(index={"storage": "vector"})
    assert (await api.client.post("/v1/collections/papers/versions/2/promote", json={"force": True})).status_code == 200
    await run_queries(api, FISH, 5)
    shown = await measure_drift(api)
    assert (shown["version"], shown["queries"], shown["measures"]) == (2, 0, [])
    await run_queries(api, FISH, MIN_LATEST)
    assert (await measure_drift(api))["queries"] == MIN_LATEST


async def test_a_deleted_collection_is_forgotten(api: Edge) -> None:
    await run_queries(api, FISH, MIN_LATEST)
    assert (await api.client.delete("/v1/collections/papers?confirm=papers")).status_code == 204
    await api.service.drift_monitor.measure_due(lambda: START)
    await api.service.drift_monitor.measure_due(lambda: START)
    assert_problem(await api.client.get(PATH), 404)


async def test_an_error_in_one_collection_does_not_stop_the_others(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.collection("other")
    await api.write({"id": "1", "text": "pike"}, name="other")
    await run_queries(api, FISH, MIN_LATEST)
    for number in range(MIN_LATEST):
        await api.search(sentence(FISH, number), "other")
    get, by_name = api.service.collections.get, api.service.collections.by_name
    papers = await by_name(CollectionName("papers"))

    async def broken(collection_id: Any) -> Collection:
        if collection_id == papers.id:
            raise RuntimeError("odd")
        return await get(collection_id)

    monkeypatch.setattr(api.service.collections, "get", broken)
    assert (await measure_drift(api))["queries"] == 0
    assert (await api.get("/v1/collections/other/drift"))["queries"] == MIN_LATEST
