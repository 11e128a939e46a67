"""Vectors that clients bring, over HTTP: with documents and searches, and never into a space that is not theirs."""

import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.edge import Edge, assert_problem, edge
from tests.edge import hit_ids as ids

DOCUMENTS = "/v1/collections/theirs/documents"
SEARCH = "/v1/collections/theirs/search"
NDJSON = {"Content-Type": "application/x-ndjson"}


def external(identity: str = "theirs", dimensions: int = 2) -> dict[str, Any]:
    return {"model": "external", "dimensions": dimensions, "identity": identity}


@pytest.fixture
async def api() -> AsyncIterator[Edge]:
    """`theirs` takes vectors of two dimensions; `papers` makes its own."""
    async with edge() as running:
        await running.collection()
        await running.write({"id": "a", "text": "cancel a task"})
        await running.collection("theirs", embedder=external())
        await put(
            running,
            {"id": "east", "text": "to the east", "vector": [3, 0]},
            {"id": "north", "text": "to the north", "vector": [0.0, 1e300]},
            {"id": "mute", "text": "without a vector"},
        )
        yield running


async def put(api: Edge, *documents: dict[str, Any], query: str = "") -> Any:
    return await api.post(f"{DOCUMENTS}{query}", {"documents": documents})


async def search(api: Edge, **body: Any) -> Any:
    return await api.post(SEARCH, body)


async def test_external_vectors_of_any_length_are_found_at_once(api: Edge) -> None:
    found = await search(api, vector=[1, 2], include=["vector"])
    assert ids(found) == ["north", "east"]
    assert found["plan"]["mode"] == "dense"
    assert found["degraded"] == []
    assert [hit["vector"] for hit in found["hits"]] == [[0.0, 1.0], [1.0, 0.0]]
    assert found["hits"][0]["score"] > found["hits"][1]["score"]


async def test_a_document_gets_its_vector_later_without_any_other_change(api: Edge) -> None:
    again = await put(api, {"id": "mute", "text": "without a vector", "vector": [1, 1]})
    assert again["updated"] == 1
    assert ids(await search(api, vector=[1, 1]))[0] == "mute"
    assert (await put(api, {"id": "mute", "text": "without a vector", "vector": [1, 1]}))["unchanged"] == 1


async def test_wait_for_a_document_without_a_vector_ends_at_once(api: Edge) -> None:
    answer = await put(
        api, {"id": "x", "text": "x", "vector": [1, 0]}, {"id": "y", "text": "y", "vector": [1, 0]}, query="?wait=true"
    )
    assert answer["searchable"] is True
    assert (await put(api, {"id": "z", "text": "z"}, query="?wait=true"))["searchable"] is False


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        ([1.0], "2 dimensions"),
        ([1.0, 2.0, 3.0], "2 dimensions"),
        ([0, 0], "no direction"),
        ([0.0, -0.0], "no direction"),
    ],
)
async def test_a_vector_that_does_not_fit_the_version_is_refused(api: Edge, vector: list[float], reason: str) -> None:
    body = {"documents": [{"id": "fine", "text": "x", "vector": [1, 0]}, {"id": "bad", "text": "x", "vector": vector}]}
    problem = await api.refused(DOCUMENTS, body, 422, "documents.1.vector")
    assert reason in problem["errors"][0]["message"]
    assert_problem(await api.client.get(f"{DOCUMENTS}/fine"), 404)


async def test_lines_of_a_stream_can_have_vectors(api: Edge) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "s", "text": "south", "vector": [0, -1]},
        {"id": "t", "text": "too long", "vector": [1, 2, 3]},
        {"id": "n", "text": "nowhere", "vector": [0, 0]},
    ]
    lines = "\n".join([*map(json.dumps, rows), '{"id": "i", "text": "x", "vector": [1e400, 0]}'])
    outcome = (await api.client.post(DOCUMENTS, content=lines, headers=NDJSON)).json()
    assert (outcome["created"], outcome["errors_total"]) == (1, 3)
    assert [error["line"] for error in outcome["errors"]] == [2, 3, 4]
    assert all("vector" in error["error"] for error in outcome["errors"])
    assert ids(await search(api, vector=[0, -1]))[0] == "s"


async def test_vectors_without_an_external_version_are_refused_with_the_reason(api: Edge) -> None:
    body = {"documents": [{"id": "b", "text": "x", "vector": [1.0] * 32}]}
    problem = await api.refused("/v1/collections/papers/documents", body, 422)
    assert "no embedder version of this collection takes vectors" in problem["errors"][0]["message"]
    line = json.dumps(body["documents"][0])
    outcome = (await api.client.post("/v1/collections/papers/documents", content=line, headers=NDJSON)).json()
    assert "no embedder version of this collection takes vectors" in outcome["errors"][0]["error"]


