"""`AzimuthVectorStore`: documents of LangChain are documents of a collection, under the same ids."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self
from uuid import uuid4

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from azimuth_client import AsyncClient, Client
from azimuth_client.shapes import Hit, SearchAnswer, similarity

Json = dict[str, Any]
Scored = list[tuple[Document, float]]
BATCH = 500


class AzimuthVectorStore(VectorStore):
    """A collection of Azimuth. It is created if it does not exist.

    Without `embedding` the service encodes texts and queries, by its own models; with it, LangChain does, and the
    service searches by these vectors and by words. Searches take the options of the service as keywords: `filter`,
    `mode`, `rerank`, `group_by` and so on. A hit of a long text is the passage that fits best, under the id of the
    document. Scores are the relevance where the reranker read the hit, and else the cosine.
    """

    def __init__(
        self,
        collection: str,
        *,
        url: str = "http://localhost:8000",
        key: str | None = None,
        embedding: Embeddings | None = None,
        settings: Mapping[str, Any] | None = None,
        client: Client | None = None,
        async_client: AsyncClient | None = None,
    ) -> None:
        """`settings`: of a collection that is created. `client`, `async_client`: instead of `url` and `key`."""
        self.collection = collection
        self.client = client or Client(url, key)
        self.async_client = async_client or AsyncClient(url, key)
        self._embedding = embedding
        names = {one["name"] for one in self.client.collections()}
        if collection not in names:
            vectors: Json = {}
            if embedding is not None:
                dimensions = len(embedding.embed_query("dimensions"))
                identity = type(embedding).__name__
                vectors = {"embedder": {"model": "external", "dimensions": dimensions, "identity": identity}}
            self.client.ensure_collection(collection, {**vectors, **(settings or {})})

    @property
    def embeddings(self) -> Embeddings | None:
        return self._embedding

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **_: Any,
    ) -> list[str]:
        """Write them; they can be found when this returns. A text whose id exists replaces the former one."""
        documents = _documents(texts, metadatas, ids)
        if self._embedding is not None and documents:
            _add_vectors(documents, self._embedding.embed_documents([one["text"] for one in documents]))
        for at in range(0, len(documents), BATCH):
            self.client.write(self.collection, documents[at : at + BATCH], wait=True)
        return [one["id"] for one in documents]

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **_: Any,
    ) -> list[str]:
        """As `add_texts`."""
        documents = _documents(texts, metadatas, ids)
        if self._embedding is not None and documents:
            _add_vectors(documents, await self._embedding.aembed_documents([one["text"] for one in documents]))
        for at in range(0, len(documents), BATCH):
            await self.async_client.write(self.collection, documents[at : at + BATCH], wait=True)
        return [one["id"] for one in documents]

    def delete(self, ids: list[str] | None = None, **_: Any) -> bool:
        """Without `ids`: all documents."""
        if ids is None:
            self.client.delete_all(self.collection)
        else:
            self.client.delete(self.collection, ids)
        return True

    async def adelete(self, ids: list[str] | None = None, **_: Any) -> bool:
        """As `delete`."""
        if ids is None:
            await self.async_client.delete_all(self.collection)
        else:
            await self.async_client.delete(self.collection, ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        return [_document(one) for one in self.client.fetch(self.collection, ids)]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        return [_document(one) for one in await self.async_client.fetch(self.collection, ids)]

    def similarity_search_with_score(self, query: str, k: int = 4, **options: Any) -> Scored:
        if self._embedding is not None and options.get("mode") != "lexical":
            options["vector"] = self._embedding.embed_query(query)
        return _scored(self.client.search(self.collection, {"query": query, "k": k, **options}))

    async def asimilarity_search_with_score(self, query: str, k: int = 4, **options: Any) -> Scored:
        if self._embedding is not None and options.get("mode") != "lexical":
            options["vector"] = await self._embedding.aembed_query(query)
        return _scored(await self.async_client.search(self.collection, {"query": query, "k": k, **options}))

    def similarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        return [document for document, _ in self.similarity_search_with_score(query, k, **options)]

    async def asimilarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        return [document for document, _ in await self.asimilarity_search_with_score(query, k, **options)]

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **options: Any) -> list[Document]:
        answer = self.client.search(self.collection, {"vector": embedding, "k": k, **options})
        return [document for document, _ in _scored(answer)]

    async def asimilarity_search_by_vector(self, embedding: list[float], k: int = 4, **options: Any) -> list[Document]:
        answer = await self.async_client.search(self.collection, {"vector": embedding, "k": k, **options})
        return [document for document, _ in _scored(answer)]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
    ) -> list[Document]:
        """The service diversifies: `diversity` is 1 - `lambda_mult`."""
        return self.similarity_search(query, k, candidates=max(k, fetch_k), diversity=1 - lambda_mult, **options)

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
    ) -> list[Document]:
        """As `max_marginal_relevance_search`."""
        diverse = {"candidates": max(k, fetch_k), "diversity": 1 - lambda_mult}
        return await self.asimilarity_search(query, k, **diverse, **options)

    def _select_relevance_score_fn(self) -> Any:
        return lambda score: min(1.0, max(0.0, score))

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **options: Any,
    ) -> Self:
        """`options` as for the class itself; `collection` is one of them. `embedding` None: the service encodes."""
        store = cls(embedding=embedding, **options)
        store.add_texts(texts, metadatas, ids=ids)
        return store


def _documents(texts: Iterable[str], metadatas: Sequence[Json] | None, ids: Sequence[str | None] | None) -> list[Any]:
    texts = list(texts)
    metadatas, ids = metadatas or [{}] * len(texts), ids or [None] * len(texts)
    rows = zip(texts, metadatas, ids, strict=True)
    return [{"id": id or str(uuid4()), "text": text, "metadata": metadata} for text, metadata, id in rows]


def _add_vectors(documents: list[Any], vectors: list[list[float]]) -> None:
    for document, vector in zip(documents, vectors, strict=True):
        document["vector"] = vector


def _document(stored: Any) -> Document:
    return Document(id=stored["id"], page_content=stored["text"], metadata=stored["metadata"])


def _scored(answer: SearchAnswer) -> Scored:
    hits: list[Hit] = answer["hits"]
    return [(_document(hit), similarity(hit)) for hit in hits]
