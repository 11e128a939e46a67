"""A collection in memory with an index that loses what a test says, for the tests of recall."""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from service.core.collections import Collection
from service.core.documents import StoredDocument
from service.core.ids import Vector
from service.core.ports.lexicon import TermCounts
from service.core.ports.vectors import VectorQuery
from service.core.query_syntax import ParsedQuery
from service.core.search import Candidate, Confidence, DensePlan, FilterMatch, SearchRequest
from service.core.versions import SpaceStatus
from service.recall.dense_probe import DenseProbe, ProbedQuery
from service.search.events import SearchEvent
from service.spaces.resolver import Space, SpaceResolver
from tests.fakes import FakeVectors
from tests.world import DIMENSIONS, World, build, unit

ROWS = 30


class LossyVectors(FakeVectors):
    """`lost`: documents that no index finds. `meanwhile`: happens once, before the next search along the index."""

    lost: frozenset[str] = frozenset()
    meanwhile: Callable[[], Awaitable[object]] | None = None
    failing: Exception | None = None

    async def nearest(self, query: VectorQuery) -> tuple[Candidate, ...]:
        if self.failing is not None:
            raise self.failing
        if query.plan.kind == "exact":
            return await super().nearest(query)
        if self.meanwhile is not None:
            work, self.meanwhile = self.meanwhile, None
            await work()
        found = await super().nearest(replace(query, limit=ROWS))
        most = min(query.limit, query.plan.ef_search or query.limit)
        return tuple(one for one in found if one.document_id not in self.lost)[:most]


@dataclass
class WordTruth:
    """Scores as the fake lexicon does. `counted`: how many documents each call counted the terms of."""

    counted: list[int] = field(default_factory=list)

    async def term_counts(self, collection: Collection, documents: Sequence[StoredDocument]) -> tuple[TermCounts, ...]:
        self.counted.append(len(documents))
        bags = ((one, one.text.lower().split()) for one in documents)
        return tuple(
            TermCounts(
                document_id=one.id, content_revision=one.content_revision, counts=dict.fromkeys(bag, 1), length=len(bag)
            )
            for one, bag in bags
        )

    async def exact_scores(
        self, collection: Collection, words: ParsedQuery, bags: Sequence[TermCounts]
    ) -> tuple[float, ...]:
        wanted = set(words.text.lower().split())
        return tuple(float(len(wanted & one.counts.keys())) for one in bags)


@dataclass
class LossyCollection:
    world: World
    space: Space
    vectors: LossyVectors
    spaces: SpaceResolver
    rng: random.Random = field(default_factory=lambda: random.Random(3))

    def dense_probe(self, lower_step: Callable[[int], int | None] = lambda _: None) -> DenseProbe:
        return DenseProbe(
            vectors=self.vectors,
            documents=self.world.documents,
            spaces=self.spaces,
            passing_cap=1_000,
            lower_step=lower_step,
        )

    def vector(self) -> Vector:
        return unit(*(self.rng.gauss(0, 1) for _ in range(DIMENSIONS)))

    def probed_query(
        self,
        request: SearchRequest = SearchRequest(text="words"),  # noqa: B008 frozen
        filter_match: FilterMatch | None = None,
    ) -> ProbedQuery:
        return ProbedQuery(
            collection=self.space.collection.name,
            collection_id=self.space.collection.id,
            version=self.space.version.number,
            request=request,
            vector=self.vector(),
            filter_match=filter_match,
            width=20,
        )

    def event(
        self,
        plan: DensePlan = DensePlan(kind="hnsw", ef_search=200),  # noqa: B008
        request: SearchRequest = SearchRequest(text="words", mode="dense"),  # noqa: B008
        filter_match: FilterMatch | None = None,
    ) -> SearchEvent:
        return SearchEvent(
            space=self.space,
            request=request,
            vectors=tuple(self.vector() if plan.kind != "none" else None for _ in request.effective_queries),
            plan=plan,
            filter_match=filter_match,
            width=20,
            confidence=Confidence(in_domain=None),
            best_cosine=0.5,
            best_bm25=None,
        )

    async def nearest(self, query: ProbedQuery, count: int = 10) -> list[str]:
        """The true nearest documents, best first."""
        plan = DensePlan(kind="exact")
        found = await self.vectors.nearest(VectorQuery(self.space.version, query.vector, count, plan))
        return [one.document_id for one in found]


async def lossy_collection() -> LossyCollection:
    """Thirty documents in random directions, of the kind "thing"."""
    world = await build(None)
    assert world.fake is not None
    generator = np.random.default_rng(1)
    rows = {f"d{number:02}": unit(*generator.normal(size=DIMENSIONS))[None] for number in range(ROWS)}
    await world.put_and_store(rows, kind="thing")
    status = SpaceStatus(rows=ROWS, indexed=True, chunks_per_document=1.0)
    world.fake.versions.statuses[world.collection.id, world.version.number] = status
    return LossyCollection(
        world=world,
        space=Space(collection=world.collection, version=world.version, status=status),
        vectors=LossyVectors(world.fake),
        spaces=SpaceResolver(world.collections, world.versions),
    )
