"""Whatever a client sends: never a 500, always the right 4xx, always the one error shape."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from service.api.dependencies import RequestLimits
from tests.edge import LIMITS, Edge, assert_problem, edge

DEEP = 150
HUGE = "9" * 30
JSON = {"Content-Type": "application/json"}
PAPERS = "/v1/collections/papers"


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


def nested(depth: int, key: str = "a", leaf: Any = 1) -> Any:
    for _ in range(depth):
        leaf = {key: leaf}
    return leaf


def document(**changes: Any) -> dict[str, Any]:
    return {"documents": [{"id": "b", "text": "other text"} | changes]}


NOT_JSON = {
    "not UTF-8": b'{"query": "\xff\xfe"}',
    "cut in the middle of a character": b'{"query": "\xc3"}',
    "infinity": b'{"query": "x", "budget_ms": Infinity}',
    "half a surrogate pair": b'{"query": "\\ud800"}',
    "the other half": b'{"query": "\\udc00 x"}',
    "thousands of digits": b'{"query": "x", "k": ' + b"9" * 10_000 + b"}",
    "UTF-16": '{"query": "x"}'.encode("utf-16"),
    "a raw control character": b'{"query": "a\x01b"}',
    "a raw NUL": b'{"query": "a\0b"}',
    "two values": b'{"query": "x"} {"query": "y"}',
}


@pytest.mark.parametrize("route", ["search", "search/batch", "documents", "documents/delete"])
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
async def test_malformed_json_is_a_400(api: Edge, route: str, body: bytes) -> None:
    assert_problem(await api.client.post(f"{PAPERS}/{route}", content=body, headers=JSON), 400)


async def test_a_malformed_body_of_settings_is_a_400(api: Edge) -> None:
    assert_problem(await api.client.put("/v1/collections/x", content=b"{", headers=JSON), 400)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/x-ndjson", None, "!"])
async def test_another_content_type_is_a_415(api: Edge, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = await api.client.post(f"{PAPERS}/search", content=b'{"query": "x"}', headers=headers)
    assert_problem(answer, 415)
    if kind != "application/x-ndjson":
        assert_problem(await api.client.post(f"{PAPERS}/documents", content=b"a,b", headers=headers), 415)


async def test_a_body_above_the_limit_is_a_413_whatever_it_says(api: Edge) -> None:
    large = json.dumps({"query": "x" * (LIMITS.body_bytes + 1)}).encode()

    async def unannounced() -> AsyncIterator[bytes]:
        for at in range(0, len(large), 1_000):
            yield large[at : at + 1_000]

    for route, content, headers in (
        ("search", large, JSON),
        ("search", unannounced(), JSON),
        ("search", large, {**JSON, "Content-Length": "10"}),
        ("documents", large, JSON),
    ):
        assert_problem(await api.client.post(f"{PAPERS}/{route}", content=content, headers=headers), 413)


SEARCHES: dict[str, tuple[Any, str]] = {
    "no query": ({}, "query"),
    "query null": ({"query": None}, "query"),
    "query a number": ({"query": 3}, "query"),
    "query a list": ({"query": ["x"]}, "query"),
    "query empty": ({"query": ""}, "query"),
    "query blank": ({"query": " \t\n\u3000"}, "query"),
    "query without width": ({"query": "\u200b\u200c\ufeff \u2060\u00ad\u200e\u202e"}, "query"),
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
    "mode unknown": ({"query": "x", "mode": "magic"}, "mode"),
    "mode a number": ({"query": "x", "mode": 1}, "mode"),
    "unknown field": ({"query": "x", "colour": "red"}, "colour"),
    "vector text": ({"vector": "x"}, "vector"),
    "vector empty": ({"vector": []}, "vector"),
    "vector of texts": ({"vector": ["1"]}, "vector.0"),
    "vector of booleans": ({"vector": [True]}, "vector.0"),
    "vector with null": ({"vector": [1, None]}, "vector.1"),
    "vector of vectors": ({"vector": [[1.0]]}, "vector.0"),
    "vector too long": ({"vector": [0.5] * 4_001}, "vector"),
    "vector of thousands of errors": ({"vector": ["x"] * 4_000}, "vector.0"),
    "vector of another length": ({"vector": [1.0], "embedder_version": 1}, "vector"),
    "vector of no direction": ({"vector": [0] * 32, "embedder_version": 1}, "vector"),
    "vector of unnamed origin": ({"query": "x", "vector": [1.0] * 32}, "embedder_version"),
    "vector for words": ({"vector": [1.0] * 32, "embedder_version": 1, "mode": "lexical"}, "query"),
    "diversity above 1": ({"query": "x", "diversity": 1.5}, "diversity"),
    "like": ({"query": "x", "like": {"positive": ["a"]}}, "like"),
    "group_by unknown": ({"query": "x", "group_by": "section"}, "group_by"),
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
    "too many typos": ({"query": "x", "typos": {"max_edits": 3}}, "typos.max_edits"),
    "no typos": ({"query": "x", "typos": {"max_edits": 0}}, "typos.max_edits"),
    "typos unknown field": ({"query": "x", "typos": {"edits": 1}}, "typos.edits"),
    "typos text": ({"query": "x", "typos": "yes"}, "typos"),
    "syntax unknown": ({"query": "x", "syntax": "lucene"}, "syntax"),
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
async def test_an_invalid_search_of_a_batch_is_named_by_its_place(api: Edge, body: Any, field: str) -> None:
    content = json.dumps({"searches": [{"query": "fine"}, body]}).encode()
    answer = await api.client.post(f"{PAPERS}/search/batch", content=content, headers=JSON)
    assert_problem(answer, 422, f"searches.1.{field}" if field else "searches.1")


@pytest.mark.parametrize("depth", [9, DEEP])
async def test_a_deep_filter_is_a_4xx(api: Edge, depth: int) -> None:
    for where in (nested(depth, "$not", {"year": 2020}), nested(depth)):
        await api.refused(f"{PAPERS}/search", {"query": "x", "filter": where}, 422)


async def test_a_number_too_large_for_a_float_is_a_422(api: Edge) -> None:
    for body, field in ((b'{"query": "x", "budget_ms": 1e999}', "budget_ms"), (b'{"vector": [1e400]}', "vector.0")):
        answer = await api.client.post(f"{PAPERS}/search", content=body, headers=JSON)
        assert_problem(answer, 422, field)


@pytest.mark.parametrize(
    "searches", [[], [{"query": "x"}] * 65, {"query": "x"}, None], ids=["none", "65", "one", "null"]
)
async def test_a_batch_of_another_size_is_a_422(api: Edge, searches: Any) -> None:
    await api.refused(f"{PAPERS}/search/batch", {"searches": searches}, 422, "searches")


async def test_a_version_that_is_not_there_is_a_404(api: Edge) -> None:
    problem = await api.refused(f"{PAPERS}/search", {"query": "x", "embedder_version": 7}, 404)
    assert problem["type"] == "urn:azimuth:error:version-not-found"


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
    "id that a URL resolves": (document(id="a/../b"), "documents.0.id"),
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
    "metadata with NUL in a value": (document(metadata={"a": "\0"}), "documents.0.metadata.a"),
    "metadata with a huge integer": (document(metadata={"a": 2**63}), "documents.0.metadata.a"),
    "metadata with a very huge integer": (document(metadata={"a": int(HUGE)}), "documents.0.metadata.a"),
    "metadata too deep": (document(metadata=nested(12)), "documents.0.metadata" + ".a" * 8),
    "metadata too large": (document(metadata={"a": "x" * 70_000}), "documents.0.metadata"),
    "vector text": (document(vector="x"), "documents.0.vector"),
    "vector empty": (document(vector=[]), "documents.0.vector"),
    "vector of texts": (document(vector=["1", "2"]), "documents.0.vector.0"),
    "vector too long": (document(vector=[0.1] * 4_001), "documents.0.vector"),
    "vector of thousands of errors": (document(vector=[None] * 4_000), "documents.0.vector.0"),
    "vector that nothing takes": (document(vector=[1.0, 0.0]), "documents.0.vector"),
    "the same id twice": ({"documents": [{"id": "b", "text": "x"}, {"id": "b", "text": "y"}]}, "documents.1.id"),
    "too many": ({"documents": [{"id": str(n), "text": "x"} for n in range(6)]}, "documents"),
    "body a list": ([{"id": "b", "text": "x"}], ""),
    "body null": (None, ""),
}


async def test_ten_megabytes_of_text_are_refused() -> None:
    async with edge() as api:
        await api.collection()
        await api.refused(f"{PAPERS}/documents", document(text="x" * 10_000_000), 413)


async def test_all_invalid_values_are_reported_at_once(api: Edge) -> None:
    body = {"documents": [{"id": "", "text": 3}, {"text": "x", "colour": "red"}]}
    problem = await api.refused(f"{PAPERS}/documents", body, 422)
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


URLS: dict[str, tuple[str, str, int, str | None]] = {
    "name with capitals": ("GET", "/v1/collections/Papers", 422, "collection"),
    "name with a dot": ("GET", "/v1/collections/a.b", 422, "collection"),
    "name too long": ("GET", "/v1/collections/" + "a" * 64, 422, "collection"),
    "name that begins with a dash": ("DELETE", "/v1/collections/-a", 422, "collection"),
    "name with NUL": ("GET", "/v1/collections/a%00", 422, "collection"),
    "name with a line break": ("GET", "/v1/collections/a%0A", 422, "collection"),
    "name that is not UTF-8": ("GET", "/v1/collections/%ff", 422, "collection"),
    "name with a wrong document": ("GET", "/v1/collections/A/documents/a", 422, "collection"),
    "id with NUL": ("GET", f"{PAPERS}/documents/a%00", 422, "id"),
    "id with NUL to delete": ("DELETE", f"{PAPERS}/documents/a%00", 422, "id"),
    "id empty": ("GET", f"{PAPERS}/documents/", 422, "id"),
    "id too long": ("GET", f"{PAPERS}/documents/" + "x" * 513, 422, "id"),
    "missing collection": ("GET", "/v1/collections/nothing", 404, None),
    "collection to delete without its name": ("DELETE", "/v1/collections/papers", 428, None),
    "collection to delete by another name": ("DELETE", "/v1/collections/papers?confirm=paper", 428, None),
    "document that a client resolved": ("DELETE", f"{PAPERS}/documents/..", 428, None),
    "document that a client resolved elsewhere": ("DELETE", f"{PAPERS}/documents/../../papers", 428, None),
    "missing collection to delete": ("DELETE", "/v1/collections/nothing", 404, None),
    "documents of a missing collection": ("GET", "/v1/collections/nothing/documents", 404, None),
    "versions of a missing collection": ("GET", "/v1/collections/nothing/versions", 404, None),
    "missing document": ("GET", f"{PAPERS}/documents/nothing", 404, None),
    "missing document to delete": ("DELETE", f"{PAPERS}/documents/nothing", 404, None),
    "missing version": ("GET", f"{PAPERS}/versions/9", 404, None),
    "version text": ("GET", f"{PAPERS}/versions/one", 422, "number"),
    "version zero": ("GET", f"{PAPERS}/versions/0", 422, "number"),
    "version beyond 32 bits": ("GET", f"{PAPERS}/versions/{HUGE}", 422, "number"),
    "unknown version to promote": ("POST", f"{PAPERS}/versions/9/promote", 404, None),
    "version zero to promote": ("POST", f"{PAPERS}/versions/0/promote", 422, "number"),
    "version text to pause": ("POST", f"{PAPERS}/versions/one/pause", 422, "number"),
    "unknown verb of a version": ("POST", f"{PAPERS}/versions/1/activate", 404, None),
    "version that rests already": ("POST", f"{PAPERS}/versions/1/pause", 409, None),
    "active version to resume": ("POST", f"{PAPERS}/versions/1/resume", 409, None),
    "active version to retire": ("DELETE", f"{PAPERS}/versions/1", 409, None),
    "unknown parameter of retiring": ("DELETE", f"{PAPERS}/versions/1?force=true", 422, "force"),
    "nothing to go back to": ("POST", f"{PAPERS}/versions/rollback", 409, None),
    "the same version again": ("POST", f"{PAPERS}/versions", 409, "version"),
    "promote with another method": ("GET", f"{PAPERS}/versions/1/promote", 405, None),
    "version to write to that is not there": (
        "POST",
        f"{PAPERS}/documents?embedder_version=zero",
        422,
        "embedder_version",
    ),
    "judgments that are not there": ("DELETE", f"{PAPERS}/judgments", 404, None),
    "judgments in full, perhaps": ("GET", f"{PAPERS}/judgments?full=perhaps", 422, "full"),
    "unknown parameter of judgments": ("GET", f"{PAPERS}/judgments?all=true", 422, "all"),
    "trail of a missing collection": ("GET", "/v1/collections/nothing/audit", 404, None),
    "trail from a made-up place": ("GET", f"{PAPERS}/audit?cursor=abc", 422, "cursor"),
    "trail without end": ("GET", f"{PAPERS}/audit?limit=1001", 422, "limit"),
    "recall of a missing collection": ("GET", "/v1/collections/nothing/recall", 404, None),
    "recall with a parameter": ("GET", f"{PAPERS}/recall?k=5", 422, "k"),
    "recall of a name with capitals": ("GET", "/v1/collections/Papers/recall", 422, "collection"),
    "evaluation of a missing collection": ("POST", "/v1/collections/nothing/evaluate", 404, None),
    "drift of a missing collection": ("GET", "/v1/collections/nothing/drift", 404, None),
    "drift by another method": ("POST", f"{PAPERS}/drift", 405, None),
    "geometry of a missing collection": ("GET", "/v1/collections/nothing/geometry", 404, None),
    "geometry of a missing version": ("GET", f"{PAPERS}/geometry?version=9", 404, None),
    "geometry of a version beyond 32 bits": ("GET", f"{PAPERS}/geometry?version={HUGE}", 422, "version"),
    "geometry of version zero": ("GET", f"{PAPERS}/geometry?version=0", 422, "version"),
    "geometry of too few": ("GET", f"{PAPERS}/geometry?sample=99", 422, "sample"),
    "geometry of too many": ("GET", f"{PAPERS}/geometry?sample=5001", 422, "sample"),
    "geometry of nothing": ("GET", f"{PAPERS}/geometry?sample=0", 422, "sample"),
    "geometry of everything": ("GET", f"{PAPERS}/geometry?sample={HUGE}", 422, "sample"),
    "geometry with another parameter": ("GET", f"{PAPERS}/geometry?rows=100", 422, "rows"),
    "index of a missing collection": ("GET", "/v1/collections/nothing/versions/1/index", 404, None),
    "rebuild in a missing collection": ("POST", "/v1/collections/nothing/versions/1/reindex", 404, None),
    "index of a missing version": ("GET", f"{PAPERS}/versions/9/index", 404, None),
    "index of version text": ("GET", f"{PAPERS}/versions/one/index", 422, "number"),
    "rebuild of a missing version": ("POST", f"{PAPERS}/versions/9/reindex", 404, None),
    "rebuild of what has no index": ("POST", f"{PAPERS}/versions/1/reindex", 409, None),
    "rebuild of version zero": ("POST", f"{PAPERS}/versions/0/reindex", 422, "number"),
    "limit zero": ("GET", f"{PAPERS}/documents?limit=0", 422, "limit"),
    "limit too large": ("GET", f"{PAPERS}/documents?limit=1001", 422, "limit"),
    "limit text": ("GET", f"{PAPERS}/documents?limit=ten", 422, "limit"),
    "limit huge": ("GET", f"{PAPERS}/documents?limit={HUGE}", 422, "limit"),
    "cursor made up": ("GET", f"{PAPERS}/documents?cursor=abc", 422, "cursor"),
    "cursor empty": ("GET", f"{PAPERS}/documents?cursor=", 422, "cursor"),
    "cursor not base64": ("GET", f"{PAPERS}/documents?cursor=%2A%2A", 422, "cursor"),
    "cursor not ASCII": ("GET", f"{PAPERS}/documents?cursor=%C3%A9", 422, "cursor"),
    "cursor of what failed": ("GET", f"{PAPERS}/documents/failed?cursor=abc", 422, "cursor"),
    "filter not JSON": ("GET", f"{PAPERS}/documents?filter=year", 422, "filter"),
    "filter a list": ("GET", f"{PAPERS}/documents?filter=[]", 422, "filter"),
    "filter false": ("GET", f"{PAPERS}/documents?filter=false", 422, "filter"),
    "filter NaN": ("GET", '/v1/collections/papers/documents?filter={"a":NaN}', 422, "filter"),
    "filter deep": ("GET", f"{PAPERS}/documents?filter=" + "[" * 5_000, 422, "filter"),
    "filter unknown": ("GET", '/v1/collections/papers/documents?filter={"$a":1}', 422, "filter.$a"),
    "unknown parameter": ("GET", "/v1/collections/papers/documents?filtre={}", 422, "filtre"),
    "unknown parameter of a write": ("POST", f"{PAPERS}/documents?sync=true", 422, "sync"),
    "wait unclear": ("POST", f"{PAPERS}/documents?wait=perhaps", 422, "wait"),
    "no such route": ("GET", "/v1/nothing", 404, None),
    "a slash too many": ("GET", "/v1/collections/", 404, None),
    "wrong method": ("PATCH", "/v1/collections/papers", 405, None),
    "made-up method": ("FROB", "/v1/collections/papers", 405, None),
    "no such file of the console": ("GET", "/console/../app.py", 404, None),
    "no such file of the console, encoded": ("GET", "/console/..%2Fapp.py", 404, None),
}


@pytest.mark.parametrize(("method", "url", "status", "field"), URLS.values(), ids=URLS.keys())
async def test_invalid_urls_get_their_status(api: Edge, method: str, url: str, status: int, field: str | None) -> None:
    problem = assert_problem(await api.client.request(method, url), status, field)
    assert "\0" not in json.dumps(problem)


async def test_a_405_names_the_allowed_methods(api: Edge) -> None:
    answer = await api.client.post("/livez")
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


SETTINGS: dict[str, tuple[Any, str]] = {
    "unknown field": ({"shards": 3}, "shards"),
    "unknown language": ({"language": "klingon"}, "language"),
    "language with NUL": ({"language": "en\0"}, "language"),
    "recall of nothing": ({"recall_target": 0}, "recall_target"),
    "recall above 1": ({"recall_target": 1.1}, "recall_target"),
    "recall text": ({"recall_target": "0.9"}, "recall_target"),
    "embedder a number": ({"embedder": 3}, "embedder"),
    "embedder not allowed": ({"embedder": "somebody/else"}, "embedder.model"),
    "embedder empty": ({"embedder": ""}, "embedder.model"),
    "embedder with NUL": ({"embedder": {"model": "a\0"}}, "embedder.model"),
    "embedder without dimensions": ({"embedder": {"dimensions": 0}}, "embedder.dimensions"),
    "identity of a model of ours": ({"embedder": {"identity": "mine"}}, "embedder.identity"),
    "identity empty": ({"embedder": {"identity": ""}}, "embedder.identity"),
    "external without dimensions": ({"embedder": {"model": "external", "identity": "x"}}, "embedder.dimensions"),
    "external without identity": ({"embedder": {"model": "external", "dimensions": 3}}, "embedder.identity"),
    "external in short": ({"embedder": "external"}, "embedder.dimensions"),
    "external with a prompt": (
        {"embedder": {"model": "external", "dimensions": 3, "identity": "x", "query_prompt": "q: "}},
        "embedder.query_prompt",
    ),
    "embedder with an unknown field": ({"embedder": {"pooling": "mean"}}, "embedder.pooling"),
    "prompt with NUL": ({"embedder": {"query_prompt": "\0"}}, "embedder.query_prompt"),
    "chunks too small": ({"chunking": {"max_tokens": 1}}, "chunking.max_tokens"),
    "overlap negative": ({"chunking": {"overlap_tokens": -1}}, "chunking.overlap_tokens"),
    "fusion unknown": ({"fusion": {"method": "magic"}}, "fusion.method"),
    "body a list": ([], ""),
}


async def test_another_embedder_is_a_409_that_names_the_right_route(api: Edge) -> None:
    wanted = {"embedder": {"model": "default", "query_prompt": "query: "}}
    problem = assert_problem(await api.client.put("/v1/collections/papers", json=wanted), 409)
    assert "/versions" in problem["detail"]


VERSIONS: dict[str, tuple[Any, str]] = {
    "unknown field": ({"shards": 3}, "shards"),
    "embedder a number": ({"embedder": 3}, "embedder"),
    "embedder not allowed": ({"embedder": "somebody/else"}, "embedder.model"),
    "dimensions that leave nothing of some text": ({"embedder": {"model": "hashing:64", "dimensions": 32}}, "embedder"),
    "embedder with more dimensions than it has": ({"embedder": {"dimensions": 4_000}}, "embedder.dimensions"),
    "external without identity": ({"embedder": {"model": "external", "dimensions": 3}}, "embedder.identity"),
    "identity of a model of ours": ({"embedder": {"identity": "mine"}}, "embedder.identity"),
    "chunks too small": ({"chunking": {"max_tokens": 1}}, "chunking.max_tokens"),
    "chunking text": ({"chunking": "small"}, "chunking"),
    "m one": ({"index": {"m": 1}}, "index.m"),
    "m too large": ({"index": {"m": 101}}, "index.m"),
    "m fractional": ({"index": {"m": 16.5}}, "index.m"),
    "effort too small": ({"index": {"ef_construction": 3}}, "index.ef_construction"),
    "effort too large": ({"index": {"ef_construction": 1_001}}, "index.ef_construction"),
    "effort less than twice m": ({"index": {"m": 16, "ef_construction": 31}}, "index.ef_construction"),
    "m more than half the effort": ({"index": {"m": 33}}, "index.ef_construction"),
    "storage unknown": ({"index": {"storage": "sparsevec"}}, "index.storage"),
    "kind unknown": ({"index": {"kind": "annoy"}}, "index.kind"),
    "kind of another storage": ({"index": {"kind": "ivfflat", "storage": "binary"}}, "index.storage"),
    "index with an unknown field": ({"index": {"lists": 100}}, "index.lists"),
    "index a list": ({"index": []}, "index"),
    "note too long": ({"note": "x" * 1_001}, "note"),
    "note with NUL": ({"note": "\0"}, "note"),
    "body a list": ([], ""),
}

PROMOTIONS: dict[str, tuple[Any, str]] = {
    "force text": ({"force": "true"}, "force"),
    "force a number": ({"force": 1}, "force"),
    "note a number": ({"note": 3}, "note"),
    "unknown field": ({"evidence": False}, "evidence"),
    "body true": (True, ""),
}

QUERY = {"_id": "q", "text": "some text"}
QREL = {"query-id": "q", "corpus-id": "a", "score": 1}

JUDGMENTS: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "queries"),
    "no queries": ({"queries": [], "qrels": [QREL]}, "queries"),
    "no judgments": ({"queries": [QUERY], "qrels": []}, "qrels"),
    "too many queries": (
        {"queries": [{"_id": str(n), "text": "x"} for n in range(10_001)], "qrels": [QREL]},
        "queries",
    ),
    "query without id": ({"queries": [{"text": "x"}], "qrels": [QREL]}, "queries.0._id"),
    "query id of another name": ({"queries": [{"id": "q", "text": "x"}], "qrels": [QREL]}, "queries.0._id"),
    "query id a number": ({"queries": [QUERY | {"_id": 1}], "qrels": [QREL]}, "queries.0._id"),
    "query id empty": ({"queries": [QUERY | {"_id": ""}], "qrels": [QREL]}, "queries.0._id"),
    "query id with NUL": ({"queries": [QUERY | {"_id": "\0"}], "qrels": [QREL]}, "queries.0._id"),
    "query blank": ({"queries": [QUERY | {"text": " "}], "qrels": [QREL]}, "queries.0.text"),
    "query too long": ({"queries": [QUERY | {"text": "x" * 10_001}], "qrels": [QREL]}, "queries.0.text"),
    "the same query twice": ({"queries": [QUERY, QUERY], "qrels": [QREL]}, "queries.1._id"),
    "unknown query": ({"queries": [QUERY], "qrels": [QREL, QREL | {"query-id": "p"}]}, "qrels.1.query-id"),
    "the same judgment twice": ({"queries": [QUERY], "qrels": [QREL, QREL | {"score": 2}]}, "qrels.1"),
    "document id empty": ({"queries": [QUERY], "qrels": [QREL | {"corpus-id": ""}]}, "qrels.0.corpus-id"),
    "document id too long": ({"queries": [QUERY], "qrels": [QREL | {"corpus-id": "x" * 513}]}, "qrels.0.corpus-id"),
    "score negative": ({"queries": [QUERY], "qrels": [QREL | {"score": -1}]}, "qrels.0.score"),
    "score too high": ({"queries": [QUERY], "qrels": [QREL | {"score": 101}]}, "qrels.0.score"),
    "score fractional": ({"queries": [QUERY], "qrels": [QREL | {"score": 0.5}]}, "qrels.0.score"),
    "score text": ({"queries": [QUERY], "qrels": [QREL | {"score": "1"}]}, "qrels.0.score"),
    "nothing relevant": ({"queries": [QUERY], "qrels": [QREL | {"score": 0}]}, "qrels"),
    "unknown field": ({"queries": [QUERY], "qrels": [QREL], "split": "test"}, "split"),
    "body null": (None, ""),
}


BODIES = {
    "search": ("POST", f"{PAPERS}/search", SEARCHES),
    "documents": ("POST", f"{PAPERS}/documents", DOCUMENTS),
    "deletion": ("POST", f"{PAPERS}/documents/delete", DELETIONS),
    "settings": ("PUT", "/v1/collections/other", SETTINGS),
    "versions": ("POST", f"{PAPERS}/versions", VERSIONS),
    "promotion": ("POST", f"{PAPERS}/versions/1/promote", PROMOTIONS),
}
CASES = {
    f"{name}: {case}": (method, url, body, field)
    for name, (method, url, cases) in BODIES.items()
    for case, (body, field) in cases.items()
}


@pytest.mark.parametrize(("method", "url", "body", "field"), CASES.values(), ids=CASES.keys())
async def test_a_body_that_cannot_be_accepted_is_a_422_and_changes_nothing(
    api: Edge, method: str, url: str, body: Any, field: str
) -> None:
    answer = await api.client.request(method, url, content=json.dumps(body).encode(), headers=JSON)
    assert_problem(answer, 422, field)
    assert [one["id"] for one in (await api.get(f"{PAPERS}/documents"))["documents"]] == ["a"]
    assert len((await api.get(f"{PAPERS}/versions"))["versions"]) == 1
    assert (await api.client.get("/v1/collections/other")).status_code == 404


@pytest.mark.parametrize(("body", "field"), JUDGMENTS.values(), ids=JUDGMENTS.keys())
async def test_judgments_that_cannot_be_accepted_are_a_422_and_none_is_kept(body: Any, field: str) -> None:
    async with edge(limits=RequestLimits()) as api:
        await api.collection()
        answer = await api.client.post(f"{PAPERS}/judgments", content=json.dumps(body).encode(), headers=JSON)
        assert_problem(answer, 422, field)
        assert (await api.get(f"{PAPERS}/judgments"))["uploaded_at"] is None


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
    "a vector that nothing takes": (b'{"id": "b", "text": "x", "vector": [1.0]}', "vector: no embedder version"),
    "a vector with an infinite number": (b'{"id": "b", "text": "x", "vector": [1e400]}', "vector.0: "),
    "bottomless": (b"[" * 1_500, "not JSON"),
    "too long": (b'{"id": "b", "text": "' + b"x" * 3_000 + b'"}', "longer than 2000 bytes"),
}


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize(("line", "reason"), LINES.values(), ids=LINES.keys())
async def test_an_invalid_line_is_reported_by_number_and_the_others_are_written(
    line: bytes, reason: str, wait: bool
) -> None:
    lines = [b'{"id": "first", "text": "one"}', line, b"", b'{"id": "last", "text": "two"}']
    async with small() as api, api.working():
        url, headers = f"{PAPERS}/documents?wait={wait}", {"Content-Type": "application/x-ndjson"}
        answer = await api.client.post(url, content=b"\n".join(lines), headers=headers)
        assert answer.status_code == 200
        outcome = answer.json()
        assert (outcome["created"], outcome["errors_total"]) == (2, 1)
        (error,) = outcome["errors"]
        assert error["line"] == 2
        assert reason in error["error"]
        assert (await api.client.get(f"{PAPERS}/documents/last")).status_code == 200
