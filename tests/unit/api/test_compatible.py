"""The surfaces of other APIs, asked with the payloads that their clients send (see tests/clients), on the fakes."""

import base64
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio

from service.api.compatible import encoding
from service.core import metrics
from service.core.collections import EmbedderSpec
from service.embedder.models.hashing_encoder import HashingEncoder
from service.embedder.models.registry import ModelRegistry
from tests.edge import LIMITS, Edge, Json, WordReranker, assert_problem, edge

TEXTS = ["a cat purrs", "a dog barks loudly", "interest rates rise"]
VECTORS = HashingEncoder(EmbedderSpec(model="hashing:32")).encode(TEXTS, "document")
LONG = " ".join(f"word{at}" for at in range(700))
"""The encoder takes 256 words."""
ALIASES = {"text-embedding-3-small": "hashing:32", "nomic-embed-text": "default", "rerank-v3.5": "words"}
DOCUMENTS = [
    {"id": "a", "title": "Cats", "text": TEXTS[0], "metadata": {"year": 2020, "tags": ["pet", "home"]}},
    {"id": "b", "text": TEXTS[1], "metadata": {"year": 2021, "tags": ["pet"]}},
    {"id": "c", "text": TEXTS[2], "metadata": {"kind": "news"}},
]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api() -> AsyncIterator[Edge]:
    aliases = {name: model for name, model in ALIASES.items() if model != "words"}
    embedders = ModelRegistry(default="hashing:32", aliases=aliases)
    async with edge(reranker=WordReranker(), embedders=embedders, model_aliases=ALIASES) as running:
        await running.collection()
        await running.write(*DOCUMENTS)
        yield running
    await embedders.close()


async def ask(api: Edge, path: str, body: Any, **headers: str) -> httpx.Response:
    answer = await api.client.post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def assert_vectors(found: Any, expected: Any = VECTORS) -> None:
    np.testing.assert_allclose(np.array(found), expected, atol=1e-6)


@pytest.mark.parametrize("model", [*ALIASES, "default", "hashing:32"])
async def test_a_name_of_another_api_is_mapped_by_the_operator(api: Edge, model: str) -> None:
    path = "/v1/rerank" if model == "rerank-v3.5" else "/v1/embeddings"
    body = {"query": "dog", "documents": TEXTS} if path == "/v1/rerank" else {"input": TEXTS}
    answer = (await ask(api, path, body | {"model": model})).json()
    assert answer["model"] == ("words" if path == "/v1/rerank" else "hashing:32")


async def test_a_model_is_found_by_each_of_its_names(api: Edge) -> None:
    listed = [one["id"] for one in (await api.get("/v1/models"))["data"]]
    assert (listed[0], listed[-2:]) == ("hashing:32", ["text-embedding-3-small", "nomic-embed-text"])
    for name in [*listed, "default", "sentence-transformers/all-MiniLM-L6-v2"]:
        found = await api.get(f"/v1/models/{name}")
        assert (found["id"], found["object"]) == (name, "model")
    missing = assert_problem(await api.client.get("/v1/models/gpt-5"), 404)
    assert missing["error"].keys() == {"message", "type", "param", "code"}


async def test_cohere_embeds_in_v1_and_v2(api: Edge) -> None:
    body = {"texts": TEXTS, "model": "text-embedding-3-small", "input_type": "search_document", "truncate": "END"}
    bare = (await ask(api, "/v1/embed", body)).json()
    assert_vectors(bare["embeddings"])
    assert (bare["response_type"], bare["texts"]) == ("embeddings_floats", TEXTS)
    for path, version in (("/v1/embed", "1"), ("/v2/embed", "2")):
        typed = (await ask(api, path, body | {"embedding_types": ["float", "base64"]})).json()
        assert typed["response_type"] == "embeddings_by_type"
        assert_vectors(typed["embeddings"]["float"])
        assert_vectors([np.frombuffer(base64.b64decode(row), "<f4") for row in typed["embeddings"]["base64"]])
        assert typed["meta"]["api_version"] == {"version": version}
        assert typed["meta"]["billed_units"]["input_tokens"] > 0
        assert (await ask(api, path, body | {"embedding_types": "float"})).json()["embeddings"].keys() == {"float"}
    assert (await ask(api, "/v2/embed", body)).json()["embeddings"].keys() == {"float"}
    await api.refused("/v2/embed", body | {"embedding_types": ["int8"]}, 422, "embedding_types.0")


