"""A search from top to bottom:
resolve the space -> wait for the revision -> match the filter -> encode the queries -> retrieve (dense || lexical) ->
apply constraints -> complete scores -> assess confidence -> apply thresholds -> fuse -> boost or sort -> fetch ->
rerank -> cut out the page -> diversify -> decorate -> answer. With nothing to search for, documents are listed. Facets
are counted beside all of it.

Each stage takes data and returns data, and none does I/O of its own: documents, vectors and models are behind ports.
A stage that cannot do its part is reported in `SearchResult.degraded`, never hidden. A search has one query or several:
the legs run for each, and fusion makes one ranking of all.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from service.core.collections import Collection
from service.core.concurrency import both, gather_limited, off_loop
from service.core.errors import NotFound, Overloaded, Unavailable
from service.core.filters import Filter
from service.core.ids import CollectionName, Vector
from service.core.images import ImageReader
from service.core.ports.change_feed import ChangeFeed
from service.core.ports.collections import Collections
from service.core.ports.documents import Documents
from service.core.ports.embedder import Embedders
from service.core.ports.lexicon import Lexicon
from service.core.ports.replicas import ReadReplicas
from service.core.ports.reranker import Reranker
from service.core.ports.vectors import VectorStore
from service.core.ports.versions import Versions
from service.core.search import FilterMatch, Hit, SearchRequest, SearchResult, Suggestion
from service.core.timings import Timings
from service.search import candidates as candidate_sets
from service.search import constraints, fusion, replica, retrievers, revision
from service.search.boosts import boost_ranking
from service.search.browse import browse
from service.search.candidates import MAX_PARALLEL_STATEMENTS, CandidateSet, QueryCandidates
from service.search.confidence import assess_confidence
from service.search.context import SearchContext
from service.search.dense_certainty import DenseCertainty
from service.search.encode_query import QueryEncoder, SharedQueryEncoding
from service.search.events import SearchEvent, SearchObserver, record_metrics
from service.search.facets import count_facets
from service.search.fusion import Ranking
from service.search.ordering import drop_candidates, page, sort_ranking
from service.search.passage_contexts import add_contexts
from service.search.passages import PassageSelector, as_hit
from service.search.postprocessing import PostProcessor
from service.search.rerank import RerankStage
from service.search.retrievers import DenseRetriever, Item, LegResult, LexicalRetriever
from service.spaces.model_verification import ModelVerifier
from service.spaces.resolver import Space, SpaceResolver

log = logging.getLogger(__name__)

FUSED_ON_LOOP = 2_000
"""Candidates of a leg, times queries, up to which fusion runs on the event loop: about 3 ms."""
OVERSAMPLING = 2
"""Candidates for each hit wanted: some documents may have changed since they were encoded."""
COUNTED_FOR_SUGGESTIONS = 2_000
"""Documents that pass a filter and are looked at for suggestions: 5 to 15 ms."""
MAX_LEXICAL_LAG_SECONDS = 30.0
"""Beyond this an answer says that its lexical leg is behind the documents."""


@dataclass(kw_only=True, eq=False)
class SearchPipeline:
    """`passing_cap`: most documents that a filter may list by id. `max_concurrent`: live searches before Overloaded.
    `observers` are informed of every live search."""

    collections: Collections
    versions: Versions
    documents: Documents
    vectors: VectorStore
    lexicon: Lexicon
    changes: ChangeFeed
    embedders: Embedders
    verifier: ModelVerifier
    reranker: Reranker | None
    passing_cap: int
    max_concurrent: int
    observers: Sequence[SearchObserver] = ()
    replicas: ReadReplicas | None = None
    images: ImageReader = field(default_factory=ImageReader)

    def __post_init__(self) -> None:
        self._spaces = SpaceResolver(self.collections, self.versions)
        self._encoder = QueryEncoder(self.embedders, self.verifier, self.documents, self.vectors, self.images)
        self._certainty = DenseCertainty(self.vectors)
        self._dense = DenseRetriever(self.vectors, self.documents, self._certainty)
        self._lexical = LexicalRetriever(self.lexicon, self.documents)
        self._passages = PassageSelector(self.documents, self.vectors, self.lexicon)
        self._rerank_stage = RerankStage(self.reranker)
        self._post = PostProcessor(self.documents, self.vectors, self.lexicon)
        self._free = self.max_concurrent

    async def run(
        self, name: CollectionName, request: SearchRequest, shared: SharedQueryEncoding | None = None
    ) -> SearchResult:
        """Answer one search. `shared`: the encoding of the batch that it belongs to. Overloaded beyond the limit."""
        shared = shared or SharedQueryEncoding([request])
        if self._free <= 0:
            raise Overloaded("too many searches at once")
        self._free -= 1
        try:
            run = partial(self._search, name, request, shared)
            return await replica.search(self.replicas, request.min_revision, run) or await run()
        except NotFound:
            # The cached space may be of a collection that was deleted meanwhile, or of a version retired by now.
            self.forget()
            return await self._search(name, request, shared)
        finally:
            self._free += 1

    async def run_background(self, name: CollectionName, request: SearchRequest) -> SearchResult:
        """Answer a search that no client waits for: beside the limit of live ones, and not in their metrics."""
        return await self._search(name, request, SharedQueryEncoding([request]), live=False)

    async def suggest(self, collection: Collection, text: str, k: int, where: Filter | None) -> tuple[Suggestion, ...]:
        """Completions of what is being typed, by documents that pass; by a part of them if they are many."""
        if where is None:
            return await self.lexicon.suggest(collection, text, k)
        ids = (await self.documents.match_filter(collection.id, where, self.passing_cap)).ids
        if ids is None:
            ids = await self.documents.page_ids(collection.id, None, COUNTED_FOR_SUGGESTIONS, where)
        part = ids[:: len(ids) // COUNTED_FOR_SUGGESTIONS + 1]
        return await self.lexicon.suggest(collection, text, k, part)

    def forget(self) -> None:
        """This process changed a collection: the next search reads its space anew."""
        self._spaces.forget()

    async def _search(
        self, name: CollectionName, request: SearchRequest, shared: SharedQueryEncoding, *, live: bool = True
    ) -> SearchResult:
        timings = Timings()
        space = await self._spaces.resolve(name, request.embedder_version)
        context = SearchContext(request.for_collection(space.collection.settings), space, live, timings)
        await revision.wait_for_revision(self.changes, self.lexicon, context)
        if not context.request.facets:
            return await self._find(context, shared)
        result, facets = await both(self._find(context, shared), count_facets(self.documents, context))
        return replace(result, facets=facets)

    async def _find(self, context: SearchContext, shared: SharedQueryEncoding) -> SearchResult:
        space, request = context.space, context.request
        if context.request.browses:
            listed = await browse(self.documents, context)
            hits = await self._post.decorate(context, list(listed.hits))
            return replace(listed, hits=tuple(hits))
        await constraints.keep_hyphens(self.lexicon, context)
        rerank = request.rerank.resolve(space.collection.settings.rerank) if request.rerank else None
        depth = rerank.depth if rerank else 0
        wanted, first_page = max(request.pool_size, depth), max(request.pool_size - request.offset, depth)
        # Both the same for all pages: each is a part of one ranking, to which deeper pages only add.
        width = max(request.candidates or _default_candidates(space, request, first_page), first_page)

        async with context.filter_deadline():
            filter_match = await retrievers.match_filter(self.documents, context, width, self.passing_cap)
        vectors = await self._encoder.encode(context, shared)
        confidence, seen = None, set[Item]()
        hits = []
        deep = first_page
        while True:
            async with context.filter_deadline():
                candidates = await self._retrieve(context, vectors, filter_match, width)
            candidates = await constraints.apply_constraints(self.lexicon, context, candidates)
            candidates = await self._complete_scores(context, candidates, deep)
            confidence = confidence or assess_confidence(context, candidates)
            if confidence.withheld:
                break
            kept = drop_candidates(candidates, request.min_score, by_chunk=request.group_by == "chunk")
            ranked, ranking = await self._passages.rank(context, kept, partial(_fuse, context, width=width), deep)
            ranking = await boost_ranking(self.documents, context, ranking)
            ranking = await sort_ranking(self.documents, context, ranking)
            if not request.offset:
                hits, seen = [], set()
            hits += await self._fetch(context, ranked, ranking, wanted - len(hits), seen)
            found = bool(hits) or len(kept.documents) < len(candidates.documents)
            if await constraints.give_up_constraints(self.lexicon, context, candidates, found=found):
                vectors, hits, seen = await self._encoder.encode(context, shared), [], set()
                continue
            all_read = len(hits) >= len(ranking) and (width >= wanted or bool(request.sort))
            complete = len(hits) >= wanted or all_read or candidates.exhausted
            if complete or width >= retrievers.MAX_WIDTH or context.remaining_seconds() == 0:
                break
            # Some documents have changed, or the page lies deep: retrieve more.
            width, deep = min(4 * width, retrievers.MAX_WIDTH), wanted
        constraints.report_constraints(context, found=bool(hits) or confidence.withheld)
        request = context.request
        if rerank is None:
            hits = page(context, hits)
        hits = await self._passages.choose(context, candidates, hits)
        hits = await add_contexts(self.documents, context, rerank, hits)
        hits, rerank_summary = await self._rerank_stage.rerank(context, rerank, hits)
        if rerank is not None:
            hits = page(context, hits)
        hits = await self._post.diversify(context, hits)
        hits = await self._post.decorate(context, hits[: request.k])

        passing = filter_match.count if filter_match is not None and request.group_by == "document" else wanted
        expected = min(request.k, passing - request.offset)
        more_exist = (context.stale > 0 or not candidates.exhausted) and not confidence.withheld
        chosen = request.min_score is not None or request.sort
        plan = replace(candidates.plan, underfilled=len(hits) < expected and more_exist and not chosen)
        if context.live:
            event = SearchEvent(
                space=space,
                # Observers keep it, and that there is an image is enough.
                request=replace(request, image=request.image[:5]) if request.image else request,
                vectors=tuple(vectors),
                plan=plan,
                filter_match=filter_match,
                width=width,
                confidence=confidence,
                best_cosine=retrievers.best_score(found for query in candidates.queries for found in query.dense_lists),
                best_bm25=retrievers.best_score(query.lexical_candidates for query in candidates.queries),
            )
            record_metrics(context, event)
            for observer in self.observers:
                try:
                    observer.on_search(event)
                except Exception:  # the answer is complete, whatever becomes of its statistics
                    log.exception("an observer of searches failed")
        return SearchResult(
            hits=tuple(hits),
            mode=request.mode,
            embedder_version=space.version.number,
            dense=replace(plan, index=space.version.index.kind),
            rerank_summary=rerank_summary,
            parsed_query=request.parsed_query,
            unmatched_terms=context.unmatched_terms,
            degraded=tuple(context.degraded),
            confidence=confidence,
            timings=context.timings,
        )

    async def _retrieve(
        self, context: SearchContext, vectors: Sequence[Vector | None], filter_match: FilterMatch | None, width: int
    ) -> CandidateSet:
        """Run both legs at once, each for all queries; a hybrid search can do without either, but not without both."""
        request = context.request
        requests = [request.for_query(query) for query in request.effective_queries]
        dense = {
            at: partial(self._dense.search, context.space, requests[at], vector, filter_match, width)
            for at, vector in enumerate(vectors)
            if vector is not None
        }
        lexical = {
            at: partial(self._lexical.search, context.space, one, filter_match, width)
            for at, one in enumerate(requests)
            if one.text and request.mode != "dense"
        }
        legs = _run_leg(context, "dense", dense), _run_leg(context, "lexical", lexical)
        dense_results, lexical_results = await both(*legs)
        if not dense_results and not lexical_results:
            if not context.only_over_budget():
                reasons = "; ".join(f"{one.stage}: {one.reason}" for one in context.degraded)
                raise Unavailable(f"no leg could answer: {reasons}")
            # A late answer is better than none, and the lexical leg is the quicker one.
            lexical_results = await _run_searches(lexical)
        lag = self.lexicon.lag_seconds(context.space.collection.id) or 0.0
        if lexical_results and lag > MAX_LEXICAL_LAG_SECONDS:
            context.degrade("lexical", "lagging", f"the lexical index lacks changes of the last {lag:.0f} s")
        if lexical_results and self.lexicon.state(context.space.collection) == "rebuilding":
            context.degrade("lexical", "rebuilding", "the lexical index is built anew; the former one answers")
        return CandidateSet(
            queries=tuple(
                QueryCandidates(vector=vector, dense=dense_results.get(at), lexical=lexical_results.get(at))
                for at, vector in enumerate(vectors)
            )
        )

    async def _complete_scores(self, context: SearchContext, candidates: CandidateSet, wanted: int) -> CandidateSet:
        """Look up the scores that one leg lacks of the other's candidates, and the certainty of the dense leg."""
        if any(query.dense is not None for query in candidates.queries):
            with context.timings.stage("dense"):
                candidates = await candidate_sets.complete_scores(
                    self.vectors, self.lexicon, context, candidates, wanted
                )
                candidates = await candidate_sets.add_certainty(self._certainty, self.lexicon, context, candidates)
        return candidate_sets.keep_newest_content(candidates)

    async def _fetch(
        self, context: SearchContext, candidates: CandidateSet, ranking: Ranking[Item], wanted: int, seen: set[Item]
    ) -> list[Hit]:
        """Read the passages of the first `wanted` items that were not `seen`, to which they are added.

        Documents that changed since the legs ran are dropped.
        """
        hits: list[Hit] = []
        at = context.stale = 0
        with context.timings.stage("fetch"):
            while len(hits) < wanted and at < len(ranking):
                part = ranking[at : at + wanted - len(hits)]
                at += len(part)
                part = [fused for fused in part if fused.item not in seen]
                seen.update(fused.item for fused in part)
                found = [candidates.candidate(fused.item) for fused in part]
                passages = await self._passages.read(context, candidates, found)
                fresh = [
                    as_hit(candidate, passage, fused.score, fused.explanation)
                    for fused, candidate, passage in zip(part, found, passages, strict=True)
                    if passage is not None
                ]
                context.stale += len(part) - len(fresh)
                hits += fresh
        return hits


