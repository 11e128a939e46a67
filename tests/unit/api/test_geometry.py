"""The diagnosis over HTTP: its shape, its limits, that it is made once, and that too little says so."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from service.core import child_process
from service.core.errors import Overloaded
from service.core.ids import CollectionName, VersionNumber
from service.core.versions import EmbedderVersion, SpaceStatus, VectorSample
from service.diagnostics import service
from service.diagnostics.thresholds import THRESHOLDS
from tests.edge import Edge, api_fixture, assert_problem, edge
from tests.rivals import DOCUMENTS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("computed_here")]

URL = "/v1/collections/papers/geometry"
MEASURE = {"name", "value", "error", "verdict", "watch", "broken", "says", "do"}
SHAPE = {"collection", "version", "rows", "sample", "verdict", "reason", "measures", "before"}
SHAPE |= {"cosines", "occurrences", "hubs", "antihubs", "map"}


api = api_fixture(*({"id": name, "title": f"about {name}", "text": text} for name, text in DOCUMENTS.items()))


async def diagnosed(api: Edge, **params: Any) -> dict[str, Any]:
    return await api.get(URL, **params)


def verdict_metric(version: int) -> float | None:
    return REGISTRY.get_sample_value("azimuth_geometry_verdict", {"collection": "papers", "version": str(version)})


async def test_the_report_covers_the_active_version(api: Edge) -> None:
    found = await diagnosed(api)
    assert set(found) == SHAPE
    assert (found["collection"], found["version"], found["rows"], found["sample"]) == ("papers", 1, 60, 60)
    assert {one["name"] for one in found["measures"]} == set(THRESHOLDS)
    assert all(set(one) == MEASURE for one in found["measures"])
    known = {one["name"]: one for one in found["measures"]}
    assert known["meaning"]["value"] > 1.0
    assert found["verdict"] in ("healthy", "watch", "broken")
    assert verdict_metric(1) == ["healthy", "watch", "broken"].index(found["verdict"])
    assert len(found["cosines"]["edges"]) == len(found["cosines"]["counts"]) + 1
    assert sum(found["occurrences"]["counts"]) == 60
    assert len(found["hubs"]) == 10
    assert found["hubs"][0]["title"] == f"about {found['hubs'][0]['id']}"
    assert {point["id"] for point in found["map"]["points"]} == set(DOCUMENTS)
    assert len(found["map"]["shown"]) == 2
    assert found["before"] is None


async def test_too_few_vectors_are_no_error_and_no_verdict() -> None:
    async with edge() as api:
        await api.collection()
        await api.write({"id": "a", "text": "one text alone"})
        found = await diagnosed(api)
    assert set(found) == SHAPE
    assert (found["verdict"], found["measures"], found["map"]) == (None, [], None)
    assert found["reason"] == "1 vectors are too few to tell (at least 50)"
    assert verdict_metric(1) is None


async def test_the_report_compares_with_the_previous_version(api: Edge) -> None:
    await api.ready(embedder="hashing:8")
    found = await diagnosed(api, version=2)
    assert found["version"] == 2
    assert found["before"]["version"] == 1
    worse, before = ({one["name"]: one["value"] for one in each["measures"]} for each in (found, found["before"]))
    assert worse["effective_rank"] < 8.1 < before["effective_rank"]
    assert found["verdict"] == "broken"
    assert (await diagnosed(api))["before"] is None
    assert verdict_metric(2) == 2.0


async def test_external_vectors_are_judged_without_queries(api: Edge) -> None:
    version = (await api.service.versions.written())[0]
    assert not version.spec.external
    await api.collection("theirs", embedder={"model": "external", "dimensions": 8, "identity": "theirs"})
    for at, (name, text) in enumerate(DOCUMENTS.items()):
        vector = [1.0, *(0.01 * ((at * step) % 7) for step in range(1, 8))]
        await api.write({"id": name, "text": text, "vector": vector}, name="theirs")
    report = await api.get("/v1/collections/theirs/geometry")
    found = {one["name"]: one for one in report["measures"]}
    assert found["meaning"]["value"] is None
    assert "the client makes the vectors" in found["meaning"]["says"]
    assert found["mean_cosine"]["verdict"] == report["verdict"] == "broken"


async def test_a_retired_version_is_a_409(api: Edge) -> None:
    await api.ready(embedder="hashing:16")
    assert (await api.client.delete("/v1/collections/papers/versions/2")).status_code == 200
    assert_problem(await api.client.get(URL, params={"version": 2}), 409)


async def test_concurrent_requests_share_one_report(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    vectors = api.service.diagnostics.vectors
    sample = vectors.sample

    async def counted(version: EmbedderVersion, size: int) -> VectorSample:
        drawn.append(size)
        return await sample(version, size)

    monkeypatch.setattr(vectors, "sample", counted)
    first, second = await asyncio.gather(diagnosed(api), diagnosed(api))
    assert first == second == await diagnosed(api)
    assert drawn == [service.SAMPLE_SIZE]
    await diagnosed(api, sample=100)
    assert drawn == [service.SAMPLE_SIZE, 100]
    (version,) = await api.service.versions.written()
    status = SpaceStatus(rows=80, indexed=False, chunks_per_document=1.0)
    api.store.versions.statuses[version.collection_id, version.number] = status
    await diagnosed(api, sample=100)
    assert drawn == [service.SAMPLE_SIZE, 100, 100], "there is more to look at now"
    api.service.diagnostics._reports.seconds = 0.0
    await diagnosed(api, sample=100)
    assert drawn == [service.SAMPLE_SIZE, 100, 100, 100]


async def test_too_many_waiting_requests_are_refused(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "MAX_WAITING", 1)
    collection = await api.service.collections.by_name(CollectionName("papers"))
    reports = (api.service.diagnostics.diagnose(collection, VersionNumber(1), size) for size in (100, 200))
    first, second = await asyncio.gather(*reports, return_exceptions=True)
    assert not isinstance(first, BaseException)
    assert isinstance(second, Overloaded)
    assert (await api.service.diagnostics.diagnose(collection, VersionNumber(1), 200))[0].verdict is not None


async def test_active_versions_are_diagnosed_periodically(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.service.diagnostics.diagnose_due()
    assert not api.service.diagnostics._reports._entries, "as far as its table tells there is nothing in it yet"
    (version,) = await api.service.versions.written()
    status = SpaceStatus(rows=len(DOCUMENTS), indexed=False, chunks_per_document=1.0)
    api.store.versions.statuses[version.collection_id, version.number] = status
    await api.service.diagnostics.diagnose_due()
    assert verdict_metric(1) is not None
    made = dict(api.service.diagnostics._reports._entries)
    await api.service.diagnostics.diagnose_due()
    assert api.service.diagnostics._reports._entries == made, "not again so soon"
    api.store.versions.statuses[version.collection_id, version.number] = replace(status, rows=200)
    await api.service.diagnostics.diagnose_due()
    assert api.service.diagnostics._reports._entries != made, "there is far more now"
    made = dict(api.service.diagnostics._reports._entries)
    monkeypatch.setattr(service, "REGULAR_SECONDS", 0.0)
    api.service.diagnostics._reports.seconds = 0.0
    await api.service.diagnostics.diagnose_due()
    assert api.service.diagnostics._reports._entries != made