async def test_voyage_embeds_and_reranks(api: Edge) -> None:
    body: Json = {"input": TEXTS, "model": "nomic-embed-text", "input_type": None, "truncation": True}
    body |= {"output_dtype": "float", "output_dimension": None, "encoding_format": None}
    assert_vectors([one["embedding"] for one in (await ask(api, "/v1/embeddings", body)).json()["data"]])
    asked = {"query": "dog barks", "documents": TEXTS, "model": "rerank-v3.5", "top_k": 2, "truncation": True}
    answer = (await ask(api, "/v1/rerank", asked)).json()
    assert [(one["index"], one["relevance_score"]) for one in answer["data"]] == [(1, 1.0), (0, 0.0)]
    assert answer["data"] == answer["results"]
    assert "total_tokens" in answer["usage"]


async def test_litellm_sends_json_without_saying_so(api: Edge) -> None:
    for path, body in (("/v1/embeddings", b'{"input": "x"}'), ("/v1/rerank", b'{"query": "x", "documents": ["y"]}')):
        assert (await api.client.post(path, content=body)).status_code == 200
        form = await api.client.post(path, content=body, headers={"Content-Type": "text/plain"})
        assert_problem(form, 415)


@pytest.mark.parametrize("path", ["/embed", "/"])
async def test_text_embeddings_inference_embeds(api: Edge, path: str) -> None:
    options = {"normalize": True, "truncate": True, "truncation_direction": "right", "prompt_name": "query"}
    assert_vectors((await ask(api, path, {"inputs": TEXTS} | options)).json())
    assert_vectors((await ask(api, path, {"inputs": TEXTS[0]})).json(), VECTORS[:1])


@pytest.mark.parametrize("path", ["/similarity", "/"])
@pytest.mark.parametrize("options", [{}, {"parameters": {}}, {"parameters": {"truncate": True}}])
async def test_text_embeddings_inference_compares_sentences(api: Edge, path: str, options: Json) -> None:
    body = {"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS}} | options
    assert_vectors((await ask(api, path, body)).json(), VECTORS @ VECTORS[0])


async def test_text_embeddings_inference_tells_about_itself(api: Edge) -> None:
    assert (await ask(api, "/", {"query": "dog", "texts": TEXTS})).json()[0]["index"] == 1
    info = await api.get("/info")
    assert (info["model_id"], info["max_input_length"], info["max_client_batch_size"]) == ("hashing:32", 256, 2_048)
    assert (await api.client.get("/health")).status_code == 200


async def test_ollama_embeds_and_lists(api: Edge) -> None:
    for model in ("nomic-embed-text", "nomic-embed-text:latest"):
        body: Json = {"model": model, "input": TEXTS, "truncate": None, "options": {"num_ctx": 512}, "keep_alive": "5m"}
        answer = (await ask(api, "/api/embed", body)).json()
        assert_vectors(answer["embeddings"])
        assert answer["model"] == model
        assert answer["prompt_eval_count"] > 0
    assert "nomic-embed-text" in [one["name"] for one in (await api.get("/api/tags"))["models"]]
    assert "error" in await api.refused("/api/embed", body | {"model": "llama3"}, 422, "model")


async def test_open_webui_embeds_and_reranks(api: Edge) -> None:
    """As its engines `openai`, `ollama` and `external` ask."""
    headers = {"Authorization": "Bearer key", "X-OpenWebUI-User-Name": "somebody"}
    openai = await ask(api, "/v1/embeddings", {"input": TEXTS, "model": "text-embedding-3-small"}, **headers)
    assert_vectors([one["embedding"] for one in openai.json()["data"]])
    ollama = await ask(api, "/api/embed", {"input": TEXTS, "model": "nomic-embed-text"}, **headers)
    assert_vectors(ollama.json()["embeddings"])
    asked = {"model": "rerank-v3.5", "query": "dog", "documents": TEXTS, "top_n": 3}
    external = (await ask(api, "/v1/rerank", asked, **headers)).json()
    assert {one["index"] for one in external["results"]} == {0, 1, 2}


def retrieval(query: str, *conditions: Json, operator: str = "and", **setting: Any) -> Json:
    """As Dify sends it."""
    condition = {"logical_operator": operator, "conditions": conditions} if conditions else None
    setting = {"top_k": 3, "score_threshold": 0.0} | setting
    asked = {"knowledge_id": "papers", "query": query, "retrieval_setting": setting}
    return asked | ({"metadata_condition": condition} if condition else {})


def where(name: str, operator: str, value: Any = None) -> Json:
    return {"name": [name], "comparison_operator": operator, "value": value}


async def test_dify_retrieves(api: Edge) -> None:
    answer = await ask(api, "/retrieval", retrieval("dog barks"))
    best = answer.json()["records"][0]
    assert best["content"] == TEXTS[1]
    assert best["metadata"] == {"year": 2021, "tags": ["pet"], "id": "b"}
    assert best["title"] == ""
    assert 0 < best["score"] <= 1
    assert answer.headers["x-azimuth-score"] == "cosine"  # the relevance of this reranker is not known
    few = (await ask(api, "/retrieval", retrieval("dog barks", score_threshold=best["score"], top_k=2))).json()
    assert [one["content"] for one in few["records"]] == [TEXTS[1]]


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ([where("year", "=", "2020")], {"a"}),
        ([where("year", "≠", 2020)], {"b", "c"}),
        ([where("year", "≥", 2021)], {"b"}),
        ([where("year", "<", "2021")], {"a"}),
        ([where("kind", "is", "news")], {"c"}),
        ([where("kind", "is not", "news")], {"a", "b"}),
        ([where("tags", "contains", "home")], {"a"}),
        ([where("tags", "not contains", "home")], {"b", "c"}),
        ([where("year", "empty")], {"c"}),
        ([where("year", "not empty")], {"a", "b"}),
        ([where("kind", "in", ["news", "blog"])], {"c"}),
        ([where("year", "not empty"), where("tags", "contains", "home")], {"a"}),
    ],
)
async def test_dify_filters_by_metadata(api: Edge, conditions: list[Json], found: set[str]) -> None:
    answer = (await ask(api, "/retrieval", retrieval("a cat and a dog, rates", *conditions))).json()
    assert {one["metadata"]["id"] for one in answer["records"]} == found
    either = retrieval("a cat", where("year", "=", 2020) | {"name": "year"}, where("kind", "is", "news"), operator="or")
    assert {one["metadata"]["id"] for one in (await ask(api, "/retrieval", either)).json()["records"]} == {"a", "c"}


