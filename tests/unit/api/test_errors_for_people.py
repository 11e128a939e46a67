"""Errors speak to people, and in the shapes that clients of other APIs print."""

import copy
import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.api.compatible import openai_tokens
from service.api.problems import MAX_NAME
from service.core.errors import MAX_PLACES, Overloaded
from service.core.ids import Role, Vectors
from service.core.ports.embedder import Encoder, ModelInput
from service.embedder.models.registry import ModelRegistry
from tests.edge import LIMITS, Edge, Json, WordReranker, assert_problem, edge
from tests.unit.api.test_null_is_default import BODIES, PAPERS

JSON = {"Content-Type": "application/json"}
INTERNALS = re.compile(
    r"function-|functools|constrained|list\[|dict\[|Input should|pydantic|<class|0x[0-9a-f]{6}|tagged|union"
    r"|instance of|NoneType|Value error|Traceback|\bstr\b|\bint\b|validation"
)
"""What no text of an error has: words of the libraries that found it."""

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("computed_here")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api() -> AsyncIterator[Edge]:
    async with edge(reranker=WordReranker()) as running:
        await running.collection()
        await running.write({"id": "a", "text": "some text"})
        yield running


MESSAGES: dict[str, tuple[str, Any, str]] = {
    "an empty query": (f"{PAPERS}/search", {"query": ""}, "query: must not be empty"),
    "a mode that is a number": (
        f"{PAPERS}/search",
        {"query": "x", "mode": 1},
        "mode: expected 'hybrid', 'dense' or 'lexical', not an integer",
    ),
    "a long name": (f"{PAPERS}/search", {"query": "x", "n" * 5_000: 1}, "n" * MAX_NAME + ": unknown field"),
    "a document that is a number": (
        f"{PAPERS}/documents",
        {"documents": [{"id": "b", "text": "x"}, 3]},
        "documents.1: expected an object, not an integer",
    ),
    "an id that is a list": (
        f"{PAPERS}/documents",
        {"documents": [{"id": ["b"], "text": "x"}]},
        "documents.0.id: expected a string, not a list",
    ),
    "metadata that is a list": (
        f"{PAPERS}/documents",
        {"documents": [{"id": "b", "text": "x", "metadata": []}]},
        "documents.0.metadata: expected an object, not a list",
    ),
    "a fraction of a hit": (
        f"{PAPERS}/search",
        {"query": "x", "k": 1.5},
        "k: expected an integer, not a decimal number",
    ),
    "no hits": (f"{PAPERS}/search", {"query": "x", "k": 0}, "k: should be greater than or equal to 1"),
    "a flag in words": (
        f"{PAPERS}/search",
        {"query": "x", "exact": "yes"},
        "exact: expected true or false, not a string",
    ),
    "another mode": (
        f"{PAPERS}/search",
        {"query": "x", "mode": "both"},
        "mode: should be 'hybrid', 'dense' or 'lexical'",
    ),
    "reranking in words": (
        f"{PAPERS}/search",
        {"query": "x", "rerank": "yes"},
        "rerank: expected true, false or an object, not a string",
    ),
    "an example that is a number": (
        f"{PAPERS}/search",
        {"like": {"positive": [3]}},
        "like.positive.0: expected a string or an object, not an integer",
    ),
    "a query among several that is null": (
        f"{PAPERS}/search",
        {"queries": ["x", None]},
        "queries.1: expected a string or an object, not null",
    ),
    "nothing to delete": (f"{PAPERS}/documents/delete", {}, "give exactly one of ids, filter, all"),
    "a list for a body": (f"{PAPERS}/search", ["x"], "expected an object, not a list"),
    "null for a body": (f"{PAPERS}/search", None, "an object is required"),
    "texts in an object": (
        "/v1/embeddings",
        {"input": {"text": "x"}},
        "input: expected a string or a list of strings, not an object",
    ),
    "a number among texts": ("/v1/embeddings", {"input": ["x", 3]}, "input.1: expected a string, not an integer"),
    "no texts": ("/v1/embeddings", {"input": []}, "input: should have at least 1 item, not 0"),
    "an unknown kind of text": (
        "/v1/embeddings",
        {"input": "x", "task": "poetry"},
        "task: should be 'query' or 'document'",
    ),
    "a passage that is a number": (
        "/v1/rerank",
        {"query": "x", "documents": ["a", 3]},
        "documents.1: expected a string or an object, not an integer",
    ),
    "a passage without text": (
        "/v2/rerank",
        {"query": "x", "documents": [{"title": "a"}]},
        "documents.0.text: is required",
    ),
    "a passage without its fields": (
        "/v1/rerank",
        {"query": "x", "documents": [{"text": "a"}], "rank_fields": ["b"]},
        "documents.0: is required",
    ),
}


