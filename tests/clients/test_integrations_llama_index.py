"""`llama-index-vector-stores-azimuth` against a running service, as LlamaIndex uses its stores."""

from typing import Any

import pytest
from conftest import KEY
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.vector_stores.azimuth import AzimuthVectorStore

NODES = [
    ("lorem", "a dog barks at the postman", "source-0", {"author": "Stephen", "year": 1994, "tags": ["a", "b"]}),
    ("godfather", "a cat purrs on the sofa", "source-1", {"author": "Coppola", "year": 1972, "tags": ["a"]}),
    ("inception", "interest rates rise", "source-2", {"author": "Nolan", "year": 2010}),
]


def nodes() -> list[TextNode]:
    return [
        TextNode(
            id_=id,
            text=text,
            metadata=metadata,
            embedding=[float(at == place) for place in range(3)],
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=source)},
        )
        for at, (id, text, source, metadata) in enumerate(NODES)
    ]


@pytest.fixture(params=[None, 3], ids=["the service encodes", "LlamaIndex encodes"])
def store(url: str, request: pytest.FixtureRequest) -> AzimuthVectorStore:
    made = AzimuthVectorStore(f"llama-{request.param}".lower(), url=url, key=KEY, dimensions=request.param)
    assert made.add(nodes()) == [id for id, *_ in NODES]
    return made


def query(text: str, at: int, k: int = 1, **options: Any) -> VectorStoreQuery:
    vector = [float(at == place) for place in range(3)]
    return VectorStoreQuery(query_str=text, query_embedding=vector, similarity_top_k=k, **options)


def test_it_is_a_vector_store() -> None:
    assert BasePydanticVectorStore.__name__ in [kind.__name__ for kind in AzimuthVectorStore.__mro__]


def test_nodes_come_back_as_they_were(store: AzimuthVectorStore) -> None:
    result = store.query(query("Which animal barks?", 0))
    assert (result.ids, result.nodes[0].get_content()) == (["lorem"], NODES[0][1])
    assert (result.nodes[0].metadata, result.nodes[0].ref_doc_id) == (NODES[0][3], "source-0")
    assert 0 < result.similarities[0] <= 1.001
    assert {node.node_id for node in store.get_nodes()} == {id for id, *_ in NODES}
    assert [node.node_id for node in store.get_nodes(["godfather", "none"])] == ["godfather"]


@pytest.mark.parametrize(
    ("key", "operator", "value", "found"),
    [
        ("year", FilterOperator.EQ, 1994, {"lorem"}),
        ("year", FilterOperator.GT, 1972, {"lorem", "inception"}),
        ("year", FilterOperator.LTE, 1994, {"lorem", "godfather"}),
        ("author", FilterOperator.NE, "Nolan", {"lorem", "godfather"}),
        ("author", FilterOperator.IN, ["Nolan", "Coppola"], {"inception", "godfather"}),
        ("author", FilterOperator.NIN, ["Nolan", "Coppola"], {"lorem"}),
        ("tags", FilterOperator.ANY, ["b", "c"], {"lorem"}),
        ("tags", FilterOperator.ALL, ["a", "b"], {"lorem"}),
        ("tags", FilterOperator.CONTAINS, "a", {"lorem", "godfather"}),
        ("tags", FilterOperator.IS_EMPTY, None, {"inception"}),
        ("author", FilterOperator.TEXT_MATCH, "pol", {"godfather"}),
    ],
)
def test_filters(store: AzimuthVectorStore, key: str, operator: FilterOperator, value: Any, found: set[str]) -> None:
    filters = MetadataFilters(filters=[MetadataFilter(key=key, operator=operator, value=value)])
    assert set(store.query(query("dog", 0, 5, filters=filters)).ids) == found
    assert {node.node_id for node in store.get_nodes(filters=filters)} == found


def test_filters_are_combined(store: AzimuthVectorStore) -> None:
    one, two = (MetadataFilter(key="year", value=year) for year in (1994, 1972))
    either = MetadataFilters(filters=[one, two], condition=FilterCondition.OR)
    neither = MetadataFilters(filters=[either], condition=FilterCondition.NOT)
    assert set(store.query(query("dog", 0, 5, filters=either)).ids) == {"lorem", "godfather"}
    assert store.query(query("dog", 0, 5, filters=neither)).ids == ["inception"]
    assert store.query(query("dog", 0, 5, doc_ids=["source-1"], node_ids=["godfather", "lorem"])).ids == ["godfather"]


@pytest.mark.parametrize("mode", ["default", "hybrid", "semantic_hybrid", "text_search", "sparse", "mmr"])
def test_modes(store: AzimuthVectorStore, mode: str) -> None:
    found = store.query(query("barks", 0, mode=VectorStoreQueryMode(mode), alpha=0.7, mmr_threshold=0.9))
    assert found.ids == ["lorem"]


def test_nodes_are_deleted(store: AzimuthVectorStore) -> None:
    store.delete("source-0")
    assert store.get_nodes(["lorem"]) == []
    store.delete_nodes()
    store.delete_nodes(["godfather"], MetadataFilters(filters=[MetadataFilter(key="author", value="Nolan")]))
    assert len(store.get_nodes()) == 2
    store.delete_nodes(["godfather"])
    assert len(store.get_nodes()) == 1
    store.clear()
    assert store.get_nodes() == []


async def test_asynchronously(store: AzimuthVectorStore) -> None:
    assert await store.async_add(nodes()[:1]) == ["lorem"]
    assert (await store.aquery(query("Which animal barks?", 0))).ids == ["lorem"]
    assert [node.node_id for node in await store.aget_nodes(["lorem"])] == ["lorem"]
    await store.adelete("source-0")
    await store.adelete_nodes(["godfather"])
    assert len(await store.aget_nodes()) == 1
    await store.aclear()
    assert await store.aget_nodes() == []


def test_an_index_over_it(url: str) -> None:
    """Long nodes come whole, although a hit is a passage of them."""
    store = AzimuthVectorStore("llama-index", url=url, key=KEY)
    store.clear()
    long = "A dog barks at the postman. " + "The sea is calm today. " * 150
    context = StorageContext.from_defaults(vector_store=store)
    VectorStoreIndex.from_documents([Document(text=long)], storage_context=context, embed_model=MockEmbedding(1))
    index = VectorStoreIndex.from_vector_store(store, embed_model=MockEmbedding(1))
    (found,) = index.as_retriever(similarity_top_k=1).retrieve("Who barks?")
    assert len(found.node.get_content()) > 2_000
