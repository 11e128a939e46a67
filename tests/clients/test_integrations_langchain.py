"""`langchain-azimuth` against a running service: LangChain's own suite, whoever of the two encodes."""

import uuid
from typing import Any, ClassVar

import pytest
from conftest import KEY
from langchain_azimuth import AzimuthVectorStore
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_tests.integration_tests import VectorStoreIntegrationTests


class TestServiceEncodes(VectorStoreIntegrationTests):
    options: ClassVar[dict[str, Any]] = {"settings": {"embedder": "hashing:32"}}

    @pytest.fixture(scope="class")
    def collection(self) -> str:
        return f"langchain-{uuid.uuid4().hex[:8]}"

    @pytest.fixture
    def vectorstore(self, url: str, collection: str) -> AzimuthVectorStore:
        store = AzimuthVectorStore(collection, url=url, key=KEY, **self.options)
        store.delete()
        return store


class TestLangChainEncodes(TestServiceEncodes):
    options: ClassVar[dict[str, Any]] = {"embedding": DeterministicFakeEmbedding(size=32)}


def test_searches_take_the_options_of_the_service(url: str) -> None:
    texts = ["a dog barks at the postman", "a dog sleeps", "interest rates rise"]
    metadatas = [{"year": year} for year in (2001, 2002, 2003)]
    store = AzimuthVectorStore.from_texts(texts, metadatas=metadatas, collection="langchain-options", url=url, key=KEY)
    found = store.similarity_search("Which animal barks?", k=2, filter={"year": {"$lt": 2003}}, rerank=True)
    assert [one.page_content for one in found] == texts[:2]
    scored = store.similarity_search_with_relevance_scores("Which animal barks?", k=3)
    assert all(0 <= score <= 1 for _, score in scored)
    assert scored[0][1] > 0.3 > scored[2][1]
    assert store.as_retriever(search_type="mmr", search_kwargs={"k": 2}).invoke("dog")
    store.add_documents([Document("a cat", id="cat")])
    assert store.get_by_ids(["cat"])[0].metadata == {}
    store.delete()
    assert store.similarity_search("dog") == []
