"""The models as a service: OpenAI's embeddings, Cohere's, Jina's and TEI's reranking, over the hashing encoder."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from service.domain import EmbedderSpec
from service.embedder.hashing import HashingEncoder
from tests.edge import Edge, WordReranker, assert_problem, edge

TEXTS = ["a cat purrs", "a dog barks loudly"]


@pytest.fixture
async def api() -> AsyncIterator[Edge]:
    async with edge(reranker=WordReranker()) as running:
        yield running


async def embeddings(api: Edge, **body: Any) -> Any:
    answer = await api.client.post("/v1/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_embeddings_have_openais_shape_and_are_the_models(api: Edge) -> None:
    answer = await embeddings(api, model="default", input=TEXTS, user="somebody")
    assert answer["object"] == "list"
    assert answer["model"] == "hashing:32"
    assert [one["index"] for one in answer["data"]] == [0, 1]
    expected = HashingEncoder(EmbedderSpec(model="hashing:32")).encode(TEXTS, "document")
    np.testing.assert_allclose([one["embedding"] for one in answer["data"]], expected, atol=1e-6)
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0


async def test_base64_holds_the_same_numbers(api: Edge) -> None:
    plain = await embeddings(api, input=TEXTS[0])
    packed = await embeddings(api, input=TEXTS[0], encoding_format="base64")
    numbers = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), dtype="<f4")
    np.testing.assert_array_equal(numbers, np.array(plain["data"][0]["embedding"], dtype=np.float32))


async def test_a_text_that_is_too_long_is_refused_not_cut(api: Edge) -> None:
    answer = await api.client.post("/v1/embeddings", json={"input": ["short", "word " * 10_000]})
    problem = assert_problem(answer, 422)
    assert [error["field"] for error in problem["errors"]] == ["input.1"]
    assert "tokens" in problem["errors"][0]["message"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": "x", "model": "somebody/elses"}, "model"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "x", "dimensions": 0}, "dimensions"),
        ({"input": "a\0b"}, "input"),
        ({"input": "x", "inputs": "x"}, "inputs"),
        ({"input": [1, 2, 3]}, "input"),
    ],
)
async def test_bad_embedding_requests(api: Edge, body: dict[str, Any], field: str) -> None:
    problem = assert_problem(await api.client.post("/v1/embeddings", json=body), 422)
    assert any(error["field"].startswith(field) for error in problem["errors"]), problem


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
async def test_reranking_as_cohere_and_jina_do(api: Edge, path: str) -> None:
    body = {"query": "dog barks", "documents": [TEXTS[0], {"text": TEXTS[1]}, "dog"], "top_n": 2}
    answer = (await api.client.post(path, json=body)).json()
    assert answer["model"] == "words"
    assert [(one["index"], one["relevance_score"]) for one in answer["results"]] == [(1, 1.0), (2, 0.5)]
    assert "document" not in answer["results"][0]
    full = (await api.client.post(path, json=body | {"return_documents": True})).json()
    assert full["results"][0]["document"] == {"text": TEXTS[1]}


async def test_reranking_as_text_embeddings_inference_does(api: Edge) -> None:
    answer = (await api.client.post("/rerank", json={"query": "dog", "texts": TEXTS, "return_text": True})).json()
    assert answer == [{"index": 1, "score": 1.0, "text": TEXTS[1]}, {"index": 0, "score": 0.0, "text": TEXTS[0]}]


@pytest.mark.parametrize(
    "body",
    [
        {"query": "x"},
        {"query": "x", "documents": ["a"], "texts": ["a"]},
        {"query": "x", "documents": []},
        {"query": "", "documents": ["a"]},
        {"query": "x", "documents": ["a"], "top_n": 0},
        {"query": "x", "documents": ["a"], "model": "another"},
    ],
)
async def test_bad_rerank_requests(api: Edge, body: dict[str, Any]) -> None:
    assert_problem(await api.client.post("/rerank", json=body), 422)


async def test_without_a_reranker_it_is_unavailable() -> None:
    async with edge() as bare:
        answer = await bare.client.post("/rerank", json={"query": "x", "documents": ["a"]})
        assert "AZIMUTH_RERANKER" in assert_problem(answer, 503)["detail"]
