"""The legs under filters: how deep they look, and what they do when the filter ate too much."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
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
from service.search import filter_planner, retrievers
from service.search.retrievers import DenseRetriever, LegResult, LexicalRetriever
from service.spaces.resolver import Space

TOTAL = 10_000
ALL = [DocumentId(f"d{number:05d}") for number in range(TOTAL)]
WHERE = parse({"x": 1})
REQUEST = SearchRequest(text="word", where=WHERE, k=10)
WIDTH = 100
QUERY = np.ones(4, np.float32)


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


async def test_the_index_is_enough_where_it_brings_what_is_wanted() -> None:
    documents, vectors = Metadata(ALL[:5_000]), Vectors(ALL[:5_000], by_index=WIDTH)
    leg = await search_dense(vectors, documents, many(5_000))
    assert (leg.plan.kind, len(leg.candidates), documents.named) == ("hnsw", WIDTH, [])


@pytest.mark.parametrize("count", [1_500, 5_000])
async def test_where_the_index_is_stuck_all_that_pass_are_scanned(count: int) -> None:
    """More than are asked for is still too few: beyond what is near, the index finds by chance."""
    far = ALL[-count:]
    documents, vectors = Metadata(far), Vectors(far, by_index=WIDTH - 1)
    leg = await search_dense(vectors, documents, many(count))
    assert (leg.plan.kind, leg.plan.reason) == ("exact", "index_gave_too_few")
    assert [id_ for id_, _ in leg.candidates] == far[:WIDTH]
    assert documents.named == [filter_planner.MAX_ALLOWLIST_IDS]
    assert [named for _, named in vectors.plans] == [False, True]


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


async def test_what_cannot_be_named_is_filtered_while_it_is_scanned() -> None:
    documents, vectors = Metadata(ALL[:5_000], nameable=10), Vectors(ALL[:5_000], by_index=0)
    leg = await search_dense(vectors, documents, many(5_000))
    assert (leg.plan.kind, len(leg.candidates)) == ("exact", WIDTH)
    assert [named for _, named in vectors.plans] == [False, False]


async def test_an_estimate_that_was_too_high_ends_with_what_there_is() -> None:
    documents, vectors = Metadata(ALL[:3]), Vectors(ALL[:3], by_index=3)
    leg = await search_dense(vectors, documents, many(4_000))
    assert (len(leg.candidates), leg.exhausted) == (3, True)


async def test_few_are_named_to_the_words() -> None:
    words, documents = Words(), Metadata(ALL[:50])
    leg = await search_lexical(words, documents, listed(ALL[:50]))
    assert (words.looks, len(leg.candidates), leg.exhausted) == ([(WIDTH, 50)], 50, True)


async def test_many_are_found_by_looking_as_much_deeper_as_the_filter_drops() -> None:
    words, documents = Words(), Metadata(ALL[::4])
    leg = await search_lexical(words, documents, many(TOTAL // 4))
    depth = math.ceil(retrievers.DEPTH_MARGIN * WIDTH * 4)
    assert (words.looks, documents.asked) == ([(depth, None)], [depth])
    assert [id_ for id_, _ in leg.candidates] == ALL[::4][:WIDTH]
    assert not leg.exhausted


async def test_names_that_are_more_than_the_look_is_deep_are_compared_here() -> None:
    half = ALL[::2]
    words, documents = Words(), Metadata(half)
    leg = await search_lexical(words, documents, listed(half))
    assert words.looks == [(math.ceil(retrievers.DEPTH_MARGIN * WIDTH * 2), None)]
    assert documents.asked == []
    assert [id_ for id_, _ in leg.candidates] == half[:WIDTH]


async def test_words_that_stand_in_what_does_not_pass_lead_to_naming_what_does() -> None:
    far = ALL[-5_000:]
    words, documents = Words(), Metadata(far)
    leg = await search_lexical(words, documents, many(5_000))
    assert words.looks == [(260, None), (WIDTH, 5_000)]
    assert documents.named == [filter_planner.MAX_ALLOWLIST_IDS]
    assert [id_ for id_, _ in leg.candidates] == far[:WIDTH]


async def test_beyond_all_names_it_looks_ever_deeper() -> None:
    far = ALL[-5_000:]
    words, documents = Words(), Metadata(far, nameable=0)
    leg = await search_lexical(words, documents, many(5_000))
    assert [look for look, _ in words.looks] == [260, 2_080, 16_640]
    assert [id_ for id_, _ in leg.candidates] == far[:WIDTH]
