"""`null` in an optional field of a body means its default: in every body, at every depth."""

import copy
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from service.api.app import create_app
from tests.edge import Edge, Json, WordReranker, build, edge

PAPERS = "/v1/collections/papers"
DOCUMENT = create_app(build()[0]).openapi()
SCHEMAS: dict[str, Json] = DOCUMENT["components"]["schemas"]

QUERY = {"_id": "q", "text": "some text"}
QREL = {"query-id": "q", "corpus-id": "a", "score": 1}
SPEC: Json = {"model": "default"}
BODIES: dict[str, Json] = {
    "PUT /v1/collections/{collection}": {
        "embedder": {},
        "chunking": {},
        "fusion": {},
        "rerank": {},
        "indexed": [{"field": "year"}],
    },
    "POST /v1/collections/{collection}/documents": {"documents": [{"id": "n", "text": "new text", "title": "new"}]},
    "POST /v1/collections/{collection}/documents/delete": {"ids": ["nobody"]},
    "POST /v1/collections/{collection}/documents/fetch": {"ids": ["a"]},
    "POST /v1/collections/{collection}/count": {},
    "POST /v1/collections/{collection}/search": {
        "query": "some text",
        "typos": {},
        "fusion": {"method": "rrf"},
        "rerank": {},
        "min_score": {"score": 0.1},
        "context": {"before": 1},
        "boost": [{"filter": {"year": 1}}],
        "facets": [{"field": "year"}],
    },
    "POST /v1/collections/{collection}/search/batch": {
        "searches": [{"queries": [{"query": "some"}, {"query": "text"}]}, {"like": {"positive": [{"id": "a"}]}}]
    },
    "POST /v1/collections/{collection}/similar/{id}": {},
    "POST /v1/collections/{collection}/facets": {"facets": [{"field": "year"}]},
    "POST /v1/collections/{collection}/suggest": {"query": "some te"},
    "POST /v1/collections/{collection}/duplicates": {},
    "POST /v1/collections/{collection}/clusters": {},
    "POST /v1/collections/{collection}/classify": {
        "examples": [{"label": "x", "id": "a"}, {"label": "y", "id": "b"}],
        "texts": ["some text"],
    },
    "POST /v1/collections/{collection}/judgments": {"queries": [QUERY], "qrels": [QREL]},
    "POST /v1/collections/{collection}/feedback": {"query": "some text", "answered": True},
    "POST /v1/collections/{collection}/evaluate": {"queries": [QUERY], "qrels": [QREL], "modes": ["lexical"]},
    "POST /v1/collections/{collection}/versions": {"embedder": {"model": "hashing:64"}, "chunking": {}, "index": {}},
    "POST /v1/collections/{collection}/versions/{number}/promote": {},
    "POST /v1/collections/{collection}/versions/rollback": {},
    "POST /v1/keys": {},
    "POST /v1/keys/{id}/rotate": {},
    "POST /v1/embeddings": {"input": "a text"},
    "POST /v1/models/identify": SPEC,
    "POST /tokenize": {"inputs": "a text"},
    "POST /rerank": {"query": "text", "documents": [{"text": "a text"}]},
    "POST /v1/rerank": {"query": "text", "documents": ["a text"]},
    "POST /v2/rerank": {"query": "text", "texts": ["a text"]},
    "POST /": {"inputs": "a text"},
    "POST /api/embed": {"input": "a text"},
    "POST /embed": {"inputs": "a text"},
    "POST /similarity": {"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": {}},
    "POST /v1/embed": {"texts": "a text"},
    "POST /v2/embed": {"texts": "a text"},
    "POST /retrieval": {
        "knowledge_id": "papers",
        "query": "text",
        "retrieval_setting": {},
        "metadata_condition": {"conditions": [{"name": ["year"], "comparison_operator": "empty"}]},
    },
}
WITHOUT_OPTIONAL_FIELDS = {
    "PUT /v1/aliases/{alias}",
    "POST /v1/aliases",
    "POST /v1/collections/{collection}/rename",
    "POST /v1/collections/{collection}/copy",
}
VOLATILE = {
    "at",
    "took_ms",
    "timings_ms",
    "p50_ms",
    "p95_ms",
    "request_id",
    "uploaded_at",
    "created_at",
    "updated_at",
    "total_duration",
    "secret",
}


pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("computed_here")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api() -> AsyncIterator[Edge]:
    async with edge(reranker=WordReranker(), api_keys=["root"]) as running:
        running.client.headers["api-key"] = "root"
        await running.call("POST", "/v1/keys", {"name": "a"}, 201)
        await running.collection()
        await running.write({"id": "a", "text": "some text"}, {"id": "b", "text": "other text"})
        yield running


def resolved(schema: Json) -> Json:
    return SCHEMAS[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def shape(schema: Json, value: Any) -> Json:
    """The alternative of a schema that describes this value."""
    schema = resolved(schema)
    wanted = "properties" if isinstance(value, dict) else "items"
    return next((one for one in map(resolved, [schema, *schema.get("anyOf", ())]) if wanted in one), {})


def optional_fields(schema: Json, value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of all optional fields in the objects of this body."""
    kind = shape(schema, value)
    if isinstance(value, list):
        for at, one in enumerate(value):
            yield from optional_fields(kind.get("items", {}), one, (*place, at))
    elif isinstance(value, dict):
        for name, field in kind.get("properties", {}).items():
            if name not in kind.get("required", ()):
                yield (*place, name)
            if name in value:
                yield from optional_fields(field, value[name], (*place, name))


def changed(body: Json, place: tuple[str | int, ...], null: bool) -> Json:
    """The body with null at this place, or with nothing there."""
    body = copy.deepcopy(body)
    target: Any = body
    for part in place[:-1]:
        target = target[part]
    target.pop(place[-1], None)
    if null:
        target[place[-1]] = None
    return body


def told(answer: Any) -> Any:
    """An answer without what differs from one call to the next."""
    if isinstance(answer, dict):
        return {name: told(one) for name, one in answer.items() if name not in VOLATILE}
    if isinstance(answer, str):
        return re.sub("^key-[0-9a-f]{8}$", "a name that was made up", answer)
    return [told(one) for one in answer] if isinstance(answer, list) else answer


def schema_of(route: str) -> Json:
    method, path = route.split()
    content = DOCUMENT["paths"][path][method.lower()]["requestBody"]["content"]
    return {"anyOf": [content["application/json"]["schema"]]}


async def test_every_body_is_tried() -> None:
    described = {
        f"{method.upper()} {path}"
        for path, operations in DOCUMENT["paths"].items()
        for method, operation in operations.items()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    }
    described -= {"PATCH /v1/collections/{collection}/documents/{id}"}  # there null removes
    assert described - WITHOUT_OPTIONAL_FIELDS == BODIES.keys()


@pytest.mark.parametrize("route", BODIES)
async def test_null_is_as_if_the_field_were_left_out(api: Edge, route: str) -> None:
    method, path = route.split()
    url = path.replace("{collection}", "papers").replace("{number}", "1").replace("{id}", "a")

    async def answered(body: Json) -> tuple[int, Any]:
        answer = await api.client.request(method, url, json=body, headers={"X-Request-ID": "the-same"})
        return answer.status_code, told(answer.json())

    body = BODIES[route]
    assert (await answered(body))[0] < 300 or "rollback" in route
    places = list(optional_fields(schema_of(route), body))
    assert places or "judgments" in route or route == "POST /"
    for place in places:
        await answered(changed(body, place, null=False))  # and once more, for a write that changes nothing
        expected = await answered(changed(body, place, null=False))
        assert await answered(changed(body, place, null=True)) == expected, place


async def test_null_is_the_default_in_a_line_of_a_stream_too(api: Edge) -> None:
    line = json.dumps({"id": "line", "text": "a text", "title": None, "metadata": None, "vector": None})
    headers = {"Content-Type": "application/x-ndjson"}
    assert (await api.client.post(f"{PAPERS}/documents", content=line, headers=headers)).json()["created"] == 1
    written = await api.get(f"{PAPERS}/documents/line")
    assert (written["title"], written["metadata"]) == ("", {})


async def test_the_document_says_so() -> None:
    for name, schema in SCHEMAS.items():
        if name.endswith("Body"):
            for field in schema["properties"].keys() - set(schema.get("required", ())):
                described = schema["properties"][field]
                anything = not described.keys() - {"title", "description", "examples"}
                assert anything or {"type": "null"} in described["anyOf"], f"{name}.{field}"
                assert "default" not in described, "a generated client would send it"
