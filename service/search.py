"""The query's story, top to bottom: space -> filter -> embed -> dense || lexical -> fuse -> fetch -> rerank -> answer.

Each stage is a method or a module of its own (`asking`, `legs`, `fusion`, `reranking`), in that order. None does I/O
of its own: documents, vectors and models are behind ports. A stage that cannot do its part is named in
`Answer.degraded`, never hidden.
"""

import asyncio
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from service import legs, metrics
from service.asking import Asking
from service.catalog import Collections, Versions
from service.course import Course
from service.domain import Candidate, CollectionName, DensePlan, DocumentId, Passing, Vector
from service.errors import NotFound, Overloaded, Unavailable
from service.fusion import Evidence, Fused, fuse, ranked
from service.legs import MAX_WIDTH, Found, Leg
from service.ports import Documents, Embedders, Lexicon, Passage, Reranker, Vectors
from service.proof import Proof
from service.query import Answer, Hit, Request
from service.reranking import SecondStage
from service.space import Space, Spaces

UNEMBEDDED_LENGTH = 1000
"""Code points shown of a document that only the lexical leg knows yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranked:
    """A hit in the making: its place in the fused ranking, what the legs saw, and its passage as it stands now."""

    fused: Fused[DocumentId]
    candidate: Candidate
    passage: Passage


class Search:
    """`passing_cap`: most documents that a filter may name. `max_concurrent`: searches before Overloaded."""

    def __init__(
        self,
        *,
        collections: Collections,
        versions: Versions,
        documents: Documents,
        vectors: Vectors,
        lexicon: Lexicon,
        embedders: Embedders,
        proof: Proof,
        reranker: Reranker | None,
        passing_cap: int,
        max_concurrent: int,
    ) -> None:
        self._documents = documents
        self._vectors = vectors
        self._lexicon = lexicon
        self._asking = Asking(embedders, proof)
        self._second = SecondStage(reranker)
        self._passing_cap = passing_cap
        self._free = max_concurrent
        self._spaces = Spaces(collections, versions)

    async def run(self, name: CollectionName, request: Request) -> Answer:
        """Answer one search. Overloaded where too many run already."""
        if self._free <= 0:
            raise Overloaded("too many searches at once")
        self._free -= 1
        try:
            try:
                return await self._run(name, Course(request))
            except NotFound:
                # What was remembered may be of a collection that was deleted, and made anew, meanwhile, or of a version
                # that was active a moment ago and is retired by now.
                self.forget(name)
                return await self._run(name, Course(request))
        finally:
            self._free += 1

    async def probe(self, name: CollectionName, request: Request) -> Answer:
        """Answer a search that no client waits for: beside the limit of live ones, and not in their metrics."""
        return await self._run(name, Course(request, live=False))

    async def _run(self, name: CollectionName, course: Course) -> Answer:
        request = course.request
        space = await self._spaces.of(name, request.embedder_version)
        rerank = request.rerank.over(space.collection.settings.rerank) if request.rerank else None
        wanted = max(request.k, rerank.depth if rerank else 0)
        width = max(request.candidates, wanted)

        passing = await self._filter(space, course)
        vector = await self._asking.vector(space, course)
        while True:
            found = await self._legs(space, course, vector, passing, width)
            ranking = self._fuse(space, course, found)
            fetched = await self._fetch(space, course, found, ranking, wanted)
            if len(fetched) >= wanted or len(fetched) == len(ranking) or found.exhausted or width >= MAX_WIDTH:
                break
            width = min(4 * width, MAX_WIDTH)  # some were stale: ask for more in their place
        ordered, reranked = await self._second.order(course, rerank, [_hit(ranked) for ranked in fetched])
        hits = await self._dress(space, course, ordered[: request.k])

        possible = request.k if passing is None else min(request.k, passing.count)
        short = len(hits) < possible and (course.stale > 0 or not found.exhausted)
        plan = dataclasses.replace(found.plan, underfilled=short)
        if course.live:
            self._observe(space, course, plan)
        return Answer(
            hits=tuple(hits),
            mode=request.mode,
            embedder_version=space.version.number,
            dense=plan,
            reranked=reranked,
            degraded=tuple(course.degraded),
            timings=course.timings,
        )

    def forget(self, name: CollectionName) -> None:
        """The collection was changed by this process: look again at the next search."""
        self._spaces.forget(name)

    # ------------------------------------------------------------ filter: who may be found at all

    async def _filter(self, space: Space, course: Course) -> Passing | None:
        if course.request.where is None:
            return None
        with course.timings.stage("filter"):
            return await self._documents.passing(space.collection.id, course.request.where, self._passing_cap)

    # ------------------------------------------------------------ dense || lexical

    async def _legs(
        self, space: Space, course: Course, vector: Vector | None, passing: Passing | None, width: int
    ) -> Found:
        """Both legs at once; a hybrid search can do without either, but not without both."""
        request = course.request
        optional = request.mode == "hybrid"

        async def dense() -> Leg | None:
            if vector is None or course.gave_up("dense"):
                return None
            work = legs.dense(self._vectors, space, request, vector, passing, width)
            return await course.attempt("dense", lambda: work, optional=optional)

        async def lexical() -> Leg | None:
            if request.mode == "dense" or course.gave_up("lexical"):
                return None
            work = legs.lexical(self._lexicon, self._documents, space, request, passing, width)
            return await course.attempt("lexical", lambda: work, optional=optional)

        by_meaning, by_words = await asyncio.gather(dense(), lexical())
        if by_meaning is None and by_words is None:
            if not course.only_late():
                reasons = "; ".join(f"{one.stage}: {one.reason}" for one in course.degraded)
                raise Unavailable(f"no leg could answer: {reasons}")
            # A late answer is better than none, and the lexical leg is the quicker one.
            by_words = await legs.lexical(self._lexicon, self._documents, space, request, passing, width)
        found = Found(dense=by_meaning, lexical=by_words)
        if vector is not None:
            with course.timings.stage("dense"):
                found = dataclasses.replace(found, looked_up=await legs.look_up(self._vectors, space, vector, found))
        return legs.newest(found)

    # ------------------------------------------------------------ fuse

    def _fuse(self, space: Space, course: Course, found: Found) -> list[Fused[DocumentId]]:
        with course.timings.stage("fuse"):
            dense = lexical = None
            if found.dense is not None:
                known = {one.document_id: one.score for one in (*found.dense.best.values(), *found.looked_up.values())}
                dense = ranked(known, len(found.dense.best))
            if found.lexical is not None:
                lexical = ranked({one.document_id: one.score for one in found.lexical.best.values()})
            how = course.request.fusion or space.collection.settings.fusion
            return fuse([Evidence(dense=dense, lexical=lexical)], how)

    # ------------------------------------------------------------ fetch: read back by revision, refill

    async def _fetch(
        self, space: Space, course: Course, found: Found, ranking: Sequence[Fused[DocumentId]], wanted: int
    ) -> list[Ranked]:
        """The first `wanted` of the ranking whose documents still are what the legs saw; the others are dropped."""
        fetched: list[Ranked] = []
        at = 0
        with course.timings.stage("fetch"):
            while len(fetched) < wanted and at < len(ranking):
                page = ranking[at : at + wanted - len(fetched)]
                at += len(page)
                candidates = [found.candidate(fused.item) for fused in page]
                passages = await self._documents.passages(
                    space.collection.id, candidates, course.request.where, UNEMBEDDED_LENGTH
                )
                fresh = [
                    Ranked(fused=fused, candidate=candidate, passage=passage)
                    for fused, candidate, passage in zip(page, candidates, passages, strict=True)
                    if passage is not None
                ]
                course.stale += len(page) - len(fresh)
                metrics.STALE_HITS.labels(space.collection.name).inc(len(page) - len(fresh))
                fetched += fresh
        return fetched

    # ------------------------------------------------------------ answer

    async def _dress(self, space: Space, course: Course, hits: Sequence[Hit]) -> Sequence[Hit]:
        """Add highlights and vectors where they are asked for."""
        request = course.request
        if "highlights" in request.include and hits:
            texts = [hit.text for hit in hits]
            work = self._lexicon.highlight(space.collection, request.text, texts)
            marked = await course.attempt("highlight", lambda: work, optional=True, in_budget=False)
            if marked is not None:
                pairs = zip(hits, marked, strict=True)
                hits = [dataclasses.replace(hit, highlights=fragments) for hit, fragments in pairs]
        if "vector" in request.include and hits:
            chunks, contents = [(hit.id, hit.chunk) for hit in hits], [hit.content_revision for hit in hits]
            # The space may know another content of a document than what is answered: before it was encoded, or since.
            vectors = await self._vectors.get(space.version, chunks, contents)
            found = [vectors.get((hit.id, hit.chunk)) for hit in hits]
            hits = [
                dataclasses.replace(hit, vector=None if vector is None else tuple(map(float, vector)))
                for hit, vector in zip(hits, found, strict=True)
            ]
        return hits

    def _observe(self, space: Space, course: Course, plan: DensePlan) -> None:
        name, version = space.collection.name, str(space.version.number)
        metrics.SEARCH_SECONDS.labels(name, version, course.request.mode).observe(course.timings.elapsed)
        for stage, seconds in course.timings.seconds.items():
            metrics.SEARCH_STAGE_SECONDS.labels(name, stage).observe(seconds)
        for degradation in course.degraded:
            metrics.DEGRADED.labels(degradation.stage, degradation.code).inc()
        if plan.underfilled:
            metrics.UNDERFILLED.labels(name).inc()
        if plan.ef_search is not None:
            metrics.EF_SEARCH.labels(name, version).set(plan.ef_search)


def _hit(ranked: Ranked) -> Hit:
    return Hit(
        id=ranked.fused.item,
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
