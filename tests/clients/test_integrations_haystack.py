"""`azimuth-haystack` against a running service: Haystack's own suites, and its retriever in a pipeline."""

import uuid
from copy import deepcopy
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from conftest import KEY
from haystack import Document, Pipeline
from haystack.testing.document_store import (
    CountDocumentsByFilterTest,
    CountDocumentsTest,
    DocumentStoreBaseExtendedTests,
    WriteDocumentsTest,
)
from haystack.testing.document_store_async import (
    CountDocumentsAsyncTest,
    CountDocumentsByFilterAsyncTest,
    DeleteAllAsyncTest,
    DeleteByFilterAsyncTest,
    DeleteDocumentsAsyncTest,
    FilterDocumentsAsyncTest,
    UpdateByFilterAsyncTest,
    WriteDocumentsAsyncTest,
)
from haystack.utils import Secret
from haystack_integrations.components.retrievers.azimuth import AzimuthRetriever
from haystack_integrations.document_stores.azimuth import AzimuthDocumentStore


def made(url: str, **options: Any) -> AzimuthDocumentStore:
    name = f"haystack-{uuid.uuid4().hex[:8]}"
    return AzimuthDocumentStore(name, url=url, key=Secret.from_token(KEY), **options)


class OneCollection:
    """Each class has one, which is empty before each test."""

    options: ClassVar[dict[str, Any]] = {"settings": {"embedder": "hashing:32"}, "wait": False}

    @pytest.fixture(scope="class")
    def collection(self) -> str:
        return f"haystack-{uuid.uuid4().hex[:8]}"

    @pytest.fixture
    def document_store(self, url: str, collection: str) -> AzimuthDocumentStore:
        store = AzimuthDocumentStore(collection, url=url, key=Secret.from_token(KEY), **self.options)
        store.delete_all_documents()
        return store

    def test_write_documents(self, document_store: AzimuthDocumentStore) -> None:
        document = Document(content="test doc", embedding=[0.5] * 768)
        assert document_store.write_documents([document]) == 1
        self.assert_documents_are_equal(document_store.filter_documents(), [document])

    async def test_write_documents_async(self, document_store: AzimuthDocumentStore) -> None:
        document = Document(content="test doc")
        assert await document_store.write_documents_async([document]) == 1
        self.assert_documents_are_equal(await document_store.filter_documents_async(), [document])


class TestServiceEncodes(
    OneCollection,
    DocumentStoreBaseExtendedTests,
    CountDocumentsByFilterTest,
    CountDocumentsAsyncTest,
    CountDocumentsByFilterAsyncTest,
    DeleteAllAsyncTest,
    DeleteByFilterAsyncTest,
    DeleteDocumentsAsyncTest,
    FilterDocumentsAsyncTest,
    UpdateByFilterAsyncTest,
    WriteDocumentsAsyncTest,
):
    def assert_documents_are_equal(self, received: list[Document], expected: list[Document]) -> None:
        """In the order of their ids, and without embeddings, which this store does not keep."""
        assert received == [replace(one, embedding=None) for one in sorted(expected, key=lambda one: one.id)]


class TestHaystackEncodes(OneCollection, CountDocumentsTest, WriteDocumentsTest, WriteDocumentsAsyncTest):
    options: ClassVar[dict[str, Any]] = {"embedding_dim": 768}

    def assert_documents_are_equal(self, received: list[Document], expected: list[Document]) -> None:
        """In the order of their ids, with embeddings of length 1 in 16 bits."""
        expected = sorted(expected, key=lambda one: one.id)
        assert [replace(one, embedding=None) for one in received] == [replace(one, embedding=None) for one in expected]
        for one, other in zip(received, expected, strict=True):
            assert (one.embedding is None) == (other.embedding is None)
            if one.embedding is not None:
                length = sum(number * number for number in other.embedding) ** 0.5
                assert one.embedding == pytest.approx([number / length for number in other.embedding], abs=1e-3)


async def test_a_retriever_in_a_pipeline(url: str) -> None:
    store = made(url)
    texts = ["a cat purrs on the sofa", "a dog barks at the postman", "interest rates rise"]
    store.write_documents([Document(content=text, meta={"year": 2000 + at}) for at, text in enumerate(texts)])
    pipeline = Pipeline()
    pipeline.add_component("retriever", AzimuthRetriever(store, top_k=2, options={"rerank": True}))
    found = pipeline.run({"retriever": {"query": "Which animal barks?"}})["retriever"]["documents"]
    assert (found[0].content, len(found), found[0].score > found[1].score) == (texts[1], 2, True)
    recent = {"field": "meta.year", "operator": ">", "value": 2001}
    filtered = await AzimuthRetriever(store).run_async(query="animal", filters=recent)
    assert [one.content for one in filtered["documents"]] == [texts[2]]


def test_by_embedding(url: str) -> None:
    store = made(url, embedding_dim=2)
    vectors = {"a": [1.0, 0.0], "b": [0.0, 1.0]}
    store.write_documents([Document(id=id, content=id, embedding=vector) for id, vector in vectors.items()])
    assert [one.id for one in AzimuthRetriever(store, top_k=1).run(query_embedding=[0.1, 0.9])["documents"]] == ["b"]


def test_a_retriever_is_written_and_read(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZIMUTH_KEY", KEY)
    store = AzimuthDocumentStore(f"haystack-{uuid.uuid4().hex[:8]}", url=url)
    written = AzimuthRetriever(store, top_k=3, options={"mode": "dense"}).to_dict()
    assert KEY not in str(written)
    assert AzimuthRetriever.from_dict(deepcopy(written)).to_dict() == written
