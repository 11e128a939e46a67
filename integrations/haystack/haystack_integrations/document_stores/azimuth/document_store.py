"""`AzimuthDocumentStore`: documents of Haystack are documents of a collection, under the same ids."""

from collections.abc import Iterator
from typing import Any

from haystack import Document, default_from_dict, default_to_dict
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.utils import Secret, deserialize_secrets_inplace
from haystack_integrations.document_stores.azimuth.filters import to_azimuth

from azimuth_client import ApiError, AsyncClient, Client
from azimuth_client.shapes import Hit, StoredDocument, similarity

BATCH = 500
_IF_EXISTS = {
    DuplicatePolicy.NONE: "replace",
    DuplicatePolicy.OVERWRITE: "replace",
    DuplicatePolicy.SKIP: "skip",
    DuplicatePolicy.FAIL: "fail",
}


class AzimuthDocumentStore:
    """A collection of Azimuth. It is created if it does not exist.

    Without `embedding_dim` the service encodes documents and queries, by its own models, and the embeddings of
    documents are not kept. With it they are, and the service searches by them and by words.
    """

    def __init__(
        self,
        collection: str = "haystack",
        *,
        url: str = "http://localhost:8000",
        key: Secret | None = Secret.from_env_var("AZIMUTH_KEY", strict=False),  # noqa: B008  as Haystack's own do
        embedding_dim: int | None = None,
        settings: dict[str, Any] | None = None,
        wait: bool = True,
    ) -> None:
        """`settings`: of a collection that is created. `wait`: documents can be found when they are written."""
        self.collection, self.url, self.key = collection, url, key
        self.embedding_dim, self.settings, self.wait = embedding_dim, settings, wait
        secret = key.resolve_value() if key else None
        self.client, self.async_client = Client(url, secret), AsyncClient(url, secret)
        vectors: dict[str, Any] = {}
        if embedding_dim is not None:
            vectors = {"embedder": {"model": "external", "dimensions": embedding_dim, "identity": "haystack"}}
        self.client.ensure_collection(collection, {**vectors, **(settings or {})})
        self._include = ["text", "metadata", *(["vectors"] if embedding_dim else [])]

    def to_dict(self) -> dict[str, Any]:
        names = ("collection", "url", "embedding_dim", "settings", "wait")
        own = {name: getattr(self, name) for name in names}
        return default_to_dict(self, key=self.key.to_dict() if self.key else None, **own)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "AzimuthDocumentStore":
        deserialize_secrets_inplace(data["init_parameters"], ["key"])
        return default_from_dict(cls, data)

    def count_documents(self) -> int:
        return self.client.count(self.collection)

    async def count_documents_async(self) -> int:
        return await self.async_client.count(self.collection)

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        return self.client.count(self.collection, to_azimuth(filters))

    async def count_documents_by_filter_async(self, filters: dict[str, Any]) -> int:
        return await self.async_client.count(self.collection, to_azimuth(filters))

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """In the order of their ids."""
        found = self.client.documents(self.collection, to_azimuth(filters), include=self._include)
        return [_document(one) for one in found]

    async def filter_documents_async(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """As `filter_documents`."""
        found = self.async_client.documents(self.collection, to_azimuth(filters), include=self._include)
        return [_document(one) async for one in found]

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """NONE replaces, as OVERWRITE does."""
        written = 0
        for request in self._writes(documents, policy):
            try:
                answer = self.client.write(self.collection, **request)
            except ApiError as error:
                raise _duplicate(error) from error
            written += len(answer["results"]) if policy != DuplicatePolicy.SKIP else answer["created"]
        return written

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """As `write_documents`."""
        written = 0
        for request in self._writes(documents, policy):
            try:
                answer = await self.async_client.write(self.collection, **request)
            except ApiError as error:
                raise _duplicate(error) from error
            written += len(answer["results"]) if policy != DuplicatePolicy.SKIP else answer["created"]
        return written

    def _writes(self, documents: list[Document], policy: DuplicatePolicy) -> Iterator[dict[str, Any]]:
        if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
            raise ValueError("documents must be a list of Documents")
        for at in range(0, len(documents), BATCH):
            sent = [self._sent(one) for one in documents[at : at + BATCH]]
            # A document without the vector that it needs would be waited for in vain: words alone find it.
            complete = self.embedding_dim is None or all("vector" in one for one in sent)
            yield {"documents": sent, "if_exists": _IF_EXISTS[policy], "wait": self.wait and complete}

    def _sent(self, document: Document) -> dict[str, Any]:
        sent = {"id": document.id, "text": document.content or "", "metadata": document.meta}
        has_vector = self.embedding_dim is not None and document.embedding is not None
        return {**sent, "vector": document.embedding} if has_vector else sent

    def delete_documents(self, document_ids: list[str]) -> None:
        self.client.delete(self.collection, document_ids)

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        await self.async_client.delete(self.collection, document_ids)

    def delete_all_documents(self) -> None:
        self.client.delete_all(self.collection)

    async def delete_all_documents_async(self) -> None:
        await self.async_client.delete_all(self.collection)

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """How many were deleted."""
        return self.client.delete(self.collection, filter=to_azimuth(filters))["deleted"]

    async def delete_by_filter_async(self, filters: dict[str, Any]) -> int:
        """As `delete_by_filter`."""
        return (await self.async_client.delete(self.collection, filter=to_azimuth(filters)))["deleted"]

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Set these fields of the metadata, and return of how many documents. They are not encoded again."""
        found = self.client.documents(self.collection, to_azimuth(filters), include=[])
        return sum(bool(self.client.patch(self.collection, one["id"], {"metadata": meta})) for one in list(found))

    async def update_by_filter_async(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """As `update_by_filter`."""
        found = self.async_client.documents(self.collection, to_azimuth(filters), include=[])
        ids = [one["id"] async for one in found]
        for id in ids:
            await self.async_client.patch(self.collection, id, {"metadata": meta})
        return len(ids)

    def search(self, request: dict[str, Any], filters: dict[str, Any] | None = None) -> list[Document]:
        """`request`: as the API reference of the service has it. Of a long document a hit is a passage."""
        answer = self.client.search(self.collection, request, filter=to_azimuth(filters))
        return [_found(hit) for hit in answer["hits"]]

    async def search_async(self, request: dict[str, Any], filters: dict[str, Any] | None = None) -> list[Document]:
        """As `search`."""
        answer = await self.async_client.search(self.collection, request, filter=to_azimuth(filters))
        return [_found(hit) for hit in answer["hits"]]


def _document(stored: StoredDocument) -> Document:
    vectors = stored.get("vectors")
    embedding = vectors[0]["vector"] if vectors else None
    return Document(id=stored["id"], content=stored["text"], meta=stored["metadata"], embedding=embedding)


def _found(hit: Hit) -> Document:
    return Document(id=hit["id"], content=hit["text"], meta=hit["metadata"], score=similarity(hit))


def _duplicate(error: ApiError) -> Exception:
    return DuplicateDocumentError(str(error)) if error.kind == "documents-exist" else error
