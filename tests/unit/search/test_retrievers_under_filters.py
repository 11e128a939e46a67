"""The legs under filters: how deep they look, and what they do when the filter ate too much."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.core.collections import Collection
from service.core.filters import Filter, parse
from service.core.ids import CollectionId, DocumentId, Vector
from service.core.ports.vectors import VectorQuery
from service.core.search import Candidate, DensePlan, FilterMatch, SearchRequest
from service.core.versions import SpaceStatus
from service.search import filter_planner
from service.search.retrievers import DenseRetriever, LegResult, LexicalRetriever
from service.spaces.resolver import Space

TOTAL = 10_000
ALL = [DocumentId(f"d{number:05d}") for number in range(TOTAL)]
WHERE = parse({"x": 1})
REQUEST = SearchRequest(text="word", where=WHERE, k=10)
WIDTH = 100
QUERY = np.ones(4, np.float32)
MOST = filter_planner.MAX_ALLOWLIST_IDS
STUCK = ("exact", "index_gave_too_few")


def candidates(ids: Sequence[DocumentId]) -> tuple[Candidate, ...]:
    return tuple(Candidate(document_id=id_, content_revision=1, score=1.0, chunk=0) for id_ in ids)


@dataclass
class Metadata:
    """Documents of which some pass; only so many can be named."""

    passing_ids: Sequence[DocumentId]
    nameable: float = math.inf
    named: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)

    async def match_filter(self, collection_id: CollectionId, where: Filter, cap: int) -> FilterMatch:
        self.named.append(cap)
        few = len(self.passing_ids) <= min(cap, self.nameable)
        return FilterMatch(ids=tuple(self.passing_ids) if few else None, count=len(self.passing_ids), total=TOTAL)

    async def filter_ids(
        self, collection_id: CollectionId, ids: Sequence[DocumentId], where: Filter
    ) -> frozenset[DocumentId]:
        self.asked.append(len(ids))
        return frozenset(ids) & frozenset(self.passing_ids)


@dataclass
class Vectors:
    """The index finds `by_index` of the documents that pass; an exact scan finds all of them."""

    passing_ids: Sequence[DocumentId]
    by_index: int
    plans: list[tuple[DensePlan, bool]] = field(default_factory=list)

    async def nearest(self, query: VectorQuery) -> tuple[Candidate, ...]:
        self.plans.append((query.plan, query.within is not None))
        found = self.passing_ids if query.plan.kind == "exact" else self.passing_ids[: self.by_index]
        return candidates(found[: query.limit])


@dataclass
class Words:
    """All documents have the word, in the order of their ids."""

    ids: Sequence[DocumentId] = field(default_factory=lambda: ALL)
    looks: list[tuple[int, int | None]] = field(default_factory=list)

    async def search(
        self, collection: Collection, text: str, limit: int, within: Sequence[DocumentId] | None = None
    ) -> tuple[Candidate, ...]:
        self.looks.append((limit, None if within is None else len(within)))
        return candidates((self.ids if within is None else within)[:limit])


STATUS = SpaceStatus(rows=TOTAL, indexed=True, chunks_per_document=1.0)
COLLECTION: Any = SimpleNamespace(id=1)
SPACE = Space(collection=COLLECTION, version=None, status=STATUS)  # type: ignore[arg-type]


def many(count: int) -> FilterMatch:
    """Too many documents to list."""
    return FilterMatch(ids=None, count=count, total=TOTAL)


def listed(ids: Sequence[DocumentId]) -> FilterMatch:
    return FilterMatch(ids=tuple(ids), count=len(ids), total=TOTAL)


async def search_dense(vectors: Any, documents: Any, filter_match: FilterMatch, certainty: Any = None) -> LegResult:
    """The ports are fakes of the one or two methods that are needed."""
    return await DenseRetriever(vectors, documents, certainty).search(SPACE, REQUEST, QUERY, filter_match, WIDTH)


async def search_lexical(words: Any, documents: Any, filter_match: FilterMatch) -> LegResult:
    return await LexicalRetriever(words, documents).search(SPACE, REQUEST, filter_match, WIDTH)


@pytest.mark.parametrize(
    ("passing_ids", "by_index", "nameable", "plan", "looks", "named"),
    [
        pytest.param(ALL[:5_000], WIDTH, math.inf, ("hnsw", "many_pass"), [False], [], id="the index is enough"),
        # More than are asked for is still too few: beyond what is near, the index finds by chance.
        pytest.param(ALL[-1_500:], WIDTH - 1, math.inf, STUCK, [False, True], [MOST], id="the index is stuck"),
        pytest.param(ALL[-5_000:], WIDTH - 1, math.inf, STUCK, [False, True], [MOST], id="it is stuck, and many pass"),
        pytest.param(ALL[:5_000], 0, 10, STUCK, [False, False], [MOST], id="what cannot be named is filtered"),
    ],
)
async def test_where_the_index_brings_too_little_all_that_pass_are_scanned(
    passing_ids: list[DocumentId],
    by_index: int,
    nameable: float,
    plan: tuple[str, str],
    looks: list[bool],
    named: list[int],
) -> None:
    documents, vectors = Metadata(passing_ids, nameable), Vectors(passing_ids, by_index)
    leg = await search_dense(vectors, documents, many(len(passing_ids)))
    assert ((leg.plan.kind, leg.plan.reason), documents.named) == (plan, named)
    assert [id_ for id_, _ in leg.candidates] == passing_ids[:WIDTH]
    assert [within for _, within in vectors.plans] == looks


@pytest.mark.parametrize(("passes_near", "reason"), [(0, "far_from_query"), (20, "many_pass")])
async def test_the_index_is_not_tried_where_nothing_near_passes(passes_near: int, reason: str) -> None:
    far = ALL[-5_000:]
    documents, vectors = Metadata(far), Vectors(far, by_index=WIDTH)

    class Sample:
        async def nearest_sampled(self, space: Space, vector: Vector) -> Sequence[DocumentId]:
            return [*ALL[: 25 - passes_near], *far[:passes_near]]

    leg = await search_dense(vectors, documents, many(5_000), Sample())
    assert (leg.plan.reason, len(leg.candidates)) == (reason, WIDTH)
    assert [named for _, named in vectors.plans] == [passes_near == 0]


async def test_an_estimate_that_was_too_high_ends_with_what_there_is() -> None:
    leg = await search_dense(Vectors(ALL[:3], by_index=3), Metadata(ALL[:3]), many(4_000))
    assert (len(leg.candidates), leg.exhausted) == (3, True)


@dataclass
class Chunks:
    """A space of documents with `each` chunks, all of those of one document nearer than all of those of the next."""

    documents: int
    each: int
    queries: list[VectorQuery] = field(default_factory=list)

    @property
    def space(self) -> Space:
        status = SpaceStatus(rows=self.documents * self.each, indexed=True, chunks_per_document=self.each)
        return Space(collection=COLLECTION, version=None, status=status)  # type: ignore[arg-type]

    async def nearest(self, query: VectorQuery) -> tuple[Candidate, ...]:
        self.queries.append(query)
        exact = query.plan.kind == "exact"
        each = 1 if query.by_document and exact else self.each
        rows = (
            query.limit if exact or query.plan.kind == "hnsw_iterative" else min(query.limit, query.plan.ef_search or 0)
        )
        ids = query.within or ALL[: self.documents]
        return candidates([id_ for id_ in ids for _ in range(each)][:rows])


@pytest.mark.parametrize(
    ("documents", "each", "request_", "scans"),
    [
        pytest.param(5, 10_000, {}, ["documents"], id="fewer documents than hits"),
        pytest.param(10, 10_000, {}, ["documents"], id="as many"),
        pytest.param(40, 10_000, {}, ["chunks", "documents"], id="the nearest chunks are of one document"),
        pytest.param(500, 2, {}, ["chunks"], id="enough at once"),
        pytest.param(5, 10, {"group_by": "chunk"}, ["chunks"], id="hits are chunks"),
    ],
)
async def test_an_exact_scan_is_never_repeated_for_documents_of_many_chunks(
    documents: int, each: int, request_: dict[str, Any], scans: list[str]
) -> None:
    chunks = Chunks(documents, each)
    request = replace(REQUEST, where=None, exact=True, **request_)
    leg = await DenseRetriever(chunks, Metadata([])).search(chunks.space, request, QUERY, None, WIDTH)  # type: ignore[arg-type]
    assert ["documents" if query.by_document else "chunks" for query in chunks.queries] == scans
    assert len(leg.candidates) >= min(documents, request.k)


async def test_listed_documents_of_many_chunks_are_scanned_at_most_twice() -> None:
    chunks = Chunks(10_000, 5_000)
    retriever = DenseRetriever(chunks, Metadata([]))  # type: ignore[arg-type]
    leg = await retriever.search(chunks.space, REQUEST, QUERY, listed(ALL[:30]), WIDTH)
    assert ([query.by_document for query in chunks.queries], len(leg.candidates)) == ([False, True], 30)


@pytest.mark.parametrize("ef_search", [1, 5, 9, 10, 77])
@pytest.mark.parametrize("each", [1, 3])
async def test_a_small_ef_search_of_the_client_is_no_exact_scan(ef_search: int, each: int) -> None:
    """The index is followed on from there."""
    chunks = Chunks(TOTAL, each)
    request = replace(REQUEST, where=None, ef_search=ef_search)
    leg = await DenseRetriever(chunks, Metadata([])).search(chunks.space, request, QUERY, None, WIDTH)  # type: ignore[arg-type]
    assert {(query.plan.kind == "exact", query.plan.ef_search) for query in chunks.queries} == {(False, ef_search)}
    assert len(chunks.queries) <= 2
    assert len(leg.candidates) >= request.k


@pytest.mark.parametrize(
    ("filter_match", "passing_ids", "nameable", "looks", "asked", "named"),
    [
        pytest.param(listed(ALL[:50]), ALL[:50], math.inf, [(WIDTH, 50)], [], [], id="few are named"),
        pytest.param(many(2_500), ALL[::4], math.inf, [(520, None)], [520], [], id="deeper by what the filter drops"),
        pytest.param(listed(ALL[::2]), ALL[::2], math.inf, [(260, None)], [], [], id="more names than it is deep"),
        pytest.param(
            many(5_000),
            ALL[-5_000:],
            math.inf,
            [(260, None), (WIDTH, 5_000)],
            [260],
            [MOST],
            id="other documents say it",
        ),
        pytest.param(
            many(5_000),
            ALL[-5_000:],
            0,
            [(260, None), (2_080, None), (16_640, None)],
            [260, 2_080, TOTAL],
            [MOST, MOST],
            id="beyond all names it looks ever deeper",
        ),
    ],
)
async def test_words_are_looked_for_deeper_and_within_names(
    filter_match: FilterMatch,
    passing_ids: list[DocumentId],
    nameable: float,
    looks: list[tuple[int, int | None]],
    asked: list[int],
    named: list[int],
) -> None:
    words, documents = Words(), Metadata(passing_ids, nameable)
    leg = await search_lexical(words, documents, filter_match)
    assert (words.looks, documents.asked, documents.named) == (looks, asked, named)
    assert [id_ for id_, _ in leg.candidates] == passing_ids[:WIDTH]
    assert leg.exhausted is (len(passing_ids) < WIDTH)