@pytest.mark.parametrize(("url", "body", "detail"), MESSAGES.values(), ids=MESSAGES.keys())
async def test_an_error_names_the_place_the_rule_and_what_came(api: Edge, url: str, body: Any, detail: str) -> None:
    answer = await api.client.post(url, content=json.dumps(body), headers=JSON)
    problem = assert_problem(answer, 422)
    assert problem["detail"] == detail
    assert len(problem["errors"]) == 1


@pytest.mark.parametrize("ids", [[1, 2, 3], [[1, 2], [3]], [[9906], [1917, 0]]], ids=str)
async def test_token_ids_get_one_sentence_that_says_what_to_do(
    api: Edge, monkeypatch: pytest.MonkeyPatch, ids: Any
) -> None:
    monkeypatch.setattr(openai_tokens, "find_spec", lambda _: None)  # as where the extra is not installed
    problem = await api.refused("/v1/embeddings", {"input": ids, "model": "default"}, 422, "input")
    assert "check_embedding_ctx_length=False" in problem["error"]["message"]
    assert len(problem["errors"]) == 1


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(below for part, one in parts for below in places(one, (*place, part)))]


NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.sampled_from(["a", "id", "text", "k"])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("route", BODIES)
@given(data=st.data())
async def test_no_error_speaks_of_internals(api: Edge, route: str, data: st.DataObject) -> None:
    body = {"": copy.deepcopy(BODIES[route])}
    place = ("", *data.draw(st.sampled_from(places(body[""]))))
    target: Any = body
    for part in place[:-1]:
        target = target[part]
    target[place[-1]] = data.draw(VALUES)
    method, path = route.split()
    url = path.replace("{collection}", "papers").replace("{number}", "1").replace("{id}", "a")
    answer = await api.client.request(method, url, content=json.dumps(body[""]), headers=JSON)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        problem = answer.json()
        for error in problem["errors"]:
            assert not INTERNALS.search(error["message"] + error["field"]), problem
        assert not INTERNALS.search(problem["detail"]), problem


async def test_an_error_names_twenty_places_and_how_many_more_there_are(api: Edge) -> None:
    problem = await api.refused("/v1/embeddings", {"input": ["x", *range(33)]}, 422, "input.20")
    assert len(problem["errors"]) == MAX_PLACES
    assert "33 of the values" in problem["detail"]
    assert "13 more" in problem["detail"]
    assert "13 more" in problem["error"]["message"]
    line = json.dumps({"id": "b", "text": "x"} | dict.fromkeys(map(str, range(33)), 1))
    answer = await api.client.post(
        f"{PAPERS}/documents", content=line, headers={"Content-Type": "application/x-ndjson"}
    )
    assert answer.json()["errors"][0]["error"].endswith("; and 13 more")


READABLE = {
    "nothing": (b"", 422, "an object is required"),
    "a brace": (b"{", 400, "EOF while parsing an object at line 1 column 1"),
    "a word": (b"hello", 400, "expected value at line 1 column 1"),
    "a trailing comma": (b'{"query": "x",}', 400, "trailing comma at line 1 column 15"),
    "single quotes": (b"{'query': 'x'}", 400, "key must be a string at line 1 column 2"),
    "a key twice": (b'{"query": "x",\n "query": "y"}', 400, 'duplicate key "query" at line 2 column'),
    "a key twice, deep down": (b'{"query": "x", "filter": {"a": {"b": 1, "b": 2}}}', 400, 'duplicate key "b"'),
    "NaN": (b'{"query": "x", "k": NaN}', 400, "NaN and Infinity are no JSON"),
    "minus infinity": (b'{"vector": [1, -Infinity]}', 400, "NaN and Infinity are no JSON"),
    "bottomless": (b'{"filter": ' + b"[" * 5_000, 400, "nested too deeply at line 1 column"),
}


@pytest.mark.parametrize(("content", "status", "detail"), READABLE.values(), ids=READABLE.keys())
@pytest.mark.parametrize("url", [f"{PAPERS}/search", f"{PAPERS}/documents", "/v1/embeddings", "/v2/rerank"])
async def test_a_body_that_cannot_be_read_gets_one_sentence(
    api: Edge, url: str, content: bytes, status: int, detail: str
) -> None:
    problem = assert_problem(await api.client.post(url, content=content, headers=JSON), status)
    assert detail in problem["detail"]
    assert not INTERNALS.search(problem["detail"])


