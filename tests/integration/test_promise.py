"""The recall target of a running service: calibration, searches by it, another target, a rebuilt index."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.recall import calibration_curve
from service.recall.ef_policy import EF_STEPS
from service.runtime.container import api
from tests.integration.external_vectors import PATH, client_of, fill

pytestmark = pytest.mark.database

DOCUMENTS, DIMENSIONS = 2_000, 128


@pytest.fixture
async def http(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """A service that adjusts `ef_search` often and calibrates with few queries."""
    monkeypatch.setattr(api, "EF_SEARCH_SECONDS", 0.2)
    monkeypatch.setattr(calibration_curve, "FULL_LADDER_QUERIES", 60)
    monkeypatch.setattr(calibration_curve, "MAX_QUERIES", 200)
    async with client_of(database_url, tmp_path, exact_below=500, probe_budget_ms=0) as client:
        rows = np.random.default_rng(1).normal(size=(DOCUMENTS, DIMENSIONS)).astype(np.float32)
        await fill(client, rows, recall_target=0.9)
        yield client


async def until(look: Callable[[], Awaitable[Any]], there: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(120):
        while not there(found := await look()):
            await asyncio.sleep(0.1)
    return found


async def test_the_promise_from_a_first_index_to_one_that_is_built_anew(http: httpx.AsyncClient) -> None:
    async def get(path: str) -> Any:
        return (await http.get(f"{PATH}/{path}")).raise_for_status().json()

    async def recall() -> Any:
        (version,) = (await get("recall"))["versions"]
        return version

    async def searched(**request: Any) -> Any:
        body = {"vector": [1.0] * DIMENSIONS, "embedder_version": 1, "mode": "dense", "k": 5, "include": [], **request}
        answer = await http.post(f"{PATH}/search", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["plan"]

    # An index is built, measured and searched by what was found.
    first = await until(recall, lambda told: bool(told["efforts"]))
    assert [point["ef_search"] for point in first["curve"]["points"]] == list(EF_STEPS)
    recalls = [point["recall"] for point in first["curve"]["points"]]
    assert recalls[0] < 0.9 < recalls[-1]
    (lenient,) = first["efforts"]
    assert lenient["ef_search"] in EF_STEPS[1:-1]
    plan = await until(searched, lambda plan: plan["ef_search"] == lenient["ef_search"])
    assert plan["dense"] == "hnsw"
    assert (await searched(ef_search=77))["ef_search"] == 77
    assert (await searched(candidates=900))["ef_search"] == 900

    # Another target needs another ef_search.
    (await http.put(PATH, json={"recall_target": 0.99})).raise_for_status()
    second = await until(recall, lambda told: bool(told["efforts"][0]["ef_search"] > lenient["ef_search"]))
    await until(searched, lambda plan: plan["ef_search"] == second["efforts"][0]["ef_search"])
    (newest, *_) = [entry for entry in (await get("audit"))["entries"] if entry["action"] == "effort"]
    assert (newest["actor"], newest["version"], newest["details"]["target"]) == ("azimuth", 1, 0.99)
    assert newest["note"]

    # It is built anew while it answers, and measured again.
    await until(recall, lambda told: told["curve"]["measured_at"] > second["efforts"][0]["changed_at"])
    before = await recall()
    assert (await http.post(f"{PATH}/versions/1/reindex")).status_code == 202
    assert (await searched())["dense"] == "hnsw"
    await until(lambda: get("versions/1/index"), lambda told: not told["index"]["building"])
    await until(recall, lambda told: told["curve"]["measured_at"] > before["curve"]["measured_at"])
    assert (await get("versions/1/index"))["index"]["valid"] is True
    assert [entry["action"] for entry in (await get("audit"))["entries"]].count("reindexed") == 1
    metrics = (await http.get("/metrics")).text
    assert 'azimuth_recall_target{collection="space"} 0.99' in metrics
    assert 'azimuth_ef_search{collection="space",version="1"}' in metrics
    assert 'azimuth_recall_target_missed{collection="space",version="1"} 0.0' in metrics
