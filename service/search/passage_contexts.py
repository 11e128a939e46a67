"""The context of the passages that were found: what their chunks carried of the text above them."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from service.core.collections import RerankSettings
from service.core.ids import DocumentId
from service.core.passage_context import passage_contexts
from service.core.ports.documents import Documents
from service.core.search import Hit
from service.search.context import SearchContext
from service.search.passages import TEXT_LIMIT


async def add_contexts(
    documents: Documents, context: SearchContext, rerank: RerankSettings | None, hits: list[Hit]
) -> list[Hit]:
    """The hits, those with their context that a reranker reads or the answer explains; others have none."""
    count = max(rerank.depth if rerank else 0, context.request.pool_size if context.request.explain else 0)
    starts: defaultdict[DocumentId, list[int]] = defaultdict(list)
    for hit in hits[:count]:
        if hit.start > 0:
            starts[hit.id].append(hit.start)
    if not starts:
        return hits
    work = _contexts(documents, context, {hit.id: hit for hit in hits[:count] if hit.id in starts}, starts)
    found = await context.run_stage("context", work, optional=True) or {}
    return [
        replace(hit, explanation=replace(hit.explanation, context=found.get((hit.id, hit.start), ""))) for hit in hits
    ]


async def _contexts(
    documents: Documents, context: SearchContext, hits: Mapping[DocumentId, Hit], starts: Mapping[DocumentId, list[int]]
) -> dict[tuple[DocumentId, int], str]:
    revisions = {id_: hit.content_revision for id_, hit in hits.items()}
    texts = await documents.texts(context.space.collection.id, revisions, TEXT_LIMIT)
    longest = context.space.version.max_chunk_tokens

    def read() -> dict[tuple[DocumentId, int], str]:
        return {
            (id_, start): one
            for id_, text in texts.items()
            for start, one in zip(
                starts[id_], passage_contexts(hits[id_].title, text, starts[id_], longest), strict=True
            )
        }

    return await asyncio.to_thread(read)
