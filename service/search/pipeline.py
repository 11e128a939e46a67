"""The query's story, top to bottom:
space -> filter -> embed -> dense || lexical -> fuse -> fetch -> rerank -> diversify -> answer.

Each stage is a method or a module of its own (`asking`, `legs`, `finds`, `fusion`, `reranking`, `diversity`), in that
order. None does I/O of its own: documents, vectors and models are behind ports. A stage that cannot do its part is
named in `SearchResult.degraded`, never hidden.

A search asks one question or several; the legs run for each, and fusion makes one ranking of all.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from service.core import metrics
from service.core.concurrency import gather_limited
from service.core.errors import NotFound, Overloaded, Unavailable
from service.core.ids import CollectionName, Vector
from service.core.ports.collections import Collections
from service.core.ports.documents import Documents
from service.core.ports.embedder import Embedders
from service.core.ports.lexicon import Lexicon
from service.core.ports.reranker import Reranker
from service.core.ports.vectors import VectorStore
from service.core.ports.versions import Versions
from service.core.query_syntax import Highlights
from service.core.search import (
    Candidate,
    Confidence,
    DensePlan,
    FilterMatch,
    Hit,
    Passage,
    SearchRequest,
    SearchResult,
)
from service.search import candidates as finds
from service.search import filter_planner, retrievers
from service.search.candidates import MAX_PARALLEL_STATEMENTS, CandidateSet, QueryCandidates
from service.search.confidence import ConfidenceAssessor
from service.search.context import SearchContext
from service.search.dense_certainty import DenseCertainty
from service.search.encode_query import QueryEncoder, SharedQueryEncoding
from service.search.events import SearchEvent, SearchObserver
from service.search.examples import ExampleVectors
from service.search.fusion import FusedItem, fuse
from service.search.mmr import mmr
from service.search.rerank import RerankStage
from service.search.retrievers import MAX_WIDTH, Item, LegResult
from service.spaces.model_verification import ModelVerifier
from service.spaces.resolver import Space, SpaceResolver

SPARE = 2
"""Times the candidates that an answer takes, for some may have changed since or be of one document."""
UNEMBEDDED_LENGTH = 1000
"""Code points shown of a document that only the lexical leg knows yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedHit:
    """A hit in the making: its place in the fused ranking, what the legs saw, and its passage as it stands now."""

    fused: FusedItem[Item]
    candidate: Candidate
    passage: Passage


