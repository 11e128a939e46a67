"""Frameworks over the surfaces of Cohere, Voyage, text-embeddings-inference and Ollama."""

from typing import Any

import litellm
import numpy as np
import ollama
import pytest
import voyageai
from conftest import BEST, DIMENSIONS, KEY, MODELS, QUESTION, TEXTS
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.embedders.cohere import CohereDocumentEmbedder, CohereTextEmbedder
from haystack_integrations.components.embedders.huggingface_api import (
    HuggingFaceAPIDocumentEmbedder,
    HuggingFaceAPITextEmbedder,
)
from haystack_integrations.components.rankers.cohere import CohereRanker
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker
from huggingface_hub import InferenceClient
from langchain_cohere import CohereEmbeddings, CohereRerank
from langchain_core.documents import Document as LangChainDocument
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.embeddings.cohere import CohereEmbedding
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
from llama_index.postprocessor.cohere_rerank import CohereRerank as LlamaCohereRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

COHERE, RERANKER = "embed-english-v3.0", "rerank-v3.5"
SECRET = Secret.from_token(KEY)


def test_langchain_cohere(url: str) -> None:
    embeddings = CohereEmbeddings(cohere_api_key=KEY, base_url=url, model=COHERE)
    scores = np.array(embeddings.embed_documents(TEXTS)) @ embeddings.embed_query(QUESTION)
    assert np.argmax(scores) == BEST
    reranker = CohereRerank(cohere_api_key=KEY, base_url=url, model=RERANKER, top_n=2)
    found = reranker.compress_documents([LangChainDocument(page_content=text) for text in TEXTS], QUESTION)
    assert (len(found), found[0].page_content) == (2, TEXTS[BEST])


NODES = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in TEXTS]


def test_llama_index_cohere(url: str) -> None:
    model = CohereEmbedding(api_key=KEY, base_url=url, model_name=COHERE)
    assert np.argmax(np.array(model.get_text_embedding_batch(TEXTS)) @ model.get_query_embedding(QUESTION)) == BEST
    found = LlamaCohereRerank(api_key=KEY, base_url=url, top_n=2).postprocess_nodes(NODES, query_str=QUESTION)
    assert (len(found), found[0].text) == (2, TEXTS[BEST])


def test_llama_index_tei(url: str) -> None:
    model = TextEmbeddingsInference(model_name="all-MiniLM-L6-v2", base_url=url, auth_token=KEY)
    assert np.argmax(np.array(model.get_text_embedding_batch(TEXTS)) @ model.get_query_embedding(QUESTION)) == BEST
    reranker = TextEmbeddingInference(base_url=url, auth_token=f"Bearer {KEY}", top_n=2)
    assert reranker.postprocess_nodes(NODES, query_str=QUESTION)[0].text == TEXTS[BEST]


@pytest.fixture
def documents() -> list[Document]:
    return [Document(content=text) for text in TEXTS]


def test_haystack_cohere(url: str, documents: list[Document]) -> None:
    ranker = CohereRanker(api_key=SECRET, api_base_url=url, top_k=2)
    assert ranker.run(QUESTION, documents)["documents"][0].content == TEXTS[BEST]
    query = CohereTextEmbedder(api_key=SECRET, api_base_url=url, model=COHERE).run(QUESTION)["embedding"]
    found = CohereDocumentEmbedder(api_key=SECRET, api_base_url=url, model=COHERE).run(documents)["documents"]
    assert np.argmax(np.array([one.embedding for one in found]) @ query) == BEST


def test_haystack_tei(url: str, documents: list[Document]) -> None:
    ranker = HuggingFaceTEIRanker(url=url, token=SECRET, top_k=2)
    assert ranker.run(QUESTION, documents)["documents"][0].content == TEXTS[BEST]
    where: Any = {"api_type": "text_embeddings_inference", "api_params": {"url": url}, "token": SECRET}
    query = HuggingFaceAPITextEmbedder(**where).run(QUESTION)["embedding"]
    found = HuggingFaceAPIDocumentEmbedder(**where).run(documents)["documents"]
    assert np.argmax(np.array([one.embedding for one in found]) @ query) == BEST


def test_huggingface_hub(url: str) -> None:
    client = InferenceClient(model=url, token=KEY)
    assert client.feature_extraction(QUESTION).shape == (1, DIMENSIONS)
    options: Any = {"normalize": True, "truncate": True, "truncation_direction": "right", "prompt_name": "query"}
    assert client.feature_extraction(TEXTS, **options).shape == (len(TEXTS), DIMENSIONS)
    assert np.argmax(client.sentence_similarity(QUESTION, other_sentences=TEXTS)) == BEST


def test_voyageai(url: str) -> None:
    client = voyageai.Client(api_key=KEY, base_url=f"{url}/v1")
    found = client.embed(TEXTS, model="voyage-3.5", input_type="document")
    assert np.shape(found.embeddings) == (len(TEXTS), DIMENSIONS)
    assert found.total_tokens > 0
    reranked = client.rerank(QUESTION, TEXTS, "rerank-2.5", top_k=2)
    assert (reranked.results[0].index, len(reranked.results)) == (BEST, 2)
    assert reranked.total_tokens > 0


def test_ollama(url: str) -> None:
    client = ollama.Client(host=url, headers={"Authorization": f"Bearer {KEY}"})
    assert np.shape(client.embed(model="nomic-embed-text", input=TEXTS).embeddings) == (len(TEXTS), DIMENSIONS)
    assert set(MODELS) <= {one.model for one in client.list().models}


LITELLM_EMBEDS = {
    "cohere/embed-english-v3.0": "/v2/embed",
    "huggingface/org/model": "/embed",
    "voyage/voyage-3.5": "/v1",
    "ollama/nomic-embed-text": "",
}


@pytest.mark.parametrize("model", LITELLM_EMBEDS)
def test_litellm_embeds(url: str, model: str) -> None:
    more = {"input_type": "feature-extraction"} if model.startswith("huggingface") else {}
    base = url + LITELLM_EMBEDS[model]
    answer = litellm.embedding(model=model, input=TEXTS, api_base=base, api_key=KEY, **more)
    assert [len(one["embedding"]) for one in answer.data] == [DIMENSIONS] * len(TEXTS)


@pytest.mark.parametrize(
    "model",
    [
        "cohere/rerank-v3.5",
        "huggingface/org/model",
        "voyage/rerank-2.5",
        "jina_ai/rerank-v3.5",
        "hosted_vllm/rerank-v3.5",
    ],
)
@pytest.mark.parametrize("top_n", [None, 2])
def test_litellm_reranks(url: str, model: str, top_n: int | None) -> None:
    base = f"{url}/v1" if model.startswith("jina_ai") else url
    options: Any = {} if top_n is None else {"top_n": top_n}
    answer = litellm.rerank(model=model, query=QUESTION, documents=TEXTS, api_base=base, api_key=KEY, **options)
    assert answer.results[0]["index"] == BEST
    assert len(answer.results) == (top_n or len(TEXTS))
