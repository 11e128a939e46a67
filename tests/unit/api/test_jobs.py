"""Long work at one route, as the tables have it."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from service.api.routes.jobs import JobAnswer
from service.core.collections import FieldState, IndexedField
from tests.edge import Edge, api_fixture, assert_problem

JOBS = "/v1/jobs"
api = api_fixture({"id": "a", "text": "cancel a task"}, {"id": "b", "text": "sort a list"})


async def jobs(api: Edge, **params: Any) -> dict[str, Any]:
    found = (await api.get(JOBS, **params))["jobs"]
    for one in found:
        TypeAdapter(JobAnswer).validate_python(one)
        assert await api.get(f"{JOBS}/{one['id']}") == one
    return {one["id"]: one for one in found}


async def test_a_reindex_is_a_job_from_its_beginning_to_its_end(api: Edge) -> None:
    await api.collection("empty")
    assert await jobs(api) == {}
    await api.register(embedder={"model": "hashing:16"})
    (running,) = (await jobs(api)).values()
    assert (running["id"], running["kind"], running["version"]) == ("papers.reindex.2", "reindex", 2)
    assert (running["state"], running["phase"], running["ended"]) == ("running", "backfilling", None)
    assert (running["progress"]["done"], running["progress"]["total"]) == (0, 2)
    await api.post("/v1/collections/papers/versions/2/pause")
    assert list(await jobs(api, state="paused")) == ["papers.reindex.2"]
    await api.post("/v1/collections/papers/versions/2/resume")
    await api.advance_all()
    (done,) = (await jobs(api, collection="papers")).values()
    assert (done["state"], done["phase"], done["error"], done["progress"]) == ("done", "ready", None, None)
    assert done["started"] <= done["ended"]
    assert await jobs(api, state="running") == await jobs(api, collection="empty") == {}


async def test_what_is_encoded_and_filled_is_listed(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.post("/v1/collections/papers/documents", {"documents": [{"id": "c", "text": "waits"}]})
    rows = api.store.collections
    (collection,) = rows.rows.values()
    counts = await rows.counts(collection)
    rows.known_counts[collection.id] = type(counts)(documents=3, chunks=2, pending=1, failed=1)

    async def fields(_: object) -> tuple[IndexedField, ...]:
        return (IndexedField(name="a.b", state=FieldState.BUILDING), IndexedField(name="c", state=FieldState.READY))

    monkeypatch.setattr(rows, "fields", fields)
    found = await jobs(api)
    assert found.keys() == {"papers.encoding.1", "papers.field.a.b"}
    progress = found["papers.encoding.1"]["progress"]
    assert (progress["done"], progress["total"], progress["failed"]) == (1, 3, 1)


@pytest.mark.parametrize("id_", ["papers", "papers.reindex.1", "nobody.reindex.2", "Not A Name.x", "papers.x/y"])
async def test_a_job_that_is_not_there(api: Edge, id_: str) -> None:
    assert_problem(await api.client.get(f"{JOBS}/{id_}"), 404)


async def test_a_wrong_question(api: Edge) -> None:
    assert_problem(await api.client.get(JOBS, params={"state": "asleep"}), 422, "state")
    assert_problem(await api.client.get(JOBS, params={"collection": "nobody"}), 404)
