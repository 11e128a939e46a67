"""Marked queries over HTTP: who may mark what, and who sees it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from service.core.access import ApiKey, digest_of
from tests.edge import Edge, Json, edge
from tests.fakes import FakeApiKeys

PATH = "/v1/collections/papers/feedback"


@pytest.fixture
async def api() -> AsyncIterator[Edge]:
    """Documents of two tenants, a key for each, and an administrator."""
    store = FakeApiKeys()
    for name, tenant in (("a", "a"), ("a-too", "a"), ("b", "b")):
        bound: Any = {"name": name, "digest": digest_of(name.encode()), "role": "write", "filter": {"tenant": tenant}}
        await store.create(ApiKey(created_at=datetime.now(UTC), **bound), "tests")
    async with edge(api_keys=["root"], key_store=store) as running:
        await running.service.keys.refresh()
        running.client.headers["api-key"] = "root"
        await running.collection()
        for tenant in "ab":
            await running.write({"id": f"of-{tenant}", "text": "cancel a task", "metadata": {"tenant": tenant}})
        yield running


async def mark(api: Edge, key: str, query: str = "cancel", status: int = 200, **fields: Any) -> Json:
    api.client.headers["api-key"] = key
    return await api.call("POST", PATH, {"query": query, "answered": True, **fields}, status)


async def seen(api: Edge, key: str) -> list[tuple[str, str]]:
    api.client.headers["api-key"] = key
    return sorted((one["query"], one["actor"]) for one in (await api.get(PATH))["feedback"])


async def test_a_mark_is_told_listed_replaced_and_deleted(api: Edge) -> None:
    first = await mark(api, "root", documents=["of-a", "of-b", "of-a"])
    assert first["documents"] == ["of-a", "of-b"]
    second = await mark(api, "root", answered=False)
    assert (second["id"], second["answered"], second["documents"]) == (first["id"], False, [])
    await mark(api, "root", "another")
    page = await api.get(PATH, limit=1)
    rest = await api.get(PATH, limit=1, cursor=page["next_cursor"])
    assert rest["next_cursor"] is None
    assert {one["query"] for one in page["feedback"] + rest["feedback"]} == {"cancel", "another"}
    for params, status in (({"id": first["id"]}, 204), ({"id": first["id"]}, 404), ({}, 428)):
        assert (await api.client.delete(PATH, params=params)).status_code == status
    assert (await api.client.delete(PATH, params={"confirm": "papers"})).status_code == 204
    assert await seen(api, "root") == []


async def test_a_bound_key_marks_what_it_sees_and_sees_its_tenants_marks_alone(api: Edge) -> None:
    await mark(api, "root")
    await mark(api, "a", documents=["of-a"])
    await mark(api, "b", answered=False)
    refused = await mark(api, "a", status=422, documents=["of-a", "of-b"])
    unknown = await mark(api, "a", status=422, documents=["of-a", "nowhere"])
    assert refused["errors"] == [{"field": "documents.1", "message": "there is no document 'of-b'"}]
    assert refused["detail"] == unknown["detail"]
    assert await seen(api, "a") == await seen(api, "a-too") == [("cancel", "key a")]
    assert len(await seen(api, "root")) == 3
    (theirs,) = [one["id"] for one in (await api.get(PATH))["feedback"] if one["actor"] == "key b"]
    api.client.headers["api-key"] = "a"
    assert (await api.client.delete(PATH, params={"id": theirs})).status_code == 404
    assert (await api.client.delete(PATH, params={"confirm": "papers"})).status_code == 204
    assert {actor for _, actor in await seen(api, "root")} >= {"key b"}
    assert len(await seen(api, "root")) == 2


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"query": " "}, "query"),
        ({"query": "x" * 10_001}, "query"),
        ({"answered": None}, "answered"),
        ({"answered": "yes"}, "answered"),
        ({"documents": ["x"] * 101}, "documents"),
        ({"documents": "of-a"}, "documents"),
        ({"rating": 5}, "rating"),
    ],
)
async def test_bad_input_is_refused(api: Edge, fields: Json, field: str) -> None:
    await api.refused(PATH, {"query": "q", "answered": True} | fields, 422, field)


async def test_null_documents_are_none(api: Edge) -> None:
    assert (await mark(api, "root", documents=None))["documents"] == []