def _default_candidates(space: Space, request: SearchRequest, wanted: int) -> int:
    """As many as the collection's settings say; fewer where neither fusion nor a filter needs a choice."""
    configured = space.collection.settings.candidates
    if request.sort:  # of what has the words, all that can be
        return retrievers.MAX_WIDTH if request.mode == "lexical" else configured
    alone = request.mode == "dense" and len(request.effective_queries) == 1
    unfiltered = request.where is None and not request.boosts and not request.parsed_query.has_constraints
    return min(configured, OVERSAMPLING * wanted) if alone and unfiltered else configured


Searches = Mapping[int, Callable[[], Awaitable[LegResult]]]
"""The searches of one leg by the number of their query."""


async def _run_leg(context: SearchContext, stage: str, searches: Searches) -> dict[int, LegResult]:
    if not searches or context.has_failed(stage):
        return {}
    return await context.run_stage(stage, _run_searches(searches), optional=context.request.mode == "hybrid") or {}


async def _run_searches(searches: Searches) -> dict[int, LegResult]:
    results = await gather_limited(list(searches.values()), MAX_PARALLEL_STATEMENTS)
    return dict(zip(searches, results, strict=True))


async def _fuse(context: SearchContext, candidates: CandidateSet, width: int) -> Ranking[Item]:
    def ranking() -> Ranking[Item]:
        return fusion.fuse(candidates.leg_scores(weights), settings)

    settings = context.request.fusion or context.space.collection.settings.fusion
    weights = [query.weight for query in context.request.effective_queries]
    with context.timings.stage("fuse"):
        on_loop = width * len(weights) <= FUSED_ON_LOOP
        return ranking() if on_loop else await off_loop(0, ranking)
