"""The context that a chunk was encoded with: shown in explanations and read by the reranker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from service.core.errors import DatabaseUnavailable
from service.core.ids import CollectionId, DocumentId
from service.core.ports.reranker import RerankScores
from service.core.search import Group, Query, RerankRequest, SearchRequest
from service.embedder.worker import document_chunker
from tests.feed import stored_document
from tests.unit.search.test_pipeline import NAME, Zoo, zoo

__all__ = ["zoo"]

TABLE = "# Prices\n\n## Spare parts\n\n| Part | Price |\n|---|---|\n" + "".join(
    f"| AB{n} | {n} coins |\n" for n in range(200)
)
QUERY = "price of AB150"


@dataclass
class Reading:
    read_passages: list[str] = field(default_factory=list)
    portion: int = 64
    name: str = "reading"

    async def read(self, query: str, passages: Sequence[str]) -> RerankScores:
        self.read_passages += passages
        return RerankScores(scores=(0.5,) * len(passages))


async def test_explanation_and_reranker_have_what_the_chunk_carried(zoo: Zoo) -> None:
    await zoo.write({"shop": TABLE})
    reader = Reading()
    request = SearchRequest(text=QUERY, k=20, group_by="chunk", explain=True, rerank=RerankRequest(depth=20))
    answer = await zoo.search(reranker=reader).run(NAME, request)
    encoder = await zoo.verifier.ensure(await zoo.version())
    document = stored_document("shop", TABLE, title="shop")
    (chunks,) = document_chunker.chunk_documents(encoder, [document], (await zoo.version()).chunking)
    carried = {chunk.start: chunk.text for chunk in chunks}
    assert set(carried.values()) <= {*reader.read_passages, carried[0]}
    hits = [hit for hit in answer.hits if hit.id == "shop"]
    assert any(hit.start > 0 for hit in hits)
    for hit in hits:
        assert hit.explanation.context == ("" if hit.start == 0 else "Prices > Spare parts\nPart | Price")
        lines = (hit.title, hit.explanation.context, hit.text)
        assert "\n".join(line for line in lines if line) == carried[hit.start].rstrip("\n")


@pytest.mark.parametrize("request_", [{"mode": "lexical"}, {"mode": "lexical", "group_by": "chunk"}, {}])
async def test_words_of_the_headings_count_for_the_passage(zoo: Zoo, request_: dict[str, Any]) -> None:
    filler = "One two three four five six seven eight. " * 40
    parts = ("pump", "fuse", "belt")
    await zoo.write({"manual": "".join(f"## The {part}\n\n{filler}\n\nThe torque is high.\n\n" for part in parts)})
    for part in parts:
        answer = await zoo.search().run(NAME, SearchRequest(text=f"torque {part}", k=5, explain=True, **request_))
        best = next(hit for hit in answer.hits if hit.id == "manual")
        assert (best.explanation.context, "torque" in best.text) == (f"The {part}", True)


@pytest.mark.parametrize("group_by", ["document", "chunk"])
async def test_a_text_is_read_once_for_a_search(zoo: Zoo, group_by: Group) -> None:
    """For its best passage, for its context, and for each of several queries; of documents along with the passages."""
    await zoo.write({"shop": TABLE, "other": TABLE.replace("AB", "CD")})
    read: list[DocumentId] = []
    texts = zoo.documents.texts

    async def recorded(collection_id: CollectionId, revisions: Mapping[DocumentId, int], limit: int) -> Any:
        read.extend(revisions)
        return await texts(collection_id, revisions, limit)

    zoo.documents.texts = recorded  # type: ignore[method-assign,assignment]
    queries = Query(text=QUERY), Query(text="price of CD120")
    rerank = RerankRequest(depth=20)
    request = SearchRequest(queries=queries, k=5, group_by=group_by, explain=True, rerank=rerank)
    answer = await zoo.search(reranker=Reading()).run(NAME, request)
    assert answer.degraded == ()
    assert len(read) == len(set(read))
    assert read == [] if group_by == "document" else {"shop", "other"} <= set(read)


async def test_a_search_that_needs_no_context_does_not_read_the_texts(zoo: Zoo) -> None:
    await zoo.write({"shop": TABLE})

    async def refuse(*_: object) -> dict[str, str]:
        raise DatabaseUnavailable("not now")

    zoo.documents.texts = refuse  # type: ignore[method-assign,assignment]
    answer = await zoo.search().run(NAME, SearchRequest(text=QUERY, mode="dense"))
    assert answer.degraded == ()
    assert "context" not in answer.timings.seconds
    answer = await zoo.search().run(NAME, SearchRequest(text=QUERY, mode="dense", group_by="chunk", explain=True))
    assert [one.stage for one in answer.degraded] == ["context"]
    assert {hit.explanation.context for hit in answer.hits} == {""}