async def test_dify_reads_errors_by_their_code(api: Edge) -> None:
    missing = await api.client.post("/retrieval", json=retrieval("x") | {"knowledge_id": "nowhere"})
    assert assert_problem(missing, 404)["error_code"] == 2001
    problem = await api.refused("/retrieval", retrieval("x", where("year", "start with", "2")), 422)
    assert "start with" in problem["error_msg"]
    async with edge(api_keys=["key"]) as closed:
        refused = assert_problem(await closed.client.post("/retrieval", json=retrieval("x")), 401)
        assert refused["error_code"] == 1001


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def closed() -> AsyncIterator[Edge]:
    async with edge(api_keys=["key"], reranker=WordReranker()) as running:
        yield running


@pytest.mark.parametrize("path", ["/", "/embed", "/similarity", "/v1/embed", "/v2/embed", "/api/embed", "/retrieval"])
async def test_nothing_is_computed_without_a_key(closed: Edge, path: str) -> None:
    assert_problem(await closed.client.post(path, json={"inputs": "x"}), 401)
    allowed = await closed.client.post(path, json={}, headers={"Authorization": "Bearer key"})
    assert_problem(allowed, 422)


@pytest.mark.parametrize("path", ["/info", "/api/tags", "/v1/models/default"])
async def test_what_models_there_are_is_told_to_those_with_a_key(closed: Edge, path: str) -> None:
    assert_problem(await closed.client.get(path), 401)


REQUESTS: dict[str, Json] = {
    "/v1/embeddings": {"input": [LONG, "short"]},
    "/v1/embed": {"texts": [LONG, "short"]},
    "/v2/embed": {"texts": [LONG, "short"]},
    "/embed": {"inputs": [LONG, "short"]},
    "/api/embed": {"input": [LONG, "short"]},
    "/similarity": {"inputs": {"source_sentence": LONG, "sentences": ["short"]}},
}
CUTTING = {"/v1/embed", "/v2/embed", "/api/embed"}
"""Where the API that it is has it so."""


