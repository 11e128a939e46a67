"""Documents read with their vectors, by their ids in filters, and exported so that they can be written again."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from service.api.routes import document_reads
from tests.edge import Edge, assert_problem, edge

PATH = "/v1/collections/papers"
THEIRS = "/v1/collections/theirs"
NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
async def api() -> AsyncIterator[Edge]:
    """`papers` makes its vectors; `theirs` takes those of clients."""
    async with edge() as running:
        await running.collection()
        await running.collection("theirs", embedder={"model": "external", "dimensions": 3, "identity": "mine"})
        yield running


async def lines(api: Edge, path: str, **params: Any) -> list[dict[str, Any]]:
    answer = await api.client.get(f"{path}/export", params=params)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.content.splitlines()]


async def test_vectors_come_with_the_place_of_their_chunks(api: Edge) -> None:
    text = "one two three"
    await api.write({"id": "a", "text": text}, {"id": "b", "text": "short"})
    await api.post(f"{PATH}/documents", {"documents": [{"id": "b", "text": "not encoded yet"}]})
    listed = (await api.get(f"{PATH}/documents", include="vectors"))["documents"]
    fetched = (await api.get(f"{PATH}/documents/fetch", ids=["a", "b"], include=["vectors"]))["documents"]
    posted = (await api.post(f"{PATH}/documents/fetch", {"ids": ["a", "b"], "include": ["vectors"]}))["documents"]
    one = await api.get(f"{PATH}/documents/a", include="vectors")
    assert listed == fetched == posted
    assert one == listed[0]
    assert not listed[0].keys() & {"text", "metadata", "vector"}
    (chunk,) = listed[0]["vectors"]
    assert (chunk["chunk"], chunk["start"], chunk["end"]) == (0, 0, len(text))
    assert abs(np.linalg.norm(chunk["vector"]) - 1) < 1e-3
    assert listed[1]["vectors"] == []


async def test_what_is_exported_is_written_again_unchanged(api: Edge) -> None:
    documents = [
        {"id": "a/b", "title": "É", "text": "", "metadata": {"e\u0301": [1.0, None, {"b": "x"}]}, "vector": [3, 0, 4]},
        {"id": "c", "text": "line\nbreak", "vector": [0.1, 0.2, -0.3]},
        {"id": "mute", "text": "without a vector"},
    ]
    await api.post(f"{THEIRS}/documents", {"documents": documents})
    first = (await api.client.get(f"{THEIRS}/export")).content
    assert [sorted(one) for one in await lines(api, THEIRS, vectors=False)] == [["id", "metadata", "text", "title"]] * 3
    await api.collection("copy", embedder={"model": "external", "dimensions": 3, "identity": "mine"})
    copy = "/v1/collections/copy"
    for expected in ({"created": 3}, {"unchanged": 3}):
        answer = await api.client.post(f"{copy}/documents", content=first, headers=NDJSON)
        assert answer.json() == {**dict.fromkeys(("created", "updated", "unchanged"), 0), **expected} | {
            "errors": [],
            "errors_total": 0,
        }
    assert (await api.client.get(f"{copy}/export")).content == first
    sent = await lines(api, copy)
    assert [("vector" in one, "vectors" in one) for one in sent] == [(True, False), (True, False), (False, True)]
    assert (await api.get(f"{copy}/documents/c", include="vectors"))["vector"] == sent[1]["vector"]


async def test_the_export_is_filtered_and_has_vectors_where_asked(api: Edge) -> None:
    await api.write(*({"id": name, "text": name, "metadata": {"n": at}} for at, name in enumerate("abc")))
    assert [one["id"] for one in await lines(api, PATH)] == ["a", "b", "c"]
    passing = await lines(api, PATH, filter='{"n": {"$gte": 1}, "$id": {"$ne": "c"}}', vectors="true")
    assert [(one["id"], len(one["vectors"])) for one in passing] == [("b", 1)]
    again = await api.client.post(f"{PATH}/documents", content=orjson.dumps(passing[0]), headers=NDJSON)
    assert again.json()["unchanged"] == 1
    assert await lines(api, PATH, filter='{"n": 7}') == []


@pytest.mark.parametrize("query", ["filter=[]", "filter={", "vectors=maybe", "include=text", "filter=" + "x" * 5000])
async def test_a_wrong_export_is_a_problem_before_it_begins(api: Edge, query: str) -> None:
    assert_problem(await api.client.get(f"{PATH}/export?{query}"), 422, query.partition("=")[0])
    assert_problem(await api.client.get("/v1/collections/nobody/export"), 404)


async def test_an_export_of_many_pages_has_each_document_once(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_reads, "PAGE_BOUNDS", {False: (2, 40), True: (2, 20)})
    documents = [{"id": f"{number:03d}", "text": "x" * (number % 30 + 1)} for number in range(97)]
    await api.fill(documents)
    for vectors in (False, True):
        exported = await lines(api, PATH, vectors=vectors)
        assert [(one["id"], one["text"]) for one in exported] == [(one["id"], one["text"]) for one in documents]
        assert all(("vectors" in one) == vectors for one in exported)


async def test_an_export_of_what_is_deleted_meanwhile_breaks_off(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.write({"id": "a", "text": "x"})
    page = api.service.documents.page

    async def last_page(*arguments: Any) -> Any:
        found = await page(*arguments)
        await api.service.collections.delete(arguments[0])
        return found

    monkeypatch.setattr(api.service.documents, "page", last_page)
    broken: httpx.Response | None = None
    with pytest.raises(Exception, match=r".*"):
        broken = await api.client.get(f"{PATH}/export")
    assert broken is None


async def test_an_id_called_fetch_is_read_by_its_id(api: Edge) -> None:
    await api.write({"id": "fetch", "text": "x"})
    assert (await api.get(f"{PATH}/documents/fetch", ids="fetch"))["documents"][0]["id"] == "fetch"
    assert_problem(await api.client.get(f"{PATH}/documents/fetch"), 422, "ids")


async def test_filters_find_ids_everywhere(api: Edge) -> None:
    await api.write(*({"id": name, "text": "word"} for name in ("a", "b", "c", "d")))
    where = {"$id": {"$in": ["b", "c", "nobody"], "$ne": "c"}}
    found = await api.search("word", filter=where)
    assert [hit["id"] for hit in found["hits"]] == ["b"]
    assert await api.post(f"{PATH}/count", {"filter": where}) == {"count": 1}
    assert await api.post(f"{PATH}/documents/delete", {"filter": where}) == {"deleted": 1}
    listed = await api.get(f"{PATH}/documents", filter='{"$id": {"$gt": "a"}}')
    assert [one["id"] for one in listed["documents"]] == ["c", "d"]