class SearchPipeline:
    """`passing_cap`: most documents that a filter may name. `max_concurrent`: searches before Overloaded.

    `observers` are told of every search that a client waited for.
    """

    def __init__(
        self,
        *,
        collections: Collections,
        versions: Versions,
        documents: Documents,
        vectors: VectorStore,
        lexicon: Lexicon,
        embedders: Embedders,
        verifier: ModelVerifier,
        reranker: Reranker | None,
        passing_cap: int,
        max_concurrent: int,
        observers: Sequence[SearchObserver] = (),
    ) -> None:
        self._documents = documents
        self._vectors = vectors
        self._lexicon = lexicon
        self._asking = QueryEncoder(embedders, verifier, ExampleVectors(documents, vectors))
        self._second = RerankStage(reranker)
        self._assessment = ConfidenceAssessor(lexicon)
        self._backgrounds = DenseCertainty(vectors)
        self._passing_cap = passing_cap
        self._free = max_concurrent
        self._spaces = SpaceResolver(collections, versions)
        self._observers = observers

    async def run(
        self, name: CollectionName, request: SearchRequest, shared: SharedQueryEncoding | None = None
    ) -> SearchResult:
        """Answer one search. Overloaded where too many run already. `together`: the searches that it is one of."""
        shared = shared or SharedQueryEncoding([request])
        if self._free <= 0:
            raise Overloaded("too many searches at once")
        self._free -= 1
        try:
            try:
                return await self._run(name, SearchContext(request), shared)
            except NotFound:
                # What was remembered may be of a collection that was deleted, and made anew, meanwhile, or of a version
                # that was active a moment ago and is retired by now.
                self.forget(name)
                return await self._run(name, SearchContext(request), shared)
        finally:
            self._free += 1

    async def run_background(self, name: CollectionName, request: SearchRequest) -> SearchResult:
        """Answer a search that no client waits for: beside the limit of live ones, and not in their metrics."""
        return await self._run(name, SearchContext(request, live=False), SharedQueryEncoding([request]))

    async def _run(self, name: CollectionName, context: SearchContext, shared: SharedQueryEncoding) -> SearchResult:
        request = context.request
        space = await self._spaces.resolve(name, request.embedder_version)
        rerank = request.rerank.over(space.collection.settings.rerank) if request.rerank else None
        wanted = max(request.pool_size, rerank.depth if rerank else 0)
        width = max(request.candidates or self._candidates(space, request, wanted), wanted)

        filter_match = await self._filter(space, context, width)
        vectors = await self._asking.vectors(space, context, shared)
        confidence = None
        while True:
            found = await self._legs(space, context, vectors, filter_match, width, wanted)
            confidence = confidence or await self._assessment.of(space, context, found)
            ranking = [] if confidence.withheld else self._fuse(space, context, found)
            fetched = await self._fetch(space, context, found, ranking, wanted)
            if len(fetched) >= wanted or len(fetched) == len(ranking) or found.exhausted or width >= MAX_WIDTH:
                break
            width = min(4 * width, MAX_WIDTH)  # some were stale: ask for more in their place
        ordered, reread = await self._second.rerank(context, rerank, [_hit(ranked) for ranked in fetched])
        chosen = await self._diversify(space, context, ordered[: request.pool_size])
        hits = await self._dress(space, context, chosen[: request.k])

        counted = filter_match is not None and request.group_by == "document"
        possible = min(request.k, filter_match.count) if filter_match is not None and counted else request.k
        short = len(hits) < possible and (context.stale > 0 or not found.exhausted) and not confidence.withheld
        plan = dataclasses.replace(found.plan, underfilled=short)
        if context.live:
            self._count(space, context, plan, confidence)
            self._tell(space, context, found, plan, filter_match, width, confidence)
        return SearchResult(
            hits=tuple(hits),
            mode=request.mode,
            embedder_version=space.version.number,
            dense=plan,
            rerank_summary=reread,
            parsed_query=request.parsed_query,
            unmatched_terms=context.unmatched_terms,
            degraded=tuple(context.degraded),
            confidence=confidence,
            timings=context.timings,
        )

    def _candidates(self, space: Space, request: SearchRequest, wanted: int) -> int:
        """As many as the collection says; fewer where neither another ranking nor a condition is to be heard."""
        whole = space.collection.settings.candidates
        alone = request.mode == "dense" and len(request.effective_queries) == 1
        unbound = request.where is None and not request.parsed_query.has_constraints
        return min(whole, SPARE * wanted) if alone and unbound else whole

    def forget(self, name: CollectionName) -> None:
        """The collection was changed by this process: look again at the next search."""
        self._spaces.forget(name)

    # ------------------------------------------------------------ filter: who may be found at all

    async def _filter(self, space: Space, context: SearchContext, width: int) -> FilterMatch | None:
        if context.request.where is None:
            return None
        with context.timings.stage("filter"):
            most = filter_planner.max_allowlist(space.status, retrievers.chunks_for(space, width), self._passing_cap)
            return await self._documents.match_filter(space.collection.id, context.request.where, most)

    # ------------------------------------------------------------ dense || lexical

    async def _legs(
        self,
        space: Space,
        context: SearchContext,
        vectors: Sequence[Vector | None],
        filter_match: FilterMatch | None,
        width: int,
        wanted: int,
    ) -> CandidateSet:
        """Both legs at once, each for all questions; a hybrid search can do without either, but not without both."""
        request = context.request
        asked = [request.for_query(query) for query in request.effective_queries]
        located = {at: vector for at, vector in enumerate(vectors) if vector is not None}
        worded = [] if request.mode == "dense" else [at for at, one in enumerate(asked) if one.text]

        def dense(at: int) -> Awaitable[LegResult]:
            one, vector, nearby = asked[at], located[at], self._backgrounds.nearby
            return retrievers.search_dense(
                self._vectors, self._documents, space, one, vector, filter_match, width, nearby
            )

        def lexical(at: int) -> Awaitable[LegResult]:
            return retrievers.search_lexical(self._lexicon, self._documents, space, asked[at], filter_match, width)

        async def run(
            stage: str, leg: Callable[[int], Awaitable[LegResult]], places: Sequence[int]
        ) -> dict[int, LegResult]:
            if not places or context.has_failed(stage):
                return {}
            works = [partial(leg, at) for at in places]
            found = await context.attempt(
                stage, lambda: gather_limited(works, MAX_PARALLEL_STATEMENTS), optional=request.mode == "hybrid"
            )
            return {} if found is None else dict(zip(places, found, strict=True))

        by_meaning, by_words = await asyncio.gather(run("dense", dense, [*located]), run("lexical", lexical, worded))
        if not by_meaning and not by_words:
            if not context.only_over_budget():
                reasons = "; ".join(f"{one.stage}: {one.reason}" for one in context.degraded)
                raise Unavailable(f"no leg could answer: {reasons}")
            # A late answer is better than none, and the lexical leg is the quicker one.
            late = await gather_limited([partial(lexical, at) for at in worded], MAX_PARALLEL_STATEMENTS)
            by_words = dict(zip(worded, late, strict=True))
        found = CandidateSet(
            queries=tuple(
                QueryCandidates(vector=vector, dense=by_meaning.get(at), lexical=by_words.get(at))
                for at, vector in enumerate(vectors)
            )
        )
        found = await self._wishes(space, context, found)
        if by_meaning:
            with context.timings.stage("dense"):
                chunks_each = wanted if request.group_by == "chunk" else None
                words = [one.parsed_query for one in asked]
                found = await finds.look_up(self._vectors, self._lexicon, space, found, words, chunks_each)
                found = await finds.weighed(self._backgrounds, space, found)
        return finds.newest(found)

    async def _wishes(self, space: Space, context: SearchContext, found: CandidateSet) -> CandidateSet:
        """What the query requires and excludes binds all that was found, whichever leg found it."""
        words = context.request.parsed_query
        if not words.has_constraints:
            return found

        async def heed() -> CandidateSet:
            context.unmatched_terms = await self._lexicon.unmatched_terms(space.collection, words)
            return await finds.fulfilling(self._lexicon, space, found, words)

        heeded = await context.attempt("wishes", heed, optional=context.request.mode == "hybrid", in_budget=False)
        return found if heeded is None else heeded

    # ------------------------------------------------------------ fuse

    def _fuse(self, space: Space, context: SearchContext, found: CandidateSet) -> list[FusedItem[Item]]:
        with context.timings.stage("fuse"):
            how = context.request.fusion or space.collection.settings.fusion
            return fuse(found.evidence([query.weight for query in context.request.effective_queries]), how)

    # ------------------------------------------------------------ fetch: read back by revision, refill

    async def _fetch(
        self, space: Space, context: SearchContext, found: CandidateSet, ranking: Sequence[FusedItem[Item]], wanted: int
    ) -> list[RankedHit]:
        """The first `wanted` of the ranking whose documents still are what the legs saw; the others are dropped."""
        fetched: list[RankedHit] = []
        at = 0
        with context.timings.stage("fetch"):
            while len(fetched) < wanted and at < len(ranking):
                page = ranking[at : at + wanted - len(fetched)]
                at += len(page)
                candidates = [found.candidate(fused.item) for fused in page]
                passages = await self._documents.passages(
                    space.collection.id, candidates, context.request.where, UNEMBEDDED_LENGTH
                )
                fresh = [
                    RankedHit(fused=fused, candidate=candidate, passage=passage)
                    for fused, candidate, passage in zip(page, candidates, passages, strict=True)
                    if passage is not None
                ]
                context.stale += len(page) - len(fresh)
                metrics.STALE_HITS.labels(space.collection.name).inc(len(page) - len(fresh))
                fetched += fresh
        return fetched

    # ------------------------------------------------------------ diversify

    async def _diversify(self, space: Space, context: SearchContext, hits: Sequence[Hit]) -> Sequence[Hit]:
        """The order of maximal marginal relevance; each keeps the score that its relevance gave it."""
        request = context.request
        if not request.diversity:
            return hits
        work = self._vectors_of(space, hits)
        vectors = await context.attempt("diversify", lambda: work, optional=True)
        if vectors is None:
            return hits
        picks = mmr([hit.score for hit in hits], vectors, request.diversity, request.k)
        return [
            dataclasses.replace(
                hits[pick.place],
                explanation=dataclasses.replace(hits[pick.place].explanation, diversity=pick.explanation),
            )
            for pick in picks
        ]

    async def _vectors_of(self, space: Space, hits: Sequence[Hit]) -> list[Vector | None]:
        """None where the space knows another content of a document than what is answered: before it was encoded, or
        since."""
        chunks, contents = [(hit.id, hit.chunk) for hit in hits], [hit.content_revision for hit in hits]
        vectors = await self._vectors.get(space.version, chunks, contents)
        return [vectors.get(chunk) for chunk in chunks]

    # ------------------------------------------------------------ answer

    async def _dress(self, space: Space, context: SearchContext, hits: Sequence[Hit]) -> Sequence[Hit]:
        """Add highlights and vectors where they are asked for."""
        request = context.request
        if "highlights" in request.include and hits:
            texts = [hit.text for hit in hits]
            work = self._lexicon.highlight(space.collection, request.parsed_query, texts)
            marked = await context.attempt("highlight", lambda: work, optional=True, in_budget=False)
            if marked is not None:
                pairs = zip(hits, marked, strict=True)
                hits = [_marked(hit, highlights) for hit, highlights in pairs]
        if "vector" in request.include and hits:
            hits = [
                dataclasses.replace(hit, vector=None if vector is None else tuple(map(float, vector)))
                for hit, vector in zip(hits, await self._vectors_of(space, hits), strict=True)
            ]
        return hits

    def _count(self, space: Space, context: SearchContext, plan: DensePlan, confidence: Confidence) -> None:
        name, version = space.collection.name, str(space.version.number)
        metrics.SEARCH_SECONDS.labels(name, version, context.request.mode).observe(context.timings.elapsed)
        for stage, seconds in context.timings.seconds.items():
            metrics.SEARCH_STAGE_SECONDS.labels(name, stage).observe(seconds)
        for degradation in context.degraded:
            metrics.DEGRADED.labels(degradation.stage, degradation.code).inc()
        if plan.underfilled:
            metrics.UNDERFILLED.labels(name).inc()
        if confidence.in_domain is not None:
            metrics.QUERY_CONFIDENCE.labels(name).observe(confidence.in_domain)
        if confidence.withheld:
            metrics.WITHHELD.labels(name).inc()

    def _tell(
        self,
        space: Space,
        context: SearchContext,
        found: CandidateSet,
        plan: DensePlan,
        filter_match: FilterMatch | None,
        width: int,
        confidence: Confidence,
    ) -> None:
        if not self._observers:
            return
        cosines = [one.score for query in found.queries for one in query.by_meaning.values()]
        words = [one.score for query in found.queries for one in query.by_words.values()]
        observed = SearchEvent(
            space=space,
            request=context.request,
            vectors=tuple(query.vector for query in found.queries),
            plan=plan,
            filter_match=filter_match,
            width=width,
            confidence=confidence,
            best_cosine=max(cosines, default=None),
            best_bm25=max(words, default=None),
        )
        for observer in self._observers:
            observer.on_search(observed)


def _marked(hit: Hit, highlights: Highlights) -> Hit:
    offsets = tuple((hit.start + start, hit.start + end) for start, end in highlights.spans)
    return dataclasses.replace(hit, highlights=highlights.fragments, highlight_offsets=offsets)


def _hit(ranked: RankedHit) -> Hit:
    return Hit(
        id=ranked.candidate.document_id,
        chunk=ranked.candidate.chunk or 0,
        score=ranked.fused.score,
        title=ranked.passage.title,
        text=ranked.passage.text,
        start=ranked.passage.start,
        end=ranked.passage.end,
        metadata=ranked.passage.metadata,
        revision=ranked.passage.revision,
        content_revision=ranked.candidate.content_revision,
        explanation=ranked.fused.explanation,
    )