@pytest.mark.parametrize(
    ("method", "url", "name", "hint"),
    [
        ("POST", f"{PAPERS}/search?k=3", "k", "field of the body"),
        ("POST", f"{PAPERS}/search?fusion=rrf&verbose=1", "fusion", "field of the body"),
        ("POST", f"{PAPERS}/search?pretty=true", "pretty", "takes none"),
        ("GET", f"{PAPERS}/documents?filtre=x", "filtre", "takes cursor, filter, include, limit"),
        ("POST", f"{PAPERS}/documents?refresh=wait_for", "refresh", "wait"),
        ("PUT", "/v1/collections/other?language=de", "language", "field of the body"),
        ("GET", "/v1/collections?limit=3", "limit", "takes none"),
        ("POST", "/v1/embeddings?api-version=2024", "api-version", "takes none"),
        ("GET", "/v1/models?after=x", "after", "takes none"),
        ("POST", "/rerank?top_n=3", "top_n", "field of the body"),
    ],
)
async def test_an_unknown_query_parameter_is_refused_by_name(
    api: Edge, method: str, url: str, name: str, hint: str
) -> None:
    problem = assert_problem(await api.client.request(method, url), 422, name)
    assert hint in problem["detail"]


@pytest.mark.parametrize(
    "url", ["/livez?probe=1", "/readyz?t=3", "/metrics?x=1", "/docs?x", "/?v=2", "/console/console.js?v=1"]
)
async def test_probes_and_pages_may_have_parameters_of_their_own(api: Edge, url: str) -> None:
    assert (await api.client.get(url)).status_code == 200


OTHERS = [
    "/v1/embeddings",
    "/v1/models",
    "/rerank",
    "/v1/rerank",
    "/v2/rerank",
    "/tokenize",
    "/",
    "/embed",
    "/similarity",
]
OTHERS += ["/v1/embed", "/v2/embed", "/api/embed"]


def assert_other_shape(url: str, problem: Json) -> None:
    """What OpenAI's clients read is there, or what those of Cohere, Jina and text-embeddings-inference read."""
    said = problem["errors"][0]["message"] if problem["errors"] else problem["detail"]
    if url.startswith(("/v1/embeddings", "/v1/models")):
        assert problem["error"].keys() == {"message", "type", "param", "code"}
        assert said in problem["error"]["message"]
        assert problem["error"]["param"] == (problem["errors"][0]["field"] if problem["errors"] else None)
    else:
        assert said in problem["message"]
        assert problem["error"] == problem["message"]
        assert problem["error_type"]


@pytest.mark.parametrize("url", OTHERS)
async def test_every_error_has_the_shape_that_clients_of_other_apis_print(url: str) -> None:
    async with edge(api_keys=("secret",)) as api:
        key = {"Authorization": "Bearer secret"}
        large = b" " * (LIMITS.body_bytes + 1)
        for status, method, headers, content in (
            (401, "POST", JSON, b"{}"),
            (405, "PATCH", key, b"{}"),
            (400, "POST", JSON | key, b"{"),
            (413, "POST", JSON | key, large),
            (415, "POST", key | {"Content-Type": "text/plain"}, b"{}"),
            (422, "POST", JSON | key, b"{}"),
        ):
            if url == "/v1/models" and status not in (401, 405):
                continue
            answer = await api.client.request(method, url, headers=headers, content=content)
            assert_other_shape(url, assert_problem(answer, status))
        missing = await api.client.get(f"{url.rstrip(chr(47))}/nothing", headers=key)
        assert_problem(missing, 404)
        if url.startswith("/v1/m"):
            assert_other_shape(url, missing.json())


async def test_unavailable_and_overloaded_have_the_shape_too() -> None:
    async with edge() as api:
        body = {"query": "x", "documents": ["a"]}
        assert_other_shape("/rerank", assert_problem(await api.client.post("/rerank", json=body), 503))
    embedders = Busy(default="hashing:32")
    async with edge(embedders=embedders) as api:
        answer = await api.client.post("/v1/embeddings", json={"input": "x"})
        assert_other_shape("/v1/embeddings", assert_problem(answer, 429))
        assert answer.json()["error"]["type"] == "rate_limit_error"
        assert answer.headers["retry-after"]
    await embedders.close()


class Busy(ModelRegistry):
    """Too much waits for it."""

    async def forward(self, encoder: Encoder, inputs: Sequence[ModelInput], role: Role) -> Vectors:
        raise Overloaded("too many texts wait")


async def test_other_routes_have_one_shape_alone(api: Edge) -> None:
    problem = await api.refused(f"{PAPERS}/search", {}, 422)
    assert not problem.keys() & {"error", "message", "error_type"}
