"""`AzimuthRetriever`: a component that searches an `AzimuthDocumentStore`."""

from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict
from haystack_integrations.document_stores.azimuth import AzimuthDocumentStore


@component
class AzimuthRetriever:
    """Finds documents by meaning and words. Scores are the relevance where the reranker read, else the cosine."""

    def __init__(
        self,
        document_store: AzimuthDocumentStore,
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        options: dict[str, Any] | None = None,
    ) -> None:
        """`options`: of a search of the service, such as `{"rerank": True, "mode": "dense"}`."""
        self.document_store, self.filters, self.top_k, self.options = document_store, filters, top_k, options or {}

    def to_dict(self) -> dict[str, Any]:
        own = {"filters": self.filters, "top_k": self.top_k, "options": self.options}
        return default_to_dict(self, document_store=self.document_store.to_dict(), **own)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "AzimuthRetriever":
        parameters = data["init_parameters"]
        parameters["document_store"] = AzimuthDocumentStore.from_dict(parameters["document_store"])
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str = "",
        query_embedding: list[float] | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """By `query`, `query_embedding` or both; an embedding needs a store with `embedding_dim`."""
        request = self._request(query, query_embedding, top_k)
        return {"documents": self.document_store.search(request, filters or self.filters)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str = "",
        query_embedding: list[float] | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """As `run`."""
        request = self._request(query, query_embedding, top_k)
        return {"documents": await self.document_store.search_async(request, filters or self.filters)}

    def _request(self, query: str, embedding: list[float] | None, top_k: int | None) -> dict[str, Any]:
        asked = {"query": query or None, "vector": embedding, "k": top_k or self.top_k}
        return {name: value for name, value in asked.items() if value is not None} | self.options
