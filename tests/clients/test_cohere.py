"""Cohere's client, v1 and v2. It runs twice: also with its newest version, which the frameworks do not allow yet."""

import base64

import cohere
import numpy as np
import pytest
from conftest import BEST, DIMENSIONS, KEY, QUESTION, TEXTS

MODEL, RERANKER = "embed-english-v3.0", "rerank-v3.5"


@pytest.fixture
def v1(url: str) -> cohere.Client:
    return cohere.Client(KEY, base_url=url)


@pytest.fixture
def v2(url: str) -> cohere.ClientV2:
    return cohere.ClientV2(KEY, base_url=url)


def test_v1_embeds(v1: cohere.Client) -> None:
    bare = v1.embed(texts=TEXTS, model=MODEL, input_type="search_document")
    assert np.shape(bare.embeddings) == (len(TEXTS), DIMENSIONS)
    typed = v1.embed(texts=TEXTS, model=MODEL, input_type="search_document", embedding_types=["float"])
    assert typed.embeddings.float_ == bare.embeddings


def test_v2_embeds(v2: cohere.ClientV2) -> None:
    options = {"model": MODEL, "input_type": "search_query", "embedding_types": ["float", "base64"]}
    found = v2.embed(texts=TEXTS, **options)
    packed = [np.frombuffer(base64.b64decode(row), "<f4") for row in found.embeddings.base64]
    np.testing.assert_allclose(packed, found.embeddings.float_, atol=1e-7)
    assert found.meta.billed_units.input_tokens > 0
    few = v2.embed(texts=TEXTS, **options, output_dimension=64, truncate="END")
    assert np.shape(few.embeddings.float_) == (len(TEXTS), 64)


def test_v1_reranks(v1: cohere.Client) -> None:
    found = v1.rerank(query=QUESTION, documents=TEXTS, model=RERANKER, top_n=2, return_documents=True)
    assert [found.results[0].index, found.results[0].document.text] == [BEST, TEXTS[BEST]]
    assert len(found.results) == 2


def test_v2_reranks(v2: cohere.ClientV2) -> None:
    found = v2.rerank(query=QUESTION, documents=TEXTS, model=RERANKER, top_n=2)
    assert found.results[0].index == BEST
    assert found.results[0].relevance_score > found.results[1].relevance_score


def test_errors_are_its_own(v2: cohere.ClientV2, url: str) -> None:
    with pytest.raises(cohere.UnprocessableEntityError) as unknown:
        v2.rerank(query=QUESTION, documents=TEXTS, model="rerank-v99")
    assert "AZIMUTH_MODEL_ALIASES" in str(unknown.value.body)
    with pytest.raises(cohere.UnauthorizedError):
        cohere.ClientV2("wrong", base_url=url).rerank(query=QUESTION, documents=TEXTS, model=RERANKER)
