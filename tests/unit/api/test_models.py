"""The models as a service: OpenAI's embeddings, Cohere's, Jina's and TEI's reranking, over the hashing encoder."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from service.core.collections import EmbedderSpec
from service.core.ids import Role, Vectors
from service.core.ports.embedder import Encoder
from service.core.ports.reranker import RerankScores
from service.embedder.models import multilingual
from service.embedder.models.hashing_encoder import HashingEncoder
from service.embedder.models.registry import ModelRegistry
from tests.edge import LIMITS, Edge, Json, WordReranker, api_fixture, assert_problem, edge

TEXTS = ["a cat purrs", "a dog barks loudly"]


api = api_fixture(collection=False, reranker=WordReranker())


async def embeddings(api: Edge, **body: Any) -> Any:
    return await api.post("/v1/embeddings", body)


async def test_embeddings_have_openais_shape_and_are_the_models(api: Edge) -> None:
    answer = await embeddings(api, model="default", input=TEXTS, user="somebody")
    assert (answer["object"], answer["model"]) == ("list", "hashing:32")
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
    problem = await api.refused("/v1/embeddings", {"input": ["short", "word " * 10_000]}, 422)
    assert [error["field"] for error in problem["errors"]] == ["input.1"]
    assert "tokens" in problem["errors"][0]["message"]


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


class ShortSighted(WordReranker):
    """Reads a part of the query, and the beginning of one passage."""

    async def read(self, query: str, passages: Sequence[str]) -> RerankScores:
        return replace(await super().read(query, passages), truncated=1, query_share=0.25)


async def test_reranking_tells_what_was_not_read_in_every_shape(api: Edge) -> None:
    whole = await api.client.post("/rerank", json={"query": "dog", "documents": TEXTS})
    assert (whole.json()["degraded"], whole.json()["meta"]) == ([], {"warnings": []})
    assert "X-Azimuth-Degraded" not in whole.headers
    async with edge(reranker=ShortSighted()) as cutting:
        cohere = await cutting.client.post("/v2/rerank", json={"query": "dog", "documents": TEXTS})
        tei = await cutting.client.post("/rerank", json={"query": "dog", "texts": TEXTS})
    told = cohere.json()
    assert [(one["stage"], one["code"]) for one in told["degraded"]] == [
        ("rerank", "query_truncated"),
        ("rerank", "passages_truncated"),
    ]
    assert told["meta"]["warnings"] == [one["reason"] for one in told["degraded"]]
    assert "25%" in told["meta"]["warnings"][0]
    assert isinstance(tei.json(), list)
    for answer in (cohere, tei):
        assert answer.headers["X-Azimuth-Degraded"] == "query_truncated, passages_truncated"


@pytest.mark.parametrize("word", ["query", "search_query", "retrieval.query", "code.query"])
@pytest.mark.parametrize("field", ["input_type", "task", "prompt_name"])
async def test_what_other_apis_call_a_query_is_one(api: Edge, field: str, word: str) -> None:
    prompts = {"query_prompt": "asked: ", "document_prompt": "told: "}
    expected = await embeddings(api, input="a cat", input_type="query", **prompts)
    assert await embeddings(api, input="a cat", **{field: word}, **prompts) == expected
    assert expected != await embeddings(api, input="a cat", **prompts)


@pytest.mark.parametrize("word", ["passage", "search_document", "retrieval.passage", "classification", "text-matching"])
async def test_what_is_not_a_query_is_a_document(api: Edge, word: str) -> None:
    prompts = {"query_prompt": "asked: ", "document_prompt": "told: "}
    expected = await embeddings(api, input="a cat", **prompts)
    assert await embeddings(api, input="a cat", input_type=word, **prompts) == expected


NO_OPS: dict[str, list[Json]] = {
    "/v1/embeddings": [
        {"user": "u", "priority": 3, "late_chunking": True, "normalize": True, "normalized": False},
        {"embedding_types": ["float"], "embedding_type": "float", "truncate": "NONE", "truncation_direction": "right"},
        dict.fromkeys(("encoding_format", "user", "dimensions", "input_type", "truncate", "task", "normalized")),
    ],
    "/rerank": [
        {"user": "u", "priority": 0, "max_tokens_per_doc": 4096, "max_chunks_per_doc": 10, "return_documents": None},
        {"truncate": True, "truncation_direction": "Right", "raw_scores": False, "rank_fields": None, "top_n": None},
        {"truncate": "END", "return_text": None, "model": None},
    ],
}


@pytest.mark.parametrize("path", NO_OPS)
async def test_fields_of_other_apis_are_accepted(api: Edge, path: str) -> None:
    body: Json = {"input": TEXTS} if path == "/v1/embeddings" else {"query": "dog", "documents": TEXTS}
    expected = (await api.client.post(path, json=body)).json()
    for fields in NO_OPS[path]:
        assert (await api.client.post(path, json=body | fields)).json() == expected, fields


async def test_dimensions_and_base64_by_other_names(api: Edge) -> None:
    expected = await embeddings(api, input="a cat", model="hashing:64", encoding_format="base64")
    assert await embeddings(api, input="a cat", model="hashing:64", embedding_type="base64") == expected
    problem = await api.refused("/v1/embeddings", {"input": "a cat", "truncate_dim": 5_000}, 422, "truncate_dim")
    assert problem["error"]["param"] == "truncate_dim"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"truncate": "END"}, 200),
        ({"truncate": True, "truncation_direction": "right"}, 200),
        ({"truncate": "START"}, 422),
        ({"truncate": "NONE"}, 422),
        ({"truncate": True, "truncation_direction": "Left"}, 422),
    ],
)
async def test_a_text_is_cut_only_at_its_end(api: Edge, fields: Json, status: int) -> None:
    answer = await api.client.post("/v1/embeddings", json={"input": "word " * 10_000} | fields)
    assert answer.status_code == status, answer.text


async def test_documents_are_read_by_their_rank_fields(api: Edge) -> None:
    documents = [{"title": "cat", "text": "purrs"}, {"title": "dog", "text": "barks", "year": 2020, "tags": ["a"]}]
    body = {"query": "dog barks", "documents": documents}
    both = await api.post("/v1/rerank", body | {"rank_fields": ["title", "text"], "return_documents": True})
    assert both["results"][0] == {"index": 1, "relevance_score": 1.0, "document": {"text": "dog\nbarks"}}
    alone = await api.post("/v1/rerank", body)
    assert [(one["index"], one["relevance_score"]) for one in alone["results"]] == [(1, 0.5), (0, 0.0)]
    other = await api.post("/v1/rerank", body | {"query": "2020", "documents": documents[1:], "rank_fields": ["year"]})
    assert other["results"][0]["relevance_score"] == 1.0
    await api.refused("/v1/rerank", body | {"rank_fields": ["year"]}, 422, "documents.0")


async def test_raw_scores_are_log_odds(api: Edge) -> None:
    body = {"query": "dog barks", "texts": ["dog", "dog barks", "cat"], "raw_scores": True}
    scores = {one["index"]: one["score"] for one in (await api.client.post("/rerank", json=body)).json()}
    assert scores[0] == pytest.approx(0.0)
    assert scores[1] > 10 > -10 > scores[2]


async def test_every_answer_has_the_fingerprint(api: Edge) -> None:
    expected = HashingEncoder(EmbedderSpec(model="hashing:32")).identity.fingerprint
    for path, body in (
        ("/v1/embeddings", {"input": "a text"}),
        ("/tokenize", {"inputs": "a text"}),
        ("/v1/models/identify", {}),
    ):
        answer = await api.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-azimuth-fingerprint"] == expected


async def test_truncate_cuts_a_long_text(api: Edge) -> None:
    long, cut = "word " * 10_000, "word " * 256
    answer = await embeddings(api, input=[long, cut], truncate=True)
    first, second = (one["embedding"] for one in answer["data"])
    assert first == second
    assert answer["usage"]["prompt_tokens"] == 512


async def test_texts_without_a_usable_vector_are_refused_or_returned() -> None:
    embedders = Mute(default="hashing:32")
    async with edge(embedders=embedders) as api:
        texts = ["a word", "silence"]
        refused = await api.client.post("/v1/embeddings", json={"input": texts})
        assert [error["field"] for error in assert_problem(refused, 422)["errors"]] == ["input.1"]
        body = {"input": [*texts, "", "a\0b"], "encoding_format": "base64", "unusable": "return"}
        answer = await embeddings(api, **body)
        rows = [np.frombuffer(base64.b64decode(one["embedding"]), dtype="<f4") for one in answer["data"]]
        assert [bool(row.any()) for row in rows] == [True, False, True, True]
        numbers = await api.client.post("/v1/embeddings", json={"input": texts, "unusable": "return"})
        assert "base64" in assert_problem(numbers, 422)["detail"]
    await embedders.close()


class Mute(ModelRegistry):
    """Of the text `silence` it has nothing to say."""

    async def forward(self, encoder: Encoder, inputs: Sequence[Any], role: Role) -> Vectors:
        vectors = await super().forward(encoder, inputs, role)
        vectors[[one.text == "silence" for one in inputs]] = 0.0
        return vectors


async def test_a_model_replaced_during_encoding_is_a_503() -> None:
    embedders = Swapped(default="hashing:32")
    async with edge(embedders=embedders) as api:
        answer = await api.client.post("/v1/embeddings", json={"input": "a text"})
        assert "replaced" in assert_problem(answer, 503)["detail"]
    await embedders.close()


class Swapped(ModelRegistry):
    """Another encoder each time one is asked for."""

    async def get(self, spec: EmbedderSpec) -> Encoder:
        return HashingEncoder(EmbedderSpec(model="hashing:32"))


async def test_tokens_are_shown_as_text_embeddings_inference_does(api: Edge) -> None:
    answer = await api.client.post("/tokenize", json={"inputs": ["Émile, 日本", ""], "add_special_tokens": False})
    assert answer.json() == [
        [
            {"text": "Émile", "special": False, "start": 0, "stop": 5},
            {"text": ",", "special": False, "start": 5, "stop": 6},
            {"text": "日本", "special": False, "start": 7, "stop": 9},
        ],
        [],
    ]
    packed = (await api.client.post("/tokenize", json={"inputs": ["Émile, 日本"], "return": "offsets"})).json()
    pairs = np.frombuffer(base64.b64decode(packed[0]), "<i4").reshape(-1, 2)
    assert pairs.tolist() == [[0, 5], [5, 6], [7, 9]]
    assert (await api.client.post("/tokenize", json={"inputs": "one two", "return": "lengths"})).json() == [2]


async def test_models_are_listed_as_openai_does_with_what_they_are(api: Edge) -> None:
    names = ["hashing:32", "all-MiniLM-L6-v2", *([multilingual.NAME] if multilingual.source() else []), "hashing"]
    answer = await api.get("/v1/models")
    assert answer["object"] == "list"
    assert {model["id"]: model["azimuth"] for model in answer["data"]} == dict.fromkeys(names)  # none is in memory
    identified = (await api.client.post("/v1/models/identify", json={"model": "default"})).json()
    model, *others = (await api.get("/v1/models"))["data"]
    assert identified == model
    assert [other["azimuth"] for other in others] == [None] * (len(names) - 1)
    assert (model["id"], model["object"], model["owned_by"]) == ("hashing:32", "model", "azimuth")
    identity = HashingEncoder(EmbedderSpec(model="hashing:32")).identity
    assert model["azimuth"]["fingerprint"] == identity.fingerprint
    assert model["azimuth"]["parts"] == identity.parts
    assert model["azimuth"]["limits"]["body_bytes"] == LIMITS.body_bytes


BAD_REQUESTS: dict[str, list[tuple[Json, str]]] = {
    "/v1/embeddings": [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": "x", "model": "somebody/elses"}, "model"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "x", "dimensions": 0}, "dimensions"),
        ({"input": "a\0b"}, "input"),
        ({"input": "x", "inputs": "x"}, "inputs"),
        ({"input": [1, 2, -3]}, "input"),
        ({"input": "x", "model": "external"}, "model"),
        ({"input": "x", "query_prompt": "a\0b"}, "query_prompt"),
        ({"input": "x" * 100_001}, "input.0"),
        ({"input": "x", "unusable": "hide"}, "unusable"),
    ],
    "/v1/models/identify": [({"model": "somebody/elses"}, "model"), ({"identity": "mine"}, "identity")],
    "/tokenize": [
        ({"inputs": []}, "inputs"),
        ({"inputs": "x", "return": "ids"}, "return"),
        ({"inputs": "x", "wanted": "lengths"}, "wanted"),
        ({"inputs": "x", "add_special_tokens": True}, "add_special_tokens"),
        ({"inputs": ["x" * 60_000, "x" * 40_001]}, "inputs"),
    ],
    "/rerank": [
        ({"query": "x"}, ""),
        ({"query": "x", "documents": ["a"], "texts": ["a"]}, ""),
        ({"query": "x", "documents": []}, "documents"),
        ({"query": "", "documents": ["a"]}, "query"),
        ({"query": "x", "documents": ["a"], "top_n": 0}, "top_n"),
        ({"query": "x", "documents": ["a"], "model": "another"}, "model"),
    ],
}


@pytest.mark.parametrize("path", BAD_REQUESTS)
async def test_bad_requests_are_refused_by_field(api: Edge, path: str) -> None:
    for body, field in BAD_REQUESTS[path]:
        problem = await api.refused(path, body, 422)
        assert any(error["field"].startswith(field) for error in problem["errors"]), (body, problem)
