"""The context of the passages that were found: what their chunks carried of the text above them."""

import asyncio
from dataclasses import replace

from service.core.collections import RerankSettings
from service.core.ids import DocumentId
from service.core.passage_context import Part, context_at, parts_of
from service.core.ports.documents import Documents
from service.core.search import Hit
from service.search.context import SearchContext
from service.search.passages import read_texts


async def add_contexts(
    documents: Documents, context: SearchContext, rerank: RerankSettings | None, hits: list[Hit]
) -> list[Hit]:
    """The hits, those with their context that a reranker reads or the answer explains; others have none."""
    request, version = context.request, context.space.version
    count = max(rerank.depth if rerank else 0, request.pool_size if request.explain else 0)
    revisions = {hit.id: hit.content_revision for hit in hits[:count] if hit.start > 0}
    if not revisions:
        return hits

    async def read() -> dict[DocumentId, list[Part]]:
        texts = await read_texts(documents, context, revisions)
        return await asyncio.to_thread(lambda: {id_: parts_of(text) for id_, text in texts.items()})

    parts = await context.run_stage("context", read(), optional=True) or {}
    contexts = [context_at(parts.get(hit.id, ()), hit.start, hit.title, version.max_chunk_tokens) for hit in hits]
    return [
        replace(hit, explanation=replace(hit.explanation, context=one)) for hit, one in zip(hits, contexts, strict=True)
    ]
