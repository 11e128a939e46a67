"""One live search looked at again: its dense leg exactly and as it runs live, right after one another, compared.

Between the two looks somebody may write. What the exact look found and the other did not is therefore looked up once
more: if it is no longer there as it was, or if the later look found what the exact one would have, they saw two states
and the pair says nothing (torn).
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from service.core.errors import VersionNotFound
from service.core.ids import CollectionId, CollectionName, Vector, VersionNumber
from service.core.ports.documents import Documents
from service.core.ports.vectors import VectorStore
from service.core.recall import NEAR, K, RecallSeries, RecallStats, recall_at_k
from service.core.search import Candidate, FilterMatch, SearchRequest
from service.recall.aggregate import ProbeResult
from service.search import filter_planner, retrievers
from service.search.retrievers import DenseRetriever, Item, LegResult
from service.spaces.resolver import Space, SpaceResolver

WIDER = 2
"""The exact look asks for so many times `K` documents: some have several chunks among the nearest."""

Top = Sequence[tuple[Item, Candidate]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbedQuery:
    """One question of a live search, in the space of `version`. `passing` names nothing; `width`: as it ran."""

    collection: CollectionName
    collection_id: CollectionId
    version: VersionNumber
    request: SearchRequest
    vector: Vector
    filter_match: FilterMatch | None
    width: int


class DenseProbe:
    """`passing_cap`: as of live searches. `below`: an `ef_search` that is tried as well, to learn whether it would do.

    It is asked of searches without a filter alone: a filter has an `ef_search` of its own for each share that passes.
    """

    def __init__(
        self,
        *,
        vectors: VectorStore,
        documents: Documents,
        spaces: SpaceResolver,
        passing_cap: int,
        below: Callable[[int], int | None] = lambda _: None,
    ) -> None:
        self._vectors = vectors
        self._documents = documents
        self._spaces = spaces
        self._passing_cap = passing_cap
        self._below = below

    async def look(self, asked: ProbedQuery, space: Space | None) -> tuple[ProbeResult, ...] | None:
        """None where the pair is torn; nothing where it runs exactly by now.

        `space`: where it ran a moment ago; None: it was longer ago, and space and what passes are looked up anew.
        NotFound where the version that its vector is of does not answer any more.
        """
        filter_match = asked.filter_match
        if space is None:
            space = await self._space(asked)
            filter_match = await self._passing(asked, space)
        exact = dataclasses.replace(asked.request, exact=True, ef_search=None, k=K)
        truth = _top(await self._run(asked, space, exact, filter_match, WIDER * K))
        looks = [await self._timed(asked, space, asked.request, filter_match, asked.width)]
        for ef_search in self._further(asked, space, looks[0][0]):
            tried = dataclasses.replace(asked.request, ef_search=ef_search, k=K)
            looks.append(await self._timed(asked, space, tried, filter_match, WIDER * K))
        tops = [_top(leg) for leg, _ in looks]
        if await self._torn(asked, space, truth, tops):
            return None
        return tuple(
            ProbeResult(
                series=RecallSeries.of_plan(space.version.number, leg.plan),
                stats=RecallStats.of_one(*recall_at_k(_named(truth), _named(top)), seconds),
                live=number == 0,
            )
            for number, ((leg, seconds), top) in enumerate(zip(looks, tops, strict=True))
            if leg.plan.kind != "exact"
        )

    async def _space(self, asked: ProbedQuery) -> Space:
        space = await self._spaces.resolve(asked.collection, asked.request.embedder_version)
        if (space.collection.id, space.version.number) != (asked.collection_id, asked.version):
            raise VersionNotFound(f"version {asked.version} of {asked.collection} does not answer any more")
        return space

    async def _passing(self, asked: ProbedQuery, space: Space) -> FilterMatch | None:
        if asked.request.where is None:
            return None
        most = filter_planner.max_allowlist(space.status, retrievers.chunks_for(space, asked.width), self._passing_cap)
        return await self._documents.match_filter(space.collection.id, asked.request.where, most)

    def _further(self, asked: ProbedQuery, space: Space, live: LegResult) -> Iterator[int]:
        request, ran = asked.request, live.plan.ef_search
        if live.plan.kind == "hnsw" and ran is not None and request.where is None and request.ef_search is None:
            lower = self._below(min(ran, space.status.ef_settings.get("all", ran)))
            if lower is not None and lower >= retrievers.chunks_for(space, K):
                yield lower

    async def _run(
        self, asked: ProbedQuery, space: Space, request: SearchRequest, filter_match: FilterMatch | None, width: int
    ) -> LegResult:
        retriever = DenseRetriever(self._vectors, self._documents)
        return await retriever.search(space, request, asked.vector, filter_match, width)

    async def _timed(
        self, asked: ProbedQuery, space: Space, request: SearchRequest, filter_match: FilterMatch | None, width: int
    ) -> tuple[LegResult, float]:
        started = time.perf_counter()
        leg = await self._run(asked, space, request, filter_match, width)
        return leg, time.perf_counter() - started

    async def _torn(self, asked: ProbedQuery, space: Space, truth: Top, tops: Sequence[Top]) -> bool:
        if any(_newer(truth, top) for top in tops):
            return True
        everywhere = set.intersection(*({item for item, _ in top} for top in tops))
        missing = [candidate for item, candidate in truth if item not in everywhere]
        if not missing:
            return False
        chunks = [(one.document_id, one.chunk or 0) for one in missing]
        stored = await self._vectors.get(space.version, chunks, [one.content_revision for one in missing])
        for chunk, one in zip(chunks, missing, strict=True):
            if chunk not in stored or abs(float(stored[chunk] @ asked.vector) - one.score) > NEAR:
                return True
        if asked.request.where is None:
            return False
        ids = sorted({one.document_id for one in missing})
        still = await self._documents.filter_ids(space.collection.id, ids, asked.request.where)
        return len(still) < len(ids)


def _top(leg: LegResult) -> Top:
    return list(leg.candidates.items())[:K]


def _named(top: Top) -> list[tuple[str, float]]:
    return [(f"{document_id}\n{chunk}", one.score) for (document_id, chunk), one in top]


def _newer(truth: Top, later: Top) -> bool:
    """Did the later look find what an exact look at the same state would have found too, or found otherwise?"""
    known = dict(truth)
    least = truth[-1][1].score if len(truth) >= K else -1.0 - NEAR
    for item, one in later:
        before = known.get(item)
        if before is None:
            differs = one.score > least + NEAR
        else:  # an index may have lost the best chunk of a document, and then gives a lower one
            lower = one.chunk == before.chunk and one.score < before.score - NEAR
            differs = lower or one.score > before.score + NEAR or one.content_revision != before.content_revision
        if differs:
            return True
    return False