async def test_with_several_external_versions_one_must_be_named(api: Edge) -> None:
    await api.register("theirs", embedder=external("other", 3))
    document = {"id": "x", "text": "x", "vector": [1, 0, 0]}
    problem = await api.refused(DOCUMENTS, {"documents": [document]}, 422)
    assert "(1, 2): name one" in problem["errors"][0]["message"]
    await put(api, document, query="?embedder_version=2")
    assert ids(await search(api, vector=[1, 0, 0], embedder_version=2)) == ["x"]
    await api.refused(f"{DOCUMENTS}?embedder_version=1", {"documents": [document]}, 422, "documents.0.vector")


async def test_a_version_that_takes_no_vectors_cannot_be_named(api: Edge) -> None:
    await api.register("theirs", embedder="hashing:16")
    await api.register("theirs", embedder=external("other"))
    await api.client.delete("/v1/collections/theirs/versions/3?confirm=3")
    document = {"documents": [{"id": "x", "text": "x", "vector": [1, 0]}]}
    for number, status, field in ((2, 422, "embedder_version"), (3, 409, None), (9, 404, None)):
        assert_problem(await api.client.post(f"{DOCUMENTS}?embedder_version={number}", json=document), status, field)
    await put(api, *document["documents"])  # the only one that takes any


async def test_a_new_external_version_is_complete_when_every_document_has_its_vector(api: Edge) -> None:
    await api.register("theirs", embedder=external("other"))
    for name, text, vector in (("east", "to the east", [0, 1]), ("north", "to the north", [1, 0])):
        await put(api, {"id": name, "text": text, "vector": vector}, query="?embedder_version=2")
    await api.advance_all()
    assert (await api.version(2, "theirs"))["state"] == "backfilling"
    await put(api, {"id": "mute", "text": "without a vector", "vector": [1, 1]}, query="?embedder_version=2")
    await api.advance_all()
    shown = await api.version(2, "theirs")
    assert shown["state"] == "ready"
    assert {one["name"]: one["passed"] for one in shown["checks"]}["canary"] is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"vector": [1]}, "vector"),
        ({"vector": [1, 2, 3]}, "vector"),
        ({"vector": [0, 0]}, "vector"),
        ({"vector": [1, 0], "mode": "hybrid"}, "query"),
        ({"vector": [1, 0], "mode": "lexical"}, "query"),
        ({"vector": [1, 0], "rerank": True}, "query"),
    ],
)
async def test_an_invalid_search_by_vector_is_refused(api: Edge, body: Any, field: str) -> None:
    await api.refused(SEARCH, body, 422, field)
    batch = {"searches": [{"query": "fine"}, body]}
    await api.refused(f"{SEARCH}/batch", batch, 422, f"searches.1.{field}")


async def test_without_words_there_is_nothing_to_highlight(api: Edge) -> None:
    assert "highlights" not in (await search(api, vector=[1, 0]))["hits"][0]
    assert "highlights" in (await search(api, vector=[1, 0], query="east"))["hits"][0]


async def test_after_a_change_of_spaces_a_vector_must_say_which_it_is_of(api: Edge) -> None:
    await api.register("theirs", embedder=external("other"))
    for name, text in (("east", "to the east"), ("north", "to the north"), ("mute", "without a vector")):
        await put(api, {"id": name, "text": text, "vector": [1, 1]}, query="?embedder_version=2")
    await api.advance_all()
    await search(api, vector=[1, 0])  # of version 1: nothing else ever answered
    promoted = await api.client.post("/v1/collections/theirs/versions/2/promote")
    assert promoted.status_code == 200, promoted.text

    await api.refused(SEARCH, {"vector": [1, 0]}, 422, "embedder_version")
    for number in (1, 2):
        assert (await search(api, vector=[1, 0], embedder_version=number))["embedder_version"] == number
    await api.client.delete("/v1/collections/theirs/versions/1?confirm=1")
    assert (await search(api, vector=[1, 0]))["embedder_version"] == 2


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
async def test_a_query_vector_of_any_length_gives_the_same_scores(api: Edge, scale: float) -> None:
    found = await search(api, vector=[scale, scale])
    assert [hit["score"] for hit in found["hits"]] == pytest.approx([1.0, 1.0])
    explained = (await search(api, vector=[scale, scale], explain=True))["hits"][0]["explain"]["dense"]
    assert explained["score"] == pytest.approx(math.sqrt(0.5), abs=1e-3)