@pytest.mark.parametrize("setting", [None, "truncate", "chunk-mean", "refuse"])
async def test_long_texts_are_treated_as_request_setting_and_api_say(setting: Any) -> None:
    """In this order."""
    async with edge(limits=replace(LIMITS, long_texts=setting)) as api:
        for path, said in itertools.product(REQUESTS, (None, True, False)):
            usual = setting or ("truncate" if path in CUTTING else "refuse")
            expected = {None: usual, True: "truncate", False: "refuse"}[said]
            counted = metrics.LONG_TEXTS.labels(expected)._value.get()
            answer = await api.client.post(path, json=REQUESTS[path] | {"truncate": said})
            assert metrics.LONG_TEXTS.labels(expected)._value.get() == counted + 1
            if expected == "refuse":
                assert "256" in assert_problem(answer, 422)["errors"][0]["message"]
            else:
                assert answer.headers["x-azimuth-long-texts"] == f"{expected};texts=1"
        short = await api.client.post("/v1/embeddings", json={"input": "short"})
        assert "x-azimuth-long-texts" not in short.headers


async def test_the_mean_of_parts_is_weighted_by_their_tokens() -> None:
    async with edge(limits=replace(LIMITS, long_texts="chunk-mean")) as api:
        answer = await api.post("/v1/embeddings", {"input": ["short", LONG, TEXTS[0]]})
        words = LONG.split()
        parts = [" ".join(words[at : at + 224]) for at in range(0, len(words), 224)]  # 256 - 256 // 8
        encoder = HashingEncoder(EmbedderSpec(model="hashing:32"))
        sums = np.array([224, 224, 224, 28]) @ encoder.encode(parts, "document")
        vectors = [one["embedding"] for one in answer["data"]]
        assert_vectors(vectors[1], sums / np.linalg.norm(sums))
        assert_vectors([vectors[0], vectors[2]], encoder.encode(["short", TEXTS[0]], "document"))
        assert answer["usage"]["total_tokens"] == 1 + 700 + 3


async def test_parts_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "MAX_TEXTS", 4)
    async with edge(limits=replace(LIMITS, long_texts="chunk-mean")) as api:
        assert len((await api.post("/v1/embeddings", {"input": LONG}))["data"]) == 1  # of four parts
        problem = assert_problem(await api.client.post("/v1/embeddings", json={"input": ["x", LONG]}), 413)
        assert "more than 4" in problem["detail"]


async def test_as_many_texts_as_openai_takes() -> None:
    async with edge(limits=replace(LIMITS, body_bytes=2**20)) as api:
        assert len((await api.post("/v1/embeddings", {"input": ["a"] * 2_048}))["data"]) == 2_048
        await api.refused("/v1/embeddings", {"input": ["a"] * 2_049}, 422, "input")


@pytest.mark.skipif(find_spec("bpe_openai") is None, reason="needs the extra openai-tokens")
class TestTokens:
    """The ids are those of OpenAI's encoding."""

    @pytest.mark.parametrize(
        ("ids", "texts"),
        [
            ([9906, 1917], ["Hello world"]),
            ([[9906, 1917], [64, 8415]], ["Hello world", "a cat"]),
            ([[9906, 1917, 57352, 243]], ["Hello world\ufffd"]),  # ends within a character
        ],
    )
    async def test_they_stand_for_the_text(self, api: Edge, ids: Any, texts: list[str]) -> None:
        expected = await api.post("/v1/embeddings", {"input": texts})
        assert (await api.post("/v1/embeddings", {"input": ids}))["data"] == expected["data"]

    @pytest.mark.parametrize("ids", [[100_256], [100_257], [-1], [10**30], [[9906], [2**33]]])
    async def test_others_are_refused(self, api: Edge, ids: Any) -> None:
        """Those of special tokens, too, which a text does not have."""
        place = f"input.{len(ids) - 1}" if isinstance(ids[0], list) else "input.0"
        await api.refused("/v1/embeddings", {"input": ids}, 422, place)

    @pytest.mark.parametrize("ids", [[[9906], []], [[9906], "x"], [9906, "x"], [[1.5]], [True]])
    async def test_what_is_neither_is_refused(self, api: Edge, ids: Any) -> None:
        await api.refused("/v1/embeddings", {"input": ids}, 422)
