"""A probe of the dense leg: one live search is run again exactly, then as it ran live, and the two are compared.

Somebody may write between the two runs. What the exact run found and the other did not is therefore looked up once
more. If it is no longer there as it was, or if the later run found what the exact one would have found too, the two saw
different states of the data, and the probe is discarded.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.core.errors import VersionNotFound
from service.core.ids import CollectionId, CollectionName, Vector, VersionNumber
from service.core.ports.documents import Documents
from service.core.ports.vectors import VectorStore
from service.core.recall import NEAR, K, RecallSeries, RecallStats, recall_at_k
from service.core.search import Candidate, FilterMatch, SearchRequest
from service.recall.aggregate import RecallSample
from service.search import filter_planner, retrievers
from service.search.retrievers import DenseRetriever, Item, LegResult
from service.spaces.resolver import Space, SpaceResolver

OVERSAMPLING = 2
"""The exact run asks for this many times `K` documents: some have several chunks among the nearest."""

Hits = Sequence[tuple[Item, Candidate]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbedQuery:
    """One query of a live search, in the space of `version`. `filter_match` has no ids; `width` is the search's."""

    collection: CollectionName
    collection_id: CollectionId
    version: VersionNumber
    request: SearchRequest
    vector: Vector
    filter_match: FilterMatch | None
    width: int


@dataclass(kw_only=True, eq=False)
class DenseProbe:
    """Runs live searches again, exactly and as they ran. `passing_cap`: as for live searches.

    `lower_step`: a smaller `ef_search` to try as well, to learn if it suffices; only for searches without a filter,
    because under filters each search has an `ef_search` of its own.
    """

    vectors: VectorStore
    documents: Documents
    spaces: SpaceResolver
    passing_cap: int
    lower_step: Callable[[int], int | None] = lambda _: None

    async def probe(self, query: ProbedQuery, recent: Space | None) -> tuple[RecallSample, ...] | None:
        """None where the data changed between the runs; no samples where the search would run exactly by now.

        `recent`: the space of the search, if it ran a moment ago; None resolves space and filter again. NotFound where
        the version of the query's vector answers no longer.
        """
        space, filter_match = recent, query.filter_match
        if space is None:
            space = await self._current_space(query)
            filter_match = await self._current_filter_match(query, space)
        current, retriever = space, DenseRetriever(self.vectors, self.documents)

        async def run(request: SearchRequest, width: int) -> tuple[LegResult, float]:
            started = time.perf_counter()
            leg = await retriever.search(current, request, query.vector, filter_match, width)
            return leg, time.perf_counter() - started

        exact, _ = await run(dataclasses.replace(query.request, exact=True, ef_search=None, k=K), OVERSAMPLING * K)
        truth = _first_k(exact)
        runs = [await run(query.request, query.width)]
        lower = self._lower_ef_search(query, space, runs[0][0])
        if lower is not None:
            runs.append(await run(dataclasses.replace(query.request, ef_search=lower, k=K), OVERSAMPLING * K))
        found = [_first_k(leg) for leg, _ in runs]
        if await self._changed_meanwhile(query, space, truth, found):
            return None
        return tuple(
            RecallSample(
                series=RecallSeries.of_plan(space.version.number, leg.plan),
                stats=RecallStats.of_one(*recall_at_k(_scores(truth), _scores(hits)), seconds),
                live=number == 0,
            )
            for number, ((leg, seconds), hits) in enumerate(zip(runs, found, strict=True))
            if leg.plan.kind != "exact"
        )

    async def _current_space(self, query: ProbedQuery) -> Space:
        space = await self.spaces.resolve(query.collection, query.request.embedder_version)
        if (space.collection.id, space.version.number) != (query.collection_id, query.version):
            raise VersionNotFound(f"version {query.version} of {query.collection} does not answer any more")
        return space

    async def _current_filter_match(self, query: ProbedQuery, space: Space) -> FilterMatch | None:
        where = query.request.where
        if where is None:
            return None
        most = filter_planner.max_allowlist(space.status, retrievers.chunks_for(space, query.width), self.passing_cap)
        return await self.documents.match_filter(space.collection.id, where, most)

    def _lower_ef_search(self, query: ProbedQuery, space: Space, live: LegResult) -> int | None:
        request, ran = query.request, live.plan.ef_search
        if live.plan.kind != "hnsw" or ran is None or request.where is not None or request.ef_search is not None:
            return None
        lower = self.lower_step(min(ran, space.status.ef_settings.get("all", ran)))
        return lower if lower is not None and lower >= retrievers.chunks_for(space, K) else None

    async def _changed_meanwhile(self, query: ProbedQuery, space: Space, truth: Hits, found: Sequence[Hits]) -> bool:
        if any(_contradicts(truth, hits) for hits in found):
            return True
        everywhere = set.intersection(*({item for item, _ in hits} for hits in found))
        missing = [candidate for item, candidate in truth if item not in everywhere]
        if not missing:
            return False
        chunks = [(one.document_id, one.chunk or 0) for one in missing]
        stored = await self.vectors.get(space.version, chunks, [one.content_revision for one in missing])
        for chunk, one in zip(chunks, missing, strict=True):
            if chunk not in stored or abs(float(stored[chunk] @ query.vector) - one.score) > NEAR:
                return True
        if query.request.where is None:
            return False
        ids = sorted({one.document_id for one in missing})
        passing = await self.documents.filter_ids(space.collection.id, ids, query.request.where)
        return len(passing) < len(ids)


def _first_k(leg: LegResult) -> Hits:
    return list(leg.candidates.items())[:K]


def _scores(hits: Hits) -> list[tuple[Item, float]]:
    return [(item, one.score) for item, one in hits]


def _contradicts(truth: Hits, later: Hits) -> bool:
    """Did the later run find what an exact run on the same data would have found too, or found otherwise?"""
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
