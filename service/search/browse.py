"""A search with nothing to search for: the documents that pass the filter, in the order of declared fields."""

from service.core.explanation import Explanation
from service.core.ports.documents import Documents
from service.core.search import Confidence, DensePlan, SearchResult
from service.search.context import SearchContext
from service.search.passages import UNEMBEDDED_LENGTH, as_hit


async def browse(documents: Documents, context: SearchContext) -> SearchResult:
    """A hit is the beginning of a document. Those that change between the two statements are left out."""
    request, space = context.request, context.space
    where, collection_id = request.where, space.collection.id
    with context.timings.stage("sort"):
        async with context.filter_deadline():
            found = await documents.in_order(collection_id, request.sort, where, request.offset, request.k)
    with context.timings.stage("fetch"):
        passages = await documents.passages(collection_id, found, where, UNEMBEDDED_LENGTH)
    hits = [
        as_hit(one, passage, 0.0, Explanation(dense=None, lexical=None, fusion=0.0))
        for one, passage in zip(found, passages, strict=True)
        if passage is not None
    ]
    return SearchResult(
        hits=tuple(hits),
        mode="browse",
        embedder_version=space.version.number,
        dense=DensePlan(),
        rerank_summary=None,
        parsed_query=request.parsed_query,
        unmatched_terms=(),
        degraded=tuple(context.degraded),
        confidence=Confidence(in_domain=None, reason="nothing was searched for"),
        timings=context.timings,
    )
