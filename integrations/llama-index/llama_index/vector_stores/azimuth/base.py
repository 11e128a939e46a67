"""`AzimuthVectorStore`: nodes of LlamaIndex are documents of a collection, under the same ids."""

from collections.abc import Sequence
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from azimuth_client import AsyncClient, Client
from azimuth_client.shapes import SearchAnswer, StoredDocument, similarity

Json = dict[str, Any]
BATCH = 500

_OPERATORS = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.ANY: "$in",
    FilterOperator.CONTAINS: "$contains",
    FilterOperator.TEXT_MATCH: "$contains",
}
_MODES = {
    VectorStoreQueryMode.DEFAULT: {},
    VectorStoreQueryMode.HYBRID: {},
    VectorStoreQueryMode.SEMANTIC_HYBRID: {"rerank": True},
    VectorStoreQueryMode.TEXT_SEARCH: {"mode": "lexical"},
    VectorStoreQueryMode.SPARSE: {"mode": "lexical"},
    VectorStoreQueryMode.MMR: {},
}


class AzimuthVectorStore(BasePydanticVectorStore):
    """A collection of Azimuth. It is created if it does not exist.

    Without `dimensions` the service encodes nodes and queries, by its own models, and the vectors of LlamaIndex are not
    used. With it they are, and the service searches by them and by words. Query modes: DEFAULT and HYBRID (`alpha`) by
    meaning and words, SEMANTIC_HYBRID with the reranker, TEXT_SEARCH and SPARSE by words, MMR. Similarities are the
    relevance where the reranker read the node, and else the cosine.
    """

    stores_text: bool = True
    is_embedding_query: bool = False
    collection: str
    url: str = "http://localhost:8000"
    dimensions: int | None = None

    _client: Client = PrivateAttr()
    _async_client: AsyncClient = PrivateAttr()

    def __init__(
        self,
        collection: str,
        *,
        url: str = "http://localhost:8000",
        key: str | None = None,
        dimensions: int | None = None,
        settings: Json | None = None,
    ) -> None:
        """`settings`: of a collection that is created."""
        embedding: Any = {"is_embedding_query": dimensions is not None, "dimensions": dimensions}
        super().__init__(collection=collection, url=url, **embedding)
        self._client, self._async_client = Client(url, key), AsyncClient(url, key)
        vectors: Json = {}
        if dimensions is not None:
            vectors = {"embedder": {"model": "external", "dimensions": dimensions, "identity": "llama-index"}}
        self._client.ensure_collection(collection, {**vectors, **(settings or {})})

    @classmethod
    def class_name(cls) -> str:
        return "AzimuthVectorStore"

    @property
    def client(self) -> Client:
        return self._client

    def add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        """Write them; they can be found when this returns."""
        documents = [self._document(node) for node in nodes]
        for at in range(0, len(documents), BATCH):
            self._client.write(self.collection, documents[at : at + BATCH], wait=True)
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        """As `add`."""
        documents = [self._document(node) for node in nodes]
        for at in range(0, len(documents), BATCH):
            await self._async_client.write(self.collection, documents[at : at + BATCH], wait=True)
        return [node.node_id for node in nodes]

    def _document(self, node: BaseNode) -> Any:
        text = node.get_content(metadata_mode=MetadataMode.NONE)
        document = {"id": node.node_id, "text": text, "metadata": node_to_metadata_dict(node, remove_text=True)}
        return document if self.dimensions is None else {**document, "vector": node.get_embedding()}

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        """All nodes of a document."""
        self._client.delete(self.collection, filter={"ref_doc_id": ref_doc_id})

    async def adelete(self, ref_doc_id: str, **_: Any) -> None:
        """As `delete`."""
        await self._async_client.delete(self.collection, filter={"ref_doc_id": ref_doc_id})

    def delete_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **_: Any) -> None:
        """Nodes with these ids that pass the filters; without either, none."""
        if where := _where(node_ids, filters):
            self._client.delete(self.collection, filter=where)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **_: Any
    ) -> None:
        """As `delete_nodes`."""
        if where := _where(node_ids, filters):
            await self._async_client.delete(self.collection, filter=where)

    def clear(self) -> None:
        self._client.delete_all(self.collection)

    async def aclear(self) -> None:
        await self._async_client.delete_all(self.collection)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        return [_node(one) for one in self._client.documents(self.collection, _where(node_ids, filters))]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        found = self._async_client.documents(self.collection, _where(node_ids, filters))
        return [_node(one) async for one in found]

    def query(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """`options`: those of a search of the service, such as `rerank`. Nodes come whole, however long they are."""
        answer = self._client.search(self.collection, {**self._search(query), **options})
        return _result(answer, self._client.fetch(self.collection, [hit["id"] for hit in answer["hits"]]))

    async def aquery(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """As `query`."""
        answer = await self._async_client.search(self.collection, {**self._search(query), **options})
        ids = [hit["id"] for hit in answer["hits"]]
        return _result(answer, await self._async_client.fetch(self.collection, ids))

    def _search(self, query: VectorStoreQuery) -> Json:
        if query.mode not in _MODES:
            raise ValueError(f"the mode {query.mode} is not supported; there are {', '.join(_MODES)}")
        request: Json = {"k": query.similarity_top_k, "include": [], **_MODES[query.mode]}
        if query.mode == VectorStoreQueryMode.HYBRID and query.alpha is not None:
            request |= {"fusion": {"method": "convex", "alpha": query.alpha}, "k": query.hybrid_top_k or request["k"]}
        if query.mode == VectorStoreQueryMode.MMR:
            request["diversity"] = 1 - (0.5 if query.mmr_threshold is None else query.mmr_threshold)
        if query.query_str:
            request["query"] = query.query_str
        if self.dimensions is not None and query.query_embedding is not None and request.get("mode") != "lexical":
            request["vector"] = query.query_embedding
        where = [_where(query.node_ids or None, query.filters)]  # an index that knows no ids sends none
        where += [{"ref_doc_id": {"$in": query.doc_ids}}] if query.doc_ids else []
        return {**request, "filter": {"$and": [one for one in where if one]}} if any(where) else request


def _result(answer: SearchAnswer, documents: Sequence[StoredDocument]) -> VectorStoreQueryResult:
    nodes = {document["id"]: _node(document) for document in documents}
    hits = [hit for hit in answer["hits"] if hit["id"] in nodes]  # one that was deleted meanwhile is not
    return VectorStoreQueryResult(
        nodes=[nodes[hit["id"]] for hit in hits],
        similarities=[similarity(hit) for hit in hits],
        ids=[hit["id"] for hit in hits],
    )


def _node(document: StoredDocument) -> BaseNode:
    return metadata_dict_to_node(document["metadata"], text=document["text"])


def _where(node_ids: Sequence[str] | None, filters: MetadataFilters | None) -> Json:
    """As the service has it; empty: everything."""
    parts = [] if node_ids is None else [{"$id": {"$in": list(node_ids)}}]
    parts += [] if filters is None or not filters.filters else [_filter(filters)]
    return parts[0] if len(parts) == 1 else {"$and": parts} if parts else {}


def _filter(filters: MetadataFilters | MetadataFilter) -> Json:
    if isinstance(filters, MetadataFilters):
        parts = [_filter(one) for one in filters.filters]
        if filters.condition == FilterCondition.NOT:
            return {"$not": {"$and": parts}}
        return {"$or" if filters.condition == FilterCondition.OR else "$and": parts}
    if filters.operator == FilterOperator.IS_EMPTY:
        return {filters.key: None}  # null or missing
    if filters.operator == FilterOperator.ALL and isinstance(filters.value, list):
        return {"$and": [{filters.key: {"$eq": one}} for one in filters.value]}
    if filters.operator not in _OPERATORS:
        raise ValueError(f"the operator {filters.operator} is not supported")
    return {filters.key: {_OPERATORS[filters.operator]: filters.value}}
