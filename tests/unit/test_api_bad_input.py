"""Whatever a client sends: never a 500, always the right 4xx, always the one error shape."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from tests.edge import LIMITS, Edge, assert_problem, edge

DEEP = 150
HUGE = "9" * 30
JSON = {"Content-Type": "application/json"}


# What is refused changes nothing, so all refusals may go to one service.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@asynccontextmanager
async def small() -> AsyncIterator[Edge]:
    async with edge() as running:
        await running.collection()
        await running.write({"id": "a", "text": "some text", "metadata": {"year": 2020}})
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api() -> AsyncIterator[Edge]:
    async with small() as running:
        yield running


def nested(depth: int, leaf: Any = 1) -> Any:
    value = leaf
    for _ in range(depth):
        value = {"a": value}
    return value


def negated(depth: int) -> Any:
    where: Any = {"year": 2020}
    for _ in range(depth):
        where = {"$not": where}
    return where


def document(**changes: Any) -> dict[str, Any]:
    return {"documents": [{"id": "b", "text": "other text"} | changes]}


# ---------------------------------------------------------------- bodies that are no JSON

NOT_JSON = {
    "nothing but a brace": b"{",
    "trailing comma": b'{"query": "x",}',
    "not UTF-8": b'{"query": "\xff\xfe"}',
    "cut in the middle of a character": b'{"query": "\xc3"}',
    "NaN": b'{"query": "x", "budget_ms": NaN}',
    "infinity": b'{"query": "x", "budget_ms": Infinity}',
    "half a surrogate pair": b'{"query": "\\ud800"}',
    "the other half": b'{"query": "\\udc00 x"}',
    "bottomless arrays": b'{"query": ' + b"[" * 100_000,
    "bottomless objects": b'{"filter": ' + b'{"a":' * 20_000,
    "thousands of digits": b'{"query": "x", "k": ' + b"9" * 10_000 + b"}",
    "UTF-16": '{"query": "x"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"query": "x"}',
    "a raw control character": b'{"query": "a\x01b"}',
    "a raw NUL": b'{"query": "a\0b"}',
    "two values": b'{"query": "x"} {"query": "y"}',
    "single quotes": b"{'query': 'x'}",
}


@pytest.mark.parametrize("route", ["search", "search/batch", "documents", "documents/delete"])
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
async def test_malformed_json_is_a_400(api: Edge, route: str, body: bytes) -> None:
    answer = await api.client.post(f"/v1/collections/papers/{route}", content=body, headers=JSON)
    assert_problem(answer, 400)


async def test_a_malformed_body_of_settings_is_a_400(api: Edge) -> None:
    assert_problem(await api.client.put("/v1/collections/x", content=b"{", headers=JSON), 400)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/x-ndjson", None, "!"])
async def test_another_content_type_is_a_415(api: Edge, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = await api.client.post("/v1/collections/papers/search", content=b'{"query": "x"}', headers=headers)
    assert_problem(answer, 415)


async def test_documents_of_another_content_type_are_a_415(api: Edge) -> None:
    answer = await api.client.post(
        "/v1/collections/papers/documents", content=b"a,b", headers={"Content-Type": "text/csv"}
    )
    assert_problem(answer, 415)


async def test_a_body_above_the_limit_is_a_413_whether_it_says_so_or_not(api: Edge) -> None:
    large = json.dumps({"query": "x" * (LIMITS.body_bytes + 1)}).encode()

    async def unannounced() -> AsyncIterator[bytes]:
        for at in range(0, len(large), 1_000):
            yield large[at : at + 1_000]

    for content in (large, unannounced()):
        answer = await api.client.post("/v1/collections/papers/search", content=content, headers=JSON)
        assert_problem(answer, 413)
    answer = await api.client.post("/v1/collections/papers/documents", content=large, headers=JSON)
    assert_problem(answer, 413)


async def test_a_body_that_lies_about_its_length_is_measured(api: Edge) -> None:
    headers = {**JSON, "Content-Length": "10"}
    answer = await api.client.post(
        "/v1/collections/papers/search", content=b'{"query": "' + b"x" * LIMITS.body_bytes + b'"}', headers=headers
    )
    assert_problem(answer, 413)


# ---------------------------------------------------------------- searches

SEARCHES: dict[str, tuple[Any, str]] = {
    "no query": ({}, "query"),
    "query null": ({"query": None}, "query"),
    "query a number": ({"query": 3}, "query"),
    "query a list": ({"query": ["x"]}, "query"),
    "query empty": ({"query": ""}, "query"),
    "query blank": ({"query": " \t\n\u3000"}, "query"),
    "query with NUL": ({"query": "a\0b"}, "query"),
    "query too long": ({"query": "x" * 10_001}, "query"),
    "k zero": ({"query": "x", "k": 0}, "k"),
    "k negative": ({"query": "x", "k": -1}, "k"),
    "k too large": ({"query": "x", "k": 1_001}, "k"),
    "k beyond 64 bits": ({"query": "x", "k": 2**64}, "k"),
    "k text": ({"query": "x", "k": "3"}, "k"),
    "k fractional": ({"query": "x", "k": 1.5}, "k"),
    "k a whole float": ({"query": "x", "k": 3.0}, "k"),
    "k true": ({"query": "x", "k": True}, "k"),
    "k null": ({"query": "x", "k": None}, "k"),
    "mode unknown": ({"query": "x", "mode": "magic"}, "mode"),
    "mode a number": ({"query": "x", "mode": 1}, "mode"),
    "unknown field": ({"query": "x", "colour": "red"}, "colour"),
    "field of a later version": ({"query": "x", "diversity": 0.5}, "diversity"),
    "like": ({"query": "x", "like": {"positive": ["a"]}}, "like"),
    "group_by chunk": ({"query": "x", "group_by": "chunk"}, "group_by"),
    "unknown field in fusion": ({"query": "x", "fusion": {"beta": 1}}, "fusion.beta"),
    "fusion unknown": ({"query": "x", "fusion": {"method": "sum"}}, "fusion.method"),
    "fusion text": ({"query": "x", "fusion": "rrf"}, "fusion"),
    "alpha above 1": ({"query": "x", "fusion": {"alpha": 1.01}}, "fusion.alpha"),
    "alpha below 0": ({"query": "x", "fusion": {"alpha": -0.01}}, "fusion.alpha"),
    "rrf k zero": ({"query": "x", "fusion": {"method": "rrf", "k": 0}}, "fusion.k"),
    "rrf k too large": ({"query": "x", "fusion": {"method": "rrf", "k": 10_001}}, "fusion.k"),
    "candidates zero": ({"query": "x", "candidates": 0}, "candidates"),
    "candidates too many": ({"query": "x", "candidates": 1_001}, "candidates"),
    "rerank text": ({"query": "x", "rerank": "yes"}, "rerank"),
    "rerank a number": ({"query": "x", "rerank": 1}, "rerank"),
    "rerank depth zero": ({"query": "x", "rerank": {"depth": 0}}, "rerank.depth"),
    "rerank weight": ({"query": "x", "rerank": {"weight": 2}}, "rerank.weight"),
    "rerank unknown field": ({"query": "x", "rerank": {"model": "m"}}, "rerank.model"),
    "exact text": ({"query": "x", "exact": "true"}, "exact"),
    "ef_search zero": ({"query": "x", "ef_search": 0}, "ef_search"),
    "ef_search too large": ({"query": "x", "ef_search": 1_001}, "ef_search"),
    "version zero": ({"query": "x", "embedder_version": 0}, "embedder_version"),
    "version beyond 32 bits": ({"query": "x", "embedder_version": 2**31}, "embedder_version"),
    "budget zero": ({"query": "x", "budget_ms": 0}, "budget_ms"),
    "budget too large": ({"query": "x", "budget_ms": 60_001}, "budget_ms"),
    "include unknown": ({"query": "x", "include": ["all"]}, "include.0"),
    "include text": ({"query": "x", "include": "text"}, "include"),
    "explain a number": ({"query": "x", "explain": 1}, "explain"),
    "filter a list": ({"query": "x", "filter": [1]}, "filter"),
    "filter text": ({"query": "x", "filter": "year = 1"}, "filter"),
    "filter with an unknown operator": ({"query": "x", "filter": {"year": {"$near": 1}}}, "filter.year.$near"),
    "filter with an unknown combination": ({"query": "x", "filter": {"$xor": []}}, "filter.$xor"),
    "filter with too large an integer": ({"query": "x", "filter": {"year": {"$gte": 2**63}}}, "filter.year.$gte"),
    "filter with NUL": ({"query": "x", "filter": {"year": "a\0"}}, "filter.year"),
    "filter with NUL in its field": ({"query": "x", "filter": {"a\0b": 1}}, "filter.a\ufffdb"),
    "filter $in without a list": ({"query": "x", "filter": {"year": {"$in": 2020}}}, "filter.year.$in"),
    "filter with an object as its value": ({"query": "x", "filter": {"a": {"$eq": {"b": 1}}}}, "filter.a.$eq"),
    "filter with an empty field name": ({"query": "x", "filter": {"": 1}}, "filter."),
    "body a list": ([], ""),
    "body a string": ("query", ""),
    "body null": (None, ""),
}


@pytest.mark.parametrize(("body", "field"), SEARCHES.values(), ids=SEARCHES.keys())
async def test_a_search_that_cannot_be_accepted_is_a_422(api: Edge, body: Any, field: str) -> None:
    content = json.dumps(body).encode()
    answer = await api.client.post("/v1/collections/papers/search", content=content, headers=JSON)
    assert_problem(answer, 422, field)


@pytest.mark.parametrize(("body", "field"), SEARCHES.values(), ids=SEARCHES.keys())
async def test_in_a_batch_its_place_is_named(api: Edge, body: Any, field: str) -> None:
    content = json.dumps({"searches": [{"query": "fine"}, body]}).encode()
    answer = await api.client.post("/v1/collections/papers/search/batch", content=content, headers=JSON)
    assert_problem(answer, 422, f"searches.1.{field}" if field else "searches.1")


@pytest.mark.parametrize("depth", [9, DEEP])
async def test_a_deep_filter_is_a_4xx(api: Edge, depth: int) -> None:
    for where in (negated(depth), nested(depth)):
        answer = await api.client.post("/v1/collections/papers/search", json={"query": "x", "filter": where})
        assert_problem(answer, 422)


async def test_a_number_too_large_for_a_float_is_a_422(api: Edge) -> None:
    body = b'{"query": "x", "budget_ms": 1e999}'
    answer = await api.client.post("/v1/collections/papers/search", content=body, headers=JSON)
    assert_problem(answer, 422, "budget_ms")


@pytest.mark.parametrize(
    "searches", [[], [{"query": "x"}] * 65, {"query": "x"}, None], ids=["none", "65", "one", "null"]
)
async def test_a_batch_of_another_size_is_a_422(api: Edge, searches: Any) -> None:
    answer = await api.client.post("/v1/collections/papers/search/batch", json={"searches": searches})
    assert_problem(answer, 422, "searches")


async def test_a_version_that_is_not_there_is_a_404(api: Edge) -> None:
    answer = await api.client.post("/v1/collections/papers/search", json={"query": "x", "embedder_version": 7})
    assert assert_problem(answer, 404)["type"] == "urn:azimuth:error:version-not-found"


# ---------------------------------------------------------------- documents

DOCUMENTS: dict[str, tuple[Any, str]] = {
    "no documents": ({}, "documents"),
    "an empty list": ({"documents": []}, "documents"),
    "one document instead of a list": ({"documents": {"id": "b", "text": "x"}}, "documents"),
    "a document that is a string": ({"documents": ["b"]}, "documents.0"),
    "unknown field beside": (document() | {"wait": True}, "wait"),
    "unknown field inside": (document(embedding=[1.0]), "documents.0.embedding"),
    "no id": ({"documents": [{"text": "x"}]}, "documents.0.id"),
    "id a number": (document(id=3), "documents.0.id"),
    "id empty": (document(id=""), "documents.0.id"),
    "id blank": (document(id="  "), "documents.0.id"),
    "id with NUL": (document(id="a\0b"), "documents.0.id"),
    "id too long": (document(id="x" * 513), "documents.0.id"),
    "text missing": ({"documents": [{"id": "b"}]}, "documents.0.text"),
    "text empty": (document(text=""), "documents.0.text"),
    "text blank": (document(text=" \n "), "documents.0.text"),
    "text null": (document(text=None), "documents.0.text"),
    "text a number": (document(text=3), "documents.0.text"),
    "text with NUL": (document(text="a\0b"), "documents.0.text"),
    "text too long": (document(text="x" * 1_001), "documents.0.text"),
    "title too long": (document(title="x" * 10_001), "documents.0.title"),
    "title with NUL": (document(title="\0"), "documents.0.title"),
    "title a list": (document(title=["x"]), "documents.0.title"),
    "metadata a list": (document(metadata=[]), "documents.0.metadata"),
    "metadata null": (document(metadata=None), "documents.0.metadata"),
    "metadata with NUL in a value": (document(metadata={"a": "\0"}), "documents.0.metadata.a"),
    "metadata with a huge integer": (document(metadata={"a": 2**63}), "documents.0.metadata.a"),
    "metadata with a very huge integer": (document(metadata={"a": int(HUGE)}), "documents.0.metadata.a"),
    "metadata too deep": (document(metadata=nested(12)), "documents.0.metadata" + ".a" * 8),
    "metadata too large": (document(metadata={"a": "x" * 70_000}), "documents.0.metadata"),
    "the same id twice": ({"documents": [{"id": "b", "text": "x"}, {"id": "b", "text": "y"}]}, "documents.1.id"),
    "too many": ({"documents": [{"id": str(n), "text": "x"} for n in range(6)]}, "documents"),
    "body a list": ([{"id": "b", "text": "x"}], ""),
    "body null": (None, ""),
}


@pytest.mark.parametrize(("body", "field"), DOCUMENTS.values(), ids=DOCUMENTS.keys())
async def test_documents_that_cannot_be_accepted_are_a_422_and_none_is_written(
    api: Edge, body: Any, field: str
) -> None:
    content = json.dumps(body).encode()
    answer = await api.client.post("/v1/collections/papers/documents", content=content, headers=JSON)
    assert_problem(answer, 422, field)
    assert [one["id"] for one in (await api.client.get("/v1/collections/papers/documents")).json()["documents"]] == [
        "a"
    ]


async def test_ten_megabytes_of_text_are_refused() -> None:
    async with edge() as api:
        await api.collection()
        answer = await api.client.post("/v1/collections/papers/documents", json=document(text="x" * 10_000_000))
        assert_problem(answer, 413)


async def test_every_wrong_value_is_named_at_once(api: Edge) -> None:
    body = {"documents": [{"id": "", "text": 3}, {"text": "x", "colour": "red"}]}
    problem = assert_problem(await api.client.post("/v1/collections/papers/documents", json=body), 422)
    fields = {one["field"] for one in problem["errors"]}
    assert fields == {"documents.0.id", "documents.0.text", "documents.1.id", "documents.1.colour"}


DELETIONS: dict[str, tuple[Any, str]] = {
    "neither": ({}, ""),
    "both": ({"ids": ["a"], "filter": {"year": 2020}}, ""),
    "ids text": ({"ids": "a"}, "ids"),
    "id with NUL": ({"ids": ["a\0"]}, "ids.0"),
    "id empty": ({"ids": [""]}, "ids.0"),
    "too many": ({"ids": [str(n) for n in range(1_001)]}, "ids"),
    "an empty filter": ({"filter": {}}, "filter"),
    "a wrong filter": ({"filter": {"$nope": 1}}, "filter.$nope"),
    "unknown field": ({"ids": ["a"], "force": True}, "force"),
}


@pytest.mark.parametrize(("body", "field"), DELETIONS.values(), ids=DELETIONS.keys())
async def test_a_deletion_that_cannot_be_accepted_is_a_422_and_deletes_nothing(
    api: Edge, body: Any, field: str
) -> None:
    assert_problem(await api.client.post("/v1/collections/papers/documents/delete", json=body), 422, field)
    assert (await api.client.get("/v1/collections/papers/documents/a")).status_code == 200


# ---------------------------------------------------------------- paths and query strings

URLS: dict[str, tuple[str, str, int, str | None]] = {
    "name with capitals": ("GET", "/v1/collections/Papers", 422, "collection"),
    "name with a dot": ("GET", "/v1/collections/a.b", 422, "collection"),
    "name too long": ("GET", "/v1/collections/" + "a" * 64, 422, "collection"),
    "name that begins with a dash": ("DELETE", "/v1/collections/-a", 422, "collection"),
    "name with NUL": ("GET", "/v1/collections/a%00", 422, "collection"),
    "name with a line break": ("GET", "/v1/collections/a%0A", 422, "collection"),
    "name that is not UTF-8": ("GET", "/v1/collections/%ff", 422, "collection"),
    "name with a wrong document": ("GET", "/v1/collections/A/documents/a", 422, "collection"),
    "id with NUL": ("GET", "/v1/collections/papers/documents/a%00", 422, "id"),
    "id with NUL to delete": ("DELETE", "/v1/collections/papers/documents/a%00", 422, "id"),
    "id empty": ("GET", "/v1/collections/papers/documents/", 422, "id"),
    "id too long": ("GET", "/v1/collections/papers/documents/" + "x" * 513, 422, "id"),
    "missing collection": ("GET", "/v1/collections/nothing", 404, None),
    "missing collection to delete": ("DELETE", "/v1/collections/nothing", 404, None),
    "documents of a missing collection": ("GET", "/v1/collections/nothing/documents", 404, None),
    "versions of a missing collection": ("GET", "/v1/collections/nothing/versions", 404, None),
    "missing document": ("GET", "/v1/collections/papers/documents/nothing", 404, None),
    "missing document to delete": ("DELETE", "/v1/collections/papers/documents/nothing", 404, None),
    "missing version": ("GET", "/v1/collections/papers/versions/9", 404, None),
    "version text": ("GET", "/v1/collections/papers/versions/one", 422, "number"),
    "version zero": ("GET", "/v1/collections/papers/versions/0", 422, "number"),
    "version beyond 32 bits": ("GET", f"/v1/collections/papers/versions/{HUGE}", 422, "number"),
    "limit zero": ("GET", "/v1/collections/papers/documents?limit=0", 422, "limit"),
    "limit too large": ("GET", "/v1/collections/papers/documents?limit=1001", 422, "limit"),
    "limit text": ("GET", "/v1/collections/papers/documents?limit=ten", 422, "limit"),
    "limit huge": ("GET", f"/v1/collections/papers/documents?limit={HUGE}", 422, "limit"),
    "cursor made up": ("GET", "/v1/collections/papers/documents?cursor=abc", 422, "cursor"),
    "cursor empty": ("GET", "/v1/collections/papers/documents?cursor=", 422, "cursor"),
    "cursor not base64": ("GET", "/v1/collections/papers/documents?cursor=%2A%2A", 422, "cursor"),
    "cursor not ASCII": ("GET", "/v1/collections/papers/documents?cursor=%C3%A9", 422, "cursor"),
    "cursor of what failed": ("GET", "/v1/collections/papers/documents/failed?cursor=abc", 422, "cursor"),
    "filter not JSON": ("GET", "/v1/collections/papers/documents?filter=year", 422, "filter"),
    "filter a list": ("GET", "/v1/collections/papers/documents?filter=[]", 422, "filter"),
    "filter false": ("GET", "/v1/collections/papers/documents?filter=false", 422, "filter"),
    "filter NaN": ("GET", '/v1/collections/papers/documents?filter={"a":NaN}', 422, "filter"),
    "filter deep": ("GET", "/v1/collections/papers/documents?filter=" + "[" * 5_000, 422, "filter"),
    "filter unknown": ("GET", '/v1/collections/papers/documents?filter={"$a":1}', 422, "filter.$a"),
    "unknown parameter": ("GET", "/v1/collections/papers/documents?filtre={}", 422, "filtre"),
    "unknown parameter of a write": ("POST", "/v1/collections/papers/documents?sync=true", 422, "sync"),
    "wait unclear": ("POST", "/v1/collections/papers/documents?wait=perhaps", 422, "wait"),
    "no such route": ("GET", "/v1/nothing", 404, None),
    "a slash too many": ("GET", "/v1/collections/", 404, None),
    "wrong method": ("PATCH", "/v1/collections/papers", 405, None),
    "made-up method": ("FROB", "/v1/collections/papers", 405, None),
    "no such file of the console": ("GET", "/console/../app.py", 404, None),
    "no such file of the console, encoded": ("GET", "/console/..%2Fapp.py", 404, None),
}


@pytest.mark.parametrize(("method", "url", "status", "field"), URLS.values(), ids=URLS.keys())
async def test_urls_that_lead_nowhere(api: Edge, method: str, url: str, status: int, field: str | None) -> None:
    answer = await api.client.request(method, url)
    problem = assert_problem(answer, status, field)
    assert "\0" not in json.dumps(problem)


async def test_a_wrong_method_is_told_which_are_right(api: Edge) -> None:
    answer = await api.client.post("/livez")
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "GET"


# ---------------------------------------------------------------- settings of a collection

SETTINGS: dict[str, tuple[Any, str]] = {
    "unknown field": ({"shards": 3}, "shards"),
    "unknown language": ({"language": "klingon"}, "language"),
    "language null": ({"language": None}, "language"),
    "language with NUL": ({"language": "en\0"}, "language"),
    "recall of nothing": ({"recall_target": 0}, "recall_target"),
    "recall above 1": ({"recall_target": 1.1}, "recall_target"),
    "recall text": ({"recall_target": "0.9"}, "recall_target"),
    "embedder a number": ({"embedder": 3}, "embedder"),
    "embedder not allowed": ({"embedder": "somebody/else"}, "embedder.model"),
    "embedder empty": ({"embedder": ""}, "embedder.model"),
    "embedder with NUL": ({"embedder": {"model": "a\0"}}, "embedder.model"),
    "embedder without dimensions": ({"embedder": {"dimensions": 0}}, "embedder.dimensions"),
    "embedder with an unknown field": ({"embedder": {"pooling": "mean"}}, "embedder.pooling"),
    "prompt with NUL": ({"embedder": {"query_prompt": "\0"}}, "embedder.query_prompt"),
    "chunks too small": ({"chunking": {"max_tokens": 1}}, "chunking.max_tokens"),
    "overlap negative": ({"chunking": {"overlap_tokens": -1}}, "chunking.overlap_tokens"),
    "fusion unknown": ({"fusion": {"method": "magic"}}, "fusion.method"),
    "body a list": ([], ""),
}


@pytest.mark.parametrize(("body", "field"), SETTINGS.values(), ids=SETTINGS.keys())
async def test_settings_that_cannot_be_accepted_are_a_422_and_create_nothing(api: Edge, body: Any, field: str) -> None:
    content = json.dumps(body).encode()
    assert_problem(await api.client.put("/v1/collections/other", content=content, headers=JSON), 422, field)
    assert (await api.client.get("/v1/collections/other")).status_code == 404


async def test_another_embedder_is_a_409_that_says_where_to_go(api: Edge) -> None:
    wanted = {"embedder": {"model": "default", "query_prompt": "query: "}}
    problem = assert_problem(await api.client.put("/v1/collections/papers", json=wanted), 409)
    assert "/versions" in problem["detail"]


# ---------------------------------------------------------------- lines of a stream

LINES = {
    "not JSON": (b"{", "not JSON"),
    "not UTF-8": (b'{"id": "\xff"}', "not JSON"),
    "half a surrogate pair": (b'{"id": "b", "text": "\\ud800"}', "not JSON"),
    "an array": (b"[]", "expected an object"),
    "no id": (b'{"text": "x"}', "id: is required"),
    "unknown field": (b'{"id": "b", "text": "x", "colour": 1}', "colour: unknown field"),
    "empty text": (b'{"id": "b", "text": ""}', "text: must not be empty"),
    "NUL": (b'{"id": "b", "text": "\\u0000"}', "text: contains a NUL"),
    "NUL in the id": (b'{"id": "\\u0000", "text": "x"}', "id: contains a NUL"),
    "NaN": (b'{"id": "b", "text": "x", "metadata": {"a": NaN}}', "not JSON"),
    "infinite": (b'{"id": "b", "text": "x", "metadata": {"a": 1e999}}', "NaN and infinity"),
    "bottomless": (b"[" * 1_500, "not JSON"),
    "too long": (b'{"id": "b", "text": "' + b"x" * 3_000 + b'"}', "longer than 2000 bytes"),
}


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize(("line", "reason"), LINES.values(), ids=LINES.keys())
async def test_a_wrong_line_is_told_by_number_and_the_others_stand(line: bytes, reason: str, wait: bool) -> None:
    lines = [b'{"id": "first", "text": "one"}', line, b"", b'{"id": "last", "text": "two"}']
    async with small() as api, api.working():
        answer = await api.client.post(
            f"/v1/collections/papers/documents?wait={wait}",
            content=b"\n".join(lines),
            headers={"Content-Type": "application/x-ndjson"},
        )
        assert answer.status_code == 200
        outcome = answer.json()
        assert (outcome["created"], outcome["errors_total"]) == (2, 1)
        (error,) = outcome["errors"]
        assert error["line"] == 2
        assert reason in error["error"]
        assert (await api.client.get("/v1/collections/papers/documents/last")).status_code == 200
