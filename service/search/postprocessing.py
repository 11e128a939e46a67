"""The last stages of a search, on the hits of the answer: they are diversified, and get what the request includes."""

from collections.abc import Sequence
from dataclasses import replace

from service.core.ids import Vector
from service.core.ports.documents import Documents
from service.core.ports.lexicon import Lexicon
from service.core.ports.vectors import VectorStore
from service.core.query_syntax import Highlights
from service.core.search import Hit
from service.search.context import SearchContext
from service.search.mmr import mmr
from service.search.surroundings import add_surroundings
from service.spaces.resolver import Space


class PostProcessor:
    def __init__(self, documents: Documents, vectors: VectorStore, lexicon: Lexicon) -> None:
        self._documents = documents
        self._vectors = vectors
        self._lexicon = lexicon

    async def diversify(self, context: SearchContext, hits: list[Hit]) -> list[Hit]:
        """Reorder by maximal marginal relevance; each hit keeps the score of its relevance."""
        request = context.request
        if not request.diversity:
            return hits
        vectors = await context.run_stage("diversify", self._vectors_of(context.space, hits), optional=True)
        if vectors is None:
            return hits
        picks = mmr([hit.score for hit in hits], vectors, request.diversity, request.k)
        return [
            replace(hit, explanation=replace(hit.explanation, diversity=pick))
            for hit, pick in ((hits[pick.rank - 1], pick) for pick in picks)
        ]

    async def _vectors_of(self, space: Space, hits: Sequence[Hit]) -> list[Vector | None]:
        """None for a hit whose document has another content in the space than in the answer."""
        chunks, contents = [(hit.id, hit.chunk) for hit in hits], [hit.content_revision for hit in hits]
        vectors = await self._vectors.get(space.version, chunks, contents)
        return [vectors.get(chunk) for chunk in chunks]

    async def decorate(self, context: SearchContext, hits: list[Hit]) -> list[Hit]:
        """Add highlights, vectors and the text around where the request includes them."""
        request = context.request
        synonyms = request.explain and context.space.collection.settings.synonyms
        if ("highlights" in request.include or synonyms) and hits:
            texts = [text for hit in hits for text in (hit.text, hit.title)]
            work = self._lexicon.highlight(context.space.collection, request.parsed_query, texts)
            highlights = await context.run_stage("highlight", work, optional=True, in_budget=False)
            if highlights is not None:
                hits = [_highlighted(*all_) for all_ in zip(hits, highlights[::2], highlights[1::2], strict=True)]
        if "vector" in request.include and hits:
            hits = [
                replace(hit, vector=None if vector is None else tuple(map(float, vector)))
                for hit, vector in zip(hits, await self._vectors_of(context.space, hits), strict=True)
            ]
        return await add_surroundings(self._documents, self._vectors, context, hits)


def _highlighted(hit: Hit, text: Highlights, title: Highlights) -> Hit:
    offsets = tuple((hit.start + start, hit.start + end) for start, end in text.spans)
    marked = title.fragments[0] if title.fragments else None
    explanation = hit.explanation
    if synonyms := tuple(dict.fromkeys((*text.synonyms, *title.synonyms))):
        explanation = replace(explanation, synonyms=synonyms)
    return replace(
        hit, highlights=text.fragments, highlight_offsets=offsets, title_highlight=marked, explanation=explanation
    )
