"""The text around the passages that were found, for readers (people or models) who need more than the passage."""

import asyncio
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from service.core.ids import DocumentId
from service.core.ports.documents import Documents
from service.core.ports.vectors import VectorStore
from service.core.result_options import Neighbours, SurroundingText
from service.core.search import Hit
from service.search.context import SearchContext
from service.search.passages import MAX_CHUNKS, read_texts, windows

PARENT_LENGTH = 20_000
"""Most code points of a document that are shown around a hit."""

Spans = Sequence[tuple[int, int]]


async def add_surroundings(
    documents: Documents, vectors: VectorStore, context: SearchContext, hits: list[Hit]
) -> list[Hit]:
    """The hits with the text around them, as far as the request wants it and their documents are as they were."""
    around, space = context.request.around, context.space
    if around is None or not hits:
        return hits
    with context.timings.stage("surroundings"):
        revisions = {hit.id: hit.content_revision for hit in hits}
        texts = await read_texts(documents, context, revisions)
        if len(texts) < len(revisions):
            unread = f"the texts of {len(revisions) - len(texts)} of {len(revisions)} documents were not read"
            context.degrade("surroundings", "incomplete", unread)
        spans: defaultdict[DocumentId, list[tuple[int, int]]] = defaultdict(list)
        if isinstance(around, Neighbours):
            for one in await vectors.score(space.version, None, list(texts), MAX_CHUNKS):
                if one.content_revision == revisions[one.document_id]:
                    spans[one.document_id].append((one.start or 0, one.end or 0))

        def text_around(hit: Hit) -> SurroundingText | None:
            if (text := texts.get(hit.id)) is None:
                return None
            if not isinstance(around, Neighbours):
                start, end = parent(hit.start, hit.end, len(text))
            else:
                own = spans[hit.id] or [(one.start or 0, one.end or 0) for one in windows(hit.id, 0, text)]
                start, end = neighbourhood(sorted(own), hit.start, hit.end, around)
            return SurroundingText(text=text[start:end], start=start, end=end)

        found = await asyncio.to_thread(lambda: [text_around(hit) for hit in hits])
    return [replace(hit, context=one) for hit, one in zip(hits, found, strict=True)]


def neighbourhood(spans: Spans, start: int, end: int, around: Neighbours) -> tuple[int, int]:
    """From the beginning of the chunks before `start` to the end of those after `end`; `spans`: of all, in order.

    A passage may be a whole document, or another piece of it than its chunks, where these are not made yet.
    """
    first = max(0, bisect_right(spans, start, key=lambda one: one[0]) - 1)
    last = min(len(spans) - 1, bisect_left(spans, end, key=lambda one: one[1]))
    before, after = spans[max(0, first - around.before)], spans[min(len(spans) - 1, last + around.after)]
    return min(start, before[0]), max(end, after[1])


def parent(start: int, end: int, length: int) -> tuple[int, int]:
    """As much of a text of this length as is shown, with the passage in its middle as far as that can be."""
    most = max(PARENT_LENGTH, end - start)
    begin = max(0, min(start - (most - (end - start)) // 2, length - most))
    return begin, min(length, begin + most)
